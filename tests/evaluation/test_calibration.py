"""Calibrators and the calibration error against loops, and on answers whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from ccakit.evaluation.calibration import (
    METHODS,
    area_under_precision,
    cross_fit,
    error_if_perfect,
    expected_calibration_error,
    reliability,
    threshold_for,
)


@pytest.fixture
def answers():
    """Shares that promise too much: right with the probability share^3."""
    rng = np.random.default_rng(0)
    shares = rng.uniform(0, 1, 4000)
    return shares, rng.uniform(0, 1, 4000) < shares**3


def error_by_loop(confidence, right, bins):
    total = 0.0
    for low in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence, right)
            if low / bins <= c < (low + 1) / bins or (c == 1 and low == bins - 1)
        ]
        if inside:
            mean_confidence = sum(c for c, _ in inside) / len(inside)
            mean_right = sum(bool(r) for _, r in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(mean_right - mean_confidence)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_error_is_that_of_a_loop(answers, bins):
    shares, right = answers
    shares = np.append(shares[:300], [0.0, 1.0])
    right = np.append(right[:300], [False, True])
    expected = error_by_loop(shares, right, bins)
    assert expected_calibration_error(shares, right, bins) == pytest.approx(expected, abs=1e-12)
    assert reliability(shares, right, bins).count.sum() == 302


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_a_calibrator_mends_shares_that_promise_too_much(answers, method):
    shares, right = answers
    before = expected_calibration_error(shares, right)
    confidence = cross_fit(method, shares, right)
    assert before > 0.2 and expected_calibration_error(confidence, right) < 0.06
    order = np.argsort(shares)
    calibrated = METHODS[method](shares, right)(shares)
    assert (np.diff(calibrated[order]) >= 0).all() and 0 <= calibrated.min() <= calibrated.max() <= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("right", [[True], [False], [True] * 7, [False] * 3, [True, False]])
def test_few_answers_or_of_one_kind_give_a_confidence(method, right):
    shares = np.linspace(0.2, 1, len(right))
    for confidence in (cross_fit(method, shares, np.array(right)), METHODS[method](shares, right)(shares)):
        assert np.isfinite(confidence).all() and (confidence >= 0).all() and (confidence <= 1).all()
    assert len(METHODS[method](shares, right)(np.zeros(0))) == 0


def test_a_cross_fitted_confidence_has_not_seen_its_own_answer():
    """Each of five answers has its own share, and isotonic regression would learn each by heart."""
    shares, right = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([False, False, True, False, True])
    crossed = cross_fit("isotonic", shares, right)
    for own in range(5):
        others = np.arange(5) != own
        alone = METHODS["isotonic"](shares[others], right[others])(shares[own : own + 1])
        assert crossed[own] == alone[0]


@pytest.mark.parametrize("precision", [0.3, 0.6, 0.9])
def test_the_threshold_is_the_lowest_that_is_enough(answers, precision):
    confidence, right = np.round(answers[0][:500], 1), answers[1][:500]  # many are equal
    found = threshold_for(confidence, right, precision)
    enough = [level for level in np.unique(confidence) if right[confidence >= level].mean() >= precision]
    assert found == (min(enough) if enough else np.inf)


def test_the_area_is_that_of_a_loop_over_orders_of_equal_answers():
    rng = np.random.default_rng(0)
    confidence, right = rng.integers(0, 4, 60) / 4, rng.uniform(size=60) < 0.5
    areas = []
    for _ in range(3000):
        order = np.lexsort([rng.uniform(size=60), -confidence])
        areas.append(np.mean([right[order[:n]].mean() for n in range(1, 61)]))
    assert area_under_precision(confidence, right) == pytest.approx(np.mean(areas), abs=0.003)
    assert area_under_precision(np.ones(60), right) == pytest.approx(right.mean())


def test_perfect_confidences_of_few_answers_have_an_error_by_chance():
    rng = np.random.default_rng(0)
    few, many = (error_if_perfect(rng.uniform(size=n)) for n in (30, 30_000))
    assert 0.1 < few < 0.4 and many < 0.01
