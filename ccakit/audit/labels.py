"""What the lists show without the images: counts, impossible triplets, queries without an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.findings import answers, several_valued
from ccakit.data.rows import distinct, read_all_values, read_labels
from ccakit.data.split import SPLITS, Dataset, Split

NO_ANCHOR = ("no image", "one image", "every labelled image has it")  # why a value is never an anchor's


def label_facts(dataset: Dataset) -> dict[str, dict]:
    """Collect the facts of every split, as JSON has them.

    Every split has "images", "labels_only", "labelled" images, "rows", "attributes" (name -> "images" per
    value) and "several" (see `share_of_several`). A training split has "no_anchor" and "no_triplet" too (see
    `triplet_facts`), also where only its label file is there ("labels_only"). A ranked split has "queries",
    "candidates", "unanswered", "ceiling_weighted", "ceiling_macro", the same per attribute, and, beside a
    training split, "unseen": the values that queries ask for and no training image has.
    """
    facts = {name: _split_facts(dataset.splits[name]) for name in SPLITS if name in dataset.splits}
    alone = dataset.root / "label_train.txt"
    if "train" not in facts and alone.is_file():
        rows = read_labels(alone, dataset.attributes).rows
        train = _train_facts(rows, dataset.attributes)
        facts = {"train": {**train, "images": train["labelled"], "labels_only": True}, **facts}
    if "train" in facts:
        for name in facts.keys() - {"train"}:
            facts[name]["unseen"] = _unseen(facts[name], facts["train"])
    return facts


def _split_facts(split: Split) -> dict:
    specific = _train_facts(split.labels, split.attributes) if split.queries is None else _ranked_facts(split)
    return {"images": len(split.filenames), "labels_only": False, **specific}


def per_value(rows: np.ndarray, sizes: tuple[int, ...]) -> list[list[int]]:
    """Count the (R, 3) rows that carry each label of each condition: K lists, the c-th of sizes[c] counts.

    >>> per_value(np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0]]), (3, 1))
    [[0, 2, 0], [1]]
    """
    return [np.bincount(rows[rows[:, 1] == c, 2], minlength=size).tolist() for c, size in enumerate(sizes)]


def _counts(rows: np.ndarray, attributes: Attributes) -> dict:
    images = per_value(distinct(rows), attributes.sizes)
    return {
        "rows": len(rows),
        "labelled": len(np.unique(rows[:, 0])),
        "attributes": {name: {"images": counts} for name, counts in zip(attributes.names, images)},
    }


def _train_facts(rows: np.ndarray, attributes: Attributes) -> dict:
    several = share_of_several(rows, rows, attributes, "label_train.txt")
    return {**_counts(rows, attributes), "several": several, **triplet_facts(distinct(rows), attributes)}


def triplet_facts(rows: np.ndarray, attributes: Attributes) -> dict:
    """Find the values that are never an anchor's, with the reason, and the attributes that form no triplet.

    A triplet needs two images of a value, and one that is labelled in the attribute without carrying the
    value. rows: (R, 3), each once.
    """
    no_anchor, no_triplet = [], []
    for c, name in enumerate(attributes.names):
        own = rows[rows[:, 1] == c]
        labelled, images = len(np.unique(own[:, 0])), np.bincount(own[:, 2], minlength=attributes.sizes[c])
        idle = [label for label, n in enumerate(images) if n < 2 or n == labelled]
        for label in idle:
            n = int(images[label])
            value = {"attribute": name, "value": attributes.value(c, label), "label": label, "images": n}
            no_anchor.append({**value, "why": NO_ANCHOR[min(n, 2)]})
        if len(idle) == len(images):
            no_triplet.append(name)
    return {"no_anchor": no_anchor, "no_triplet": no_triplet}


def _ranked_facts(split: Split) -> dict:
    """Counts of a split with queries and candidates, per attribute and value, and the ceilings on mAP."""
    attributes, facts = split.attributes, _counts(split.labels, split.attributes)
    queries, candidates = (
        dict(zip(attributes.names, per_value(rows, attributes.sizes)))
        for rows in (split.queries, split.candidates)
    )
    unmatched = split.queries[answers(split)[0] == 0]
    lost = dict(zip(attributes.names, np.bincount(unmatched[:, 1], minlength=len(attributes)).tolist()))
    most = ceilings(queries, candidates, lost)
    for name, counts in facts["attributes"].items():
        counts |= {"queries": queries[name], "candidates": candidates[name]}
        counts["unanswered"] = lost[name]
        counts["ceiling"] = most["map_per_attribute"].get(name)
    label_file = Path(split.root) / f"label_{split.name}.txt"
    if label_file.is_file():
        all_values, source = read_all_values(split.root, split.name), label_file.name
    else:
        all_values, source = split.labels, f"query_{split.name}.txt and candidate_{split.name}.txt"
    return {
        **facts,
        "queries": most["queries"],
        "candidates": len(split.candidates),
        "unanswered": most["unanswered"],
        "ceiling_weighted": most["map_weighted"],
        "ceiling_macro": most["map_macro"],
        "several": share_of_several(split.labels, all_values, attributes, source),
    }


def unanswered(queries: list[int], candidates: list[int]) -> int:
    """Count an attribute's queries without a relevant candidate, from how many sides have each value."""
    return sum(asked for asked, relevant in zip(queries, candidates) if not relevant)


def ceilings(
    queries: dict[str, list[int]], candidates: dict[str, list[int]], lost: dict[str, int] | None = None
) -> dict:
    """Compute the most that mAP can be, in percent: a query without a relevant candidate has AP 0.

    queries, candidates: for each attribute, how many of them have each value. lost: how many of its queries
    have no relevant candidate, by default those of a value that no candidate has. "map_per_attribute" is of
    the attributes that have queries.

    >>> ceilings({"tone": [2, 2], "size": [4]}, {"tone": [5, 0], "size": [9]})["map_per_attribute"]
    {'tone': 50.0, 'size': 100.0}
    """
    counts = {name: sum(asked) for name, asked in queries.items() if any(asked)}
    lost = {name: lost[name] if lost else unanswered(queries[name], candidates[name]) for name in counts}
    each = {name: 100 * (1 - lost[name] / n) for name, n in counts.items()}
    total, lost_in_all = sum(counts.values()), sum(lost.values())
    means = {
        "map_weighted": 100 * (1 - lost_in_all / total),
        "map_macro": float(np.mean(list(each.values()))),
    }
    return {"queries": total, "unanswered": lost_in_all, **means, "map_per_attribute": each}


def share_of_several(rows: np.ndarray, all_values: np.ndarray, attributes: Attributes, source: str) -> dict:
    """Count the rows whose image has several values of the row's attribute, and their share in percent."""
    several = several_valued(rows, all_values)
    by_attribute = {name: several[rows[:, 1] == c] for c, name in enumerate(attributes.names)}
    return {
        "rows": int(several.sum()),
        "of": len(rows),
        "share": 100 * float(several.mean()),
        "source": source,
        "per_attribute": {name: 100 * float(own.mean()) for name, own in by_attribute.items() if len(own)},
    }


def _unseen(ranked: dict, train: dict) -> list[dict]:
    found = []
    for name, counts in ranked["attributes"].items():
        for label, (queries, seen) in enumerate(zip(counts["queries"], train["attributes"][name]["images"])):
            if queries and not seen:
                found.append({"attribute": name, "label": label, "queries": queries})
    return found
