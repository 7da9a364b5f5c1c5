"""CSN's lists of triplets of UT-Zappos50K, which have another order than the layout's.

    {condition}_tripletlist_{train,val,test}.txt   anchor far close, that is anchor negative positive

CSN's order (Veit et al., CVPR 2017) is changed into ours in `read_csn_triplets`, and nowhere else.
`ccakit.data.text` says how lines end and what counts as padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccakit.data.rows import read_columns
from ccakit.data.text import read_filenames

CSN_SPLITS = {"train": "train", "valid": "val", "test": "test"}


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
