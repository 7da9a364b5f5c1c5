"""What the benchmarks share: sides timed in turns, medians and ratios, peak memory, the machine, --json and --quick.

Every script of this folder is run as `python -m benchmarks.NAME` from the project's folder, and prints one table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, QUICK_ROUNDS = 7, 2


class Disagreement(AssertionError):
    """The two sides of a comparison do not give the same result, so that their times mean nothing."""


@dataclass(frozen=True)
class Row:
    """One figure. value and unit: what was measured; floor: what it could be at best, by operations or bytes;
    limit: "<= 0.97" or ">= 200", what the claim asks for; note: what explains it."""

    what: str
    value: float
    unit: str
    limit: str = ""
    floor: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        if not self.limit:
            return None
        relation, bound = self.limit.split()
        return self.value <= float(bound) if relation == "<=" else self.value >= float(bound)


class Times:
    """Seconds of each side, a round each: medians, and ratios within a round, in which both sides met the same load."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.seconds = seconds

    def __getitem__(self, side: str) -> float:
        return median(self.seconds[side])

    def ratio(self, side: str, to: str) -> float:
        """The median over rounds of one side's time in parts of another's."""
        return median(self.ratios(side, to))

    def ratios(self, side: str, to: str) -> list[float]:
        return [a / b for a, b in zip(self.seconds[side], self.seconds[to])]

    def spread(self, side: str, to: str) -> str:
        """For the note: smallest and largest ratio, and that of the fastest times, which load disturbs least."""
        ratios, fastest = self.ratios(side, to), min(self.seconds[side]) / min(self.seconds[to])
        return f"rounds {min(ratios):.3f} to {max(ratios):.3f}, fastest {fastest:.3f}"


def alternate(sides: dict[str, Callable[[], object]], rounds: int, warm: int = 1) -> Times:
    """Run all sides in turns, `rounds` times after `warm` that do not count; every round begins with another side."""
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm + rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            begun = time.perf_counter()
            sides[name]()
            if number >= warm:
                seconds[name].append(time.perf_counter() - begun)
    return Times(seconds)


def agree(what: str, one, other, tolerance: float) -> float:
    """The largest difference of two arrays or tensors; Disagreement where it is beyond `tolerance`, or is NaN."""
    import numpy as np

    one, other = (np.asarray(x.detach() if hasattr(x, "detach") else x, np.float64) for x in (one, other))
    if one.shape != other.shape:
        raise Disagreement(f"{what}: shapes {one.shape} and {other.shape}")
    largest = float(np.abs(one - other).max()) if one.size else 0.0
    if not largest <= tolerance:
        raise Disagreement(f"{what}: they differ by {largest:.3g}, more than {tolerance:g}")
    return largest


def use_threads(threads: int) -> None:
    """So many threads for torch, BLAS and OpenCV, in this process."""
    import cv2
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    threadpool_limits(threads)


class Peak:
    """Memory that a block of code adds at its worst, in bytes (Linux; elsewhere 0): `with Peak() as peak: ...`."""

    bytes = 0

    def __enter__(self) -> Peak:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        except OSError:
            pass  # then it is that of the whole process, which is never less
        self.before = _status("VmRSS")
        return self

    def __exit__(self, *_) -> None:
        self.bytes = _status("VmHWM") - self.before


def resident() -> int:
    """Bytes of memory that the process has in use."""
    return _status("VmRSS")


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":")), 0)


def in_process(module: str, *words: str, threads: int = 1) -> dict:
    """The last line, JSON, of what `python -m benchmarks.MODULE --threads N WORDS` writes: a process of its own."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, str(threads))}
    command = [sys.executable, "-m", f"benchmarks.{module}", "--threads", str(threads), *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine(threads: int) -> dict:
    """What the figures depend on beside the code: processor, cores, memory, versions, and the load just now."""
    from importlib.metadata import version

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    packages = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(_meminfo() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(load, 2),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in found.items()}
    numbers = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{facts.get('model name', platform.processor())} ({numbers})"


def _meminfo() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def options(doc: str, threads: int = 2) -> argparse.ArgumentParser:
    """The flags that all scripts have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one machine-readable line")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, few rounds: a look, no measurement"
    )
    parser.add_argument("--threads", type=int, default=threads, help=f"threads (default {threads})")
    parser.add_argument(
        "--rounds", type=int, help=f"rounds of each side (default {ROUNDS}, quick {QUICK_ROUNDS})"
    )
    return parser


def begin(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The flags of the command line, threads set."""
    given = parser.parse_args(argv)
    given.rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    use_threads(given.threads)
    return given


def report(name: str, rows: list[Row], given: argparse.Namespace) -> dict:
    """Print a script's table; under --json a last line holds the same. Returns what that line says."""
    facts = machine(given.threads)
    print(
        f"{name}: {facts['processor']}, {facts['cores']} cores, {given.threads} threads, load {facts['load']}"
        f"{', quick: no measurement' if given.quick else ''}"
    )
    width = max(len(row.what) for row in rows)
    for row in rows:
        met = {None: "", True: "  met", False: "  MISSED"}[row.met]
        floor = "" if row.floor is None else f"  floor {row.floor:.4g}"
        asked = f"  asked {row.limit}" if row.limit else ""
        note = f"  {row.note}" if row.note else ""
        print(f"  {row.what:<{width}}  {row.value:10.4g} {row.unit}{floor}{asked}{met}{note}")
    result = {
        "script": name,
        "quick": given.quick,
        "machine": facts,
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }
    if given.json:
        print(json.dumps(result))
    return result
