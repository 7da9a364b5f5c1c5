"""Features of the frozen CNN of `lite`, and training on them, in images a second.

    python -m benchmarks.features               # about 2 minutes

Features, 128 pixels, 2 threads, drawn garments as PNG files; sides in turns, on the same images:

- ours: `keep_features`, from files to a float16 file of features, BatchNorm folded into the convolutions;
- forward alone: the folded CNN on images in memory (the floor: no feature can be kept without it);
- unfolded: the same without folding. Its features must equal `ours` but for rounding (checked).

The rest of the time: reading and shrinking the files on the same cores, float16, writing.

Training on kept features, batch 64, one plain block and CCA (`--lite-depth 2`), mode spaces, in memory:
images/s of whole steps (loss over all triplets, backward, AdamW). Floor: forward and backward alone, of the
sum of the embeddings. The note gives its rate of operations.
"""

from __future__ import annotations

import shutil
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Row, agree, alternate, begin, make_parser, ready_trainer, report

BATCH = 16  # that of `keep_features`
CLAIMS = {"features kept": ">= 350", "training on kept features": ">= 900"}


def prepare(folder: Path, count: int):
    """Draw a data set: a model, and the ImageInputs of the training split."""
    from ccakit.data.drawn import write_garments
    from ccakit.data.inputs import ImageInputs
    from ccakit.data.layout import read_dataset
    from ccakit.data.transform import ImageTransform
    from ccakit.models.registry import create_model

    write_garments(folder / "data", count, 4, 4, workers=1, progress=False)
    model = create_model("cca-type2", conditions=8, freeze="backbone").eval()
    transform = ImageTransform.from_timm(model.trunk.pretrained_cfg)
    return model, ImageInputs(read_dataset(folder / "data")["train"], transform)


def keep(model, inputs, folder: Path) -> np.ndarray:
    """Compute all features again."""
    from ccakit.data.inputs import keep_features

    shutil.rmtree(folder, ignore_errors=True)
    return keep_features(model, inputs, folder, progress=False).features


@torch.inference_mode()
def forward(trunk, images: torch.Tensor) -> torch.Tensor:
    """Run the CNN on images in memory, in batches."""
    return torch.cat([trunk.stem(part) for part in images.split(BATCH)])


def check(model, inputs, images: torch.Tensor, folder: Path) -> float:
    """Compare kept features with those of the unfolded CNN on the same images, relative to the largest."""
    unfolded = forward(model.trunk, images)
    largest = float(unfolded.abs().max())
    kept = keep(model, inputs, folder) / largest
    return agree("kept and unfolded features", kept, unfolded / largest, 2e-3)


def kept(options, folder: Path) -> list[Row]:
    """Measure the computing of features."""
    count = 32 if options.quick else 512
    model, inputs = prepare(folder, count)
    images = inputs.load(np.arange(count))
    difference = check(model, inputs, images, folder / "features")
    folded = model.trunk.folded()
    sides = {
        "ours": lambda: keep(model, inputs, folder / "features"),
        "forward": lambda: forward(folded, images),
        "unfolded": lambda: forward(model.trunk, images),
        "load": lambda: inputs.load(np.arange(count)),
    }
    times = alternate(sides, options.rounds)
    rate = {side: count / times[side] for side in sides}
    ratio = times.ratio("ours", "forward")
    differ = f"{times.spread('ours', 'forward')}; features differ by {difference:.1e} of the largest"
    alone = f"forward alone {rate['forward']:.0f}, not folded {rate['unfolded']:.0f}"
    note = f"{alone}, reading alone {rate['load']:.0f}"
    return [
        Row("features kept", rate["ours"], "images/s", floor=rate["forward"], note=note),
        Row("features kept / forward alone", ratio, "of its time", floor=1.0, note=differ),
    ]


def trained(options, folder: Path) -> list[Row]:
    """Measure training on kept features."""
    from ccakit.training.batches import Steps

    trainer = ready_trainer(folder, batch_size=16 if options.quick else 64, lite_depth=2)
    steps = list(islice(Steps(trainer.objective, 0, trainer.inputs), 8))
    model, images = trainer.saved.model, sum(len(inputs) for inputs, _ in steps)

    def bare() -> None:
        for inputs, _ in steps:
            model.zero_grad(set_to_none=True)
            model(inputs, cached=True).sum().backward()

    sides = {"step": lambda: [trainer.step(inputs, dict(extra)) for inputs, extra in steps], "bare": bare}
    times = alternate(sides, options.rounds)
    operations, rate = _operations(model, steps[0][0]), images / times["step"]
    spread = times.spread("step", "bare")
    speed = f"{operations:.2f} GFLOP an image, {rate * operations:.0f} GFLOP/s"
    note = f"{spread} of forward and backward alone; {speed}"
    return [Row("training on kept features", rate, "images/s", floor=images / times["bare"], note=note)]


def _operations(model, inputs) -> float:
    """Count the GFLOP of forward and backward for an image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(inputs, cached=True).sum().backward()
    return counter.get_total_flops() / len(inputs) / 1e9


def main(argv: list[str] | None = None) -> dict:
    options = begin(make_parser(__doc__), argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = kept(options, Path(folder)) + trained(options, Path(folder))
    return report("features", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
