"""Average precision and its means by ASEN's rules, random baselines, triplet accuracy. NumPy only.

The rules, everywhere in this file (ASEN: Ma et al., AAAI 2020; the protocol of the paper's Tables 2-4):

- every candidate of the query's attribute is ranked, by descending cosine similarity; no cut-off at k;
- a candidate is relevant if its label equals the query's; AP divides by the number of relevant candidates;
- a query without a relevant candidate has AP 0, and counts;
- a tie counts against the model: of candidates with equal float32 similarity, the irrelevant come first.
  So nothing depends on the order in which candidates are stored, and a collapsed embedding earns nothing.

The overall figure of the paper's tables is `map_weighted`, the mean over all queries of all attributes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ccakit.attributes import Attributes

BYTES_PER_PAIR = 40  # of working memory to rank one (query, candidate), at worst: when all are relevant
PIECE = 1 << 18  # pairs ranked at a time, so that their keys stay in the processor's cache


def average_precision(relevant_sorted: Sequence[int] | np.ndarray) -> float:
    """AP of one ranking, best candidate first: the mean of precision at the rank of each relevant candidate.

        AP = 1/R  sum_{k: relevant}  (relevant among the first k) / k

    Differs from the common definition in that a ranking without a relevant candidate has AP 0 (ASEN), where
    the ratio is undefined. Input: (C,) of 0/1 or bool. Ranking [1, 0, 1] has AP (1/1 + 2/3) / 2:

    >>> average_precision([1, 0, 1]) == (1 + 2 / 3) / 2
    True
    >>> average_precision([0, 0])
    0.0
    """
    ranks = np.flatnonzero(relevant_sorted) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else 0.0


def average_precisions(
    queries: np.ndarray,
    query_labels: np.ndarray,
    candidates: np.ndarray,
    candidate_labels: np.ndarray,
    block_bytes: int = 256 << 20,
) -> np.ndarray:
    """AP of every query over all candidates, under one attribute, ranked by cosine similarity.

    As `average_precision` of each ranking; similarities are float32, sums float64. Departs from the common
    definition in its ties: irrelevant candidates come first (see the module). Works on blocks of queries, in
    about `block_bytes` of memory (at least one query's row).

    In: queries (Q, E) and candidates (C, E), L2-normalised; their labels (Q,) and (C,). Out: (Q,) float64.
    Raises ValueError if the shapes disagree, or a row is not of length 1 (also if it holds NaN).

    >>> candidates = np.array([[1, 0], [0.8, 0.6], [0, 1]])
    >>> average_precisions(candidates[:1], [7], candidates, [7, 2, 7]) == (1 + 2 / 3) / 2
    array([ True])
    """
    queries, query_labels = _unit_rows("query", queries, query_labels)
    candidates, candidate_labels = _unit_rows("candidate", candidates, candidate_labels)
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"queries are {queries.shape[1]}-d, candidates {candidates.shape[1]}-d")
    return _aps_in_blocks(
        lambda rows: queries[rows] @ candidates.T, query_labels, candidate_labels, block_bytes
    )


def _unit_rows(side: str, embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = np.asarray(embeddings, dtype=np.float32), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(f"{side} embeddings {embeddings.shape} and labels {labels.shape} do not match")
    length = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))  # no copy, as np.linalg.norm would make
    off = ~(np.abs(length - 1) < 1e-2)  # ~(<): NaN counts as off; 1e-2: float16
    if off.any():
        raise ValueError(f"{off.sum()} {side} rows are not L2-normalised, the first: row {off.argmax()}")
    return embeddings, labels


def _aps_in_blocks(
    similarity: Callable[[slice], np.ndarray],
    query_labels: np.ndarray,
    candidate_labels: np.ndarray,
    block_bytes: int,
) -> np.ndarray:
    """AP of each query, given a function from a slice of b queries to their (b, C) float32 similarities."""
    aps, count = np.zeros(len(query_labels)), max(1, len(candidate_labels))
    step = max(1, block_bytes * 3 // 4 // (4 * count))  # queries whose similarities are there at once
    workers = _cores()  # NumPy sorts outside the GIL
    pairs = min(PIECE, block_bytes // 4 // workers // BYTES_PER_PAIR)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(aps), step):
            rows = slice(start, start + step)
            aps[rows] = _rank_block(similarity(rows), query_labels[rows], candidate_labels, pairs, pool)
    return aps


def _rank_block(
    similarity: np.ndarray, query_labels: np.ndarray, candidate_labels: np.ndarray, pairs: int, pool: Executor
) -> np.ndarray:
    """AP of each row of (b, C), in pieces of about so many pairs, each of queries of one label."""
    aps, rows, pieces = np.zeros(len(query_labels)), max(1, pairs // max(1, len(candidate_labels))), []
    for label in np.unique(query_labels):
        relevant, of = candidate_labels == label, np.flatnonzero(query_labels == label)
        pieces += [(piece, relevant) for piece in np.split(of, range(rows, len(of), rows))]

    def rank(piece: tuple[np.ndarray, np.ndarray]) -> None:
        aps[piece[0]] = _rank(_take(similarity, piece[0]), piece[1])

    several = similarity.size > 16 * pairs  # fewer pieces wait for the GIL longer than a second core saves
    list((pool.map if several else map)(rank, pieces))
    return aps


def _cores() -> int:
    """The cores that this process may use, four at most."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _rank(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """AP of each row; `similarity` (b, C) float32 is overwritten. `relevant` (C,) bool, the same for all rows.

    Sorting 32-bit integers that carry relevance in their lowest bit needs no argsort and no gather. A float's
    bits without its sign grow with its magnitude, and stay below 2**30 for |similarity| < 2: so sign,
    magnitude and the relevance bit fit into 32 bits without loss.
    """
    count = int(np.count_nonzero(relevant))  # R
    if not count:
        return np.zeros(len(similarity))
    keys = similarity.view(np.int32)
    sign = keys >> 31  # 0, or -1 for a negative similarity
    keys <<= 1  # twice the magnitude
    keys ^= sign
    np.subtract(
        sign, keys, out=keys
    )  # its negative, for sign 0: ascending keys, descending similarity; -0.0 is 0.0
    keys |= relevant.astype(np.int32)  # in a tie, the irrelevant sort first
    keys.sort(axis=1)
    hit = keys.astype(np.uint8) & 1  # (b, C): whether a place of the ranking is relevant
    rank = np.flatnonzero(hit.view(bool)).reshape(-1, count)  # (b, R): places in the whole of `keys`
    rank -= np.arange(len(keys))[:, None] * keys.shape[1] - 1
    return (np.arange(1.0, count + 1) / rank).mean(axis=1)


def map_per_attribute(aps: Sequence[np.ndarray]) -> np.ndarray:
    """mAP of each attribute, (K,): mean AP of its queries; NaN for an attribute without queries.

    `aps`: one array of APs a condition, 0..1.

    >>> map_per_attribute([np.array([1.0, 0.5]), np.array([0.25])])
    array([0.75, 0.25])
    """
    return np.array([np.mean(ap) if len(ap) else np.nan for ap in aps])


def map_weighted(aps: Sequence[np.ndarray]) -> float:
    """Mean AP over all queries, i.e. the attributes' mAPs weighted by query count: what Tables 2-4 print.

    >>> map_weighted([np.array([1.0, 0.5]), np.array([0.25])]) == (1.0 + 0.5 + 0.25) / 3
    True
    """
    return float(np.mean(np.concatenate(aps)))


def map_macro(aps: Sequence[np.ndarray]) -> float:
    """Plain mean of the attributes' mAPs, over the attributes that have queries. Not what the tables print.

    >>> map_macro([np.array([1.0, 0.5]), np.array([0.25])])
    0.5
    """
    return float(np.nanmean(map_per_attribute(aps)))


@dataclass(frozen=True)
class RetrievalResult:
    """The AP (0..1) of every query, one array a condition, in the order of that condition's query rows.

    >>> result = RetrievalResult(("sleeve", "tone"), (np.array([1.0, 0.5]), np.array([0.25])))
    >>> result.map_per_attribute, result.map_macro
    (array([0.75, 0.25]), 0.5)
    >>> result.to_dict()["map_per_attribute"]
    {'sleeve': 75.0, 'tone': 25.0}
    """

    names: tuple[str, ...]
    aps: tuple[np.ndarray, ...]

    @property
    def map_per_attribute(self) -> np.ndarray:
        """(K,), see the function of this name."""
        return map_per_attribute(self.aps)

    @property
    def map_weighted(self) -> float:
        """See the function of this name."""
        return map_weighted(self.aps)

    @property
    def map_macro(self) -> float:
        """See the function of this name."""
        return map_macro(self.aps)

    def resampled(self, repeats: int = 1000, seed: int = 0) -> np.ndarray:
        """(repeats, K) mAPs of bootstrap samples: queries drawn with replacement within each attribute.

        The attributes' query counts stay as they are. Candidates and model are held fixed, so the spread is
        that of the choice of queries, not of training. Each attribute has its own stream of random numbers.
        """
        means = np.full((repeats, len(self.aps)), np.nan)
        for condition, ap in enumerate(self.aps):
            if len(ap):
                draws = np.random.default_rng([seed, condition]).integers(0, len(ap), (repeats, len(ap)))
                means[:, condition] = ap[draws].mean(axis=1)
        return means

    def intervals(self, repeats: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, np.ndarray]:
        """Percentile bootstrap intervals, 0..1: map_per_attribute (K, 2), map_weighted and map_macro (2,)."""
        present = np.array([len(ap) > 0 for ap in self.aps])
        counts = np.array([len(ap) for ap in self.aps])[present]
        samples = self.resampled(repeats, seed)
        ends = [(1 - level) / 2, (1 + level) / 2]
        per_attribute = np.full((len(self.aps), 2), np.nan)
        per_attribute[present] = np.quantile(samples[:, present], ends, axis=0).T
        return {
            "map_per_attribute": per_attribute,
            "map_weighted": np.quantile(samples[:, present] @ counts / counts.sum(), ends),
            "map_macro": np.quantile(samples[:, present].mean(axis=1), ends),
        }

    def to_dict(self, repeats: int = 1000, seed: int = 0) -> dict:
        """For JSON, in percent: the three mAPs, query counts, and 95% intervals; attributes without queries
        are left out."""
        names = {c: name for c, name in enumerate(self.names) if len(self.aps[c])}
        means, interval = self.map_per_attribute, self.intervals(repeats, seed)
        percent = {key: (100 * ends).tolist() for key, ends in interval.items()}
        return {
            "map_weighted": 100 * self.map_weighted,
            "map_macro": 100 * self.map_macro,
            "map_per_attribute": {name: float(100 * means[c]) for c, name in names.items()},
            "queries": {name: len(self.aps[c]) for c, name in names.items()},
            "intervals": {
                **percent,
                "map_per_attribute": {name: percent["map_per_attribute"][c] for c, name in names.items()},
            },
        }


def retrieval_aps(
    queries: np.ndarray,
    query_embeddings: np.ndarray,
    candidates: np.ndarray,
    candidate_embeddings: np.ndarray,
    attributes: Attributes,
    block_bytes: int = 256 << 20,
) -> RetrievalResult:
    """ASEN's retrieval protocol: each attribute's queries against all of its candidates.

    In: `queries` (Q, 3) and `candidates` (C, 3), rows of image, condition, label (a Split's own arrays), and
    beside each row its embedding under that row's condition: (Q, E), (C, E), L2-normalised.
    Raises ValueError if rows and embeddings do not match, or a condition is not one of the attributes'.

    >>> rows = np.array([[0, 0, 7], [1, 0, 7], [2, 0, 2], [3, 0, 7]])
    >>> embeddings = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]])
    >>> one = Attributes.numbered({"tone": 8})
    >>> retrieval_aps(rows[:1], embeddings[:1], rows[1:], embeddings[1:], one).map_weighted == (1 + 2 / 3) / 2
    True
    """
    if len(queries) != len(query_embeddings) or len(candidates) != len(candidate_embeddings):
        raise ValueError(
            f"{len(queries)} queries, {len(query_embeddings)} embeddings; "
            f"{len(candidates)} candidates, {len(candidate_embeddings)} embeddings"
        )
    query_embeddings, candidate_embeddings = np.asarray(query_embeddings), np.asarray(candidate_embeddings)
    return _by_condition(
        queries,
        candidates,
        attributes,
        lambda _, q, c: average_precisions(
            _take(query_embeddings, q),
            queries[q, 2],
            _take(candidate_embeddings, c),
            candidates[c, 2],
            block_bytes,
        ),
    )


def _take(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """rows[index] for an ascending index; without a copy where that is a range."""
    if len(index) and index[-1] - index[0] == len(index) - 1:
        return rows[index[0] : index[-1] + 1]
    return rows[index]


def _by_condition(
    queries: np.ndarray,
    candidates: np.ndarray,
    attributes: Attributes,
    aps_of: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
) -> RetrievalResult:
    """Calls `aps_of(condition, its query rows, its candidate rows)` for each attribute."""
    conditions = np.concatenate([queries[:, 1], candidates[:, 1]])
    if len(conditions) and not 0 <= conditions.min() <= conditions.max() < len(attributes):
        raise ValueError(f"conditions {conditions.min()}..{conditions.max()} of {len(attributes)} attributes")
    rows = [
        (np.flatnonzero(queries[:, 1] == c), np.flatnonzero(candidates[:, 1] == c))
        for c in range(len(attributes))
    ]
    return RetrievalResult(attributes.names, tuple(aps_of(c, *pair) for c, pair in enumerate(rows)))


def random_aps(
    queries: np.ndarray,
    candidates: np.ndarray,
    attributes: Attributes,
    seed: int = 0,
    repeats: int = 1,
    block_bytes: int = 256 << 20,
) -> RetrievalResult:
    """The tables' "Random baseline", simulated: each query ranks its candidates at random.

    Only labels matter: no image, no model. `queries` (Q, 3), `candidates` (C, 3) as in `retrieval_aps`. The
    AP of a query is its mean over `repeats` random rankings. `random_map` gives what this tends to.

    >>> rows = np.array([[0, 0, 7], [1, 0, 7], [2, 0, 2], [3, 0, 7]])
    >>> one = Attributes.numbered({"tone": 8})
    >>> simulated = random_aps(rows[:1], rows[1:], one, repeats=4000).map_weighted
    >>> round(simulated, 1), round(expected_random_ap(3, 2), 1)
    (0.8, 0.8)
    """

    def aps_of(condition: int, q: np.ndarray, c: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, condition])

        def similarity(rows: slice) -> np.ndarray:
            return rng.random((len(q[rows]), len(c)), dtype=np.float32)

        return (
            sum(
                _aps_in_blocks(similarity, queries[q, 2], candidates[c, 2], block_bytes)
                for _ in range(repeats)
            )
            / repeats
        )

    return _by_condition(queries, candidates, attributes, aps_of)


def expected_random_ap(n: int, r: int | np.ndarray) -> float | np.ndarray:
    """E[AP] of a uniformly random ranking of n candidates of which r are relevant, exactly.

    With a_k = 1 if rank k is relevant, AP = 1/r sum_k a_k/k sum_{j<=k} a_j. As E[a_k] = r/n, and
    E[a_k a_j] = r(r-1) / (n(n-1)) for j < k, and H_n = 1 + 1/2 + ... + 1/n:

        E[AP] = H_n/n + (r-1)/(n-1) (1 - H_n/n)

    0 for r = 0 (ASEN). Not r/n, the share of relevant candidates, which it exceeds: of the three orders of 2
    relevant among 3, [1,1,0], [1,0,1] and [0,1,1] have AP 1, 5/6 and 7/12.

    >>> bool(np.isclose(expected_random_ap(3, 2), (1 + 5 / 6 + 7 / 12) / 3))
    True
    """
    if np.any(np.asarray(r) > n) or np.any(np.asarray(r) < 0):
        raise ValueError(f"of {n} candidates, {r} cannot be relevant")
    first = np.sum(1 / np.arange(1, n + 1)) / max(n, 1)  # H_n / n: the AP of a single relevant candidate
    expected = np.where(np.asarray(r) > 0, first + (np.asarray(r) - 1) / max(n - 1, 1) * (1 - first), 0.0)
    return expected if expected.ndim else float(expected)


def random_map(queries: np.ndarray, candidates: np.ndarray, attributes: Attributes) -> RetrievalResult:
    """The exact expectation of `random_aps`: each query's AP is `expected_random_ap` of its counts.

    >>> rows = np.array([[0, 0, 7], [1, 0, 7], [2, 0, 2], [3, 0, 7]])
    >>> result = random_map(rows[:1], rows[1:], Attributes.numbered({"tone": 8}))
    >>> result.map_weighted == expected_random_ap(3, 2)
    True
    """

    def aps_of(condition: int, q: np.ndarray, c: np.ndarray) -> np.ndarray:
        labels, counts = np.unique(candidates[c, 2], return_counts=True)
        relevant = dict(zip(labels.tolist(), counts.tolist()))
        r = [relevant.get(label, 0) for label in queries[q, 2].tolist()]
        return expected_random_ap(len(c), np.array(r, int))

    return _by_condition(queries, candidates, attributes, aps_of)


def triplet_accuracy(d_ap: np.ndarray, d_an: np.ndarray) -> float:
    """Share of triplets whose anchor is nearer to the positive: mean of d_ap < d_an (CSN; Table 5).

    Strict: a tie is wrong, as in CSN. d_ap, d_an: (T,) distances. ValueError if empty or of unequal shapes.

    >>> triplet_accuracy([0.1, 0.5, 0.3], [0.2, 0.5, 0.1]) == 1 / 3
    True
    """
    d_ap, d_an = np.asarray(d_ap), np.asarray(d_an)
    if d_ap.shape != d_an.shape or not d_ap.size:
        raise ValueError(f"d_ap {d_ap.shape} and d_an {d_an.shape} must be of one shape, and not empty")
    return float(np.mean(d_ap < d_an))
