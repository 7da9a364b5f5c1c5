"""What the lists alone tell: counts, triplets that cannot be formed, queries that nothing answers. NumPy only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.findings import relevant
from ccakit.data.rows import distinct, read_all_values, read_rows
from ccakit.data.split import SPLITS, Dataset, Split


def per_value(rows: np.ndarray, sizes: tuple[int, ...]) -> list[list[int]]:
    """How many of the (R, 3) rows carry each label of each condition: K lists, the c-th of sizes[c] counts.

    >>> per_value(np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0]]), (3, 1))
    [[0, 2, 0], [1]]
    """
    return [np.bincount(rows[rows[:, 1] == c, 2], minlength=size).tolist() for c, size in enumerate(sizes)]


def several_valued(rows: np.ndarray, all_values: np.ndarray) -> np.ndarray:
    """Which (R, 3) rows ask for an attribute of which their image has several values: (R,) bool.

    all_values: (A, 3) rows of all values of each image; the rows' own count too.

    >>> rows = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0]])
    >>> several_valued(rows, np.array([[1, 0, 2], [0, 1, 0]])).tolist()
    [False, True, False]
    """
    key = np.array([1 + max(rows[:, 1].max(), all_values[:, 1].max()), 1])
    pairs, n = np.unique(distinct(np.concatenate([rows, all_values]))[:, :2] @ key, return_counts=True)
    return np.isin(rows[:, :2] @ key, pairs[n > 1])


def label_facts(dataset: Dataset) -> dict[str, dict]:
    """Facts of every split that is there; of train, also where its labels are there without its images' names."""
    facts = {name: split_facts(dataset.splits[name]) for name in SPLITS if name in dataset.splits}
    alone = dataset.root / "label_train.txt"
    if "train" not in facts and alone.is_file():
        rows = read_rows(alone, dataset.attributes)
        facts = {
            "train": {
                **_train(rows, dataset.attributes),
                "images": len(np.unique(rows[:, 0])),
                "labels_only": True,
            },
            **facts,
        }
    if "train" in facts:
        for name in facts.keys() - {"train"}:
            facts[name]["unseen"] = _unseen(facts[name], facts["train"])
    return facts


def split_facts(split: Split) -> dict:
    """Counts of a split: images, label rows, and per attribute the images of each value; see `_train`, `_ranked`."""
    facts = {"images": len(split.filenames), "labels_only": False}
    if split.queries is None:
        return {**facts, **_train(split.labels, split.attributes)}
    return {**facts, **_ranked(split)}


def _counts(rows: np.ndarray, attributes: Attributes) -> dict:
    """Label rows, images without a label's row left out, several-valued rows, and images per value."""
    images = per_value(distinct(rows), attributes.sizes)
    return {
        "rows": len(rows),
        "labelled": len(np.unique(rows[:, 0])),
        "attributes": {name: {"images": n} for name, n in zip(attributes.names, images)},
    }


def _train(rows: np.ndarray, attributes: Attributes) -> dict:
    """Counts of training rows, and which values and attributes cannot form a triplet."""
    facts = {**_counts(rows, attributes), "several": _share(rows, rows, attributes, "label_train.txt")}
    return {**facts, **_triplets(distinct(rows), attributes)}


def _triplets(rows: np.ndarray, attributes: Attributes) -> dict:
    """Values that are never an anchor's, with the reason, and attributes of which no triplet exists.

    A triplet needs two images of a value, and one that is labelled in the attribute without carrying the
    value. rows: (R, 3), each once.
    """
    idle, unusable = [], []
    for c, name in enumerate(attributes.names):
        of = rows[rows[:, 1] == c]
        labelled, images = len(np.unique(of[:, 0])), np.bincount(of[:, 2], minlength=attributes.sizes[c])
        why = {
            v: "no image" if n == 0 else "one image" if n == 1 else "every labelled image has it"
            for v, n in enumerate(images)
            if n < 2 or n == labelled
        }
        idle += [
            {
                "attribute": name,
                "value": attributes.value(c, v),
                "label": v,
                "images": int(images[v]),
                "why": reason,
            }
            for v, reason in why.items()
        ]
        unusable += [name] if len(why) == len(images) else []
    return {"no_anchor": idle, "no_triplet": unusable}


def _ranked(split: Split) -> dict:
    """Counts of a split with queries and candidates: per attribute and value, and the ceilings on mAP."""
    attributes, facts = split.attributes, _counts(split.labels, split.attributes)
    answered, condition = relevant(split), split.queries[:, 1]
    sides = [per_value(rows, attributes.sizes) for rows in (split.queries, split.candidates)]
    for c, name in enumerate(attributes.names):
        mine = answered[condition == c]
        facts["attributes"][name] |= {
            "queries": sides[0][c],
            "candidates": sides[1][c],
            "unanswered": int((~mine).sum()),
            "ceiling": 100 * float(mine.mean()) if len(mine) else None,
        }
    ceilings = [of["ceiling"] for of in facts["attributes"].values() if of["ceiling"] is not None]
    path = Path(split.root) / f"label_{split.name}.txt"
    listed = path.is_file()
    every = read_all_values(split.root, split.name) if listed else split.labels
    source = path.name if listed else f"query_{split.name}.txt and candidate_{split.name}.txt"
    return {
        **facts,
        "queries": len(split.queries),
        "candidates": len(split.candidates),
        "unanswered": int((~answered).sum()),
        "ceiling_weighted": 100 * float(answered.mean()),
        "ceiling_macro": float(np.mean(ceilings)),
        "several": _share(split.labels, every, attributes, source),
    }


def _share(rows: np.ndarray, all_values: np.ndarray, attributes: Attributes, source: str) -> dict:
    """How many rows ask for an attribute of which their image has several values, in all and per attribute."""
    several = several_valued(rows, all_values)
    each = {name: several[rows[:, 1] == c] for c, name in enumerate(attributes.names)}
    return {
        "rows": int(several.sum()),
        "of": len(rows),
        "share": 100 * float(several.mean()),
        "source": source,
        "per_attribute": {name: 100 * float(of.mean()) for name, of in each.items() if len(of)},
    }


def _unseen(ranked: dict, train: dict) -> list[dict]:
    """Values that queries ask for and no training image has."""
    return [
        {"attribute": name, "label": label, "queries": asked}
        for name, of in ranked["attributes"].items()
        for label, (asked, seen) in enumerate(zip(of["queries"], train["attributes"][name]["images"]))
        if asked and not seen
    ]
