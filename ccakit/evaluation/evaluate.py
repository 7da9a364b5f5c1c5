"""One trained model on one split: the numbers of metrics.json and the table that people read."""

from __future__ import annotations

import numpy as np

from ccakit.data.images import image_size
from ccakit.data.triplet_lists import split_triplets
from ccakit.evaluation.embedding import attention_maps, rank, readable
from ccakit.evaluation.pointing import pointing_scores
from ccakit.evaluation.run import Run
from ccakit.evaluation.triplets import evaluate_triplets
from ccakit.metrics import random_map

POINTING = ("pointing_game", "pointing_chance", "pointing_other", "pointing_fixed")


def evaluate(run: Run, *, batch_size: int = 64, seed: int = 0) -> dict:
    """mAP as in Tables 2-4 beside a random ranking's; heatmaps scored where the split has regions; triplet accuracy
    as in Table 5 where it has a list of triplets.

    mAPs in percent, with 95% bootstrap intervals over queries; pointing shares from 0 to 1, averaged over
    all (image, condition) whose region is known. Images that cannot be read, where `inputs` may skip them, are left
    out and counted: `unreadable`, with how many queries and candidates they are, and their list. See
    `ccakit.metrics` and `ccakit.evaluation.pointing`.
    """
    inputs, split = run.inputs, run.split
    result = rank(run.model, inputs, split, batch_size=batch_size, progress="ranking")
    whole, split = split, readable(split, inputs)
    chance = random_map(split.queries, split.candidates, split.attributes)
    metrics = result.to_dict(seed=seed)
    metrics["random_map_weighted"] = 100 * chance.map_weighted
    metrics["random_map_macro"] = 100 * chance.map_macro
    per_attribute = 100 * chance.map_per_attribute
    metrics["random_map_per_attribute"] = {
        n: float(per_attribute[split.attributes.condition(n)]) for n in metrics["map_per_attribute"]
    }
    metrics |= score_heatmaps(run, batch_size=batch_size, seed=seed)
    left_out = {
        side: len(getattr(whole, side)) - len(getattr(split, side)) for side in ("queries", "candidates")
    }
    if (triplets := split_triplets(whole)) is not None:
        names = split.attributes.names
        metrics |= evaluate_triplets(run.model, inputs, triplets, names, batch_size=batch_size, seed=seed)
    images = inputs.report()
    return {
        **metrics,
        "unreadable": len(images),
        "unreadable_left_out": left_out,
        "unreadable_images": images,
    }


def score_heatmaps(run: Run, *, batch_size: int = 64, seed: int = 0) -> dict:
    """The pointing game with its controls, over all and per attribute; empty without regions or attention."""
    inputs, split = run.inputs, readable(run.split, run.inputs)
    if split.regions is None or not len(split.regions):
        return {}
    images = np.unique(split.regions[:, 0]).astype(np.int64)
    try:
        maps = attention_maps(run.model, inputs, images, batch_size=batch_size, progress="heatmaps")
    except NotImplementedError:  # a system that does not attend
        return {}
    kept = ~np.isin(images, list(inputs.unreadable))
    images, maps = images[kept], maps[kept]
    if not len(images):
        return {}
    views = np.array([run.saved.transform.view(*image_size(split.path(i))) for i in images])
    result = pointing_scores(maps, split.regions, split.labels, split.attributes, images, views)
    each = {
        name: result.means(c)
        for c, name in enumerate(split.attributes.names)
        if (result.conditions == c).any()
    }
    return {
        **result.means(),
        "pointing_interval": list(result.interval(seed=seed)),
        "pointing_per_attribute": each,
    }


def table(metrics: dict, title: str) -> str:
    """The metrics as text: a line an attribute, then weighted and macro, each beside chance."""
    intervals, pointing = metrics["intervals"], metrics.get("pointing_per_attribute")
    lines = [
        title,
        f"{'attribute':<18}{'queries':>8}{'mAP':>8}{'95% interval':>16}{'random':>9}"
        + (f"{'heat hits':>11}{'chance':>8}{'other':>8}{'fixed':>8}" if pointing else ""),
    ]
    for name, value in metrics["map_per_attribute"].items():
        random = metrics["random_map_per_attribute"][name]
        scores = pointing and pointing.get(name)
        lines.append(
            _line(
                name.replace("_", " "),
                metrics["queries"][name],
                value,
                intervals["map_per_attribute"][name],
                random,
                scores,
            )
        )
    total = sum(metrics["queries"].values())
    lines.append("-" * len(lines[1]))
    lines.append(
        _line(
            "weighted by query",
            total,
            metrics["map_weighted"],
            intervals["map_weighted"],
            metrics["random_map_weighted"],
            metrics if pointing else None,
        )
    )
    lines.append(
        _line("macro", total, metrics["map_macro"], intervals["map_macro"], metrics["random_map_macro"], None)
    )
    if metrics.get("unreadable"):
        out = metrics["unreadable_left_out"]
        lines.append(
            f"unreadable: {metrics['unreadable']} images, left out with their {out['queries']} queries and "
            f"{out['candidates']} candidates"
        )
    return "\n".join(lines)


def _line(name: str, queries: int, value: float, interval, random: float, pointing: dict | None) -> str:
    low, high = interval
    text = f"{name:<18}{queries:>8}{value:>8.2f}{f'{low:.1f} - {high:.1f}':>16}{random:>9.2f}"
    if pointing:
        game, *controls = (100 * pointing[key] for key in POINTING)
        text += f"{game:>10.1f}%" + "".join(f"{c:>7.1f}%" for c in controls)
    return text


def targets(metrics: dict) -> list[str]:
    """How the heatmaps stand against their three controls, one sentence each."""
    if "pointing_game" not in metrics:
        return []
    game = metrics["pointing_game"]
    aims = (
        ("chance by area", "pointing_chance", 5.0),
        ("another condition's map", "pointing_other", 3.0),
        ("the condition's own mean map", "pointing_fixed", 1.3),
    )
    return [
        f"heatmaps hit {game / max(metrics[key], 1e-9):.1f} times as often as {name} "
        f"(aim {aim:g}: {'reached' if game >= aim * metrics[key] else 'not reached'})"
        for name, key, aim in aims
    ]
