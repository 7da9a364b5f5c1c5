"""What is odd about a data set and no error: duplicates, unlabelled images, queries that nothing answers."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ccakit.data.rows import distinct
from ccakit.data.split import Split
from ccakit.data.text import count
from ccakit.metrics import equal_pairs, relevant_candidates

FEW_VALUES = 20  # an attribute of so few values is none of numbers or names, however few its images


def split_findings(split: Split) -> list[str]:
    """List every finding of a split, in words for people."""
    checks = (
        _duplicate_paths,
        _duplicate_rows,
        _unlabelled,
        _several_values,
        _own_candidates,
        _hardly_repeat,
    )
    return [f"{split.name}: {text}" for check in checks for text in check(split)] + value_findings(split)


def value_findings(split: Split) -> list[str]:
    """List the values too rare to train on, or the queries for values that no candidate has."""
    texts = _rare(split) if split.queries is None else _unanswered(split)
    return [f"{split.name}: {text}" for text in texts]


def _duplicate_paths(split: Split) -> list[str]:
    several = [name for name, n in Counter(split.filenames).items() if n > 1]
    if not several:
        return []
    lines = [str(i) for i, name in enumerate(split.filenames, 1) if name == several[0]]
    problem = f"{count(len(several), 'path')} more than once in filenames_{split.name}.txt"
    return [f"{problem}, e.g. {several[0]!r} in lines {', '.join(lines)}"]


def _duplicate_rows(split: Split) -> list[str]:
    n = len(split.labels) - len(distinct(split.labels))
    return [f"{count(n, 'label row repeats', 'label rows repeat')} an earlier one"] if n else []


def _unlabelled(split: Split) -> list[str]:
    n = len(split.filenames) - len(np.unique(split.labels[:, 0]))
    return [f"{n} of {count(len(split.filenames), 'image')} without a label"] if n else []


def _several_values(split: Split) -> list[str]:
    n = split.multi_valued
    return [f"{count(n, 'image has', 'images have')} several values of one attribute"] if n else []


def answers(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Count each query's relevant candidates that are other images, and those that are its own: (Q,) each."""
    queries, candidates = split.sides()
    relevant, own = np.zeros((2, len(queries)), int)
    for condition in range(len(split.attributes)):
        q, c = (np.flatnonzero(rows[:, 1] == condition) for rows in (queries, candidates))
        pairs = equal_pairs(queries[q, 0], candidates[c, 0])
        relevant[q] = relevant_candidates(queries[q, 2], candidates[c, 2], pairs)
        own[q] = np.bincount(pairs[:, 0], minlength=len(q))
    return relevant, own


def _own_candidates(split: Split) -> list[str]:
    """Count the queries that are candidates too, by number or path."""
    n = 0 if split.queries is None else int((answers(split)[1] > 0).sum())
    left_out = "queries are candidates too: left out of their own rankings"
    return [f"{n} of {len(split.queries)} {left_out}"] if n else []


def _unanswered(split: Split) -> list[str]:
    """Count the queries without any relevant candidate, whose AP is 0 whatever a model does."""
    answered = answers(split)[0] > 0
    n = int((~answered).sum())
    ceiling = f"their AP is 0 and overall mAP at most {100 * answered.mean():.2f}"
    return [f"{n} of {len(answered)} queries have no relevant candidate: {ceiling}"] if n else []


def _rare(split: Split) -> list[str]:
    """List the values with fewer than two training images, which cannot be both anchor and positive."""
    pairs = distinct(split.labels)[:, 1:]
    few = []
    for c, values in enumerate(split.attributes.values):
        images = np.bincount(pairs[pairs[:, 0] == c, 1], minlength=len(values))
        few += [f"{split.attributes.title(c)} {v} ({n})" for v, n in zip(values, images) if n < 2]
    shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
    return [f"{count(len(few), 'value has', 'values have')} fewer than two images: {shown}"] if few else []


def _hardly_repeat(split: Split) -> list[str]:
    """Find attributes, of training, whose values have fewer than two images each on average, as numbers of
    articles have: hardly any triplet exists of them."""
    if split.queries is not None:
        return []
    found = []
    for c in range(len(split.attributes)):
        rows = split.labels[split.labels[:, 1] == c]
        images, values = len(np.unique(rows[:, 0])), len(np.unique(rows[:, 2]))
        if values > FEW_VALUES and 2 * values > images:
            counts = f"{values} values of {images} images"
            remedy = "if they are numbers or names of single images, leave the attribute out"
            found.append(f"the values of {split.attributes.title(c)} hardly repeat: {counts}; {remedy}")
    return found


def queried_with_several(split: Split, all_values: np.ndarray) -> list[str]:
    """Count the rows whose image has several values of their attribute, given all values of each image."""
    several = several_valued(split.labels, all_values)
    share = f"in {100 * several.mean():.1f}% of the rows the image has more than one value of the attribute"
    source = f"label_{split.name}.txt"
    return [f"{split.name}: {share} ({source}), and only the listed one counts"] if several.any() else []


def several_valued(rows: np.ndarray, all_values: np.ndarray) -> np.ndarray:
    """Find the (R, 3) rows whose image has several values of the row's attribute: (R,) bool.

    all_values: (A, 3) rows of all values of each image; the rows' own count too.

    >>> rows = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0]])
    >>> several_valued(rows, np.array([[1, 0, 2], [0, 1, 0]])).tolist()
    [False, True, False]
    """
    key = np.array([1 + max(rows[:, 1].max(), all_values[:, 1].max()), 1])
    pairs, n = np.unique(distinct(np.concatenate([rows, all_values]))[:, :2] @ key, return_counts=True)
    return np.isin(rows[:, :2] @ key, pairs[n > 1])
