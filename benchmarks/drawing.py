"""Drawing: garments a second and core at 128 pixels.

    python -m benchmarks.drawing                # about a minute

Sides, one thread: `draw_garment` of many seeds, and the floor: the same OpenCV calls with the same arguments,
played back without the code that decides what to draw. Both must give the same pictures, and a seed the same
picture twice (checked). The time above the floor is Python: some hundred dice rolls and polygons for each
garment. Beside them: drawing and writing to disk as `write_garments` does, which is the cost of a data set.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import Row, agree, alternate, begin, make_parser, report

SIZE = 128
CLAIMS = {"garments drawn": ">= 200"}
DRAWS = ("fillPoly", "polylines", "rectangle", "copyTo", "transform", "multiply", "merge", "LUT", "resize")


class Recorder:
    """A stand-in for `cv2` that calls it, and keeps each call with its arguments."""

    def __init__(self) -> None:
        self.calls, self.first = [], {}

    def __getattr__(self, name: str):
        function = getattr(cv2, name)
        if name not in DRAWS:
            return function

        def call(*given, **named):
            for value in given:
                if isinstance(value, np.ndarray) and id(value) not in self.first:
                    self.first[id(value)] = value, value.copy()  # as it was before the first call
            self.calls.append((function, given, named))
            return function(*given, **named)

        return call

    def rewind(self) -> None:
        """Make the planes that are drawn on as they were before the first call."""
        for value, copy in self.first.values():
            if value.flags.writeable and value.ndim >= 2 and value.dtype == np.uint8:
                value[...] = copy

    def play(self) -> np.ndarray:
        """Make the calls again, and give the result of the last one."""
        for function, given, named in self.calls:
            result = function(*given, **named)
        return result


@contextmanager
def recorded(recorder: Recorder):
    """Give the recorder to the drawing modules as their `cv2`."""
    import ccakit.garments  # noqa: F401 - loads the drawing modules

    drawing = [module for name, module in sys.modules.items() if name.startswith("ccakit.garments.")]
    modules = [module for module in drawing if hasattr(module, "cv2")]
    try:
        for module in modules:
            module.cv2 = recorder
        yield
    finally:
        for module in modules:
            module.cv2 = cv2


def record(seed: int) -> tuple[Recorder, np.ndarray]:
    """Draw a garment: the calls, and the picture."""
    from ccakit.garments.draw import draw_garment

    recorder = Recorder()
    with recorded(recorder):
        image = draw_garment(seed, SIZE).image
    return recorder, image


def draw(count: int) -> np.ndarray:
    from ccakit.garments.draw import draw_garment

    return np.stack([draw_garment(seed, SIZE).image for seed in range(count)])


def check(records: list[tuple[Recorder, np.ndarray]]) -> None:
    """Check that the calls give the drawn pictures, and that each seed gives its picture again."""
    for recorder, image in records:
        recorder.rewind()
        agree("a garment and its calls played back", recorder.play(), image, 0)
    agree("garments drawn twice", draw(len(records)), np.stack([image for _, image in records]), 0)


def write(count: int) -> None:
    from ccakit.data.drawn import write_garments

    with tempfile.TemporaryDirectory() as folder:
        write_garments(Path(folder) / "data", count - 4, 2, 2, SIZE, workers=1, progress=False)


def main(argv: list[str] | None = None) -> dict:
    options = begin(make_parser(__doc__, threads=1), argv)
    count = 12 if options.quick else 200
    records = [record(seed) for seed in range(count)]
    check(records)
    sides = {
        "draw": lambda: draw(count),
        "floor": lambda: [recorder.play() for recorder, _ in records],
        "write": lambda: write(count),
    }
    times = alternate(sides, options.rounds)
    calls = np.mean([len(recorder.calls) for recorder, _ in records])
    note = f"{calls:.0f} OpenCV calls a garment, {1e6 * times['floor'] / count / calls:.1f} us each"
    unit, ratio = "a second and core", times.ratio("draw", "floor")
    rows = [
        Row("garments drawn", count / times["draw"], unit, floor=count / times["floor"], note=note),
        Row(
            "drawn / its OpenCV calls", ratio, "of their time", floor=1.0, note=times.spread("draw", "floor")
        ),
        Row("garments drawn and written", count / times["write"], unit, note="PNG, lists and regions"),
    ]
    return report("drawing", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
