"""Start: what `import ccakit` costs beyond torch, and how soon `ccakit --help` answers.

    python -m benchmarks.start                  # about 2 minutes

Fresh processes in turns, each with a warm file cache: `import torch`; `import torch, ccakit`; the command's help; and,
for the record, what a program needs that trains or embeds. Floor: Python alone, and torch alone. `import ccakit` runs
the package's few lines and imports nothing; torch and timm wait until something needs them.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import ROOT, Disagreement, Row, alternate, begin, options, report

CODE = {
    "python": "pass",
    "torch": "import torch",
    "torch, ccakit": "import torch, ccakit",
    "torch, ccakit.training.trainer": "import torch, ccakit.models, ccakit.training.trainer",
    "help": "import sys; from ccakit.cli import main; sys.exit(main(['--help']))",
}


def run(name: str) -> str:
    """A process's output; Disagreement if it fails, or the help is none."""
    done = subprocess.run([sys.executable, "-c", CODE[name]], cwd=ROOT, capture_output=True, text=True)
    if done.returncode or (name == "help" and "usage: ccakit" not in done.stdout):
        raise Disagreement(
            f"{CODE[name]}: exit code {done.returncode}, {done.stdout[:200]!r} {done.stderr[-500:]!r}"
        )
    return done.stdout


def main(argv: list[str] | None = None) -> dict:
    given = begin(options(__doc__), argv)
    names = ("python", "help") if given.quick else tuple(CODE)
    times = alternate({name: lambda name=name: run(name) for name in names}, given.rounds)
    rows = [Row("ccakit --help", times["help"], "s", "<= 1", times["python"], "floor: python alone")]
    for name, limit in (("torch, ccakit", "<= 0.3"), ("torch, ccakit.training.trainer", "")):
        if name in names:
            extra = sorted(a - b for a, b in zip(times.seconds[name], times.seconds["torch"]))
            fastest = min(times.seconds[name]) - min(times.seconds["torch"])
            note = f"rounds {extra[0]:.3f} to {extra[-1]:.3f}, fastest {fastest:.3f}; torch itself {times['torch']:.2f}"
            rows.append(Row(f"import {name}, beyond torch", extra[len(extra) // 2], "s", limit, 0.0, note))
    return report("start", rows, given)


if __name__ == "__main__":
    main()
