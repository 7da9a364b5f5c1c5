"""Confidence that holds: of the answers with confidence 0.8, eight in ten should be right.

A vote among neighbours gives each answer a share of the votes, 0 to 1. A calibrator makes a confidence of it.
It is fitted to answers that are known to be right or wrong:

    share     the share itself, without calibration
    logistic  sigmoid(a share + b) (Platt, 1999)
    isotonic  the rising step function with the least squared error (Zadrozny and Elkan, 2002)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

BINS = 15  # of equal width, as in Guo et al., ICML 2017
FOLDS = 5
Calibrator = Callable[[np.ndarray], np.ndarray]


class Reliability(NamedTuple):
    """Answers in bins of equal width by their confidence, each (B,): how many, mean confidence, share right.

    The last two are NaN in an empty bin.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Count answers by confidence. In: confidence (n,), 0 to 1, and right (n,), bool."""
    bin_of = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, values, minlength=bins) for values in (confidence, right)]
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums]
    return Reliability(count, *means)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Compute the expected calibration error (Guo et al., 2017), 0 to 1; NaN without answers.

        ECE = sum over bins  (answers in the bin / all answers) |share right - mean confidence|

    Two answers with 0.9, of which one is right, and one wrong with 0.2: 2/3 |1/2 - 0.9| + 1/3 |0 - 0.2|:

    >>> error = expected_calibration_error(np.array([0.9, 0.9, 0.2]), np.array([True, False, False]))
    >>> bool(np.isclose(error, 2 / 3 * 0.4 + 1 / 3 * 0.2))
    True
    """
    found = reliability(confidence, right, bins)
    gap = np.nan_to_num(np.abs(found.accuracy - found.confidence))
    return float(found.count @ gap / found.count.sum()) if found.count.sum() else float("nan")


def error_if_perfect(confidence: np.ndarray, repeats: int = 200, seed: int = 0, bins: int = BINS) -> float:
    """Compute the error to expect of so many answers if each were right with just its confidence.

    The error of few answers is above 0 by chance alone. The mean of `repeats` draws.
    """
    drawn = np.random.default_rng(seed).random((repeats, len(confidence))) < confidence
    return float(np.mean([expected_calibration_error(confidence, right, bins) for right in drawn]))


def area_under_precision(confidence: np.ndarray, right: np.ndarray) -> float:
    """Compute the area under the curve of precision by coverage, 0 to 1 (1 - AURC, Geifman et al., 2019).

    The mean, over n, of the share right among the n most confident answers; equal ones count in any order,
    on average. Right, wrong, right gives (1/1 + 1/2 + 2/3) / 3:

    >>> area = area_under_precision(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]))
    >>> bool(np.isclose(area, (1 + 1 / 2 + 2 / 3) / 3))
    True
    """
    _, group, count = np.unique(-np.asarray(confidence), return_inverse=True, return_counts=True)
    mean = np.bincount(group, right) / count
    expected = np.repeat(mean, count)  # best first
    return float(np.mean(np.cumsum(expected) / np.arange(1, len(expected) + 1)))


def fit_share(share: np.ndarray, right: np.ndarray) -> Calibrator:
    """Take the share as the confidence."""
    return lambda shares: np.asarray(shares, float)


def fit_logistic(share: np.ndarray, right: np.ndarray) -> Calibrator:
    """Fit sigmoid(a share + b); a constant where all answers are right, or all are wrong."""
    from sklearn.linear_model import LogisticRegression  # here: its import takes a second

    if len(np.unique(right)) < 2:
        constant = (np.sum(right) + 1) / (len(right) + 2)  # Laplace's rule of succession
        return lambda shares: np.full(len(shares), constant)
    model = LogisticRegression(C=100.0).fit(np.reshape(share, (-1, 1)), right)
    return lambda shares: model.predict_proba(np.reshape(shares, (-1, 1)))[:, 1] if len(shares) else shares


def fit_isotonic(share: np.ndarray, right: np.ndarray) -> Calibrator:
    """Fit a function of the share that never falls; beyond the shares that it has seen it is flat."""
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(share, right)
    return lambda shares: model.predict(shares) if len(shares) else np.asarray(shares, float)


METHODS = {"share": fit_share, "logistic": fit_logistic, "isotonic": fit_isotonic}


def cross_fit(method: str, share: np.ndarray, right: np.ndarray, folds: int = FOLDS) -> np.ndarray:
    """Give each answer a confidence, (n,), by a calibrator that has not seen its part of the answers."""
    confidence, part = np.zeros(len(share)), np.arange(len(share)) % folds
    for each in np.unique(part):
        asked = part == each
        seen = ~asked if len(share) > 1 else asked
        confidence[asked] = METHODS[method](share[seen], right[seen])(share[asked])
    return confidence


def threshold_for(confidence: np.ndarray, right: np.ndarray, precision: float) -> float:
    """Find the lowest confidence from which on at least a share of `precision` of the answers is right.

    Infinity where no confidence is enough.

    >>> threshold_for(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]), 0.75)
    0.6
    >>> threshold_for(np.array([0.9, 0.8]), np.array([False, True]), 0.75)
    inf
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_equal = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    enough = np.flatnonzero(last_of_equal & (reached >= precision))
    return float(ranked[enough[-1]]) if len(enough) else float("inf")
