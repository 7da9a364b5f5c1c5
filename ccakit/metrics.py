"""Average precision and its means by ASEN's rules, random baselines, triplet accuracy. NumPy only.

The rules that hold everywhere in this file (ASEN: Ma et al., AAAI 2020; the protocol of the paper's Tables
2-4):

- every candidate of the query's attribute is ranked, by descending cosine similarity; no cut-off at k;
- a candidate is relevant if its label equals the query's; AP divides by the number of relevant candidates;
- a query without a relevant candidate has AP 0, and counts;
- a query's own image is no candidate of it: where a query is among the candidates, it is left out of its own
  ranking, and neither counts as relevant nor as a candidate (ASEN's queries and candidates are disjoint);
- a tie counts against the model: among candidates with equal float32 similarity, the irrelevant come first.
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

BLOCK_BYTES = 256 << 20  # working memory of a block of queries
BYTES_PER_PAIR = 40  # working memory to rank one (query, candidate) in the worst case: all are relevant
PAIRS_AT_ONCE = 1 << 18  # pairs ranked at a time, so that their sort keys stay in the processor's cache
LAST = -1.5  # the similarity of what is left out: below every cosine


def average_precision(relevant_sorted: Sequence[int] | np.ndarray) -> float:
    """Compute the AP of one ranking: the mean of precision at the rank of each relevant candidate.

        AP = 1/R  sum_{k: relevant}  (relevant among the first k) / k

    Differs from the common definition in that a ranking without a relevant candidate has AP 0 (ASEN), where
    the ratio is undefined. Input: (C,) of 0/1 or bool, best candidate first. Ranking [1, 0, 1] has AP (1/1 +
    2/3) / 2:

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
    block_bytes: int = BLOCK_BYTES,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """Compute the AP of every query over all candidates, under one attribute, ranked by cosine similarity.

    The same as `average_precision` of each ranking; similarities are float32, sums float64. Departs from the
    common definition in its ties: irrelevant candidates come first (see the module). Works on blocks of
    queries, in about `block_bytes` of memory (at least one query's row).

    In: queries (Q, E) and candidates (C, E), L2-normalised; their labels (Q,) and (C,). own: (P, 2) pairs of
    a query and a candidate that are the same image, as `equal_pairs` finds them; by default none. Out: (Q,)
    float64.
    Raises ValueError if the shapes disagree, or a row does not have length 1 (also if it holds NaN).

    >>> candidates = np.array([[1, 0], [0.8, 0.6], [0, 1]])
    >>> average_precisions(candidates[:1], [7], candidates, [7, 2, 7]) == (1 + 2 / 3) / 2
    array([ True])
    """
    queries, query_labels = _unit_rows("query", queries, query_labels)
    candidates, candidate_labels = _unit_rows("candidate", candidates, candidate_labels)
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"queries are {queries.shape[1]}-d, candidates {candidates.shape[1]}-d")

    def similarity(block: slice) -> np.ndarray:
        return queries[block] @ candidates.T

    return _aps_in_blocks(similarity, query_labels, candidate_labels, block_bytes, own)


