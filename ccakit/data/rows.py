"""Rows of numbers: labels (image, condition, label) and regions (image, condition, x0, y0, x1, y1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.meta import read_meta
from ccakit.data.text import read_filenames, read_numbers
from ccakit.errors import DataError

NUMBERING = "Number attributes and values as the other lists do, or as DeepFashion (from 1, and over all)."
Words = str | Callable[[int], str]  # a text, or a function from the index of a row to a text


@dataclass(frozen=True)
class Table:
    """Rows of numbers in a file, (R, C); the line of each row, (R,); notes on what was odd, for people."""

    path: Path
    rows: np.ndarray
    lines: np.ndarray
    notes: list[str] = field(default_factory=list)

    @classmethod
    def to_write(cls, path: Path, rows: np.ndarray) -> Table:
        """Make the table of rows that will be written, one a line."""
        return cls(path, rows, np.arange(1, len(rows) + 1))

    def refuse(self, wrong: np.ndarray, problem: Words, remedy: Words) -> None:
        """Raise DataError for the first row that is wrong, (R,) bool, if there is one."""
        if wrong.any():
            row = int(np.argmax(wrong))
            texts = [words(row) if callable(words) else words for words in (problem, remedy)]
            raise DataError(self.path, *texts, line=self.lines[row])

    def check_images(self, n_images: int, columns: int = 1) -> None:
        """Raise DataError for an image number in the first columns that is not in 0..n_images-1."""
        for column in range(columns):
            self._check_index(column, "image", n_images, "images in the list of filenames")

    def check_conditions(self, attributes: Attributes, column: int = 1) -> None:
        """Raise DataError for a condition that the attributes do not have."""
        self._check_index(column, "condition", len(attributes), "attributes in meta.json")

    def _check_index(self, column: int, name: str, n: int, source: str) -> None:
        index = self.rows[:, column]
        remedy = f"There are {n} {source}, numbered from 0."
        self.refuse((index < 0) | (index >= n), lambda i: f"{name} {index[i]:.0f} is out of range", remedy)


def read_labels(path: Path, attributes: Attributes, n_images: int | None = None) -> Table:
    """Read a file of lines `image (condition label)+` as (R, 3) int64 rows (image, condition, label).

    Raises DataError with the line for: other text than numbers, a wrong number of columns, an image beyond
    `n_images` (not checked if None), a condition or label that the attributes do not have.
    """
    table = _read_pairs(path)
    check_labels(table, attributes, n_images)
    return table


def _read_pairs(path: Path) -> Table:
    """Read lines `image (a b)+` as rows (image, a, b), which are not checked against any attributes."""
    values, lines, notes = read_numbers(path)
    first, width = _find_lines(lines)
    remedy = "Write an image, then a condition and a label, or several such pairs."
    wrong = (width < 3) | (width % 2 == 0)
    Table(path, width, lines[first]).refuse(wrong, lambda i: f"has {width[i]} columns", remedy)
    column = np.arange(len(values)) - np.repeat(first, width)
    image, a = np.repeat(values[first], width), np.flatnonzero(column % 2 == 1)
    return Table(path, np.stack([image[a], values[a], values[a + 1]], axis=1), lines[a], notes)


def read_columns(path: Path, columns: int, remedy: str, kind: type = int) -> Table:
    """Read a file of lines of so many numbers; DataError with the line for a line of more or fewer."""
    values, lines, notes = read_numbers(path, kind)
    first, width = _find_lines(lines)
    problem = lambda i: f"has {width[i]} columns, not {columns}"  # noqa: E731
    Table(path, width, lines[first]).refuse(width != columns, problem, remedy)
    return Table(path, values.reshape(-1, columns), lines[first], notes)


def _find_lines(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the first cell of every line, and its number of cells, from the line of each cell."""
    first = np.flatnonzero(np.diff(lines, prepend=0))
    return first, np.diff(first, append=len(lines))


def check_labels(table: Table, attributes: Attributes, n_images: int | None) -> None:
    """Raise DataError for the first row whose image, condition or label is out of range."""
    if n_images is not None:
        table.check_images(n_images)
    table.check_conditions(attributes)
    _, condition, label = table.rows.T
    size = np.asarray(attributes.sizes)[condition]
    table.refuse(
        (label < 0) | (label >= size),
        lambda i: f"label {label[i]} is out of range for {attributes.names[condition[i]]!r}",
        lambda i: f"Its labels are 0 to {size[i] - 1} (meta.json).",
    )


