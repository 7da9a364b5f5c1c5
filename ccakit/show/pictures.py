"""A trained model's pictures, made from its test split: heatmaps, spaces, rankings. Demo and notebooks use them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccakit.data.split import Split
from ccakit.evaluation.embedding import attention_maps, embed_images
from ccakit.evaluation.run import Run
from ccakit.show import plots


def pick_images(split: Split, count: int, seed: int = 0) -> np.ndarray:
    """Images with the most visible attributes (regions where they are known, else labels), drawn by seed: (count,)."""
    rows = split.regions if split.regions is not None and len(split.regions) else split.labels
    pairs = np.unique(rows[:, :2].astype(np.int64), axis=0)
    visible = np.bincount(pairs[:, 0], minlength=len(split.filenames)).astype(float)
    visible += np.random.default_rng(seed).random(len(visible)) * 0.5
    return np.argsort(-visible)[:count]


def heatmaps(run: Run, images: np.ndarray, **options) -> Figure:
    """Figure 4 for some images of a split: a row an image, a column a condition, regions outlined in red.

    images: (n,) indices. options: those of `plots.heatmap_grid`.
    """
    images = np.asarray(images)
    maps = attention_maps(run.model, run.inputs, images)
    labels = run.split.label_matrix()[images]
    return plots.heatmap_grid(
        [run.picture(i) for i in images],
        maps,
        run.attributes,
        run.split.regions,
        labels,
        image_ids=images,
        transform=run.saved.transform,
        **options,
    )


def spaces(run: Run, *, images: int = 1200, seed: int = 0, **options) -> Figure:
    """Figure 5 for a random part of a split: all spaces in the middle, each alone around it."""
    count = min(images, len(run.split.filenames))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(run.split.filenames))[:count])
    embeddings = embed_images(run.model, run.inputs, chosen)
    return plots.tsne_spaces(
        embeddings, run.split.label_matrix()[chosen], run.attributes, seed=seed, **options
    )


def nearest(run: Run, query: np.ndarray, top: int) -> np.ndarray:
    """The candidates' rows nearest to a query row (image, condition, label) in its space: (top, 3)."""
    rows = run.split.candidates[run.split.candidates[:, 1] == query[1]]
    images = np.append(rows[:, 0], query[0])
    embeddings = embed_images(run.model, run.inputs, images)[:, query[1]]
    return rows[np.argsort(-(embeddings[:-1] @ embeddings[-1]), kind="stable")[:top]]


def rankings(run: Run, *, top: int = 3, seed: int = 0) -> Figure:
    """Figure A2: for each attribute a random visible query of the split and its `top` nearest candidates."""
    rng, chosen, split = np.random.default_rng(seed), [], run.split
    for condition in range(len(run.attributes)):
        rows = split.queries[split.queries[:, 1] == condition]
        visible = rows[rows[:, 2] > 0] if run.attributes.values[condition][0] == "Invisible" else rows
        rows = visible if len(visible) else rows
        if len(rows):
            chosen.append(rows[rng.integers(len(rows))])
    found = [nearest(run, row, top) for row in chosen]
    return plots.ranking_grid(
        [run.picture(row[0]) for row in chosen],
        [[run.picture(r[0]) for r in rows] for rows in found],
        [int(row[1]) for row in chosen],
        [int(row[2]) for row in chosen],
        [[int(r[2]) for r in rows] for rows in found],
        run.attributes,
    )
