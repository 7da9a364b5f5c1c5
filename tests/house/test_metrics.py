"""Metrics against sklearn, plain loops, exhaustive enumeration, and the paper's random baselines."""

from __future__ import annotations

import doctest
import itertools
import json
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ccakit import metrics
from ccakit.attributes import Attributes
from ccakit.data.layout import read_dataset
from ccakit.metrics import RetrievalResult, average_precision, average_precisions

# Tables 2-4, rows "Random baseline": overall, then each attribute
RANDOM = {
    "FashionAI": (15.79, [17.20, 12.50, 13.35, 17.45, 22.36, 21.63, 11.09, 21.19]),
    "DARN": (32.26, [8.49, 24.45, 12.54, 29.90, 43.26, 39.76, 15.22, 63.03, 55.54]),
    "DeepFashion": (3.38, [6.69, 2.69, 3.23, 2.55, 1.97]),
}


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def loop_ap(similarity, relevant):
    """The definition, with a tie counted against the model."""
    order = sorted(range(len(similarity)), key=lambda i: (-similarity[i], relevant[i]))
    hits, total = 0, Fraction(0)
    for rank, i in enumerate(order, 1):
        if relevant[i]:
            hits += 1
            total += Fraction(hits, rank)
    return float(total / hits) if hits else 0.0


def exact(values):
    """Rows (v, sqrt(1 - v^2)) whose cosine with (1, 0) is exactly the float32 v."""
    values = np.asarray(values, np.float32)
    return np.stack([values, np.sqrt(1 - values * values)], axis=1)


def test_doctests():
    result = doctest.testmod(metrics)
    assert result.attempted > 15 and result.failed == 0


def test_importing_metrics_does_not_import_torch():
    code = "import sys, ccakit.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "ranking, ap",
    [
        ([1, 0, 1], (1 + 2 / 3) / 2),
        ([0, 1, 0, 1], (1 / 2 + 2 / 4) / 2),
        ([1, 1, 0], 1),
        ([0, 0, 1], 1 / 3),
        ([0], 0),
        ([], 0),
    ],
)
def test_average_precision_by_hand(ranking, ap):
    assert average_precision(ranking) == pytest.approx(ap, abs=1e-15)
    queries, similarity = exact([1.0]), np.linspace(1, -1, len(ranking))
    fast = average_precisions(queries, [1], exact(similarity), np.array(ranking))
    assert fast == pytest.approx(ap, abs=1e-15)


