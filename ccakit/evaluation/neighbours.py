"""k nearest neighbours in one space, and the vote among them that names a value.

Each neighbour votes for its own value with the weight exp(cosine / 0.07), as in Wu et al., CVPR 2018. An
image is none of its own neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TEMPERATURE = 0.07
BLOCK = 4096  # queries whose votes are counted at a time
REASONS = 3  # neighbours that are named for an answer


class Side(NamedTuple):
    """Images in one space: their numbers (n,), embeddings (n, E) of length 1, and labels (n,).

    An image with several values has a row for each. Equal numbers on two sides are the same image.
    """

    images: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray


class Neighbours(NamedTuple):
    """The nearest candidates of each query, best first: rows (q, k) of the candidates, and cosines (q, k).

    Where there are fewer than k, row -1 and cosine -inf fill up.
    """

    rows: np.ndarray
    cosine: np.ndarray


class Answers(NamedTuple):
    """What the neighbours say: labels (q,), shares of the votes (q,), and for each the nearest that say so.

    reasons: (q, 3) rows of the candidates, -1 where there are fewer. Without a neighbour, a label is -1.
    """

    labels: np.ndarray
    shares: np.ndarray
    reasons: np.ndarray


def find_neighbours(queries: Side, candidates: Side, k: int) -> Neighbours:
    """Find the k candidates with the largest cosine for each query, without its own image."""
    count = len(candidates.images)
    rows = np.full((len(queries.images), k), -1)
    cosine = np.full(rows.shape, -np.inf, np.float32)
    if not count or not len(rows):
        return Neighbours(rows, cosine)
    own = np.isin(candidates.images, queries.images)
    most_own = np.unique(candidates.images[own], return_counts=True)[1].max(initial=0)
    from sklearn.neighbors import NearestNeighbors  # here: its import takes a second

    search = NearestNeighbors(n_neighbors=min(k + most_own, count), algorithm="brute")
    found = search.fit(candidates.embeddings).kneighbors(queries.embeddings, return_distance=False)
    is_own = candidates.images[found] == queries.images[:, None]
    order = np.argsort(is_own, axis=1, kind="stable")[:, :k]  # the own image goes to the end
    found, is_own = np.take_along_axis(found, order, 1), np.take_along_axis(is_own, order, 1)
    for start in range(0, len(rows), BLOCK):
        block, width = slice(start, start + BLOCK), found.shape[1]
        near = candidates.embeddings[found[block]]  # (b, k, E)
        similar = np.einsum("be,bke->bk", queries.embeddings[block], near)
        rows[block, :width] = np.where(is_own[block], -1, found[block])
        cosine[block, :width] = np.where(is_own[block], -np.inf, similar)
    return Neighbours(rows, cosine)


def vote(neighbours: Neighbours, labels: np.ndarray, k: int) -> Answers:
    """Let the first k neighbours of each query vote. labels: (c,), those of the candidates."""
    rows, cosine = neighbours.rows[:, :k], neighbours.cosine[:, :k]
    answers, shares = np.full(len(rows), -1), np.zeros(len(rows))
    reasons = np.full((len(rows), REASONS), -1)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        answers[block], shares[block], reasons[block] = _vote(rows[block], cosine[block], labels)
    return Answers(answers, shares, reasons)


def _vote(rows: np.ndarray, cosine: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    known = rows >= 0
    if not known.any():
        return np.full(len(rows), -1), np.zeros(len(rows)), np.full((len(rows), REASONS), -1)
    best = np.max(cosine, axis=1, where=known, initial=-1)  # so that the largest weight is 1
    weights = np.where(known, np.exp((cosine - best[:, None]) / TEMPERATURE), 0.0)
    said = np.where(known, labels[rows], 0)  # (b, k)
    totals = np.zeros((len(rows), labels.max() + 1))
    np.add.at(totals, (np.arange(len(rows))[:, None], said), weights)
    answers, asked = totals.argmax(axis=1), known.any(axis=1)
    shares = totals.max(axis=1) / np.where(asked, totals.sum(axis=1), 1)
    agrees = known & (said == answers[:, None])
    order = np.argsort(~agrees, axis=1, kind="stable")[:, :REASONS]  # those that agree first, nearest first
    reasons = np.where(np.take_along_axis(agrees, order, 1), np.take_along_axis(rows, order, 1), -1)
    padded = np.full((len(rows), REASONS), -1)
    padded[:, : reasons.shape[1]] = reasons
    return np.where(asked, answers, -1), shares, padded
