"""Memory of an epoch does not grow: the resident size of a training process after each of 30 epochs.

    python -m benchmarks.memory_of_epochs       # about 4 minutes; --quick: 8 epochs of few, small images

The smoke preset's 800 drawn garments (and 200 to validate on after every epoch, with a checkpoint), CCA on `lite`, mode
spaces; once from kept features, as training does by default, and once from the image files, read in the training
process itself. Each in a fresh process. What is told is the growth in MiB between the end of epoch 5, when all that is
made once has been made (buffers, optimizer, pages of the feature file), and the last one: the difference of the two,
and that of a straight line through all epochs between them, as what the allocator keeps goes up and down by 25 MiB
where images are decoded. Floor: 0. Allowed, of the line: 10 MiB, 1 % of the process; a leak of 1 MiB an epoch would be
25. Checked: the run has learnt, and had all of its epochs.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import Disagreement, Row, begin, in_process, options, report, resident

SIDES = {"kept features": True, "images from files": False}
EPOCHS, SETTLED, SIZES = 30, 5, dict(train=800, valid=200, test=8)
QUICK = dict(epochs=8, images=(96, 24, 8), size=64)
LIMIT, MIB = "<= 10", 2**20


def train(side: str, data: Path, out: Path, epochs: int, image_size: int) -> list[float]:
    """MiB after each epoch of one run."""
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    config = TrainConfig(
        data=data, out=out, cache=SIDES[side], budget=f"epochs={epochs}", image_size=image_size
    )
    trainer, sizes = Trainer(config, quiet=True), []
    end_epoch = trainer._end_epoch

    def noted() -> None:
        end_epoch()
        sizes.append(resident() / MIB)

    trainer._end_epoch = noted
    facts = trainer.run()
    if len(sizes) != epochs or not facts["best_valid_map_weighted"] > 0:
        raise Disagreement(f"{side}: {len(sizes)} epochs, best {facts['best_valid_map_weighted']}")
    return sizes


def growth(sizes: list[float], settled: int = SETTLED) -> tuple[float, float]:
    """MiB from the end of epoch `settled` to the last one: their difference, and a straight line's."""
    after = sizes[settled - 1 :]
    return after[-1] - after[0], float(np.polyfit(range(len(after)), after, 1)[0]) * (len(after) - 1)


def rows_of(side: str, sizes: list[float]) -> list[Row]:
    grown, line = growth(sizes)
    told = " ".join(f"{size:.0f}" for size in sizes)
    between = f"epoch {SETTLED} to {len(sizes)}"
    return [
        Row(f"{side}: growth, {between}", grown, "MiB", "", 0.0, f"after each epoch: {told} MiB"),
        Row(f"{side}: growth of a line through them", line, "MiB", LIMIT, 0.0),
    ]


def main(argv: list[str] | None = None) -> dict:
    parser = options(__doc__, threads=1)
    parser.add_argument(
        "--one", nargs=5, metavar=("SIDE", "DATA", "OUT", "EPOCHS", "PIXELS"), help="a fresh process's"
    )
    given = begin(parser, argv)
    if given.one:
        side, data, out, epochs, size = given.one
        found = {"sizes": train(side, Path(data), Path(out), int(epochs), int(size))}
        print(json.dumps(found))
        return found
    from ccakit.data.drawn import write_garments

    epochs, images, size = (
        (QUICK[key] for key in QUICK) if given.quick else (EPOCHS, tuple(SIZES.values()), 128)
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_garments(data, *images, size=size, progress=False)
        for number, side in enumerate(SIDES):
            words = (side, str(data), str(Path(folder) / str(number)), str(epochs), str(size))
            rows += rows_of(
                side, in_process("memory_of_epochs", "--one", *words, threads=given.threads)["sizes"]
            )
    return report("memory_of_epochs", rows, given)


if __name__ == "__main__":
    main()
