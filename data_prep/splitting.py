"""Draw splits by a seed, in ASEN's proportions: images 8:1:1; in valid and test, 1:4 queries, candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.rows import distinct
from ccakit.data.split import SPLITS, WITHOUT, Split
from ccakit.data.text import count
from ccakit.errors import DataError

SEEDED = "seeded, not ASEN's, seed {}"


@dataclass
class Prepared:
    """Splits that are ready to be written; `every` holds all rows of a split that lists only some."""

    splits: list[Split]
    how: str
    every: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def deal(keys: np.ndarray, shares: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Deal n images to parts, (n,) int64, in the given shares, for each key as well as overall.

    Full rounds of sum(shares) images are dealt within a key; the rest is dealt among all keys together. Keys
    with fewer images than there are parts go to part 0, as far as its share allows.

    >>> part = deal(np.repeat([0, 1], [20, 10]), (8, 1, 1), np.random.default_rng(0))
    >>> np.bincount(part[:20]).tolist(), np.bincount(part[20:]).tolist()
    ([16, 2, 2], [8, 1, 1])
    """
    n, period = len(keys), sum(shares)
    _, key, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.lexsort((rng.random(n), key))
    rank = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rest = rank >= np.repeat(sizes - sizes % period, sizes)
    rounds = np.tile(np.repeat(np.arange(len(shares)), shares), (-(-n // period), 1))
    parts = rng.permuted(rounds, axis=1).ravel()[:n]
    full, left = np.split(parts, [n - rest.sum()])
    rare = sizes[key[order]] < len(shares)  # all of them among the rest
    zeros = rng.permutation(np.flatnonzero(left == 0))[: rare.sum()]
    part = np.empty(n, np.int64)
    part[np.concatenate([order[~rest], order[rare], order[rest & ~rare]])] = np.concatenate(
        [full, left[zeros], np.delete(left, zeros)]
    )
    return part


def rarest(rows: np.ndarray, n_images: int) -> np.ndarray:
    """Return a number (n,) int64 for the rarest (condition, label) of each image's rows (R, 3).

    -1 without a row.
    """
    pair = rows[:, 1] * (1 + rows[:, 2].max(initial=0)) + rows[:, 2]
    _, inverse, sizes = np.unique(pair, return_inverse=True, return_counts=True)
    order = np.argsort(-sizes[inverse], kind="stable")  # the rarest is written last
    keys = np.full(n_images, -1, np.int64)
    keys[rows[order, 0]] = pair[order]
    return keys


def seeded_splits(
    out: Path,
    attributes: Attributes,
    filenames: Sequence[str],
    rows: np.ndarray,
    seed: int,
    *,
    part: np.ndarray | None = None,
    how: str = "",
    groups: np.ndarray | None = None,
    per_image: bool = False,
) -> Prepared:
    """Draw splits in ASEN's proportions: images 8:1:1; in valid and test, 1:4 queries, candidates.

    filenames: n images relative to `out`. rows: (R, 3) int64 (image, condition, label). An image is dealt by
    its rarest value; one without a row is left out, and counted. part: (n,) 0, 1, 2 or -1 (left out) if the
    release says which split an image is in, and `how` it says so. groups: (n,) as of `content_groups`, dealt
    together. Train keeps all rows; valid and test one value, drawn, for each image and condition (per_image:
    for each image, as ASEN does for DeepFashion), and `every` keeps the others. DataError if a split would be
    empty.
    """
    rng, rows, n = np.random.default_rng(seed), distinct(rows), len(filenames)
    keys = rarest(rows, n)
    if part is None:
        part, how = np.full(n, -1, np.int64), SEEDED.format(seed)
        _, first, member = np.unique(
            np.arange(n) if groups is None else groups, return_index=True, return_inverse=True
        )
        head = first[member]
        heads = np.unique(head[keys >= 0])
        part[heads] = deal(keys[heads], (8, 1, 1), rng)
        part = part[head]
    part = np.where(keys >= 0, part, -1)
    prepared = Prepared([], how)
    if (part < 0).any():
        prepared.notes.append(f"{count(int((part < 0).sum()), 'image')} left out, without a label")
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero(part == number)
        if not len(chosen):
            prepared.notes.append(f"{split}: no image. {WITHOUT[split]}")
        if len(chosen):
            index = np.full(n, -1)
            index[chosen] = np.arange(len(chosen))
            mine = rows[part[rows[:, 0]] == number]
            mine[:, 0] = index[mine[:, 0]]
            _add(prepared, out, attributes, split, [filenames[i] for i in chosen], mine, rng, per_image)
    if not prepared.splits or prepared.splits[0].name != "train":
        remedy = "Give at least ten labelled images; where the splits are given, some of them as train."
        raise DataError(out, f"has too few images ({n}) for a train split", remedy)
    return prepared


def _add(
    prepared: Prepared,
    out: Path,
    attributes: Attributes,
    name: str,
    filenames: list[str],
    rows: np.ndarray,
    rng: np.random.Generator,
    per_image: bool,
) -> None:
    """Append one split; its queries and candidates are drawn."""
    if name == "train":
        prepared.splits.append(Split(name, out, attributes, filenames, rows))
        return
    shuffled = rng.permutation(rows)
    unit = shuffled[:, 0] if per_image else shuffled[:, 0] * len(attributes) + shuffled[:, 1]
    listed = distinct(shuffled[np.unique(unit, return_index=True)[1]])
    asks = deal(rarest(listed, len(filenames)), (4, 1), rng)[listed[:, 0]] == 1
    queries, candidates = listed[asks], listed[~asks]
    if not len(queries) or not len(candidates):
        remedy = "Give more images, or fewer splits."
        raise DataError(out, f"has too few images for the split {name!r} ({len(filenames)})", remedy)
    prepared.splits.append(Split.from_tables(name, out, attributes, filenames, [candidates, queries]))
    if len(listed) < len(rows):
        prepared.every[name] = rows
