"""Rows of numbers: labels (image, condition, label) and regions (image, condition, x0, y0, x1, y1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.meta import read_meta
from ccakit.data.text import read_filenames, read_numbers
from ccakit.errors import DataError

NUMBERING = "Number attributes and values as the other lists do, or as DeepFashion (from 1, and over all)."
Say = str | Callable[[int], str]
Read = tuple[np.ndarray, np.ndarray, list[str]]  # rows, the line of each row, notes


def read_rows(path: Path, attributes: Attributes, n_images: int | None = None) -> np.ndarray:
    """(R, 3) int64 rows (image, condition, label) of a file with lines `image (condition label)+`.

    Raises DataError with the line for: no number, wrong number of columns, an image beyond `n_images` (not
    checked when None), a condition or label that the attributes do not have.
    """
    return labels_with_lines(path, attributes, n_images)[0]


def labels_with_lines(path: Path, attributes: Attributes, n_images: int | None = None) -> Read:
    """As `read_rows`, with the line of each row, and what was odd about the file."""
    rows, lines, notes = read_pairs(path)
    check_labels(path, rows, lines, attributes, n_images)
    return rows, lines, notes


def read_pairs(path: Path) -> Read:
    """Lines `image (a b)+` as rows (image, a, b), not checked against any attributes."""
    values, lines, notes = read_numbers(path)
    first, width = _columns(lines)
    wrong = (width < 3) | (width % 2 == 0)
    _fail(
        path,
        wrong,
        lines[first],
        lambda i: f"has {width[i]} columns",
        "Write an image, then a condition and a label, or several such pairs.",
    )
    column = np.arange(len(values)) - np.repeat(first, width)
    image, odd = np.repeat(values[first], width), np.flatnonzero(column % 2 == 1)
    return np.stack([image[odd], values[odd], values[odd + 1]], axis=1), lines[odd], notes


def _columns(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first cell of every line, and how many cells the line has, from the line of each cell."""
    first = np.flatnonzero(np.diff(lines, prepend=0))
    return first, np.diff(first, append=len(lines))


def check_labels(
    path: Path, rows: np.ndarray, lines: np.ndarray, attributes: Attributes, n_images: int | None
) -> None:
    """DataError for the first row whose image, condition or label is out of range."""
    image, condition, label = rows.T
    _check(path, image, lines, n_images, "image", "images in the list of filenames")
    _check(path, condition, lines, len(attributes), "condition", "attributes in meta.json")
    size = np.asarray(attributes.sizes)[condition]
    _fail(
        path,
        (label < 0) | (label >= size),
        lines,
        lambda i: f"label {label[i]} is out of range for {attributes.names[condition[i]]!r}",
        lambda i: f"Its labels are 0 to {size[i] - 1} (meta.json).",
    )


def _check(path: Path, index: np.ndarray, lines: np.ndarray, n: int | None, what: str, source: str) -> None:
    """DataError for the first index that is not in 0..n-1 (n None: any from 0 on)."""
    wrong = index < 0 if n is None else (index < 0) | (index >= n)
    problem = lambda i: f"{what} {index[i]:.0f} is out of range"  # noqa: E731
    _fail(path, wrong, lines, problem, f"There are {n} {source}, numbered from 0.")


def read_regions(path: Path, attributes: Attributes, n_images: int) -> Read:
    """(M, 6) float64 rows of a file of lines `image condition x0 y0 x1 y1`, in fractions of the image."""
    values, lines, notes = read_numbers(path, float)
    first, width = _columns(lines)
    remedy = "Write: image condition x0 y0 x1 y1."
    _fail(path, width != 6, lines[first], lambda i: f"has {width[i]} columns", remedy)
    rows = values.reshape(-1, 6)
    check_regions(path, rows, lines[first], attributes, n_images)
    return rows, lines[first], notes


