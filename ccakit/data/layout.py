"""ASEN's layout on disk, read, checked and written: lists of images, labels, queries, candidates, regions.

    meta.json                      the attributes and their values (here or in the parent folder)
    filenames_{split}.txt          an image a line, relative to the folder; its line less 1 is its index
    label_train.txt                image (condition label)+
    query_{split}.txt              image condition label, for valid and test
    candidate_{split}.txt          the same: what the queries are ranked against (a gallery, elsewhere)
    regions_{split}.txt            optional: image condition x0 y0 x1 y1, fractions of width and height
    triplets_{split}.txt           optional: anchor positive negative condition (see `data.triplet_lists`)

`ccakit.data.text` says how lines end and what counts as padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.findings import queried_with_several, split_findings
from ccakit.data.meta import Meta, meta_json, read_meta
from ccakit.data.rows import Table, all_values_table, check_labels, check_regions, read_labels, read_regions
from ccakit.data.split import SPLITS, WITHOUT, Dataset, Split, split_files
from ccakit.data.text import check_filenames, read_filenames
from ccakit.disk import leads_out, linked_folders, write_lines, write_text
from ccakit.errors import DataError


def read_dataset(root: str | Path, splits: Sequence[str] = SPLITS, check_images: bool = False) -> Dataset:
    """Read and check a data set; a split that lacks a file is left out, and a finding says so.

    A folder that images begin with, as images/, may be a link; a finding says to where. check_images: also
    open every image (slow), and refuse links below it that lead out (see `disk.leads_out`). Raises DataError,
    naming file, line and remedy, for the first thing that cannot be used.
    """
    root = Path(root)
    if unknown := set(splits) - set(SPLITS):
        raise ValueError(f"no such split: {', '.join(sorted(unknown))}; there are: {', '.join(SPLITS)}")
    meta = read_meta(root)
    dataset = Dataset(root, meta.name, meta.attributes, {}, [], meta.about)
    if not any(path.exists() for name in splits for path in split_files(root, name)):
        others = [name for name in SPLITS if all(path.exists() for path in split_files(root, name))]
        remedy = WITHOUT[splits[0]] if others else "Give the folder that holds the lists filenames_*.txt."
        there = f"; there are: {', '.join(others)}" if others else ""
        raise DataError(root, f"has no list of the splits {', '.join(splits)}{there}", remedy)
    for name in splits:
        if not all(path.exists() for path in split_files(root, name)):
            dataset.findings += _describe_incomplete(root, name, meta.attributes)
            continue
        split, notes = _read_split(root, name, meta.attributes)
        dataset.splits[name] = split
        dataset.findings += notes + split_findings(split)
        if name != "train" and (root / f"label_{name}.txt").exists():
            table = all_values_table(root, name)
            dataset.findings += table.notes + queried_with_several(split, table.rows)
        if check_images:
            _open_images(split)
    paths = [name for split in dataset.splits.values() for name in split.filenames]
    dataset.findings += linked_folders(root, paths)
    return dataset


def write_dataset(
    root: str | Path,
    name: str,
    attributes: Attributes,
    splits: Sequence[Split],
    about: dict[str, Any] | None = None,
) -> None:
    """Write the lists and meta.json into `root`, each file completely or not at all; no images.

    `root` is made if it does not exist. Everything is checked before the first file is written, as on
    reading; DataError names file and line. Paths are taken as relative to `root`, whatever a split's own
    root. A split without regions gets no regions file.
    """
    root = Path(root)
    for split in splits:
        _check_split(root, split, attributes)
    meta = meta_json(Meta(name, attributes, about or {}))
    root.mkdir(parents=True, exist_ok=True)
    for split in splits:
        _write_split(root, split)
    write_text(root / "meta.json", meta)


def rows_of(matrix: np.ndarray) -> np.ndarray:
    """Turn an (n, K) label matrix into (R, 3) rows (image, condition, label), without the entries below 0.

    >>> rows_of(np.array([[2, -1], [0, 1]])).tolist()
    [[0, 0, 2], [1, 0, 0], [1, 1, 1]]
    """
    image, condition = np.nonzero(matrix >= 0)
    return np.stack([image, condition, matrix[image, condition]], axis=1).astype(np.int64)


def _describe_incomplete(root: Path, split: str, attributes: Attributes) -> list[str]:
    """Say why a split is left out; the labels that are there are still read, checked and counted."""
    files = split_files(root, split)
    missing = " and ".join(path.name for path in files if not path.exists())
    present, notes = [], []
    for path in files:
        if not path.exists():
            continue
        if path.name.startswith("filenames"):
            present.append(path.name)
        else:
            table = read_labels(path, attributes)
            present.append(f"{path.name} ({len(table.rows)} rows)")
            notes += table.notes
    alone = f" ({', '.join(present)} found alone)" if present else ""
    return [f"{split}: left out, for lack of {missing}{alone}", *notes]


def _read_split(root: Path, name: str, attributes: Attributes) -> tuple[Split, list[str]]:
    filenames, *lists = split_files(root, name)
    names = read_filenames(filenames)
    tables = [read_labels(path, attributes, len(names.lines)) for path in lists]
    split = Split.from_tables(name, root, attributes, names.lines, [table.rows for table in tables])
    regions = root / f"regions_{name}.txt"
    if regions.exists():
        tables.append(read_regions(regions, attributes, len(names.lines)))
        split.regions = tables[-1].rows
    return split, names.notes + [note for table in tables for note in table.notes]


def _check_split(root: Path, split: Split, attributes: Attributes) -> None:
    """Refuse all that reading would refuse, and rows that would not come back as they are."""
    if split.name not in SPLITS or split.attributes != attributes:
        problem = f"split {split.name!r} is not one of {SPLITS}, or has other attributes than the data set"
        raise ValueError(problem)
    filenames, *lists = split_files(root, split.name)
    check_filenames(filenames, split.filenames)
    if not split.filenames or any(name != name.strip() for name in split.filenames):
        raise DataError(filenames, "has no image, or one with a space before or after its name", "Rename it.")
    for path, rows in zip(lists, split.tables()):
        if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows) or rows.dtype.kind not in "iu":
            remedy = "Give (R, 3) integers, R >= 1."
            raise DataError(path, f"would hold {rows.dtype} of shape {rows.shape}", remedy)
        check_labels(Table.to_write(path, rows), attributes, len(split.filenames))
    if not np.array_equal(split.labels, np.concatenate(split.tables())):
        remedy = "Concatenate the two."
        raise DataError(lists[0], "labels are not the candidates' rows, then the queries'", remedy)
    if split.regions is not None and len(split.regions):
        table = Table.to_write(root / f"regions_{split.name}.txt", split.regions)
        check_regions(table, attributes, len(split.filenames))


def _write_split(root: Path, split: Split) -> None:
    filenames, *lists = split_files(root, split.name)
    write_lines(filenames, split.filenames)
    for path, rows in zip(lists, split.tables()):
        write_lines(path, _label_lines(rows, merge=split.name == "train"))
    regions = root / f"regions_{split.name}.txt"
    if split.regions is None or not len(split.regions):
        regions.unlink(missing_ok=True)
    else:
        rows = split.regions.tolist()
        write_lines(regions, [f"{i:.0f} {c:.0f} {' '.join(map(repr, box))}" for i, c, *box in rows])


def _label_lines(rows: np.ndarray, merge: bool) -> list[str]:
    """Write a line for each row, or (merge) one line for each run of rows of the same image."""
    if not merge:
        return [f"{i} {c} {v}" for i, c, v in rows.tolist()]
    runs = groupby(rows.tolist(), key=lambda row: row[0])
    return [" ".join([str(image), *(f"{c} {v}" for _, c, v in run)]) for image, run in runs]


def _open_images(split: Split) -> None:
    """Raise DataError, with the list's line, for the first image that is missing, broken, or elsewhere."""
    from ccakit.data.images import read_image  # imports OpenCV: only when images are opened

    path = split_files(split.root, split.name)[0]
    for line, name in enumerate(split.filenames, 1):
        if leads_out(split.root, name):
            remedy = "Copy the image into the folder."
            raise DataError(path, f"{name!r} is a link to outside the folder", remedy, line)
        try:
            read_image(split.path(line - 1))
        except DataError as error:
            problem = f"the image {name!r} {error.problem}"
            raise DataError(path, problem, error.remedy, line) from None
