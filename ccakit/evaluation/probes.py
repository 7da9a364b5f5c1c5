"""The probes of `ccakit.evaluation.entanglement` read one attribute from one space.

    map     mean AP of ranking the candidates by cosine similarity, as in `ccakit.metrics`;
    knn     share of queries whose value the nearest candidates predict (k = 20, weighted by 1 / distance);
    linear  share of queries whose value a ridge classifier, fitted to the candidates, predicts.

A query's own image is none of its candidates: `map` leaves it out of the ranking; for the other two, queries
that are candidates too are read in FOLDS parts, each by a classifier that has not seen its part's images.

Chance for the last two is to predict the candidates' most frequent value always. So every query counts the
same, not every value, and the classifier's classes are not re-weighted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from ccakit.metrics import average_precisions, equal_pairs

NEIGHBOURS = 20
FOLDS = 5
NONE = np.zeros((0, 2), int)


@dataclass(frozen=True)
class Task:
    """One attribute to read: images and labels of its queries, (q,), and of its candidates, (c,)."""

    query: np.ndarray
    query_labels: np.ndarray
    candidate: np.ndarray
    candidate_labels: np.ndarray

    @classmethod
    def of(cls, queries: np.ndarray, candidates: np.ndarray, condition: int) -> Task:
        """Take the attribute's rows from rows (image, condition, label)."""
        queries, candidates = (rows[rows[:, 1] == condition] for rows in (queries, candidates))
        return cls(queries[:, 0], queries[:, 2], candidates[:, 0], candidates[:, 2])

    def keep(self, q: np.ndarray, c: np.ndarray) -> Task:
        """Keep the queries and candidates marked by q (q,) and c (c,), bool."""
        return Task(self.query[q], self.query_labels[q], self.candidate[c], self.candidate_labels[c])

    def read(self, probe: Probe, space: np.ndarray) -> np.ndarray:
        """Score each query in one space (n, E): (q,)."""
        sides = space[self.query], self.query_labels, space[self.candidate], self.candidate_labels
        return probe.read(*sides, self.own)

    @property
    def own(self) -> np.ndarray:
        """The pairs of a query and a candidate that are the same image: (P, 2) positions."""
        return equal_pairs(self.query, self.candidate)

    def guess(self, probe: Probe, known: np.ndarray | None = None) -> np.ndarray:
        """Score each query, (q,), if only the label `known` (n,) of each image is known; None: nothing."""
        if known is None:
            known = np.zeros(max(self.query.max(), self.candidate.max()) + 1, int)
        q, c = known[self.query], known[self.candidate]
        known_values = max(q.max(), c.max()) + 1
        values = max(self.query_labels.max(), self.candidate_labels.max()) + 1
        table = np.zeros((known_values, values), int)
        np.add.at(table, (c, self.candidate_labels), 1)  # candidates counted by both labels
        own = self.own
        left_out = np.column_stack([own[:, 0], self.candidate_labels[own[:, 1]]])
        return probe.guess(table, q, self.query_labels, left_out)

    def parts(self, known: np.ndarray) -> Iterator[Task]:
        """Yield a task for each value of the label `known`, (n,): its queries against its candidates."""
        q, c = known[self.query], known[self.candidate]
        return (self.keep(q == value, c == value) for value in np.intersect1d(q, c))

    def __len__(self) -> int:
        return min(len(self.query), len(self.candidate))


