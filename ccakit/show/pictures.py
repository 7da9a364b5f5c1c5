"""Pictures of a run, for the demo and notebooks: heatmaps, spaces, rankings."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccakit.data.split import Split
from ccakit.evaluation.embedding import attention_maps, embed_images
from ccakit.evaluation.run import Run
from ccakit.show import plots
from ccakit.show.style import remark


def pick_images(split: Split, count: int, seed: int = 0) -> np.ndarray:
    """Choose images with the most visible attributes (by regions, else by labels), ties by seed: (count,)."""
    rows = split.regions if split.regions is not None and len(split.regions) else split.labels
    pairs = np.unique(rows[:, :2].astype(np.int64), axis=0)
    visible = np.bincount(pairs[:, 0], minlength=len(split.filenames)).astype(float)
    visible += np.random.default_rng(seed).random(len(visible)) * 0.5
    return np.argsort(-visible)[:count]


def heatmaps(run: Run, images: np.ndarray, **options) -> Figure:
    """Draw Figure 4 for some images of a run: a row an image, a column a condition, regions outlined in red.

    images: (n,) indices. options: those of `plots.heatmap_grid`.
    """
    images = np.asarray(images)
    shown = [run.picture(image) for image in images]
    maps, labels = attention_maps(run.model, run.inputs, images), run.split.label_matrix()[images]
    options = {"image_ids": images, "transform": run.saved.transform, **options}
    figure = plots.heatmap_grid(shown, maps, run.attributes, run.split.regions, labels, **options)
    return remark(figure, run.remarks)


def spaces(run: Run, *, images: int = 1200, seed: int = 0, **options) -> Figure:
    """Draw Figure 5 for at most `images` random images: all spaces in the middle, each alone around it."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(run.split.filenames))[:images])
    embeddings, labels = embed_images(run.model, run.inputs, chosen), run.split.label_matrix()[chosen]
    figure = plots.tsne_spaces(embeddings, labels, run.attributes, seed, image_ids=chosen, **options)
    return remark(figure, run.remarks)


def nearest(run: Run, query: np.ndarray, top: int) -> np.ndarray:
    """Find the candidates' rows nearest to a query row (image, condition, label) in its space: (top, 3).

    query: one of `run.split.sides()`; its own image is none of its candidates.
    """
    candidates = run.split.sides()[1]
    rows = candidates[(candidates[:, 1] == query[1]) & (candidates[:, 0] != query[0])]
    images = np.append(rows[:, 0], query[0])
    embeddings = embed_images(run.model, run.inputs, images)[:, query[1]]
    return rows[np.argsort(-(embeddings[:-1] @ embeddings[-1]), kind="stable")[:top]]


def rankings(run: Run, *, top: int = 3, seed: int = 0) -> Figure:
    """Draw Figure A2: for each attribute a random visible query and its `top` nearest candidates."""
    rng, queries = np.random.default_rng(seed), []
    asked = run.split.sides()[0]
    for condition, values in enumerate(run.attributes.values):
        rows = asked[asked[:, 1] == condition]
        visible = rows[rows[:, 2] > 0] if values[0] == "Invisible" else rows
        rows = visible if len(visible) else rows
        if len(rows):
            queries.append(rows[rng.integers(len(rows))])
    found = [nearest(run, query, top) for query in queries]
    figure = plots.ranking_grid(run.picture, np.array(queries), found, run.attributes)
    return remark(figure, run.remarks)
