"""Heatmaps of a frozen ViT, scored: at its own size and at 224 px, by head, at two depths, beside `lite`'s.

    ccakit demo; python -m benchmarks.vit       # the runs
    python -m benchmarks.heatmaps               # a few minutes on 2 quiet cores
    python -m benchmarks.heatmaps --markdown    # the table of docs/results.md, from results/heatmaps.csv

The pointing game with its three controls (ccakit.evaluation.pointing), on the first test images: of the
heads' mean, which is what every heatmap shows, and of each head. The ViT's runs were trained at 126 px; at
224 px they are read with the same weights, on 16 x 16 patches instead of 9 x 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import ROOT, plain_parser, read_csv, use_threads, write_csv

RESULTS = ROOT / "results" / "heatmaps.csv"
RUNS = {
    "lite": ROOT / "runs/demo",
    "ViT, block 8": ROOT / "runs/vit/spaces/read_block=8/cca-type2-0",
    "ViT, block 12": ROOT / "runs/vit/spaces/read_block=12/cca-type2-0",
}
SCORES = ("pointing_game", "pointing_chance", "pointing_other", "pointing_fixed")
COLUMNS = ("run", "system", "trained_px", "px", "grid", "head", *SCORES, "pairs", "images")
BATCH = 16


def head_maps(runs: dict, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Compute each run's maps by head: (n, K, H, h, w); runs on one trunk share its pass.

    runs: by name, all on the same pictures. The stems of their frozen trunks are beginnings of the longest.
    """
    models = {name: run.model for name, run in runs.items()}
    names = sorted(models, key=lambda name: models[name].trunk.frozen)
    deepest, inputs = models[names[-1]].trunk, runs[names[-1]].inputs
    depths = [models[name].trunk.frozen for name in names]
    found = {name: [] for name in names}
    with torch.inference_mode():
        for part in np.array_split(images, max(1, len(images) // BATCH)):
            for name, features in zip(names, deepest.stem_at(inputs.load(part), depths)):
                model = models[name]
                found[name].append(model.attention_spaces(model.encode_features(features)).numpy())
    for name in names:
        yield name, np.concatenate(found[name])


def score(run, maps: np.ndarray, images: np.ndarray) -> Iterator[dict]:
    """Score the heads' mean, and each head: maps (n, K, H, h, w)."""
    from ccakit.data.images import image_size
    from ccakit.evaluation.pointing import pointing_scores

    split = run.split
    views = np.array([run.saved.transform.view(*image_size(split.path(i))) for i in images])
    heads = {"mean": maps.mean(axis=2), **{str(head): maps[:, :, head] for head in range(maps.shape[2])}}
    for head, each in heads.items():
        result = pointing_scores(each, split.regions, split.labels, split.attributes, images, views)
        scores = {name: round(value, 4) for name, value in result.means().items()}
        yield {"head": head, **scores, "pairs": len(result.game), "images": len(images)}


def measure(folders: dict[str, Path], side: int, count: int, data: Path | None = None) -> list[dict]:
    """Score every run at its own size, and those on a frozen ViT at `side`, too."""
    import ccakit
    from ccakit.data.inputs import ImageInputs
    from ccakit.evaluation.at_size import at_size, takes_sizes

    opened = {name: ccakit.open_run(folder, data=data) for name, folder in folders.items()}
    own = {n: replace(run, inputs=ImageInputs(run.split, run.saved.transform)) for n, run in opened.items()}
    frozen = [name for name, run in own.items() if takes_sizes(run)]
    groups = [{name: run} for name, run in own.items() if name not in frozen]
    groups += [{name: own[name] for name in frozen}, {name: at_size(own[name], side) for name in frozen}]
    rows = []
    for group in filter(None, groups):
        split = next(iter(group.values())).split
        images = np.unique(split.regions[:, 0]).astype(int)[:count]
        for name, maps in head_maps(group, images):
            run, grid = group[name], "{}x{}".format(*maps.shape[-2:])
            about = {"run": name, "system": run.system, "px": run.saved.transform.size[0], "grid": grid}
            about["trained_px"] = own[name].saved.transform.size[0]
            rows += [{**about, **row} for row in score(run, maps, images)]
            print(rows[-1 - maps.shape[2]], flush=True)
    return rows


def markdown(rows: list[dict]) -> str:
    """Make the table: a line a run and size, with the heads' mean and the best head."""
    lines = [
        "| run | pixels | grid | hits | chance | other | fixed | best head | worst head |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, px in dict.fromkeys((row["run"], row["px"]) for row in rows):
        own = [row for row in rows if (row["run"], row["px"]) == (name, px)]
        mean = next(row for row in own if row["head"] == "mean")
        heads = [100 * float(row["pointing_game"]) for row in own if row["head"] != "mean"]
        cells = [f"{100 * float(mean[column]):.1f}" for column in SCORES]
        cells += [f"{max(heads):.1f}", f"{min(heads):.1f}"]
        lines.append(f"| {name} | {px} | {mean['grid'].replace('x', ' x ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--runs", nargs="+", metavar="NAME=FOLDER", help="instead of lite and the ViT's two")
    parser.add_argument("--data", type=Path, help="their data, where it is not where the runs say")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=500, help="the first so many test images")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", action="store_true", help="print the table of the rows, and stop")
    options = parser.parse_args(argv)
    if not options.markdown:
        use_threads(options.threads)
        given = dict(word.split("=", 1) for word in options.runs or [])
        folders = {name: Path(folder) for name, folder in given.items()} or RUNS
        write_csv(
            options.results, COLUMNS, measure(folders, options.image_size, options.images, options.data)
        )
    print(markdown(read_csv(options.results)))


if __name__ == "__main__":
    main()
