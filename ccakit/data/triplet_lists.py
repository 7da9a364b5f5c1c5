"""Lists of triplets: the layout's own, and CSN's, whose order is another.

    triplets_{split}.txt           optional: anchor positive negative condition, images by index, as everywhere
    CSN's {name}_tripletlist_*.txt anchor far close, that is anchor negative positive; a file a condition

CSN's order (Veit et al., CVPR 2017; ASEN's lists have it too) is turned into ours in `read_csn_triplets`, and
nowhere else. How lines end and what counts as padding is told in `ccakit.data.text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.split import SPLITS, Split
from ccakit.data.text import read_filenames, read_numbers
from ccakit.disk import write_lines
from ccakit.errors import DataError

FORM = "Write: anchor positive negative condition."
CSN_FORM = "Write: anchor far close."
CSN_SPLITS = {"train": "train", "valid": "val", "test": "test"}


def triplets_path(root: str | Path, split: str) -> Path:
    """Where the layout keeps the triplets of a split."""
    return Path(root) / f"triplets_{split}.txt"


def write_triplets(root: str | Path, split: str, triplets: np.ndarray) -> Path:
    """Write (T, 4) rows (anchor, positive, negative, condition) as `triplets_{split}.txt`; returns its path.

    The file is written whole or not at all. DataError if there is no row, or a number below 0.
    """
    path, rows = triplets_path(root, split), np.asarray(triplets)
    if split not in SPLITS:
        raise ValueError(f"no such split: {split!r}; there are: {', '.join(SPLITS)}")
    if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows) or rows.dtype.kind not in "iu" or rows.min() < 0:
        raise DataError(
            path, f"would hold {rows.dtype} of shape {rows.shape}", "Give (T, 4) integers from 0 on."
        )
    write_lines(path, [f"{a} {p} {n} {c}" for a, p, n, c in rows.tolist()])
    return path


def read_triplets(path: str | Path, attributes: Attributes, n_images: int) -> np.ndarray:
    """(T, 4) int64 rows (anchor, positive, negative, condition) of a file of the layout.

    Raises DataError with the line for: no number, wrong number of columns, an image beyond `n_images`, a
    condition that the attributes do not have.
    """
    rows, lines = _rows(Path(path), 4, FORM)
    _check_images(Path(path), rows[:, :3], lines, n_images)
    _check(Path(path), rows[:, 3], lines, len(attributes), "condition", "attributes in meta.json")
    return rows


def split_triplets(split: Split) -> np.ndarray | None:
    """The triplets of a split that was read, checked against it; None where the data set has none."""
    path = triplets_path(split.root, split.name)
    return read_triplets(path, split.attributes, len(split.filenames)) if path.exists() else None


def read_csn_triplets(path: str | Path, n_images: int) -> np.ndarray:
    """(T, 3) int64 rows (anchor, positive, negative) of a list of CSN, whose lines are `anchor far close`.

    Far is the negative, close the positive: here the order is changed, once. `n_images`: the lines of CSN's
    filenames.json. DataError as for `read_triplets`.
    """
    rows, lines = _rows(Path(path), 3, CSN_FORM)
    _check_images(Path(path), rows, lines, n_images)
    anchor, far, close = rows.T
    return np.stack([anchor, close, far], axis=1)


def read_csn_lists(folder: str | Path, conditions: Sequence[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The lines of CSN's filenames.json (plain text), and {split: (T, 4) anchor, positive, negative, condition}.

    The lists `{condition}_tripletlist_{train,val,test}.txt` lie in `folder` or in its folder tripletlists,
    filenames.json beside them or one above. Images are numbered by its lines. DataError if one is missing or bad.
    """
    folder = Path(folder)
    lists = folder / "tripletlists" if (folder / "tripletlists").is_dir() else folder
    above = lists.resolve().parent / "filenames.json"
    names = (
        above if above.is_file() and not (lists / "filenames.json").is_file() else lists / "filenames.json"
    )
    images, triplets = read_filenames(names).lines, {}
    for split, theirs in CSN_SPLITS.items():
        files = [lists / f"{condition}_tripletlist_{theirs}.txt" for condition in conditions]
        triplets[split] = with_condition([read_csn_triplets(file, len(images)) for file in files])
    return images, triplets


def with_condition(lists: Sequence[np.ndarray]) -> np.ndarray:
    """(T, 4) triplets of all conditions, from one (T_c, 3) array a condition, in order.

    >>> with_condition([np.array([[0, 1, 2]]), np.array([[5, 4, 3]])]).tolist()
    [[0, 1, 2, 0], [5, 4, 3, 1]]
    """
    return np.concatenate([np.column_stack([rows, np.full(len(rows), c)]) for c, rows in enumerate(lists)])


def repeating(triplets: np.ndarray) -> int:
    """How many triplets name an image twice: nothing can be learned or measured from those.

    >>> repeating(np.array([[0, 1, 2, 0], [3, 3, 4, 0], [5, 6, 6, 1]]))
    2
    """
    anchor, positive, negative = np.asarray(triplets).T[:3]
    return int(((anchor == positive) | (anchor == negative) | (positive == negative)).sum())


def _rows(path: Path, columns: int, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """(T, columns) numbers of a file, and the line of each row."""
    values, lines, _ = read_numbers(path)
    first = np.flatnonzero(np.diff(lines, prepend=0))
    width = np.diff(first, append=len(lines))
    if (wrong := width != columns).any():
        at = int(wrong.argmax())
        raise DataError(path, f"has {width[at]} columns, not {columns}", remedy, lines[first[at]])
    return values.reshape(-1, columns), lines[first]


def _check_images(path: Path, images: np.ndarray, lines: np.ndarray, n_images: int) -> None:
    for column in images.T:
        _check(path, column, lines, n_images, "image", "images in the list of filenames")


def _check(path: Path, index: np.ndarray, lines: np.ndarray, n: int, what: str, source: str) -> None:
    """DataError for the first index that is n or more (no number that was read is below 0)."""
    if (wrong := index >= n).any():
        at = int(wrong.argmax())
        remedy = f"There are {n} {source}, numbered from 0."
        raise DataError(path, f"{what} {index[at]} is out of range", remedy, lines[at])
