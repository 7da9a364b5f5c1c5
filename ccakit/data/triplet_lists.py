"""Lists of triplets: the layout's own, and CSN's, which has another order.

    triplets_{split}.txt             optional: anchor positive negative condition, images by index
    CSN's {name}_tripletlist_*.txt   anchor far close, that is anchor negative positive; a file a condition

CSN's order (Veit et al., CVPR 2017; ASEN's lists have it, too) is changed into ours in `read_csn_triplets`,
and nowhere else. `ccakit.data.text` says how lines end and what counts as padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.rows import read_columns
from ccakit.data.split import SPLITS, Split
from ccakit.data.text import read_filenames
from ccakit.disk import write_lines
from ccakit.errors import DataError

CSN_SPLITS = {"train": "train", "valid": "val", "test": "test"}


def triplets_path(root: str | Path, split: str) -> Path:
    """Return the path at which the layout keeps the triplets of a split."""
    return Path(root) / f"triplets_{split}.txt"


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
    write_lines(path, [f"{a} {p} {n} {c}" for a, p, n, c in rows.tolist()])
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


def read_csn_triplets(path: str | Path, n_images: int) -> np.ndarray:
    """Read a list of CSN, of lines `anchor far close`, as (T, 3) int64 rows (anchor, positive, negative).

    Far is the negative, close the positive: the order is changed here, once. `n_images`: the number of lines
    of CSN's filenames.json. DataError as for `read_triplets`.
    """
    table = read_columns(Path(path), 3, "Write: anchor far close.")
    table.check_images(n_images, columns=3)
    anchor, far, close = table.rows.T
    return np.stack([anchor, close, far], axis=1)


def read_csn_lists(folder: str | Path, conditions: Sequence[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read CSN's lists: the images' names, and (T, 4) anchor, positive, negative, condition for each split.

    The lists `{condition}_tripletlist_{train,val,test}.txt` lie in `folder` or in its folder tripletlists,
    filenames.json (plain text, an image a line) beside them or one above. Images are numbered by its lines.
    DataError if a file is missing or bad.
    """
    folder = Path(folder)
    lists = folder / "tripletlists" if (folder / "tripletlists").is_dir() else folder
    names = lists / "filenames.json"
    above = lists.resolve().parent / "filenames.json"
    if above.is_file() and not names.is_file():
        names = above
    images, triplets = read_filenames(names).lines, {}
    for split, csn_split in CSN_SPLITS.items():
        files = [lists / f"{condition}_tripletlist_{csn_split}.txt" for condition in conditions]
        triplets[split] = with_condition([read_csn_triplets(file, len(images)) for file in files])
    return images, triplets


def with_condition(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Join one (T_c, 3) array of triplets for each condition, in order, to (T, 4) with the condition.

    >>> with_condition([np.array([[0, 1, 2]]), np.array([[5, 4, 3]])]).tolist()
    [[0, 1, 2, 0], [5, 4, 3, 1]]
    """
    return np.concatenate([np.column_stack([rows, np.full(len(rows), c)]) for c, rows in enumerate(lists)])


def repeating(triplets: np.ndarray) -> int:
    """Count the triplets that name an image twice: nothing can be learned or measured from those.

    >>> repeating(np.array([[0, 1, 2, 0], [3, 3, 4, 0], [5, 6, 6, 1]]))
    2
    """
    anchor, positive, negative = np.asarray(triplets).T[:3]
    return int(((anchor == positive) | (anchor == negative) | (positive == negative)).sum())
