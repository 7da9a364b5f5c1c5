"""All spaces of a real ViT on the CPU: from JPEG files, and by torch, torch.compile and ONNX Runtime.

    python -m benchmarks.engines                # some minutes; needs ccakit[export] and a C++ compiler

CCA (Type-2, K = 8) on vit_small_patch14_dinov2 at 126 pixels, random weights (they change no time), float32,
the same images for all sides, which take turns in one process:

- forward: torch, from images in memory to all K embeddings, in batches of 16;
- files: `embed_images`, as `ccakit embed` does it, from JPEGs of 256 pixels;
- compiled: the forward by torch.compile (inductor);
- ONNX Runtime: the forward by encode.onnx and spaces.onnx, as `ccakit export --onnx` writes them.

All embeddings must agree (checked). `ccakit embed` would offer another engine than torch if one were 1.3
times as fast; what was found stands in docs/speed.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Row, agree, alternate, begin, make_parser, report

TRUNK, SIDE, FILE_SIDE, BATCH = "vit_small_patch14_dinov2", 126, 256, 16
CLAIMS = {"files / forward alone": ">= 0.9"}


def create(trunk: str, side: int):
    """Create the model with random weights, as it is kept on disk."""
    from ccakit.data.transform import ImageTransform
    from ccakit.garments import GARMENTS
    from ccakit.models.registry import create_model
    from ccakit.models.saved import SavedModel

    torch.manual_seed(0)
    recipe = dict(name="cca-type2", conditions=len(GARMENTS), trunk=trunk, image_size=side)
    model = create_model(**recipe, pretrained=False).eval()
    return SavedModel(model, GARMENTS, ImageTransform.from_timm(model.trunk.pretrained_cfg), recipe)


def jpegs(folder: Path, count: int, transform):
    """Draw garments as JPEG files of FILE_SIDE pixels, and open them."""
    import cv2

    from ccakit.data.drawn import write_garments
    from ccakit.data.inputs import ImageInputs
    from ccakit.data.layout import read_dataset

    write_garments(folder / "data", count, 4, 4, size=FILE_SIDE, workers=1, progress=False)
    split = read_dataset(folder / "data")["train"]
    for index, name in enumerate(split.filenames):
        path = split.path(index)
        cv2.imwrite(f"{path}.jpg", cv2.imread(str(path)))
        split.filenames[index] = f"{name}.jpg"
    return ImageInputs(split, transform)


def by_onnx(saved, folder: Path, threads: int):
    """Export the model; returns the function from images to embeddings in ONNX Runtime."""
    import onnxruntime

    from ccakit.hub.onnx import export_onnx

    export_onnx(saved, folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    cpu = dict(sess_options=options, providers=["CPUExecutionProvider"])
    files = (str(folder / f"{part}.onnx") for part in ("encode", "spaces"))
    encode, spaces = (onnxruntime.InferenceSession(file, **cpu) for file in files)

    def forward(images: torch.Tensor) -> torch.Tensor:
        tokens = encode.run(None, {"images": images.numpy()})[0]
        return torch.from_numpy(spaces.run(None, {"tokens": tokens})[0])

    return forward


@torch.inference_mode()
def measure(options, folder: Path) -> list[Row]:
    """Measure all sides on the same images."""
    from ccakit.evaluation.embedding import embed_images

    count = options.images
    saved = create(TRUNK, SIDE)
    inputs, model = jpegs(folder, count, saved.transform), saved.model
    images = inputs.load(np.arange(count))
    engines = {"forward": model, "ONNX Runtime": by_onnx(saved, folder / "onnx", options.threads)}
    if not options.quick:
        engines["compiled"] = torch.compile(model)

    def in_batches(engine) -> torch.Tensor:
        return torch.cat([engine(part) for part in images.split(BATCH)])

    sides = {name: (lambda engine=engine: in_batches(engine)) for name, engine in engines.items()}
    sides["files"] = lambda: embed_images(model, inputs, batch_size=BATCH)
    sides["reading"] = lambda: inputs.load(np.arange(count))
    wanted = sides["forward"]()
    others = [name for name in sides if name not in ("forward", "reading")]
    apart = {name: agree(name, sides[name](), wanted, 1e-4) for name in others}
    times = alternate(sides, options.rounds)
    rows = [Row(name, count / times[name], "images/s") for name in sides]
    rows.append(_ratio("files / forward alone", times, "forward", "files", apart["files"]))
    engines.pop("forward")
    rows += [_ratio(f"{name} / torch", times, "forward", name, apart[name]) for name in engines]
    return rows


def _ratio(what: str, times, slow: str, fast: str, apart: float) -> Row:
    note = f"{times.spread(slow, fast)}; embeddings differ by {apart:.1e}"
    return Row(what, times.ratio(slow, fast), "times its images/s", note=note)


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, help="images a round (default 64, quick 4)")
    options = begin(parser, argv)
    options.images = options.images or (4 if options.quick else 64)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    return report("engines", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
