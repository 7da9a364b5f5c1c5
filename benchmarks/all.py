"""All benchmarks, one after the other, and results/speed.csv with the machine named.

    python -m benchmarks.all                    # about 30 minutes on 2 quiet cores; or `make benchmark`
    python -m benchmarks.all --quick            # a look: sizes too small to mean anything, nothing is written
    python -m benchmarks.all --only spaces start
    python -m benchmarks.all --table            # what was asked and found, from results/speed.csv, for docs/speed.md

Each script runs in a process of its own. Exits with 1 if a script fails; a figure that misses what is asked is a
finding, not a failure.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import ROOT, Row, machine, options

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
COLUMNS = (
    "script",
    "what",
    "value",
    "unit",
    "limit",
    "met",
    "floor",
    "note",
    "machine",
    "threads",
    "load",
    "versions",
)


def present() -> list[str]:
    """The scripts that are there."""
    return [name for name in SCRIPTS if (ROOT / "benchmarks" / f"{name}.py").exists()]


def run(name: str, words: list[str], quick: bool) -> dict | None:
    """A script's result; None if it failed. What it prints is shown."""
    begun = time.perf_counter()
    if name == "switcher":  # its flags and its JSON are its own
        words = ["--switches", "20" if quick else "200"]
    print(f"== python -m benchmarks.{name} {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    shown, result = parse(done.stdout) if not done.returncode else (done.stdout, None)
    if name == "switcher" and result:
        result = switcher_result(result, quick)
        shown = "\n".join(
            f"  {row['what']}  {row['value']} ms  asked {row['limit']}" for row in result["rows"]
        )
    print(f"{shown}\n   {time.perf_counter() - begun:.0f} s", flush=True)
    return result


def parse(text: str) -> tuple[str, dict | None]:
    """What a script printed, and the JSON at its end, on one line or several."""
    start = 0
    while (start := text.find("{", start)) >= 0:
        try:
            return text[:start].rstrip(), json.loads(text[start:])
        except ValueError:
            start += 1
    return text, None


def switcher_result(found: dict, quick: bool) -> dict:
    """What benchmarks/switcher.py tells, as the other scripts' results."""
    rows = []
    for name, of in found.items():
        if isinstance(of, dict) and "switches" in of:
            for way, times in of["switches"].items():
                value, limit = times["p95"], f"<= {of['aim_p95']}" if way == "switch" else ""
                rows.append(
                    {
                        **asdict(
                            Row(
                                f"{name}: {way}, p95",
                                value,
                                "ms",
                                limit,
                                of["floor_png_ms"],
                                f"p50 {times['p50']} ms; floor: the PNG alone",
                            )
                        ),
                        "met": value <= of["aim_p95"] if limit else None,
                    }
                )
    return {
        "script": "switcher",
        "quick": quick,
        "machine": {**machine(found["threads"]), "load": found["load"]},
        "rows": rows,
    }


def rows_of(result: dict) -> list[dict]:
    """A result's rows for the CSV."""
    facts = result["machine"]
    versions = " ".join(
        f"{name}={facts[name]}" for name in ("python", "torch", "torchvision", "timm", "numpy")
    )
    named = f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}"
    about = {"machine": named, "threads": facts["threads"], "load": facts["load"], "versions": versions}
    rows = []
    for row in result["rows"]:
        met = {None: "", True: "yes", False: "no"}[row.get("met")]
        numbers = {key: _short(row.get(key)) for key in ("value", "floor")}
        rows.append(
            {
                "script": result["script"],
                **{key: row.get(key, "") for key in ("what", "unit", "limit", "note")},
                **numbers,
                "met": met,
                **about,
            }
        )
    return rows


def _short(value):
    return "" if value is None else float(f"{value:.5g}")


def save(rows: list[dict], file: Path) -> None:
    """Write the CSV; rows of scripts that were not run this time stay as they were."""
    again, kept = {row["script"] for row in rows}, []
    if file.exists():
        kept = [row for row in read(file) if row["script"] not in again]
    order = {name: place for place, name in enumerate(SCRIPTS)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="") as target:
        writer = csv.DictWriter(target, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(kept + rows, key=lambda row: order.get(row["script"], len(order))))


def markdown(rows: list[dict]) -> str:
    """The figures that something is asked of, of a results file's rows: a line each."""
    head = ["script", "figure", "measured", "asked", "", "floor"]
    told = {"yes": "met", "no": "**missed**"}
    body = [
        [
            row["script"],
            row["what"],
            f"{row['value']} {row['unit']}",
            row["limit"],
            told[row["met"]],
            row["floor"],
        ]
        for row in rows
        if row["limit"]
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *body])


def read(file: Path) -> list[dict]:
    with open(file, newline="") as rows:
        return list(csv.DictReader(rows))


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument(
        "--table", action="store_true", help="print the table of docs/speed.md; measure nothing"
    )
    parser.add_argument(
        "--only", nargs="+", default=present(), help="scripts to run (default: all there are)"
    )
    parser.add_argument(
        "--results", type=Path, help="the CSV file (results/speed.csv; not written by --quick)"
    )
    given = parser.parse_args(argv)
    if given.table:
        print(markdown(read(given.results or ROOT / "results" / "speed.csv")))
        return 0
    words = ["--quick"] * given.quick + (["--rounds", str(given.rounds)] if given.rounds else [])
    rows, failed, file = [], [], given.results or (None if given.quick else ROOT / "results" / "speed.csv")
    for name in given.only:  # each script has its own number of threads
        result = run(name, words, given.quick)
        if not result:
            failed.append(name)
            continue
        rows += rows_of(result)
        if file:
            save(rows, file)  # after each script: a run that is stopped keeps what it has measured
    missed = [f"{row['script']}: {row['what']}" for row in rows if row["met"] == "no"]
    print(f"{len(rows)} figures, {sum(row['met'] == 'yes' for row in rows)} as asked, {len(missed)} missed")
    print("\n".join(f"  missed: {what}" for what in missed))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    if given.json:
        print(json.dumps({"script": "all", "rows": rows, "failed": failed}))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