@dataclass(frozen=True)
class Probe:
    """Two ways to score queries, 0..1: from a space, or from another label alone.

    read: queries (q, E), their labels (q,), candidates (c, E), theirs (c,), pairs of a query and a candidate
    that are one image (P, 2) -> (q,) scores.
    guess: candidates counted by two labels (V_i, V_j), the queries' values of both, (q,) each, pairs of a
    query and the label of a candidate that is its own image (P, 2) -> (q,) scores.
    """

    read: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    guess: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def expected_ap_of_two(n1, r1, n2, r2) -> np.ndarray:
    """Compute E[AP] of n1 candidates (r1 relevant) in random order, then n2 (r2 relevant) in random order.

    So an embedding ranks that is the one-hot of another label, with ties broken at random.
    As in `ccakit.metrics.expected_random_ap`, with p = (r - 1) / (n - 1), H_n = 1 + 1/2 + ... + 1/n:

        E[AP] = (r1/n1 [(1 - p1) H_n1 + p1 n1]
                 + r2/n2 [(r1 + 1 - p2 (n1 + 1)) (H_(n1+n2) - H_n1) + p2 n2]) / (r1 + r2)

    0 if nothing is relevant. In: integers or arrays of integers. Example: one relevant of 1, then one
    relevant of 2, gives (1 + 2/2) / 2 or (1 + 2/3) / 2.

    >>> bool(np.isclose(expected_ap_of_two(1, 1, 2, 1), (1 + (1 + 2 / 3) / 2) / 2))
    True
    """
    n1, r1, n2, r2 = np.broadcast_arrays(n1, r1, n2, r2)
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, np.max(n1 + n2, initial=0) + 1)))
    p1, p2 = (r1 - 1) / np.maximum(n1 - 1, 1), (r2 - 1) / np.maximum(n2 - 1, 1)
    first = r1 / np.maximum(n1, 1) * ((1 - p1) * harmonic[n1] + p1 * n1)
    second = (r1 + 1 - p2 * (n1 + 1)) * (harmonic[n1 + n2] - harmonic[n1]) + p2 * n2
    return (first + r2 / np.maximum(n2, 1) * second) / np.maximum(r1 + r2, 1)


def _guess_order(table, known: np.ndarray, wanted: np.ndarray, own: np.ndarray = NONE) -> np.ndarray:
    """Compute E[AP] if candidates with the query's value of i come first; order is random otherwise."""
    n1, r1 = table.sum(axis=1)[known], table[known, wanted]
    n2, r2 = table.sum() - n1, table.sum(axis=0)[wanted] - r1
    query, label = own.T  # the own image has the query's value of i
    left_out = [np.bincount(each, minlength=len(known)) for each in (query, query[label == wanted[query]])]
    return expected_ap_of_two(n1 - left_out[0], r1 - left_out[1], n2, r2)


def _guess_value(table, known: np.ndarray, wanted: np.ndarray, own: np.ndarray = NONE) -> np.ndarray:
    """Score 1 if the query's value of j is the most frequent of candidates with its value of i, else 0.

    If no candidate has its value of i, of all candidates.
    """
    counts, total = table[known], np.tile(table.sum(axis=0), (len(known), 1))  # (q, V_j)
    for each in (counts, total):
        np.subtract.at(each, tuple(own.T), 1)
    counts = np.where(counts.any(axis=1, keepdims=True), counts, total)
    return (counts.argmax(axis=1) == wanted).astype(float)


def _read_order(queries, query_labels, candidates, candidate_labels, own) -> np.ndarray:
    return average_precisions(queries, query_labels, candidates, candidate_labels, own=own)


def _apart(read: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Fit `read` to candidates without the queries' own images: a part of those queries at a time."""

    def read_apart(queries, query_labels, candidates, candidate_labels, own) -> np.ndarray:
        scores = np.zeros(len(queries))
        parts = np.where(np.isin(np.arange(len(queries)), own[:, 0]), np.arange(len(queries)) % FOLDS, -1)
        for part in np.unique(parts):
            asked, kept = parts == part, np.ones(len(candidates), bool)
            kept[own[asked[own[:, 0]], 1]] = False
            if kept.any():
                sides = queries[asked], query_labels[asked], candidates[kept], candidate_labels[kept]
                scores[asked] = read(*sides)
        return scores

    return read_apart


def _read_knn(queries, query_labels, candidates, candidate_labels) -> np.ndarray:
    k = min(NEIGHBOURS, len(candidates))
    knn = KNeighborsClassifier(k, weights="distance", algorithm="brute").fit(candidates, candidate_labels)
    return (knn.predict(queries) == query_labels).astype(float)


def _read_linear(queries, query_labels, candidates, candidate_labels) -> np.ndarray:
    if (candidate_labels == candidate_labels[0]).all():
        return (query_labels == candidate_labels[0]).astype(float)
    ridge = RidgeClassifier(alpha=1.0).fit(candidates, candidate_labels)
    return (ridge.predict(queries) == query_labels).astype(float)


PROBES = {
    "map": Probe(_read_order, _guess_order),
    "knn": Probe(_apart(_read_knn), _guess_value),
    "linear": Probe(_apart(_read_linear), _guess_value),
}
