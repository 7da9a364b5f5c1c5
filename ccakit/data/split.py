"""A split of a data set, and a data set: what `read_dataset` returns."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.rows import distinct
from ccakit.errors import DataError

SPLITS = ("train", "valid", "test")
WITHOUT = {  # what to do without a split, whatever command asks for it
    "train": "Training needs it: write its lists, or give the folder that holds them.",
    "valid": "Training chooses its best epoch by it: move some images of train there.",
    "test": "Write its lists, or measure on valid: evaluate, embed and random have --split.",
}


@dataclass(eq=False)
class Split:
    """The images of a split and their labels.

    filenames: n paths relative to `root`. labels: (R, 3) int64 rows (image, condition, label); for valid and
    test the candidates' rows, then the queries'. queries (Q, 3) and candidates (C, 3): valid and test only.
    regions: (M, 6) float64 rows (image, condition, x0, y0, x1, y1), fractions of width and height; an image
    and condition may have several boxes, and their union is the region.
    """

    name: str
    root: Path
    attributes: Attributes
    filenames: list[str]
    labels: np.ndarray
    queries: np.ndarray | None = None
    candidates: np.ndarray | None = None
    regions: np.ndarray | None = None

    @classmethod
    def from_tables(
        cls,
        name: str,
        root: Path,
        attributes: Attributes,
        filenames: list[str],
        tables: Sequence[np.ndarray],
        regions: np.ndarray | None = None,
    ) -> Split:
        """Make a split of its label tables: train has one, valid and test have candidates and queries."""
        sides = {} if name == "train" else dict(zip(("candidates", "queries"), tables))
        return cls(name, root, attributes, filenames, np.concatenate(tables), regions=regions, **sides)

    def tables(self) -> list[np.ndarray]:
        """Return the label tables, as `from_tables` takes them; ValueError if one is missing."""
        if self.name == "train":
            return [self.labels]
        if self.candidates is None or self.queries is None:
            raise ValueError(f"split {self.name!r} needs queries and candidates")
        return [self.candidates, self.queries]

    def path_numbers(self) -> np.ndarray:
        """Return for each image, (n,), the first number of its path: a path that is listed twice is one
        image."""
        paths = [posixpath.normpath(name) for name in self.filenames]
        first = {path: image for image, path in reversed(list(enumerate(paths)))}
        return np.array([first[path] for path in paths], np.int64)

    def merged(self) -> Split:
        """Give each row's image by the first number of its path, see `path_numbers`."""
        numbers, merged = self.path_numbers(), {}
        for name in ("labels", "queries", "candidates", "regions"):
            if (rows := getattr(self, name)) is not None:
                merged[name] = rows.copy()
                merged[name][:, 0] = numbers[rows[:, 0].astype(np.int64)]
        return replace(self, **merged)

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Return queries and candidates, (Q, 3) and (C, 3), with a path's first number for each image.

        A path that is listed twice is one image, so that a query's own image is known by its number.
        """
        candidates, queries = self.merged().tables()
        return queries, candidates

    def path(self, image: int) -> Path:
        """Return the path of an image."""
        return Path(self.root) / self.filenames[image]

    def label_matrix(self) -> np.ndarray:
        """Return the (n, K) int64 matrix of the images' labels, see the function of this name."""
        return label_matrix(self.labels, len(self.filenames), len(self.attributes))

    def without(self, images: Iterable[int]) -> Split:
        """Leave out the labels, queries, candidates and regions of some images; the list of files stays."""
        rows = {name: getattr(self, name) for name in ("labels", "queries", "candidates", "regions")}
        left_out = list(images)
        kept = {name: each[~np.isin(each[:, 0], left_out)] for name, each in rows.items() if each is not None}
        return replace(self, **kept)

    @property
    def multi_valued(self) -> int:
        """The number of (image, condition) with several values, which `label_matrix` cannot hold."""
        pairs = distinct(self.labels)[:, :2]  # sorted, so that those of several values are neighbours
        return len(distinct(pairs[1:][(pairs[1:] == pairs[:-1]).all(axis=1)]))


def label_matrix(rows: np.ndarray, images: int, conditions: int) -> np.ndarray:
    """Turn rows (image, condition, label) into an (images, conditions) int64 matrix, -1 for no label.

    An image may have several values under one condition; the matrix holds that of the first row.
    """
    matrix = np.full((images, conditions), -1, np.int64)
    image, condition, label = rows.T
    _, first = np.unique(image * conditions + condition, return_index=True)
    matrix[image[first], condition[first]] = label[first]
    return matrix


@dataclass
class Dataset:
    """The splits that are present, and the findings of reading them, in words for people."""

    root: Path
    name: str
    attributes: Attributes
    splits: dict[str, Split]
    findings: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, split: str) -> Split:
        """Return a split; DataError names the file that it lacks."""
        if split in self.splits:
            return self.splits[split]
        if split not in SPLITS:
            raise DataError(self.root, f"has no split {split!r}", f"The splits are {', '.join(SPLITS)}.")
        missing = [path for path in split_files(self.root, split) if not path.is_file()]
        if missing:
            problem = (
                f"is missing, which the split {split!r} needs; there are: {', '.join(self.splits) or 'none'}"
            )
            raise DataError(missing[0], problem, WITHOUT[split])
        raise DataError(self.root, f"was read without the split {split!r}", "Ask read_dataset for it.")


def split_files(root: Path, split: str) -> list[Path]:
    """Name the files that a split needs: the list of images, then its label tables."""
    kinds = ("filenames", "label") if split == "train" else ("filenames", "candidate", "query")
    return [Path(root) / f"{kind}_{split}.txt" for kind in kinds]
