"""ASEN's on-disk layout, read, checked and written: lists of images, labels, queries, candidates, regions.

    meta.json                      the attributes and their values (here or in the parent folder)
    filenames_{split}.txt          an image a line, relative to the folder; its line less 1 is its index
    label_train.txt                image (condition label)+
    query_{split}.txt              image condition label, for valid and test
    candidate_{split}.txt          the same: what the queries are ranked against (a gallery, elsewhere)
    regions_{split}.txt            optional: image condition x0 y0 x1 y1, fractions of width and height
    triplets_{split}.txt           optional: anchor positive negative condition (see `ccakit.data.triplet_lists`)

How lines end and what counts as padding is told in `ccakit.data.text`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.findings import queried_with_several, split_findings
from ccakit.data.meta import Meta, meta_lines, read_meta
from ccakit.data.rows import (
    all_values,
    check_labels,
    check_regions,
    labels_with_lines,
    read_all_values,
    read_regions,
    read_rows,
)
from ccakit.data.split import SPLITS, Dataset, Split, _files
from ccakit.data.text import check_filenames, read_filenames
from ccakit.disk import write_lines
from ccakit.errors import DataError

__all__ = [
    "SPLITS",
    "DataError",
    "Dataset",
    "Split",
    "read_all_values",
    "read_dataset",
    "read_rows",
    "rows_of",
    "write_dataset",
]


def read_dataset(root: str | Path, splits: Sequence[str] = SPLITS, check_images: bool = False) -> Dataset:
    """Read and check a data set; a split whose files are not all there is left out, and a finding says so.

    check_images: also open every image (slow), and refuse links that lead out of the folder.
    Raises DataError, naming file, line and remedy, for the first thing that cannot be used.
    """
    root = Path(root)
    if unknown := set(splits) - set(SPLITS):
        raise ValueError(f"no such split: {', '.join(sorted(unknown))}; there are: {', '.join(SPLITS)}")
    meta = read_meta(root)
    dataset = Dataset(root, meta.name, meta.attributes, {}, [], meta.about)
    if not any(path.exists() for name in splits for path in _files(root, name)):
        remedy = "Give the folder that holds the lists filenames_*.txt."
        raise DataError(root, f"has no list of the splits {', '.join(splits)}", remedy)
    for name in splits:
        if any(not path.exists() for path in _files(root, name)):
            dataset.findings += _absent(root, name, meta.attributes)
            continue
        split, notes = _read_split(root, name, meta.attributes)
        dataset.splits[name] = split
        dataset.findings += notes + split_findings(split)
        if name != "train" and (root / f"label_{name}.txt").exists():
            rows, _, notes = all_values(root, name)
            dataset.findings += notes + queried_with_several(split, rows)
        if check_images:
            _open_images(split)
    return dataset


def write_dataset(
    root: str | Path,
    name: str,
    attributes: Attributes,
    splits: Sequence[Split],
    about: dict[str, Any] | None = None,
) -> None:
    """Write the lists and meta.json into `root` (made if need be), each whole or not at all; no images.

    Everything is checked before the first file is written, as on reading; DataError names file and line.
    Paths are taken as relative to `root`, whatever a split's own root. A split without regions, or with none,
    gets no regions file.
    """
    root = Path(root)
    for split in splits:
        _check_split(root, split, attributes)
    meta = meta_lines(Meta(name, attributes, about or {}))
    root.mkdir(parents=True, exist_ok=True)
    for split in splits:
        _write_split(root, split)
    write_lines(root / "meta.json", meta)


def rows_of(matrix: np.ndarray) -> np.ndarray:
    """(R, 3) rows (image, condition, label) of an (n, K) label matrix, without the entries below 0.

    >>> rows_of(np.array([[2, -1], [0, 1]])).tolist()
    [[0, 0, 2], [1, 0, 0], [1, 1, 1]]
    """
    image, condition = np.nonzero(matrix >= 0)
    return np.stack([image, condition, matrix[image, condition]], axis=1).astype(np.int64)


def _absent(root: Path, split: str, attributes: Attributes) -> list[str]:
    """Why a split is left out; what is there of its labels is still read, checked and counted."""
    lacks = [path.name for path in _files(root, split) if not path.exists()]
    here, notes = [], []
    for path in (path for path in _files(root, split) if path.exists()):
        labels = not path.name.startswith("filenames")
        rows, _, found = labels_with_lines(path, attributes) if labels else ([], [], [])
        here.append(f"{path.name} ({len(rows)} rows)" if labels else path.name)
        notes += found
    alone = f" ({', '.join(here)} found alone)" if here else ""
    return [f"{split}: left out, for lack of {' and '.join(lacks)}{alone}", *notes]


def _read_split(root: Path, name: str, attributes: Attributes) -> tuple[Split, list[str]]:
    filenames, *lists = _files(root, name)
    names = read_filenames(filenames)
    tables = [labels_with_lines(path, attributes, len(names.lines)) for path in lists]
    notes = names.notes + [note for _, _, found in tables for note in found]
    rows = [table[0] for table in tables]
    sides = {} if name == "train" else {"candidates": rows[0], "queries": rows[1]}
    split = Split(name, root, attributes, names.lines, np.concatenate(rows), **sides)
    regions = root / f"regions_{name}.txt"
    if regions.exists():
        split.regions, _, found = read_regions(regions, attributes, len(names.lines))
        notes += found
    return split, notes


def _check_split(root: Path, split: Split, attributes: Attributes) -> None:
    """All that reading would refuse, and rows that would not come back as they are."""
    if split.name not in SPLITS or split.attributes != attributes:
        raise ValueError(
            f"split {split.name!r} is none of {SPLITS}, or has other attributes than the data set"
        )
    filenames, *lists = _files(root, split.name)
    check_filenames(filenames, split.filenames)
    if not split.filenames or any(name != name.strip() for name in split.filenames):
        raise DataError(filenames, "has no image, or one with a space before or after its name", "Rename it.")
    try:
        "".join(split.filenames).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            filenames, f"cannot hold a name in UTF-8 ({error.reason})", "Rename the image."
        ) from None
    for path, rows in zip(lists, _sides(split)):
        if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows) or rows.dtype.kind not in "iu":
            remedy = "Give (R, 3) integers, R >= 1."
            raise DataError(path, f"would hold {rows.dtype} of shape {rows.shape}", remedy)
        check_labels(path, rows, np.arange(1, len(rows) + 1), attributes, len(split.filenames))
    if not np.array_equal(split.labels, np.concatenate(_sides(split))):
        remedy = "Concatenate the two."
        raise DataError(lists[0], "labels are not the candidates' rows, then the queries'", remedy)
    if split.regions is not None and len(split.regions):
        path, lines = root / f"regions_{split.name}.txt", np.arange(1, len(split.regions) + 1)
        check_regions(path, split.regions, lines, attributes, len(split.filenames))


def _sides(split: Split) -> list[np.ndarray]:
    """The tables of a split, in the order of its files."""
    if split.name == "train":
        return [split.labels]
    if split.candidates is None or split.queries is None:
        raise ValueError(f"split {split.name!r} needs queries and candidates")
    return [split.candidates, split.queries]


def _write_split(root: Path, split: Split) -> None:
    filenames, *lists = _files(root, split.name)
    write_lines(filenames, split.filenames)
    for path, rows in zip(lists, _sides(split)):
        write_lines(path, _label_lines(rows, merge=split.name == "train"))
    regions = root / f"regions_{split.name}.txt"
    if split.regions is None or not len(split.regions):
        regions.unlink(missing_ok=True)
    else:
        rows = split.regions.tolist()
        write_lines(regions, [f"{i:.0f} {c:.0f} {' '.join(map(repr, box))}" for i, c, *box in rows])


def _label_lines(rows: np.ndarray, merge: bool) -> list[str]:
    """A line a row, or (merge) one line for each run of rows of the same image."""
    if not merge:
        return [f"{i} {c} {v}" for i, c, v in rows.tolist()]
    runs = groupby(rows.tolist(), key=lambda row: row[0])
    return [" ".join([str(image), *(f"{c} {v}" for _, c, v in run)]) for image, run in runs]


def _open_images(split: Split) -> None:
    """DataError, with its line in the list, for the first image that is missing, broken, or elsewhere."""
    from ccakit.data.images import read_image  # imports OpenCV and torch: only when images are opened

    root, path = Path(os.path.realpath(split.root)), _files(split.root, split.name)[0]
    for line, name in enumerate(split.filenames, 1):
        if not Path(os.path.realpath(root / name)).is_relative_to(root):
            remedy = "Copy the image into the folder."
            raise DataError(path, f"{name!r} is a link to outside the folder", remedy, line)
        try:
            read_image(split.path(line - 1))
        except DataError as error:
            problem = f"the image {name!r} {error.problem}"
            raise DataError(path, problem, error.remedy, line) from None
