"""Run all benchmarks, one after the other, and write results/speed.csv with the name of the machine.

    python -m benchmarks.all                    # about 30 minutes on 2 quiet cores; or `make benchmark`
    python -m benchmarks.all --quick            # a look: sizes too small to mean anything, writes nothing
    python -m benchmarks.all --only spaces start
    python -m benchmarks.all --claims           # what each script claims; measures nothing
    python -m benchmarks.all --table            # the table of docs/speed.md, from results/speed.csv

Each script runs in a process of its own. The exit code is 1 if a script fails. A figure that misses its claim
is a finding, not a failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.common import ROOT, make_parser, read_csv, write_csv

SCRIPTS = (
    "spaces",
    "training_modes",
    "mean_average_precision",
    "images",
    "drawing",
    "features",
    "switcher",
    "growth",
    "memory_of_epochs",
    "start",
)
FIGURE = ("script", "what", "value", "unit", "limit", "met", "floor", "note")
COLUMNS = (*FIGURE, "machine", "threads", "load", "versions")
RESULTS = ROOT / "results" / "speed.csv"
MET = {None: "", True: "yes", False: "no"}


def claims() -> dict[str, dict[str, str]]:
    """Import every script, and give its claims: the name of a row, and its limit."""
    return {name: import_module(f"benchmarks.{name}").CLAIMS for name in SCRIPTS}


def run(name: str, flags: list[str]) -> dict | None:
    """Run a script, show what it prints, and give its result; None if it failed."""
    started = time.perf_counter()
    print(f"== python -m benchmarks.{name} {' '.join(flags)}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    shown, result = parse(done.stdout) if not done.returncode else (done.stdout, None)
    print(f"{shown}\n   {time.perf_counter() - started:.0f} s", flush=True)
    return result


def parse(text: str) -> tuple[str, dict | None]:
    """Split the output of a script into what it prints and the JSON of its last line."""
    shown, _, last = text.rstrip("\n").rpartition("\n")
    try:
        return shown, json.loads(last)
    except ValueError:
        return text, None


def csv_rows(result: dict) -> list[dict]:
    """Turn the result of a script into rows of the CSV file."""
    facts = result["machine"]
    names = ("python", "torch", "torchvision", "timm", "numpy")
    machine = f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}"
    about = {
        "script": result["script"],
        "machine": machine,
        "threads": facts["threads"],
        "load": facts["load"],
        "versions": " ".join(f"{name}={facts[name]}" for name in names),
    }
    return [
        {
            **about,
            **row,
            "value": _short(row["value"]),
            "floor": _short(row["floor"]),
            "met": MET[row["met"]],
        }
        for row in result["rows"]
    ]


def _short(value: float | None) -> float | str:
    return "" if value is None else float(f"{value:.5g}")


def save(rows: list[dict], file: Path) -> None:
    """Write the CSV file; the rows of scripts that did not run this time stay as they were."""
    scripts = {row["script"] for row in rows}
    kept = [row for row in read_csv(file) if row["script"] not in scripts] if file.exists() else []
    order = {name: position for position, name in enumerate(SCRIPTS)}
    write_csv(file, COLUMNS, sorted(kept + rows, key=lambda row: order.get(row["script"], len(order))))


def markdown(rows: list[dict]) -> str:
    """Make the table of docs/speed.md: a line for each figure that something is claimed of."""
    head = ["script", "figure", "measured", "asked", "", "floor"]
    words = {"yes": "met", "no": "**missed**"}
    lines = [head, ["---"] * len(head)]
    for row in rows:
        if row["limit"]:
            value = f"{row['value']} {row['unit']}"
            lines.append([row["script"], row["what"], value, row["limit"], words[row["met"]], row["floor"]])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--table", action="store_true", help="print the table of docs/speed.md and stop")
    parser.add_argument("--claims", action="store_true", help="print what each script claims and stop")
    parser.add_argument("--only", nargs="+", default=SCRIPTS, help="scripts to run (default: all)")
    parser.add_argument("--results", type=Path, help="the CSV file (results/speed.csv; --quick writes none)")
    options = parser.parse_args(argv)
    if options.table:
        print(markdown(read_csv(options.results or RESULTS)))
        return 0
    if options.claims:
        for name, limits in claims().items():
            print("\n".join([name, *(f"  {what}: {limit}" for what, limit in limits.items())]))
        return 0
    return measure(options)


def measure(options) -> int:
    """Run the scripts, save what they measure, and print what was missed."""
    flags = ["--quick"] if options.quick else []
    if options.rounds:
        flags += ["--rounds", str(options.rounds)]
    file = options.results or (None if options.quick else RESULTS)
    rows, failed = [], []
    for name in options.only:  # each script has its own number of threads
        result = run(name, flags)
        if not result:
            failed.append(name)
            continue
        rows += csv_rows(result)
        if file:
            save(rows, file)  # after each script: a run that is stopped keeps what it has measured
    missed = [f"{row['script']}: {row['what']}" for row in rows if row["met"] == "no"]
    print(f"{len(rows)} figures, {sum(row['met'] == 'yes' for row in rows)} as asked, {len(missed)} missed")
    print("\n".join(f"  missed: {what}" for what in missed))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    if options.json:
        print(json.dumps({"script": "all", "rows": rows, "failed": failed}))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
