"""Reading one attribute from one space: the probes of `ccakit.evaluation.entanglement`, and what chance and labels give.

    map     mean AP of ranking the candidates by cosine similarity, as `ccakit.metrics` does;
    knn     share of queries whose value the nearest candidates name (k = 20, weighted by 1 / distance);
    linear  share of queries whose value a ridge classifier names that was fitted to the candidates.

Chance of the last two is always answering the candidates' most frequent value; accordingly queries count alike, values
do not, and the classifier's classes are not re-weighted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from ccakit.metrics import average_precisions

NEIGHBOURS = 20


@dataclass(frozen=True)
class Task:
    """Read one attribute: the images (indices) and labels of its queries, (q,) each, and of its candidates, (c,)."""

    query: np.ndarray
    query_labels: np.ndarray
    candidate: np.ndarray
    candidate_labels: np.ndarray

    @classmethod
    def of(cls, queries: np.ndarray, candidates: np.ndarray, condition: int) -> Task:
        sides = (rows[rows[:, 1] == condition] for rows in (queries, candidates))
        return cls(*(column for rows in sides for column in (rows[:, 0], rows[:, 2])))

    def keep(self, q: np.ndarray, c: np.ndarray) -> Task:
        """The part of these queries and candidates, (q,) and (c,) bool."""
        return Task(self.query[q], self.query_labels[q], self.candidate[c], self.candidate_labels[c])

    def read(self, how: Probe, space: np.ndarray) -> np.ndarray:
        """(q,) score of each query in one space, (n, E)."""
        return how.read(space[self.query], self.query_labels, space[self.candidate], self.candidate_labels)

    def guess(self, how: Probe, given: np.ndarray | None = None) -> np.ndarray:
        """(q,) score of each query if all that is known of an image is its label `given`, (n,); None: nothing."""
        q, c = (np.zeros_like(i) if given is None else given[i] for i in (self.query, self.candidate))
        last = [max(a.max(), b.max()) for a, b in ((q, c), (self.query_labels, self.candidate_labels))]
        table = np.zeros((last[0] + 1, last[1] + 1), int)  # candidates by both labels
        np.add.at(table, (c, self.candidate_labels), 1)
        return how.guess(table, q, self.query_labels)

    def parts(self, given: np.ndarray) -> Iterator[Task]:
        """One task for each value of the label `given`, (n,): its queries against its candidates."""
        q, c = given[self.query], given[self.candidate]
        return (self.keep(q == value, c == value) for value in np.intersect1d(q, c))

    def __len__(self) -> int:
        return min(len(self.query), len(self.candidate))


@dataclass(frozen=True)
class Probe:
    """read: queries (q, E), their labels (q,), candidates (c, E), theirs (c,) -> (q,) scores, 0..1.
    guess: candidates counted by two labels (V_i, V_j), the queries' values of both, (q,) each -> (q,) scores."""

    read: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    guess: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def expected_ap_of_two(n1, r1, n2, r2) -> np.ndarray:
    """E[AP] of a ranking whose first n1 candidates, r1 of them relevant, are in random order, and so the n2 after
    them, r2 of them relevant: an embedding that is the one-hot of another label, ties broken at random.

    As in `ccakit.metrics.expected_random_ap`, with p = (r - 1) / (n - 1), H_n = 1 + 1/2 + ... + 1/n:

        E[AP] = (r1/n1 [(1 - p1) H_n1 + p1 n1] + r2/n2 [(r1 + 1 - p2 (n1 + 1)) (H_(n1+n2) - H_n1) + p2 n2]) / (r1 + r2)

    0 if nothing is relevant. Integers or arrays of them. First the relevant one of 1, then one of 2: (1 + 2/2) / 2
    or (1 + 2/3) / 2.

    >>> bool(np.isclose(expected_ap_of_two(1, 1, 2, 1), (1 + (1 + 2 / 3) / 2) / 2))
    True
    """
    n1, r1, n2, r2 = np.broadcast_arrays(n1, r1, n2, r2)
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, np.max(n1 + n2, initial=0) + 1)))
    p1, p2 = (r1 - 1) / np.maximum(n1 - 1, 1), (r2 - 1) / np.maximum(n2 - 1, 1)
    first = r1 / np.maximum(n1, 1) * ((1 - p1) * harmonic[n1] + p1 * n1)
    second = (r1 + 1 - p2 * (n1 + 1)) * (harmonic[n1 + n2] - harmonic[n1]) + p2 * n2
    return (first + r2 / np.maximum(n2, 1) * second) / np.maximum(r1 + r2, 1)


def _guess_order(table: np.ndarray, given: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """E[AP] if candidates of the query's value of i come first, in random order, and then the others."""
    n1, r1 = table.sum(axis=1)[given], table[given, asked]
    return expected_ap_of_two(n1, r1, table.sum() - n1, table.sum(axis=0)[asked] - r1)


def _guess_value(table: np.ndarray, given: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """1 where the query's value of j is the most frequent one among candidates of its value of i (of all, if none)."""
    counts = np.where(table.any(axis=1, keepdims=True), table, table.sum(axis=0))
    return (counts.argmax(axis=1)[given] == asked).astype(float)


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
    "map": Probe(average_precisions, _guess_order),
    "knn": Probe(_read_knn, _guess_value),
    "linear": Probe(_read_linear, _guess_value),
}