def equal_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Find all equal entries of two arrays (M,) and (N,): (P, 2) positions in them, by the first.

    >>> equal_pairs(np.array([5, 8, 6]), np.array([6, 7, 5, 6])).tolist()
    [[0, 2], [2, 0], [2, 3]]
    """
    order = np.argsort(second, kind="stable")
    begin, end = (np.searchsorted(second[order], first, side) for side in ("left", "right"))
    counts = end - begin
    position = np.repeat(np.arange(len(first)), counts)
    within = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([position, order[begin[position] + within]], axis=1)


def check_unit_length(embeddings: np.ndarray, name: str) -> None:
    """Raise ValueError if one of the embeddings (..., E) does not have length 1, also if it holds NaN."""
    length = np.sqrt(np.einsum("...e,...e->...", embeddings, embeddings))  # np.linalg.norm would make a copy
    wrong = ~(np.abs(length - 1) < 1e-2)  # ~(<): NaN is wrong, too; 1e-2: float16
    if wrong.any():
        first = np.argwhere(wrong)[0].tolist()
        raise ValueError(f"{wrong.sum()} {name} are not L2-normalised, the first: {first}")


def _unit_rows(side: str, embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = np.asarray(embeddings, dtype=np.float32), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(f"{side} embeddings {embeddings.shape} and labels {labels.shape} do not match")
    check_unit_length(embeddings, f"{side} rows")
    return embeddings, labels


def _aps_in_blocks(
    similarity: Callable[[slice], np.ndarray],
    query_labels: np.ndarray,
    candidate_labels: np.ndarray,
    block_bytes: int = BLOCK_BYTES,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """Compute the AP of each query; `similarity` maps a slice of b queries to (b, C) float32, which may be
    overwritten. own: see `average_precisions`."""
    aps = np.zeros(len(query_labels))
    own = np.zeros((0, 2), int) if own is None else own
    query, candidate = own.T
    left_out = own_relevant(query_labels, candidate_labels, own)
    step = max(1, block_bytes * 3 // 4 // (4 * max(1, len(candidate_labels))))  # queries a block
    workers = _cores()  # NumPy sorts outside the GIL
    pairs = min(PAIRS_AT_ONCE, block_bytes // 4 // workers // BYTES_PER_PAIR)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(aps), step):
            block = slice(start, start + step)
            first, last = np.searchsorted(query, [start, start + step])
            out = query[first:last] - start, candidate[first:last]
            labels = query_labels[block], candidate_labels
            aps[block] = _rank_block(similarity(block), *labels, out, left_out[block], pairs, pool)
    return aps


def _rank_block(
    similarity: np.ndarray,
    query_labels: np.ndarray,
    candidate_labels: np.ndarray,
    out: tuple[np.ndarray, np.ndarray],
    left_out: np.ndarray,
    pairs: int,
    pool: Executor,
) -> np.ndarray:
    """Compute the AP of each row of (b, C), in pieces of about `pairs` pairs.

    out: the rows and columns that are left out. left_out: how many of them are relevant in each row, (b,). A
    piece has the queries of one label and one such number.
    """
    similarity[out] = LAST
    aps, pieces = np.zeros(len(query_labels)), []
    rows = max(1, pairs // max(1, len(candidate_labels)))
    for label in np.unique(query_labels):
        relevant, same_label = candidate_labels == label, np.flatnonzero(query_labels == label)
        for count in np.unique(left_out[same_label]):
            alike = same_label[left_out[same_label] == count]
            pieces += [(alike[i : i + rows], relevant, count) for i in range(0, len(alike), rows)]

    def rank(piece: tuple[np.ndarray, np.ndarray, int]) -> None:
        queries, relevant, count = piece
        aps[queries] = _rank(_take(similarity, queries), relevant, count)

    in_threads = (
        similarity.size > 16 * pairs
    )  # with fewer pieces, waiting for the GIL costs more than it saves
    list((pool.map if in_threads else map)(rank, pieces))
    return aps


def _cores() -> int:
    """Count the cores that this process may use, four at most."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _rank(similarity: np.ndarray, relevant: np.ndarray, left_out: int = 0) -> np.ndarray:
    """Compute the AP of each row of `similarity` (b, C) float32, which is overwritten.

    relevant: (C,) bool, the same for all rows. left_out: how many of the relevant candidates do not count in
    each row; their similarity is LAST, so that they are the last of them.

    Sorting 32-bit integers that carry relevance in their lowest bit needs no argsort and no gather. A float's
    bits without its sign grow with its magnitude, and stay below 2**30 for |similarity| < 2: so sign,
    magnitude and the relevance bit fit into 32 bits without loss.
    """
    count = int(np.count_nonzero(relevant))  # R
    if count == left_out:
        return np.zeros(len(similarity))
    keys = similarity.view(np.int32)
    sign = keys >> 31  # 0, or -1 for a negative similarity
    keys <<= 1  # twice the magnitude
    keys ^= sign
    np.subtract(
        sign, keys, out=keys
    )  # minus the magnitude, for sign 0: the largest similarity first; -0.0 is 0.0
    keys |= relevant.astype(np.int32)  # in a tie, the irrelevant sort first
    keys.sort(axis=1)
    hit = keys.astype(np.uint8) & 1  # (b, C): whether the candidate at each rank is relevant
    rank = np.flatnonzero(hit.view(bool)).reshape(-1, count)  # (b, R): positions in the flat `keys`
    rank -= np.arange(len(keys))[:, None] * keys.shape[1] - 1  # -> ranks, from 1
    rank = rank[:, : count - left_out]
    return (np.arange(1.0, rank.shape[1] + 1) / rank).mean(axis=1)


