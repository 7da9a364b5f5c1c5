"""The demo over three seeds of data and training, CCA beside the non-conditional triplet network.

python benchmarks/demo_seeds.py                 # about 20 minutes on 2 cores; writes results/demo.csv
python benchmarks/demo_seeds.py --markdown      # the README's table, from results/demo.csv
"""

from __future__ import annotations

import argparse
import csv
import platform
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent.parent / "results" / "demo.csv"
MODELS = ("cca-type2", "cca-type1", "triplet")
PERCENT = ("map_weighted", "map_macro", "random_map_weighted")
SHARES = ("pointing_game", "pointing_chance", "pointing_other", "pointing_fixed")
COLUMNS = ("model", "seed", *PERCENT, *SHARES, "train_seconds", "epochs", "torch", "machine")


def run(root: Path, seeds: list[int]) -> list[dict]:
    """A demo for each model and seed under `root`; what is trained there already is only evaluated."""
    from ccakit.commands import demo

    rows = []
    for seed in seeds:
        for model in MODELS:
            config = demo.Config(
                out=root / f"{model}-{seed}",
                data=root / f"data-{seed}",
                model=model,
                seed=seed,
                pictures=False,
            )
            metrics = {
                **demo.run(config),
                "machine": f"{platform.machine()}, {platform.system()}, 2 cores, no GPU",
            }
            rows.append({name: _short(metrics[name]) for name in COLUMNS})
    return rows


def _short(value):
    return round(value, 4) if isinstance(value, float) else value


def markdown(rows: list[dict]) -> str:
    """Mean ± standard deviation over seeds, a line a model; heat shares in percent."""
    seeds = len({row["seed"] for row in rows})
    lines = [
        f"| {seeds} seeds | weighted mAP | macro mAP | heat hits | chance | other | fixed | seconds to train |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        of = [row for row in rows if row["model"] == model]
        cells = [
            _mean(of, "map_weighted"),
            _mean(of, "map_macro"),
            *(_mean(of, name, 100) for name in SHARES),
        ]
        lines.append(
            f"| `{model}` | {' | '.join(cells)} | {np.mean([float(r['train_seconds']) for r in of]):.0f} |"
        )
    once = [row for row in rows if row["model"] == rows[0]["model"]]
    lines.append(f"| random ranking | {_mean(once, 'random_map_weighted')} | | | | | | |")
    return "\n".join(lines)


def _mean(rows: list[dict], name: str, scale: float = 1) -> str:
    values = [scale * float(row[name]) for row in rows]
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def read(path: Path = RESULTS) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("runs/seeds"), help="where runs and data go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--markdown", action="store_true", help="print the README's table and stop")
    options = parser.parse_args()
    if not options.markdown:
        rows = run(options.root, options.seeds)
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    print(markdown(read()))


if __name__ == "__main__":
    main()
