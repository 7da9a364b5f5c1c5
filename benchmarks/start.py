"""Start: the cost of `import ccakit` beyond torch, and the time that `ccakit --help` takes.

    python -m benchmarks.start                  # about 2 minutes

Fresh processes in turns, each with a warm file cache: `import torch`; `import torch, ccakit`; the help of the
command; and, for the record, the imports of a program that trains or embeds. Floor: Python alone, and torch
alone. `import ccakit` imports nothing else; torch and timm wait until something needs them.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks.common import ROOT, Disagreement, Row, alternate, begin, make_parser, report

CLAIMS = {"ccakit --help": "<= 1", "import torch, ccakit, beyond torch": "<= 0.3"}
CODE = {
    "python": "pass",
    "torch": "import torch",
    "torch, ccakit": "import torch, ccakit",
    "torch, ccakit.training.trainer": "import torch, ccakit.models, ccakit.training.trainer",
    "help": "import sys; from ccakit.cli import main; sys.exit(main(['--help']))",
}


def run(name: str) -> str:
    """Run a process and give its output; Disagreement if it fails, or prints no help."""
    done = subprocess.run([sys.executable, "-c", CODE[name]], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or (name == "help" and "usage: ccakit" not in done.stdout):
        output = f"{done.stdout[:200]!r} {done.stderr[-500:]!r}"
        raise Disagreement(f"{CODE[name]}: exit code {done.returncode}, {output}")
    return done.stdout


def main(argv: list[str] | None = None) -> dict:
    options = begin(make_parser(__doc__), argv)
    names = ("python", "help") if options.quick else tuple(CODE)
    times = alternate({name: lambda name=name: run(name) for name in names}, options.rounds)
    rows = [Row("ccakit --help", times["help"], "s", floor=times["python"], note="floor: python alone")]
    for name in ("torch, ccakit", "torch, ccakit.training.trainer"):
        if name in names:
            extra = [a - b for a, b in zip(times.seconds[name], times.seconds["torch"])]
            fastest = min(times.seconds[name]) - min(times.seconds["torch"])
            spread = f"rounds {min(extra):.3f} to {max(extra):.3f}, fastest {fastest:.3f}"
            note = f"{spread}; torch itself {times['torch']:.2f}"
            rows.append(Row(f"import {name}, beyond torch", median(extra), "s", floor=0.0, note=note))
    return report("start", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