def bootstrap_means(
    values: np.ndarray, groups: np.ndarray | None = None, repeats: int = 1000, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Compute the mean of `values` in each bootstrap sample: (repeats,).

    Values (n,) of one group depend on each other, so groups are drawn with replacement, each with all its
    values. groups: (n,) the group of each value; by default each value is drawn alone.

    >>> bootstrap_means(np.array([0.5, 0.5, 0.5]), repeats=2)
    array([0.5, 0.5])
    """
    _, group = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    sizes, sums = np.bincount(group), np.bincount(group, values)
    rng, means = np.random.default_rng(seed), np.empty(repeats)
    for repeat in range(repeats):
        drawn = rng.integers(0, len(sizes), len(sizes))
        means[repeat] = sums[drawn].sum() / sizes[drawn].sum()
    return means


def interval_95(samples: np.ndarray) -> np.ndarray:
    """Compute the 95% percentile interval of bootstrap samples (repeats, ...): (2, ...)."""
    return np.quantile(samples, [0.025, 0.975], axis=0)


def mean_intervals(samples: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute 95% intervals of K attributes' means, of their weighted mean, and of their plain mean.

    samples: (repeats, K) bootstrap means of each attribute. counts: (K,) how many values each is the mean of.
    Out: (K, 2), (2,) and (2,).
    """
    weighted, macro = samples @ counts / counts.sum(), samples.mean(axis=1)
    return tuple(interval_95(each).T for each in (samples, weighted, macro))


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
    own_left_out: int = 0
    """The queries whose own image is among the candidates, and is left out of their rankings."""

    @property
    def map_per_attribute(self) -> np.ndarray:
        """The mAP of each attribute, (K,): the mean AP of its queries; NaN for an attribute without queries.

        >>> RetrievalResult(("sleeve", "tone"), (np.array([1.0, 0.5]), np.array([]))).map_per_attribute
        array([0.75,  nan])
        """
        return np.array([np.mean(ap) if len(ap) else np.nan for ap in self.aps])

    @property
    def map_weighted(self) -> float:
        """The mean AP over all queries: the attributes' mAPs weighted by query count. Tables 2-4 print it.

        >>> aps = np.array([1.0, 0.5]), np.array([0.25])
        >>> RetrievalResult(("sleeve", "tone"), aps).map_weighted == (1.0 + 0.5 + 0.25) / 3
        True
        """
        return float(np.mean(np.concatenate(self.aps)))

    @property
    def map_macro(self) -> float:
        """The plain mean of the mAPs of the attributes that have queries. The tables do not print it.

        >>> RetrievalResult(("sleeve", "tone"), (np.array([1.0, 0.5]), np.array([0.25]))).map_macro
        0.5
        """
        return float(np.nanmean(self.map_per_attribute))

    def resampled(self, repeats: int = 1000, seed: int = 0) -> np.ndarray:
        """Compute (repeats, K) mAPs of bootstrap samples: queries drawn with replacement in each attribute.

        The attributes' query counts stay as they are. Candidates and model are held fixed, so the spread is
        that of the choice of queries, not of training. Each attribute has its own stream of random numbers.
        """
        means = np.full((repeats, len(self.aps)), np.nan)
        for condition, ap in enumerate(self.aps):
            if len(ap):
                means[:, condition] = bootstrap_means(ap, repeats=repeats, seed=(seed, condition))
        return means

    def intervals(self, repeats: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
        """Bootstrap 95% intervals, 0..1: map_per_attribute (K, 2), map_weighted and map_macro (2,)."""
        counts = np.array([len(ap) for ap in self.aps])
        present, per_attribute = counts > 0, np.full((len(counts), 2), np.nan)
        samples = self.resampled(repeats, seed)[:, present]
        per_attribute[present], weighted, macro = mean_intervals(samples, counts[present])
        return {"map_per_attribute": per_attribute, "map_weighted": weighted, "map_macro": macro}

    def to_dict(self, repeats: int = 1000, seed: int = 0) -> dict:
        """Give the three mAPs in percent, query counts and 95% intervals, for JSON.

        Attributes without queries are left out.
        """
        present = [(c, name) for c, name in enumerate(self.names) if len(self.aps[c])]
        means = 100 * self.map_per_attribute
        intervals = {key: (100 * ends).tolist() for key, ends in self.intervals(repeats, seed).items()}
        per_attribute = intervals["map_per_attribute"]
        return {
            "map_weighted": 100 * self.map_weighted,
            "map_macro": 100 * self.map_macro,
            "map_per_attribute": {name: float(means[c]) for c, name in present},
            "queries": {name: len(self.aps[c]) for c, name in present},
            "intervals": {**intervals, "map_per_attribute": {name: per_attribute[c] for c, name in present}},
            "own_left_out": self.own_left_out,
        }


def retrieval_aps(
    queries: np.ndarray,
    query_embeddings: np.ndarray,
    candidates: np.ndarray,
    candidate_embeddings: np.ndarray,
    attributes: Attributes,
) -> RetrievalResult:
    """Rank each attribute's queries against all of its candidates: ASEN's retrieval protocol.

    In: `queries` (Q, 3) and `candidates` (C, 3), rows of image, condition, label (a Split's own arrays), and
    for each row its embedding under that row's condition: (Q, E), (C, E), L2-normalised.
    A candidate of the query's own image is left out (see the module).
    Raises ValueError if rows and embeddings do not match, or a condition is not one of the attributes'.

    >>> rows = np.array([[0, 0, 7], [1, 0, 7], [2, 0, 2], [3, 0, 7]])
    >>> embeddings = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]])
    >>> one = Attributes.numbered({"tone": 8})
    >>> retrieval_aps(rows[:1], embeddings[:1], rows[1:], embeddings[1:], one).map_weighted == (1 + 2 / 3) / 2
    True
    """
    query_embeddings, candidate_embeddings = np.asarray(query_embeddings), np.asarray(candidate_embeddings)
    for side, rows, embeddings in (
        ("queries", queries, query_embeddings),
        ("candidates", candidates, candidate_embeddings),
    ):
        if len(rows) != len(embeddings):
            raise ValueError(f"{len(rows)} {side}, but {len(embeddings)} embeddings")

    def aps_of(condition: int, q: np.ndarray, c: np.ndarray, own: np.ndarray) -> np.ndarray:
        sides = _take(query_embeddings, q), queries[q, 2], _take(candidate_embeddings, c), candidates[c, 2]
        return average_precisions(*sides, own=own)

    return _by_condition(queries, candidates, attributes, aps_of)


def _take(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Select rows[index] for an ascending index; without a copy if that is a range."""
    if len(index) and index[-1] - index[0] == len(index) - 1:
        return rows[index[0] : index[-1] + 1]
    return rows[index]


def _by_condition(
    queries: np.ndarray,
    candidates: np.ndarray,
    attributes: Attributes,
    aps_of: Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> RetrievalResult:
    """Call `aps_of(condition, its query rows, its candidate rows, own pairs of these)` for each attribute."""
    conditions = np.concatenate([queries[:, 1], candidates[:, 1]])
    if len(conditions) and not 0 <= conditions.min() <= conditions.max() < len(attributes):
        raise ValueError(f"conditions {conditions.min()}..{conditions.max()} of {len(attributes)} attributes")
    aps, own_left_out = [], 0
    for condition in range(len(attributes)):
        q, c = (np.flatnonzero(rows[:, 1] == condition) for rows in (queries, candidates))
        own = equal_pairs(queries[q, 0], candidates[c, 0])
        aps.append(aps_of(condition, q, c, own))
        own_left_out += len(np.unique(own[:, 0]))
    return RetrievalResult(attributes.names, tuple(aps), own_left_out)


def random_aps(
    queries: np.ndarray, candidates: np.ndarray, attributes: Attributes, seed: int = 0
) -> RetrievalResult:
    """Simulate the tables' "Random baseline": each query ranks its candidates at random.

    Only labels matter: no image, no model. `queries` (Q, 3), `candidates` (C, 3) as in `retrieval_aps`.
    `random_map` gives the exact expectation.

    >>> rows = np.array([[0, 0, 7], [1, 0, 7], [2, 0, 2], [3, 0, 7]])
    >>> one = Attributes.numbered({"tone": 8})
    >>> simulated = random_aps(np.repeat(rows[:1], 4000, axis=0), rows[1:], one).map_weighted
    >>> round(simulated, 1), round(expected_random_ap(3, 2), 1)
    (0.8, 0.8)
    """

    def aps_of(condition: int, q: np.ndarray, c: np.ndarray, own: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, condition])

        def similarity(block: slice) -> np.ndarray:
            return rng.random((len(q[block]), len(c)), dtype=np.float32)

        return _aps_in_blocks(similarity, queries[q, 2], candidates[c, 2], own=own)

    return _by_condition(queries, candidates, attributes, aps_of)


def expected_random_ap(n: int, r: int | np.ndarray) -> float | np.ndarray:
    """Compute E[AP] of a uniformly random ranking of n candidates, r of which are relevant, exactly.

    With a_k = 1 if rank k is relevant, AP = 1/r sum_k a_k/k sum_{j<=k} a_j. As E[a_k] = r/n, and
    E[a_k a_j] = r(r-1) / (n(n-1)) for j < k, and H_n = 1 + 1/2 + ... + 1/n:

        E[AP] = H_n/n + (r-1)/(n-1) (1 - H_n/n)

    0 for r = 0 (ASEN). It is larger than r/n, the share of relevant candidates: the three orders of 2
    relevant among 3, [1,1,0], [1,0,1] and [0,1,1], have AP 1, 5/6 and 7/12.

    >>> bool(np.isclose(expected_random_ap(3, 2), (1 + 5 / 6 + 7 / 12) / 3))
    True
    """
    if np.any(np.asarray(r) > n) or np.any(np.asarray(r) < 0):
        raise ValueError(f"of {n} candidates, {r} cannot be relevant")
    first = np.sum(1 / np.arange(1, n + 1)) / max(n, 1)  # H_n / n: the AP of a single relevant candidate
    expected = np.where(np.asarray(r) > 0, first + (np.asarray(r) - 1) / max(n - 1, 1) * (1 - first), 0.0)
    return expected if expected.ndim else float(expected)


def random_map(queries: np.ndarray, candidates: np.ndarray, attributes: Attributes) -> RetrievalResult:
    """Compute the exact expectation of `random_aps`: each query's AP is `expected_random_ap` of its counts.

    >>> rows = np.array([[0, 0, 7], [1, 0, 7], [2, 0, 2], [3, 0, 7]])
    >>> result = random_map(rows[:1], rows[1:], Attributes.numbered({"tone": 8}))
    >>> result.map_weighted == expected_random_ap(3, 2)
    True
    """

    def aps_of(condition: int, q: np.ndarray, c: np.ndarray, own: np.ndarray) -> np.ndarray:
        r = relevant_candidates(queries[q, 2], candidates[c, 2], own)
        n = len(c) - np.bincount(own[:, 0], minlength=len(q))
        aps = np.zeros(len(q))
        for count in np.unique(n):
            aps[n == count] = expected_random_ap(int(count), r[n == count])
        return aps

    return _by_condition(queries, candidates, attributes, aps_of)


def relevant_candidates(
    query_labels: np.ndarray, candidate_labels: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Count each query's relevant candidates under one attribute, without those of its own image: (Q,).

    own: (P, 2), see `equal_pairs`.

    >>> relevant_candidates(np.array([7, 2]), np.array([7, 2, 7]), np.array([[1, 1]])).tolist()
    [2, 0]
    """
    labels, counts = np.unique(candidate_labels, return_counts=True)
    relevant = dict(zip(labels.tolist(), counts.tolist()))
    found = np.array([relevant.get(label, 0) for label in query_labels.tolist()], int)
    return found - own_relevant(query_labels, candidate_labels, own)


def own_relevant(query_labels: np.ndarray, candidate_labels: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Count each query's candidates that have its label and are its own image: (Q,). own: (P, 2)."""
    query, candidate = own.T
    return np.bincount(query[query_labels[query] == candidate_labels[candidate]], minlength=len(query_labels))


def triplet_accuracy(d_ap: np.ndarray, d_an: np.ndarray) -> float:
    """Compute the share of triplets whose anchor is nearer to the positive: the mean of d_ap < d_an.

    As in CSN and Table 5; a tie is wrong. d_ap, d_an: (T,) distances. ValueError if they are empty or have
    different shapes.

    >>> triplet_accuracy([0.1, 0.5, 0.3], [0.2, 0.5, 0.1]) == 1 / 3
    True
    """
    d_ap, d_an = np.asarray(d_ap), np.asarray(d_an)
    if d_ap.shape != d_an.shape or not d_ap.size:
        raise ValueError(
            f"d_ap {d_ap.shape} and d_an {d_an.shape} must have the same shape, and not be empty"
        )
    return float(np.mean(d_ap < d_an))