def read_regions(path: Path, attributes: Attributes, n_images: int) -> Table:
    """Read (M, 6) float64 rows of lines `image condition x0 y0 x1 y1`, in fractions of the image."""
    table = read_columns(path, 6, "Write: image condition x0 y0 x1 y1.", float)
    check_regions(table, attributes, n_images)
    return table


def check_regions(table: Table, attributes: Attributes, n_images: int) -> None:
    """Raise DataError for the first row with an image or condition out of range, or a box that is empty."""
    rows = table.rows
    whole = (rows[:, :2] == np.floor(rows[:, :2])).all(axis=1) & np.isfinite(rows).all(axis=1)
    remedy = "Image and condition are whole numbers, the box four fractions."
    table.refuse(~whole, lambda i: f"{rows[i].tolist()} is not a region", remedy)
    table.check_images(n_images)
    table.check_conditions(attributes)
    x0, y0, x1, y1 = rows[:, 2:].T
    good = (x0 >= 0) & (y0 >= 0) & (x1 <= 1) & (y1 <= 1) & (x0 < x1) & (y0 < y1)
    remedy = "A box has 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, as fractions."
    table.refuse(~good, lambda i: f"the box {rows[i, 2:].tolist()} is empty or outside the image", remedy)


def read_all_values(root: Path, split: str) -> np.ndarray:
    """Read `label_{split}.txt`, which lists *all* values of an image, as (R, 3) rows (image, condition,
    label).

    DeepFashion's lists number attributes from 1, and values over all attributes together; the label of a
    value is then its rank among the values of its attribute. The numbering of a file is found by a check:
    every row of the split's query and candidate lists must be among the values of its image. DataError if
    neither numbering passes.
    """
    return all_values_table(root, split).rows


def all_values_table(root: Path, split: str) -> Table:
    """Read all values as `read_all_values` does, with the line of each row and notes."""
    root, attributes = Path(root), read_meta(root).attributes
    path = root / f"label_{split}.txt"
    n_images = len(read_filenames(root / f"filenames_{split}.txt").lines)
    if split == "train":
        return read_labels(path, attributes, n_images)
    table = _read_pairs(path)
    table.check_images(n_images)
    listed = [
        read_labels(root / f"{side}_{split}.txt", attributes, n_images) for side in ("candidate", "query")
    ]
    numberings = [_as_they_are(table.rows, attributes), _by_rank(table.rows, attributes)]
    numberings = [rows for rows in numberings if rows is not None]
    if not numberings:
        problem = "numbers its values neither as meta.json does nor as DeepFashion does"
        raise DataError(path, problem, NUMBERING)
    for rows in numberings:
        if all(_contains(rows, side.rows).all() for side in listed):
            return Table(path, rows, table.lines, table.notes)
    for side in listed:
        problem = f"has a label that is not among its image's values in {path.name}"
        side.refuse(~_contains(numberings[-1], side.rows), problem, NUMBERING)
    raise AssertionError("a row of one list is missing")


def distinct(rows: np.ndarray) -> np.ndarray:
    """Return the different rows of an (R, C) array, sorted: np.unique(rows, axis=0), but faster."""
    ordered = rows[np.lexsort(rows.T[::-1])]
    return ordered[np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(ordered)]]


def _as_they_are(rows: np.ndarray, attributes: Attributes) -> np.ndarray | None:
    """Return the rows if they fit the attributes."""
    fits = rows[:, 1] < len(attributes)
    sizes = np.asarray(attributes.sizes)[np.where(fits, rows[:, 1], 0)]
    return rows if (fits & (rows[:, 2] < sizes)).all() else None


def _by_rank(rows: np.ndarray, attributes: Attributes) -> np.ndarray | None:
    """Number attributes from 0 and each value by its rank in its attribute, if every value occurs."""
    ranked = rows - [0, 1, 0]
    for condition, size in enumerate(attributes.sizes):
        mine = ranked[:, 1] == condition
        values, ranks = np.unique(ranked[mine, 2], return_inverse=True)
        if len(values) != size:
            return None
        ranked[mine, 2] = ranks
    return ranked if ((ranked[:, 1] >= 0) & (ranked[:, 1] < len(attributes))).all() else None


def _contains(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Say which of the wanted rows (image, condition, label) are among the rows: (W,) bool."""
    base = 1 + np.maximum(rows.max(axis=0), wanted.max(axis=0))
    key = np.array([base[1] * base[2], base[2], 1])
    return np.isin(wanted @ key, rows @ key)
