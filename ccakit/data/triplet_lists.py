"""The layout's lists of triplets.

    triplets_{split}.txt             optional: anchor positive negative condition, images by index

CSN's lists have another order; `data_prep/csn_lists.py` changes it into this one. `ccakit.data.text` says how
lines end and what counts as padding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.rows import read_columns
from ccakit.data.split import SPLITS, Split
from ccakit.data.value_index import ValueIndex
from ccakit.disk import write_text
from ccakit.errors import DataError

DRAWN = 10_000  # triplets of each condition, for Table 5's measure where a data set has no list of its own


def triplets_path(root: str | Path, split: str) -> Path:
    """Return the path at which the layout keeps the triplets of a split."""
    return Path(root) / f"triplets_{split}.txt"


def draw_triplets(rows: np.ndarray, conditions: int, count: int, seed: int = 0) -> np.ndarray:
    """Draw (T, 4) triplets (anchor, positive, negative, condition): `count` of each condition that has any.

    rows: (R, 3) labels (image, condition, label). Anchor values are uniform, so that rare values count as
    much as frequent ones; the negative does not carry the anchor's value.
    """
    drawn = [np.empty((0, 4), np.int64)]
    try:
        index = ValueIndex(rows, conditions)
    except ValueError:  # no condition has any
        return drawn[0]
    for condition in index.usable:
        rng, anchors = np.random.default_rng([seed, condition]), index.anchors[condition]
        every = np.unique(index.pooled[condition])
        for value, n in zip(anchors, rng.multinomial(count, np.full(len(anchors), 1 / len(anchors)))):
            own = index.images[condition][value]
            others = np.setdiff1d(every, own, assume_unique=True)
            anchor, negative = rng.integers(len(own), size=n), rng.integers(len(others), size=n)
            positive = (anchor + rng.integers(1, len(own), size=n)) % len(own)
            of_value = own[anchor], own[positive], others[negative], np.full(n, condition)
            drawn.append(np.column_stack(of_value))
    return np.concatenate(drawn)


def write_drawn_triplets(split: Split, rows: np.ndarray | None = None, seed: int = 0) -> None:
    """Write DRAWN triplets of each condition that has any, for a split without a list of its own.

    rows: all labels of the split, where its lists hold only some.
    """
    rows = split.labels if rows is None else rows
    triplets = draw_triplets(rows, len(split.attributes), DRAWN, seed)
    if len(triplets):
        write_triplets(split.root, split.name, triplets)


def write_triplets(root: str | Path, split: str, triplets: np.ndarray) -> Path:
    """Write (T, 4) rows (anchor, positive, negative, condition) as `triplets_{split}.txt`, and return its
    path.

    The file is written completely or not at all. DataError if there is no row, or a number below 0.
    """
    path, rows = triplets_path(root, split), np.asarray(triplets)
    if split not in SPLITS:
        raise ValueError(f"no such split: {split!r}; there are: {', '.join(SPLITS)}")
    if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows) or rows.dtype.kind not in "iu" or rows.min() < 0:
        problem = f"would hold {rows.dtype} of shape {rows.shape}"
        raise DataError(path, problem, "Give (T, 4) integers from 0 on.")
    write_text(path, "%d %d %d %d\n" * len(rows) % tuple(rows.ravel().tolist()))  # a third of a loop's time
    return path


def read_triplets(path: str | Path, attributes: Attributes, n_images: int) -> np.ndarray:
    """Read a file of the layout as (T, 4) int64 rows (anchor, positive, negative, condition).

    Raises DataError with the line for: other text than numbers, a wrong number of columns, an image beyond
    `n_images`, a condition that the attributes do not have.
    """
    table = read_columns(Path(path), 4, "Write: anchor positive negative condition.")
    table.check_images(n_images, columns=3)
    table.check_conditions(attributes, column=3)
    return table.rows


def split_triplets(split: Split) -> np.ndarray | None:
    """Read the triplets of a split, checked against it; None if the data set has no such file."""
    path = triplets_path(split.root, split.name)
    return read_triplets(path, split.attributes, len(split.filenames)) if path.exists() else None
