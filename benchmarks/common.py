"""The parts that all benchmarks share: timing in turns, ratios, peak memory, the machine, flags and the
report.

Run each script of this folder as `python -m benchmarks.NAME` from the project's folder. It prints one table.
Its CLAIMS say what is claimed: the name of a row, and the limit that the row's value has to keep.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from ccakit.training.memory import machine_memory, process_memory

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, QUICK_ROUNDS = 7, 2


class Disagreement(AssertionError):
    """The two sides of a comparison give different results, so that their times mean nothing."""


@dataclass(frozen=True)
class Row:
    """One measured figure.

    what: its name. limit: what the claim asks for, such as "<= 0.97" or ">= 200"; empty where nothing is
    claimed. floor: the best value that operations or bytes allow. note: an explanation.
    """

    what: str
    value: float
    unit: str
    limit: str = ""
    floor: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value keeps the limit; None where there is no limit."""
        if not self.limit:
            return None
        relation, bound = self.limit.split()
        return self.value <= float(bound) if relation == "<=" else self.value >= float(bound)


class Times:
    """The seconds of each side in each round.

    Ratios are taken within a round, in which both sides met the same load.
    """

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.seconds = seconds

    def __getitem__(self, side: str) -> float:
        return median(self.seconds[side])

    def ratio(self, side: str, to: str) -> float:
        """Give the time of one side divided by that of another: the median over rounds."""
        return median(self.ratios(side, to))

    def ratios(self, side: str, to: str) -> list[float]:
        return [a / b for a, b in zip(self.seconds[side], self.seconds[to])]

    def spread(self, side: str, to: str) -> str:
        """Give, for a note, the range of ratios, and the ratio of the fastest times, which load disturbs
        least."""
        ratios, fastest = self.ratios(side, to), min(self.seconds[side]) / min(self.seconds[to])
        return f"rounds {min(ratios):.3f} to {max(ratios):.3f}, fastest {fastest:.3f}"


def alternate(sides: dict[str, Callable[[], object]], rounds: int, warm: int = 1) -> Times:
    """Time all sides in turns: `rounds` times, after `warm` rounds that do not count.

    Each round begins with another side.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm + rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            started = time.perf_counter()
            sides[name]()
            if number >= warm:
                seconds[name].append(time.perf_counter() - started)
    return Times(seconds)


def agree(what: str, one, other, tolerance: float) -> float:
    """Give the largest difference of two arrays or tensors; Disagreement where it is above `tolerance`, or
    NaN."""
    import numpy as np

    one, other = (np.asarray(x.detach() if hasattr(x, "detach") else x, np.float64) for x in (one, other))
    if one.shape != other.shape:
        raise Disagreement(f"{what}: shapes {one.shape} and {other.shape}")
    largest = float(np.abs(one - other).max()) if one.size else 0.0
    if not largest <= tolerance:
        raise Disagreement(f"{what}: they differ by {largest:.3g}, more than {tolerance:g}")
    return largest


def use_threads(threads: int) -> None:
    """Set the number of threads of torch, BLAS and OpenCV in this process."""
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    threadpool_limits(threads)


class Peak:
    """Measure the most memory that a block of code adds, in bytes (Linux; 0 elsewhere): `with Peak() as peak:
    ...`."""

    bytes = 0

    def __enter__(self) -> Peak:
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the high-water mark
        except OSError:
            pass  # the mark is then that of the whole life of the process, which is never lower
        self.before = process_memory("VmRSS")
        return self

    def __exit__(self, *_) -> None:
        self.bytes = process_memory("VmHWM") - self.before


def resident() -> int:
    """Give the bytes of memory that the process has in use."""
    return process_memory("VmRSS")


def in_process(module: str, *words: str, threads: int = 1) -> dict:
    """Run `python -m benchmarks.MODULE --threads N WORDS` in a fresh process, and read the JSON of its last
    line."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, str(threads))}
    command = [sys.executable, "-m", f"benchmarks.{module}", "--threads", str(threads), *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine(threads: int) -> dict:
    """Describe the machine: processor, cores, memory, versions, and the load at this moment."""
    from importlib.metadata import version

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    packages = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(machine_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(load, 2),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in found.items()}
    numbers = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{facts.get('model name', platform.processor())} ({numbers})"


def read_csv(file: Path) -> list[dict]:
    """Read a CSV file: a dict for each row, all values as text."""
    with open(file, encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def write_csv(file: Path, columns: Iterable[str], rows: Iterable[dict]) -> None:
    """Write a CSV file, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def ready_trainer(folder: Path, **settings):
    """Create a trainer on the data set in `folder / "data"`, ready to step; it writes nothing."""
    from ccakit.data.layout import read_dataset
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    config = TrainConfig(data=folder / "data", out=folder / "run", **settings)
    trainer = Trainer(config, read_dataset(folder / "data"), quiet=True)
    trainer.open_training()
    trainer.model.train()
    return trainer


def plain_parser(doc: str) -> argparse.ArgumentParser:
    """Create a parser without flags, whose help is a script's docstring as it stands."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def make_parser(doc: str, threads: int = 2) -> argparse.ArgumentParser:
    """Create a parser with the flags that all scripts have."""
    parser = plain_parser(doc)
    parser.add_argument("--json", action="store_true", help="end with one machine-readable line")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: no measurement")
    parser.add_argument("--threads", type=int, default=threads, help=f"threads (default {threads})")
    rounds = f"rounds of each side (default {ROUNDS}, quick {QUICK_ROUNDS})"
    parser.add_argument("--rounds", type=int, help=rounds)
    return parser


def begin(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Read the flags of the command line, and set the threads."""
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    use_threads(options.threads)
    return options


def with_limits(rows: Iterable[Row], claims: dict[str, str]) -> list[Row]:
    """Give each row the limit that is claimed for its name."""
    return [replace(row, limit=row.limit or claims.get(row.what, "")) for row in rows]


def report(name: str, rows: list[Row], claims: dict[str, str], options: argparse.Namespace) -> dict:
    """Print a script's table, and return it; with --json, a last line holds the same."""
    rows, facts = with_limits(rows, claims), machine(options.threads)
    result = {
        "script": name,
        "quick": options.quick,
        "machine": facts,
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }
    about = f"{facts['processor']}, {facts['cores']} cores, {options.threads} threads, load {facts['load']}"
    print(f"{name}: {about}{', quick: no measurement' if options.quick else ''}")
    width = max(len(row.what) for row in rows)
    for row in rows:
        met = {None: "", True: "  met", False: "  MISSED"}[row.met]
        floor = "" if row.floor is None else f"  floor {row.floor:.4g}"
        asked = f"  asked {row.limit}" if row.limit else ""
        note = f"  {row.note}" if row.note else ""
        print(f"  {row.what:<{width}}  {row.value:10.4g} {row.unit}{floor}{asked}{met}{note}")
    if options.json:
        print(json.dumps(result))
    return result