def check_regions(
    path: Path, rows: np.ndarray, lines: np.ndarray, attributes: Attributes, n_images: int
) -> None:
    """DataError for the first row with an image or condition out of range, or a box that is none."""
    whole = (rows[:, :2] == np.floor(rows[:, :2])).all(axis=1) & np.isfinite(rows).all(axis=1)
    remedy = "Image and condition are whole numbers, the box four fractions."
    _fail(path, ~whole, lines, lambda i: f"{rows[i].tolist()} is not a region", remedy)
    _check(path, rows[:, 0], lines, n_images, "image", "images in the list of filenames")
    _check(path, rows[:, 1], lines, len(attributes), "condition", "attributes in meta.json")
    x0, y0, x1, y1 = rows[:, 2:].T
    good = (x0 >= 0) & (y0 >= 0) & (x1 <= 1) & (y1 <= 1) & (x0 < x1) & (y0 < y1)
    problem = lambda i: f"the box {rows[i, 2:].tolist()} is empty or outside the image"  # noqa: E731
    _fail(path, ~good, lines, problem, "A box has 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, as fractions.")


def read_all_values(root: Path, split: str) -> np.ndarray:
    """(R, 3) rows (image, condition, label) of `label_{split}.txt`, which lists *all* values of an image.

    DeepFashion's lists number attributes from 1 and values over all attributes at once; a value's label is
    then its rank among its attribute's values. Which numbering a file has is found by checking: every row of
    the split's query and candidate lists must be among its image's values. DataError if neither passes.
    """
    return all_values(root, split)[0]


def all_values(root: Path, split: str) -> Read:
    """As `read_all_values`, with the line of each row, and what was odd about the file."""
    root, attributes = Path(root), read_meta(root).attributes
    path = root / f"label_{split}.txt"
    lists = [root / f"{side}_{split}.txt" for side in ("candidate", "query")]
    n_images = len(read_filenames(root / f"filenames_{split}.txt").lines)
    if split == "train":
        return labels_with_lines(path, attributes, n_images)
    rows, lines, notes = read_pairs(path)
    _check(path, rows[:, 0], lines, n_images, "image", "images in the list of filenames")
    asked = [labels_with_lines(each, attributes, n_images) for each in lists]
    numberings = [r for r in (_local(rows, attributes), _ranked(rows, attributes)) if r is not None]
    if not numberings:
        raise DataError(
            path, "numbers its values neither as meta.json does nor as DeepFashion does", NUMBERING
        )
    for numbered in numberings:
        if all(_contains(numbered, want).all() for want, _, _ in asked):
            return numbered, lines, notes
    for each, (want, at, _) in zip(lists, asked):
        problem = f"has a label that is not among its image's values in {path.name}"
        _fail(each, ~_contains(numbered, want), at, problem, NUMBERING)
    raise AssertionError("some row of one list was missing")


def distinct(rows: np.ndarray) -> np.ndarray:
    """The different rows of an (R, C) array, sorted: np.unique(rows, axis=0), only faster."""
    ordered = rows[np.lexsort(rows.T[::-1])]
    return ordered[np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(ordered)]]


def _local(rows: np.ndarray, attributes: Attributes) -> np.ndarray | None:
    """The rows as they are, if they fit the attributes."""
    ok = rows[:, 1] < len(attributes)
    sizes = np.asarray(attributes.sizes)[np.where(ok, rows[:, 1], 0)]
    return rows if (ok & (rows[:, 2] < sizes)).all() else None


def _ranked(rows: np.ndarray, attributes: Attributes) -> np.ndarray | None:
    """Attributes from 1, values numbered over all: a label is a value's rank, if every value occurs."""
    out = rows - [0, 1, 0]
    for condition, size in enumerate(attributes.sizes):
        mine = out[:, 1] == condition
        values, ranks = np.unique(out[mine, 2], return_inverse=True)
        if len(values) != size:
            return None
        out[mine, 2] = ranks
    return out if ((out[:, 1] >= 0) & (out[:, 1] < len(attributes))).all() else None


def _contains(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of the wanted rows (image, condition, label) are among the rows: (W,) bool."""
    base = 1 + np.maximum(rows.max(axis=0), wanted.max(axis=0))
    key = np.array([base[1] * base[2], base[2], 1])
    return np.isin(wanted @ key, rows @ key)


def _fail(path: Path, wrong: np.ndarray, lines: np.ndarray, problem: Say, remedy: Say) -> None:
    """Raise DataError for the first wrong row, if there is one; the texts may be functions of its index."""
    if wrong.any():
        i = int(np.argmax(wrong))
        texts = [say(i) if callable(say) else say for say in (problem, remedy)]
        raise DataError(path, *texts, line=lines[i])
