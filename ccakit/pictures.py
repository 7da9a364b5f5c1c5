"""A trained model's pictures, made from its test split: heatmaps, spaces, rankings. Demo and notebooks use them.

`picture` is how an image's index becomes pixels, (height, width, 3) uint8 RGB: by default, by reading its file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ccakit import plots
from ccakit.checkpoint import SavedModel
from ccakit.data.images import read_image
from ccakit.data.layout import Split
from ccakit.embedding import attention_maps, embed_images

Picture = Callable[[int], np.ndarray]


def pick_images(split: Split, count: int, seed: int = 0) -> np.ndarray:
    """Images with the most visible attributes (regions where they are known, else labels), drawn by seed: (count,)."""
    rows = split.regions if split.regions is not None and len(split.regions) else split.labels
    pairs = np.unique(rows[:, :2].astype(np.int64), axis=0)
    visible = np.bincount(pairs[:, 0], minlength=len(split.filenames)).astype(float)
    visible += np.random.default_rng(seed).random(len(visible)) * 0.5
    return np.argsort(-visible)[:count]


def reader(split: Split) -> Picture:
    """Pictures from a split's files."""
    return lambda image: read_image(split.path(image))


def heatmaps(saved: SavedModel, inputs, split: Split, images: np.ndarray, picture: Picture | None = None, **options):
    """Figure 4 for some images of a split: a row an image, a column a condition, regions outlined in red."""
    images = np.asarray(images)
    maps = attention_maps(saved.model, inputs, images)
    pictures = [(picture or reader(split))(i) for i in images]
    labels = split.label_matrix()[images]
    return plots.heatmap_grid(pictures, maps, split.attributes, split.regions, labels, image_ids=images,
                              transform=saved.transform, **options)  # fmt: skip


def spaces(saved: SavedModel, inputs, split: Split, *, images: int = 1200, seed: int = 0, **options):
    """Figure 5 for a random part of a split: all spaces in the middle, each alone around it."""
    count = min(images, len(split.filenames))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split.filenames))[:count])
    embeddings = embed_images(saved.model, inputs, chosen)
    return plots.tsne_spaces(embeddings, split.label_matrix()[chosen], split.attributes, seed=seed, **options)


def nearest(saved: SavedModel, inputs, split: Split, query: np.ndarray, top: int) -> np.ndarray:
    """The candidates' rows nearest to a query row (image, condition, label) in its space: (top, 3)."""
    rows = split.candidates[split.candidates[:, 1] == query[1]]
    images = np.append(rows[:, 0], query[0])
    embeddings = embed_images(saved.model, inputs, images)[:, query[1]]
    return rows[np.argsort(-(embeddings[:-1] @ embeddings[-1]), kind="stable")[:top]]


def rankings(
    saved: SavedModel, inputs, split: Split, picture: Picture | None = None, *, top: int = 3, seed: int = 0
):
    """Figure A2: for each attribute a random visible query of the split and its `top` nearest candidates."""
    rng, chosen = np.random.default_rng(seed), []
    for condition in range(len(split.attributes)):
        rows = split.queries[split.queries[:, 1] == condition]
        visible = rows[rows[:, 2] > 0] if split.attributes.values[condition][0] == "Invisible" else rows
        rows = visible if len(visible) else rows
        if len(rows):
            chosen.append(rows[rng.integers(len(rows))])
    found = [nearest(saved, inputs, split, row, top) for row in chosen]
    picture = picture or reader(split)
    return plots.ranking_grid(
        [picture(row[0]) for row in chosen], [[picture(r[0]) for r in rows] for rows in found],
        [int(row[1]) for row in chosen], [int(row[2]) for row in chosen],
        [[int(r[2]) for r in rows] for rows in found], split.attributes,
    )  # fmt: skip
