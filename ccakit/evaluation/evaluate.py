"""One trained model on one split: the numbers of metrics.json and the table that people read."""

from __future__ import annotations

import numpy as np

from ccakit.data.images import image_size
from ccakit.data.triplet_lists import split_triplets
from ccakit.evaluation.embedding import attention_maps, embed_sides, readable
from ccakit.evaluation.pointing import pointing_scores
from ccakit.evaluation.provenance import remarks
from ccakit.evaluation.run import Run
from ccakit.evaluation.tagging import PRECISION, score_tagging
from ccakit.evaluation.triplets import evaluate_triplets, score_row
from ccakit.metrics import random_map, retrieval_aps
from ccakit.text_table import text_table

HEAD = ["attribute", "queries", "mAP", "95% interval", "random"]
POINTING = {
    "pointing_game": "heat hits",
    "pointing_chance": "chance",
    "pointing_other": "other",
    "pointing_fixed": "fixed",
}


def evaluate(
    run: Run, *, batch_size: int = 64, seed: int = 0, tagging: bool = False, precision: float = PRECISION
) -> dict:
    """Measure a run: mAP as in Tables 2-4, heatmaps if the split has regions, Table 5 if it lists triplets.

    mAPs in percent, with 95% bootstrap intervals over queries, and those of a random ranking; pointing shares
    from 0 to 1, averaged over all (image, condition) whose region is known. Images that cannot be read are
    left out, if `inputs` may skip them, and counted: `unreadable`, how many queries and candidates they are,
    and their list. tagging: measure it, too, with this precision wanted; that embeds valid. See
    `ccakit.metrics`, `ccakit.evaluation.pointing` and `ccakit.evaluation.tagging`.
    """
    sides = embed_sides(run.model, run.inputs, batch_size=batch_size, progress="ranking")
    split = readable(run.inputs)
    metrics = retrieval_aps(*sides, split.attributes).to_dict(seed=seed)
    if tagging:
        metrics["tagging"] = score_tagging(run, sides, batch_size=batch_size, precision=precision)
    chance = random_map(*split.sides(), split.attributes).to_dict(repeats=1)
    metrics |= {f"random_{key}": chance[key] for key in ("map_weighted", "map_macro", "map_per_attribute")}
    metrics |= score_heatmaps(run, batch_size=batch_size, seed=seed)
    triplets = split_triplets(run.split)
    if triplets is not None:
        names = split.attributes.names
        metrics |= evaluate_triplets(run.model, run.inputs, triplets, names, batch_size=batch_size, seed=seed)
    sides = ("queries", "candidates")
    unreadable = run.inputs.report()
    return {
        **metrics,
        "data": run.data,
        "unreadable": len(unreadable),
        "unreadable_left_out": {s: len(getattr(run.split, s)) - len(getattr(split, s)) for s in sides},
        "unreadable_images": unreadable,
    }


def score_heatmaps(run: Run, *, batch_size: int = 64, seed: int = 0) -> dict:
    """Score heatmaps by the pointing game and its controls, over all pairs and per attribute.

    Empty if the split has no regions, or the system does not attend.
    """
    split = readable(run.inputs)
    if split.regions is None or not len(split.regions):
        return {}
    images = np.unique(split.regions[:, 0]).astype(np.int64)
    try:
        maps = attention_maps(run.model, run.inputs, images, batch_size=batch_size, progress="heatmaps")
    except NotImplementedError:  # a system that does not attend
        return {}
    views = np.array([run.saved.transform.view(*image_size(split.path(i))) for i in images])
    result = pointing_scores(maps, split.regions, split.labels, split.attributes, images, views)
    names = split.attributes.names
    return {
        **result.means(),
        "pointing_interval": list(result.interval(seed=seed)),
        "pointing_per_attribute": {names[c]: result.means(c) for c in np.unique(result.conditions)},
    }


def table(metrics: dict, title: str) -> str:
    """Print the metrics as text: a line an attribute, then weighted and macro means, each beside chance."""
    pointing, intervals = metrics.get("pointing_per_attribute", {}), metrics["intervals"]
    rows = [[*HEAD, *POINTING.values()]]
    for name, value in metrics["map_per_attribute"].items():
        interval = intervals["map_per_attribute"][name]
        random = metrics["random_map_per_attribute"][name]
        rows.append(_row(name, metrics["queries"][name], value, interval, random, pointing.get(name, {})))
    total = sum(metrics["queries"].values())
    for key, name, scores in (("map_weighted", "weighted by query", metrics), ("map_macro", "macro", {})):
        rows.append(_row(name, total, metrics[key], intervals[key], metrics[f"random_{key}"], scores))
    if not pointing:
        rows = [row[: len(HEAD)] for row in rows]
    lines = [title, text_table(rows, rules=[len(rows) - 2])]
    lines += [f"data: {text}" for text in remarks(metrics["data"])] if "data" in metrics else []
    if n := metrics.get("own_left_out"):
        total = sum(metrics["queries"].values())
        lines.append(
            f"own images: {n} of {total} queries are candidates too, and left out of their own rankings"
        )
    if metrics.get("unreadable"):
        left_out = metrics["unreadable_left_out"]
        lines.append(
            f"unreadable: {metrics['unreadable']} images, left out with their {left_out['queries']} queries "
            f"and {left_out['candidates']} candidates"
        )
    return "\n".join(lines)


def _row(name: str, queries: int, value: float, interval, random: float, pointing: dict) -> list[str]:
    cells = [*score_row(name, queries, value, interval), f"{random:.2f}"]
    return cells + [f"{100 * pointing[key]:.1f}%" if key in pointing else "" for key in POINTING]


def targets(metrics: dict) -> list[str]:
    """Compare the heatmaps with their three controls, a sentence each."""
    if "pointing_game" not in metrics:
        return []
    game, sentences = metrics["pointing_game"], []
    for control, key, aim in (
        ("chance by area", "pointing_chance", 5.0),
        ("another condition's map", "pointing_other", 3.0),
        ("the condition's own mean map", "pointing_fixed", 1.3),
    ):
        times = game / max(metrics[key], 1e-9)
        reached = "reached" if game >= aim * metrics[key] else "not reached"
        sentences.append(f"heatmaps hit {times:.1f} times as often as {control} (aim {aim:g}: {reached})")
    return sentences
