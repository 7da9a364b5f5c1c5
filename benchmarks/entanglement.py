"""How entangled the spaces of one network are, before and after attributes were balanced, beside K networks.

    python -m benchmarks.entanglement               # trains what runs/entanglement lacks; about 15 minutes
    python -m benchmarks.entanglement --markdown    # the table of docs/results.md, from its CSV file

The title's claim, measured by `ccakit.evaluation.entanglement` on test: attribute j read from the space of
attribute i. Each system trains under the protocol of `ccakit benchmark` in mode `spaces`, with the training
`plain` (before) and with today's default (after); K networks share nothing, and are what can be reached.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, plain_parser, read_csv, write_csv

RESULTS = ROOT / "results" / "entanglement.csv"
MODELS = ("cca-type2", "tf-asen", "asen-v2", "networks")
TRAININGS = {"plain": "plain", "": "default"}
PROBES = ("map", "knn", "linear")
BEYOND = ("score_compared", "score_beyond")
SCORES = (*(f"score_{probe}" for probe in PROBES), *BEYOND)
COLUMNS = ("dataset", "model", "training", "seed", "budget", "map_weighted", *SCORES)


def measure(folder: Path) -> dict:
    """Measure a run on test: its weighted mAP in percent, and the scores, 1 where spaces share nothing."""
    import ccakit
    from ccakit.evaluation.embedding import rank
    from ccakit.evaluation.entanglement import embed_split, entanglement

    run = ccakit.open_run(folder)
    spaces = embed_split(run)
    found = {probe: entanglement(*spaces, run.attributes, probe) for probe in PROBES}
    by_map = found["map"]
    scores = {f"score_{probe}": found[probe].score for probe in PROBES}
    scores |= dict(score_compared=by_map.score_compared, score_beyond=by_map.score_beyond_labels)
    rounded = {name: round(float(score), 4) for name, score in scores.items()}
    return {"map_weighted": round(100 * rank(run.model, run.inputs).map_weighted, 2), **rounded}


def markdown(rows: list[dict]) -> str:
    """Make the table: for each data set, system and training the mean over seeds."""
    lines = [
        "| data | system | training | seeds | weighted mAP | score, by mAP | by k-NN | by a linear probe "
        "| on pairs of attributes that images share | there, beyond the other label |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = ("dataset", "model", "training")
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        runs = [row for row in rows if tuple(row[name] for name in keys) == key]
        cells = [f"{np.mean([float(row['map_weighted']) for row in runs]):.1f}"]
        cells += [f"{np.mean([float(row[name]) for row in runs]):.2f}" for name in SCORES]
        dataset, model, training = key
        lines.append(f"| {dataset} | `{model}` | {training} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/garments"))
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--budget", default="epochs=10")
    parser.add_argument("--runs", type=Path, default=Path("runs/entanglement"), help="of the benchmark")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of rows")
    parser.add_argument("--markdown", action="store_true", help="print the table of the rows, and stop")
    options = parser.parse_args(argv)
    rows = read_csv(options.results) if options.results.is_file() else []
    if not options.markdown:
        rows = train_and_measure(options, rows)
        write_csv(options.results, COLUMNS, rows)
    print(markdown(rows))


def train_and_measure(options: argparse.Namespace, rows: list[dict]) -> list[dict]:
    """Train what the benchmark's folder lacks, and measure each run; rows of other runs stay."""
    from ccakit.benchmark.config import BenchmarkConfig
    from ccakit.benchmark.plan import plan
    from ccakit.benchmark.runs import benchmark

    config = BenchmarkConfig(
        data=options.data,
        out=options.runs,
        models=",".join(options.models),
        seeds=options.seeds,
        modes=("spaces",),
        variants=tuple(TRAININGS),
        budget=options.budget,
        speed=False,
    )
    dataset = benchmark(config)[0]["dataset"]
    measured = []
    for trial in plan(config):
        facts = dict(dataset=dataset, model=trial.model, training=TRAININGS[trial.variant], seed=trial.seed)
        measured.append({**facts, "budget": options.budget, **measure(options.runs / trial.folder)})
        print(measured[-1], flush=True)
    done = {_key(row) for row in measured}
    return [row for row in rows if _key(row) not in done] + measured


def _key(row: dict) -> tuple:
    return row["dataset"], row["model"], row["training"], int(row["seed"])


if __name__ == "__main__":
    main()
