"""Memory does not grow with the epochs: the resident size of a training process after each of 30 epochs.

    python -m benchmarks.memory_of_epochs       # about 4 minutes; --quick: 8 epochs of few, small images

The 800 drawn garments of the smoke preset (and 200 to validate on after every epoch, with a checkpoint), CCA
on `lite`, mode spaces: once from kept features, as training does by default, and once from image files that
the training process reads itself. Each side runs in a fresh process. The result is the growth in MiB from the
end of epoch 5 to the last epoch. By then all that is made once is there: buffers, optimizer, pages of the
feature file. It is given twice: as the difference of the two sizes, and as that of a straight line through
all epochs between them, because the memory that the allocator keeps goes up and down by 25 MiB where images
are decoded. Floor: 0. The line may grow by 10 MiB, 1% of the process; a leak of 1 MiB in each epoch would
make it 25. Checked: the run has learnt, and had all of its epochs.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import Disagreement, Row, begin, in_process, make_parser, report, resident, with_limits

SIDES = {"kept features": True, "images from files": False}
SETTLED = 5
FULL = (30, (800, 200, 8), 128)  # epochs; images to train on, to validate on and to test on; pixels
QUICK = (8, (96, 24, 8), 64)
CLAIMS = {f"{side}: growth of a line through them": "<= 10" for side in SIDES}
MIB = 2**20


def train(side: str, data: Path, out: Path, epochs: int, image_size: int) -> list[float]:
    """Train, and give the MiB of this process after each epoch."""
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    config = TrainConfig(
        data=data, out=out, cache=SIDES[side], budget=f"epochs={epochs}", image_size=image_size
    )
    sizes = []

    class MeasuredTrainer(Trainer):
        def end_epoch(self) -> None:
            super().end_epoch()
            sizes.append(resident() / MIB)

    facts = MeasuredTrainer(config, quiet=True).run()
    if len(sizes) != epochs or not facts["best_valid_map_weighted"] > 0:
        raise Disagreement(f"{side}: {len(sizes)} epochs, best {facts['best_valid_map_weighted']}")
    return sizes


def growth(sizes: list[float], settled: int = SETTLED) -> tuple[float, float]:
    """Compute the growth in MiB from the end of epoch `settled` to the last: the difference, and that of a
    line."""
    after = sizes[settled - 1 :]
    return after[-1] - after[0], float(np.polyfit(range(len(after)), after, 1)[0]) * (len(after) - 1)


def rows_of(side: str, sizes: list[float]) -> list[Row]:
    """Give the rows of one side."""
    grown, line = growth(sizes)
    note = f"after each epoch: {' '.join(f'{size:.0f}' for size in sizes)} MiB"
    rows = [
        Row(f"{side}: growth, epoch {SETTLED} to {len(sizes)}", grown, "MiB", floor=0.0, note=note),
        Row(f"{side}: growth of a line through them", line, "MiB", floor=0.0),
    ]
    return with_limits(rows, CLAIMS)


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__, threads=1)
    parser.add_argument(
        "--one",
        nargs=5,
        metavar=("SIDE", "DATA", "OUT", "EPOCHS", "PIXELS"),
        help="train one side in this process",
    )
    options = begin(parser, argv)
    if options.one:
        side, data, out, epochs, size = options.one
        found = {"sizes": train(side, Path(data), Path(out), int(epochs), int(size))}
        print(json.dumps(found))
        return found
    from ccakit.data.drawn import write_garments

    epochs, images, size = QUICK if options.quick else FULL
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_garments(data, *images, size=size, progress=False)
        for number, side in enumerate(SIDES):
            words = (side, str(data), str(Path(folder) / str(number)), str(epochs), str(size))
            found = in_process("memory_of_epochs", "--one", *words, threads=options.threads)
            rows += rows_of(side, found["sizes"])
    return report("memory_of_epochs", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