def test_equals_sklearn_without_ties():
    rng = np.random.default_rng(0)
    queries, candidates = unit(rng, 60, 16), unit(rng, 500, 16)
    query_labels, candidate_labels = rng.integers(0, 6, 60), rng.integers(0, 6, 500)
    similarity = queries @ candidates.T
    assert all(len(np.unique(row)) == 500 for row in similarity)
    expected = [
        average_precision_score(candidate_labels == label, row)
        for label, row in zip(query_labels, similarity)
    ]
    aps = average_precisions(queries, query_labels, candidates, candidate_labels)
    np.testing.assert_allclose(aps, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ties_count_against_the_model_whatever_the_order_of_candidates(seed):
    rng = np.random.default_rng(seed)
    similarity = rng.integers(-4, 5, 80) / 4  # nine values, zero among them: many ties, exact in float32
    labels = rng.integers(0, 3, 80)
    expected = [loop_ap(similarity, labels == label) for label in range(3)]
    for order in (np.arange(80), rng.permutation(80)):
        aps = average_precisions(exact([1.0] * 3), np.arange(3), exact(similarity)[order], labels[order])
        np.testing.assert_allclose(aps, expected, rtol=0, atol=1e-12)


def test_a_collapsed_embedding_ranks_every_relevant_candidate_last():
    aps = average_precisions(exact([1.0]), [1], exact([1.0] * 4), [1, 0, 1, 0])
    assert aps == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_minus_zero_ties_with_zero():
    similarity = np.array([[0.0, -0.0]], np.float32)
    for relevant in ([[True, False]], [[False, True]]):
        assert metrics._rank(similarity.copy(), np.array(relevant)) == 0.5


def test_neighbouring_float32_similarities_are_told_apart():
    near = [1.0, np.nextafter(np.float32(1), np.float32(0)), -1e-30, -2e-30, -1.0]
    for ranking in itertools.product([0, 1], repeat=5):
        if any(ranking):
            similarity = np.array([near], np.float32)
            fast = metrics._rank(similarity, np.array([ranking], bool))
            assert fast == pytest.approx(average_precision(ranking), abs=1e-15)


def test_blocks_change_nothing_and_bound_the_memory():
    rng = np.random.default_rng(1)
    queries, candidates = unit(rng, 300, 8), unit(rng, 4000, 8)
    labels = np.zeros(300, int), np.zeros(4000, int)  # all relevant: the most memory
    labels[1][::2] = 1
    whole = average_precisions(queries, labels[0], candidates, labels[1])
    tracemalloc.start()
    blocks = average_precisions(queries, labels[0], candidates, labels[1], block_bytes=2 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(blocks, whole, atol=1e-4)  # a block's shape may change matmul's last bit
    assert peak < (2 << 20) + 200_000
    one_by_one = average_precisions(queries[:20], labels[0][:20], candidates, labels[1], block_bytes=1)
    np.testing.assert_allclose(one_by_one, whole[:20], atol=1e-4)


def test_inputs_that_cannot_be_ranked_are_refused():
    good, labels = exact([1.0, 0.5]), [0, 1]
    for bad in (2 * good, np.full((2, 2), np.nan), 0 * good):
        with pytest.raises(ValueError, match="not L2-normalised, the first: \\[0\\]"):
            average_precisions(good, labels, bad, labels)
    with pytest.raises(ValueError, match="do not match"):
        average_precisions(good, [0], good, labels)
    with pytest.raises(ValueError, match="2-d, candidates 3-d"):
        average_precisions(good, labels, np.eye(3)[:2], labels)


def test_retrieval_groups_rows_by_condition():
    rng = np.random.default_rng(2)
    attributes = Attributes.numbered({"sleeve": 3, "tone": 4, "never asked": 2})
    queries = np.stack([np.arange(40), rng.integers(0, 2, 40), rng.integers(0, 3, 40)], 1)
    candidates = np.stack([np.arange(40, 130), rng.integers(0, 2, 90), rng.integers(0, 3, 90)], 1)
    queries[0] = 0, 1, 3  # no candidate has it: AP 0, and it counts
    q, c = unit(rng, 40, 8), unit(rng, 90, 8)
    result = metrics.retrieval_aps(queries, q, candidates, c, attributes)
    for condition in range(2):
        rows = candidates[:, 1] == condition
        expected = [
            loop_ap(q[i] @ c[rows].T, candidates[rows, 2] == queries[i, 2])
            for i in np.flatnonzero(queries[:, 1] == condition)
        ]
        np.testing.assert_allclose(result.aps[condition], expected, atol=1e-12)
    assert result.aps[1][0] == 0 and len(result.aps[2]) == 0
    every = np.concatenate(result.aps)
    assert len(every) == 40 and result.map_weighted == pytest.approx(every.mean())
    assert result.map_macro == pytest.approx((result.aps[0].mean() + result.aps[1].mean()) / 2)
    assert np.isnan(result.map_per_attribute[2])
    assert set(result.to_dict()["map_per_attribute"]) == {"sleeve", "tone"}
    with pytest.raises(ValueError, match="39 embeddings"):
        metrics.retrieval_aps(queries, q[:39], candidates, c, attributes)
    with pytest.raises(ValueError, match=r"conditions 0\.\.1 of 1"):
        metrics.retrieval_aps(queries, q, candidates, c, Attributes.numbered({"sleeve": 3}))


def own_rows(n=60, seed=4):
    """Rows of one attribute: all images are queries, and candidates; every fifth candidate has two values."""
    rng = np.random.default_rng(seed)
    queries = np.stack([np.arange(n), np.zeros(n, int), rng.integers(0, 4, n)], 1)
    queries[7, 2] = 5  # a value that no other image has
    second = queries[::5].copy()
    second[:, 2] = (second[:, 2] + 1) % 4
    return queries, np.concatenate([queries, second])[rng.permutation(n + len(second))], rng


ONE = Attributes.numbered({"tone": 6})


@pytest.mark.parametrize("block_bytes", [metrics.BLOCK_BYTES, 3000])
def test_a_query_does_not_find_its_own_image(block_bytes, monkeypatch):
    queries, candidates, rng = own_rows()
    monkeypatch.setattr(metrics.average_precisions, "__defaults__", (block_bytes, None))
    e = rng.choice(np.float32([-0.25, 0.25]), (len(queries), 16))  # of length 1; sums are exact, so are ties
    found = metrics.retrieval_aps(queries, e, candidates, e[candidates[:, 0]], ONE)
    expected = []
    for image, _, label in queries:
        others = candidates[candidates[:, 0] != image]
        expected.append(loop_ap(e[image] @ e[others[:, 0]].T, others[:, 2] == label))
    np.testing.assert_allclose(found.aps[0], expected, atol=1e-12)
    assert found.aps[0][7] == 0  # its only relevant candidate is itself
    assert found.own_left_out == found.to_dict()["own_left_out"] == len(queries)


def test_some_queries_that_are_candidates_move_no_other_query():
    queries, candidates, rng = own_rows()
    e = rng.choice(np.float32([-0.25, 0.25]), (len(queries), 16))  # sums are exact, whatever a matrix's shape
    apart = candidates[candidates[:, 0] >= 30]
    before = metrics.retrieval_aps(queries[:30], e[:30], apart, e[apart[:, 0]], ONE)
    assert before.own_left_out == 0
    mixed = metrics.retrieval_aps(queries[:40], e[:40], apart, e[apart[:, 0]], ONE)
    np.testing.assert_array_equal(mixed.aps[0][:30], before.aps[0])
    assert mixed.own_left_out == 10


def test_a_random_ranking_leaves_the_own_image_out_too():
    queries, candidates, _ = own_rows()
    expected = metrics.random_map(queries, candidates, ONE)
    for row, (image, _, label) in enumerate(queries):
        others = candidates[candidates[:, 0] != image]
        exact_ap = metrics.expected_random_ap(len(others), int((others[:, 2] == label).sum()))
        assert expected.aps[0][row] == pytest.approx(exact_ap)
    drawn = [metrics.random_aps(queries, candidates, ONE, seed=seed).map_weighted for seed in range(100)]
    assert np.mean(drawn) == pytest.approx(expected.map_weighted, abs=0.005)


def test_bootstrap_intervals():
    rng = np.random.default_rng(3)
    result = RetrievalResult(("a", "b"), (rng.random(400), 0.2 * rng.random(100)))
    interval = result.intervals()
    for ap, ends in zip(result.aps, interval["map_per_attribute"]):  # near the normal one, for so many
        half = 1.96 * ap.std() / np.sqrt(len(ap))
        np.testing.assert_allclose(ends, [ap.mean() - half, ap.mean() + half], atol=0.2 * half)
    half = 1.96 * np.hypot(400 / 500 * result.aps[0].std() / 20, 100 / 500 * result.aps[1].std() / 10)
    ends = result.map_weighted - half, result.map_weighted + half
    np.testing.assert_allclose(interval["map_weighted"], ends, atol=0.2 * half)
    assert interval["map_macro"][0] < result.map_macro < interval["map_macro"][1]
    assert result.to_dict() == result.to_dict() and result.to_dict(seed=1) != result.to_dict()
    alone = RetrievalResult(("a",), result.aps[:1]).intervals()  # an attribute's interval is its own
    np.testing.assert_array_equal(alone["map_per_attribute"][0], interval["map_per_attribute"][0])


def test_to_dict_is_json_in_percent():
    text = json.dumps(RetrievalResult(("a", "b"), (np.array([1, 0.5]), np.array([0.25]))).to_dict())
    back = json.loads(text)
    assert back["map_weighted"] == pytest.approx(175 / 3) and back["map_macro"] == 50
    assert back["queries"] == {"a": 2, "b": 1}
    assert back["intervals"]["map_per_attribute"]["b"] == [25, 25]


@pytest.mark.parametrize("n", range(1, 8))
def test_expected_random_ap_equals_the_mean_of_all_rankings(n):
    for r in range(n + 1):
        rankings = [[i in chosen for i in range(n)] for chosen in itertools.combinations(range(n), r)]
        expected = np.mean([average_precision(ranking) for ranking in rankings])
        assert metrics.expected_random_ap(n, r) == pytest.approx(expected, abs=1e-14)
    with pytest.raises(ValueError):
        metrics.expected_random_ap(n, n + 1)


@pytest.mark.parametrize("name", RANDOM)
def test_the_papers_random_baseline(splits, name):
    overall, each = RANDOM[name]
    split = read_dataset(splits / name, splits=("test",))["test"]
    simulated = metrics.random_aps(split.queries, split.candidates, split.attributes, seed=0)
    expected = metrics.random_map(split.queries, split.candidates, split.attributes)
    np.testing.assert_allclose(simulated.map_per_attribute, expected.map_per_attribute, atol=0.004)
    assert abs(simulated.map_weighted - expected.map_weighted) < 0.0015
    off = 100 * expected.map_per_attribute - each
    if name != "DARN":
        assert abs(100 * simulated.map_weighted - overall) < 0.15
        assert np.abs(100 * simulated.map_per_attribute - each).max() < 0.4
        assert np.abs(off).max() < 0.015  # the exact expectation: the paper's figures but for rounding
    else:  # the paper's row is the expectation plus whole percents: not these labels', and not chance
        assert 100 * expected.map_weighted == pytest.approx(31.26, abs=0.005)
        np.testing.assert_allclose(off, [-3, -1, -2, 0, 0, -1, 0, -1, -1], atol=0.02)


def test_triplet_accuracy_counts_a_tie_as_wrong():
    rng = np.random.default_rng(4)
    d_ap, d_an = rng.integers(0, 3, (2, 500)) / 2
    assert metrics.triplet_accuracy(d_ap, d_an) == sum(a < b for a, b in zip(d_ap, d_an)) / 500
    assert metrics.triplet_accuracy([0.5], [0.5]) == 0
    for bad in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError):
            metrics.triplet_accuracy(*bad)
