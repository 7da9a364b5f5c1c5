"""The demo over three seeds of data and training, CCA beside the non-conditional triplet network.

python -m benchmarks.demo_seeds                 # about 20 minutes on 2 cores; adds to results/demo.csv
python -m benchmarks.demo_seeds --markdown      # the table of docs/results.md, from results/demo.csv
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, plain_parser, read_csv, write_csv

RESULTS = ROOT / "results" / "demo.csv"
MODELS = ("cca-type2", "cca-type1", "triplet")
PERCENT = ("map_weighted", "map_macro", "random_map_weighted")
SHARES = ("pointing_game", "pointing_chance", "pointing_other", "pointing_fixed")
COLUMNS = ("model", "seed", *PERCENT, *SHARES, "train_seconds", "epochs", "torch", "machine")


def run(root: Path, seeds: list[int]) -> Iterator[dict]:
    """Run the demo for each model and seed under `root`, and yield its row; one that is there already is not
    trained again."""
    from ccakit.commands import demo

    for seed in seeds:
        for model in MODELS:
            out, data = root / f"{model}-{seed}", root / f"data-{seed}"
            metrics = demo.run(demo.Config(out=out, data=data, model=model, seed=seed, pictures=False))
            metrics["machine"] = f"{platform.machine()}, {platform.system()}, 2 cores, no GPU"
            row = {name: metrics[name] for name in COLUMNS}
            yield {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


def markdown(rows: list[dict]) -> str:
    """Make the table: mean ± standard deviation over seeds, a line for each model; heat shares in percent."""
    seeds = len({row["seed"] for row in rows})
    lines = [
        f"| {seeds} seeds | weighted mAP | macro mAP | heat hits | chance | other | fixed "
        "| seconds to train |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        runs = [row for row in rows if row["model"] == model]
        cells = [_mean(runs, "map_weighted"), _mean(runs, "map_macro")]
        cells += [_mean(runs, name, 100) for name in SHARES]
        seconds = np.mean([float(row["train_seconds"]) for row in runs])
        lines.append(f"| `{model}` | {' | '.join(cells)} | {seconds:.0f} |")
    once = [row for row in rows if row["model"] == rows[0]["model"]]
    lines.append(f"| random ranking | {_mean(once, 'random_map_weighted')} | | | | | | |")
    return "\n".join(lines)


def _mean(rows: list[dict], name: str, scale: float = 1) -> str:
    values = [scale * float(row[name]) for row in rows]
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def place(row: dict) -> tuple[int, int]:
    """The place of a row in the file: by model, then by seed."""
    return MODELS.index(row["model"]), int(row["seed"])


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("runs/seeds"), help="where runs and data go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/results.md and stop")
    options = parser.parse_args()
    if not options.markdown:
        kept = {place(row): row for row in read_csv(RESULTS)} if RESULTS.exists() else {}
        for row in run(options.root, options.seeds):
            kept[place(row)] = row
            write_csv(RESULTS, COLUMNS, [kept[key] for key in sorted(kept)])
    print(markdown(read_csv(RESULTS)))


if __name__ == "__main__":
    main()
