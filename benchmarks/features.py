"""Features of the frozen CNN of `lite`, and training on them, in images a second.

    python -m benchmarks.features               # about 2 minutes

Features, 128 pixels, 2 threads, drawn garments as PNG files; sides in turns, on the same images:

- ours: `keep_features`: files to a float16 file of features, BatchNorm folded into the convolutions;
- forward alone: the folded CNN on images already in memory (the floor: nothing can be kept without it);
- unfolded: the same without folding. Features must equal `ours` but for rounding (checked).

What is left: reading and shrinking the files on the same cores, float16, writing.

Training on kept features, batch 64, one plain block and CCA (`--lite-depth 2`), mode spaces, in memory: images/s of
whole steps (loss over all triplets, backward, AdamW). The floor beside it: forward and backward alone, of the
embeddings' sum; and the rate of multiply-adds that this is.
"""

from __future__ import annotations

import shutil
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Row, agree, alternate, begin, options, report

BATCH = 16  # as `keep_features`


def prepare(folder: Path, count: int):
    """(model, ImageInputs) of a drawn data set."""
    from ccakit.data.drawn import write_garments
    from ccakit.data.inputs import ImageInputs
    from ccakit.data.layout import read_dataset
    from ccakit.data.transform import ImageTransform
    from ccakit.models.registry import create_model

    write_garments(folder / "data", count, 4, 4, workers=1, progress=False)
    model = create_model("cca-type2", conditions=8, freeze="backbone").eval()
    transform = ImageTransform.from_timm({**model.pretrained_cfg, "input_size": (3, *model.image_size)})
    return model, ImageInputs(read_dataset(folder / "data")["train"], transform)


def keep(model, inputs, folder: Path) -> np.ndarray:
    """All features, computed anew."""
    from ccakit.data.inputs import keep_features

    shutil.rmtree(folder, ignore_errors=True)
    return keep_features(model, inputs, folder, progress=False).features


@torch.inference_mode()
def forward(trunk, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([trunk.stem(part) for part in images.split(BATCH)])


def check(model, inputs, images: torch.Tensor, folder: Path) -> float:
    """Kept features, against the unfolded CNN's on the same images; relative to the largest."""
    plain = forward(model.trunk, images)
    return agree(
        "kept and unfolded features",
        keep(model, inputs, folder) / float(plain.abs().max()),
        plain / plain.abs().max(),
        2e-3,
    )


def kept(given, folder: Path) -> list[Row]:
    """The rows of computing features."""
    count = 32 if given.quick else 512
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
    times = alternate(sides, given.rounds)
    rate = {side: count / times[side] for side in sides}
    note = f"forward alone {rate['forward']:.0f}, not folded {rate['unfolded']:.0f}, reading alone {rate['load']:.0f}"
    return [
        Row("features kept", rate["ours"], "images/s", ">= 350", rate["forward"], note),
        Row(
            "features kept / forward alone",
            times.ratio("ours", "forward"),
            "of its time",
            floor=1.0,
            note=f"{times.spread('ours', 'forward')}; features differ by {difference:.1e} of the largest",
        ),
    ]


def trainer_of(folder: Path, batch: int):
    """A trainer on the drawn data, and an epoch's batches in memory."""
    from ccakit.data.layout import read_dataset
    from ccakit.training.batches import Steps
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    config = TrainConfig(data=folder / "data", out=folder / "run", batch_size=batch, lite_depth=2)
    trainer = Trainer(config, read_dataset(folder / "data"), quiet=True)
    trainer.open_training()
    trainer.model.train()
    return trainer, list(islice(Steps(trainer.objective, 0, trainer.inputs), 8))


def trained(given, folder: Path) -> list[Row]:
    """The rows of training on kept features."""
    trainer, steps = trainer_of(folder, 16 if given.quick else 64)
    model, images = trainer.saved.model, sum(len(inputs) for inputs, _ in steps)

    def bare() -> None:
        for inputs, _ in steps:
            model.zero_grad(set_to_none=True)
            model(inputs, cached=True).sum().backward()

    sides = {"step": lambda: [trainer.step(inputs, dict(extra)) for inputs, extra in steps], "bare": bare}
    times = alternate(sides, given.rounds)
    operations, rate = _operations(model, steps[0][0]), images / times["step"]
    note = (
        f"{times.spread('step', 'bare')} of forward and backward alone; {operations:.2f} GFLOP an image, "
        f"{rate * operations:.0f} GFLOP/s"
    )
    return [Row("training on kept features", rate, "images/s", ">= 900", images / times["bare"], note)]


def _operations(model, inputs) -> float:
    """GFLOP of forward and backward, an image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(inputs, cached=True).sum().backward()
    return counter.get_total_flops() / len(inputs) / 1e9


def main(argv: list[str] | None = None) -> dict:
    given = begin(options(__doc__), argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = kept(given, Path(folder)) + trained(given, Path(folder))
    return report("features", rows, given)


if __name__ == "__main__":
    main()
