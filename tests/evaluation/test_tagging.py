"""Tagging by neighbours against plain loops, its own image left out, and its numbers on a split."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ccakit.evaluation.embedding import Sides
from ccakit.evaluation.neighbours import TEMPERATURE, Side, find_neighbours, vote
from ccakit.evaluation.tagging import (
    KS,
    PRECISION,
    Known,
    ask,
    fit_tagger,
    fit_to_split,
    known_answers,
    sides_by_condition,
)


def unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def random_side(rng, images, rows, values=4):
    chosen = rng.choice(images, rows, replace=False)
    embeddings = unit(rng, max(images) + 1, 8)[chosen]
    return Side(chosen, embeddings, rng.integers(0, values, rows))


def answer_by_loop(query, image, candidates, k):
    """The value with the most weight among the k nearest of other images, its share, the rows that say so."""
    ranked = []
    for row in range(len(candidates.images)):
        if candidates.images[row] != image:
            ranked.append((float(np.dot(query, candidates.embeddings[row])), row))
    ranked = sorted(ranked, reverse=True)[:k]
    votes = {}
    for cosine, row in ranked:
        label = int(candidates.labels[row])
        votes[label] = votes.get(label, 0) + math.exp(cosine / TEMPERATURE)
    best = max(votes, key=votes.get)
    reasons = [row for _, row in ranked if candidates.labels[row] == best][:3]
    return best, votes[best] / sum(votes.values()), reasons


@pytest.mark.parametrize("k", [1, 3, 20])
def test_answers_are_those_of_a_plain_loop(k):
    rng = np.random.default_rng(k)
    queries, candidates = random_side(rng, range(30), 25), random_side(rng, range(20, 80), 60)
    found = ask(queries, candidates, (k,))[k]
    for row in range(len(queries.images)):
        label, share, reasons = answer_by_loop(queries.embeddings[row], queries.images[row], candidates, k)
        assert found.labels[row] == label and found.shares[row] == pytest.approx(share, abs=1e-5)
        assert [each for each in found.reasons[row] if each >= 0] == reasons


def test_an_image_is_none_of_its_own_neighbours():
    """All images are queries and candidates, in several rows each: the nearest is never the image itself."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(12), 3)
    side = Side(images, unit(rng, 12, 8)[images], rng.integers(0, 5, 36))
    rows = find_neighbours(side, side, 50).rows
    for row, near in enumerate(rows):
        assert sorted(near[near >= 0]) == sorted(np.flatnonzero(images != images[row]))


def test_without_neighbours_there_is_no_answer():
    rng = np.random.default_rng(0)
    one = Side(np.array([3]), unit(rng, 1, 8), np.array([1]))
    nothing = Side(np.zeros(0, int), np.zeros((0, 8), np.float32), np.zeros(0, int))
    for candidates in (one, nothing):
        found = ask(one, candidates, (5,))[5]
        assert found.labels.tolist() == [-1] and found.shares.tolist() == [0]
        assert (found.reasons == -1).all()
    assert not known_answers(one, one, (5,)).by_k[5][1].any()
    assert vote(find_neighbours(nothing, one, 3), one.labels, 3).labels.shape == (0,)


def test_an_answer_is_right_where_it_is_one_of_the_images_values():
    """Image 0 has the values 1 and 2, image 1 the value 0; the only candidate says 2."""
    vector = np.array([[1, 0]], np.float32)
    queries = Side(np.array([0, 0, 1]), np.repeat(vector, 3, 0), np.array([1, 2, 0]))
    candidates = Side(np.array([9]), vector, np.array([2]))
    shares, right = known_answers(queries, candidates, (1,)).by_k[1]
    assert shares.tolist() == [1, 1] and right.tolist() == [True, False]


def split_of_clusters(rng, noise, images=240, conditions=2, values=3):
    """Sides whose embeddings are their value's centre with noise: the larger, the more are wrong."""
    centres = unit(rng, conditions, values, 8)
    tables = []
    for first in (0, images):
        image = np.repeat(np.arange(first, first + images), conditions)
        condition = np.tile(np.arange(conditions), images)
        label = rng.integers(0, values, len(image))
        vectors = centres[condition, label] + noise * rng.normal(size=(len(image), 8))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        tables += [np.stack([image, condition, label], 1), vectors.astype(np.float32)]
    return Sides(*tables)


def test_a_tagger_keeps_its_word_on_other_data():
    """Half of the answers are right; of those that reach the threshold, about as many as were wanted."""
    tagger = fit_to_split(split_of_clusters(np.random.default_rng(0), 0.6), 0.9)
    answers = []
    other = split_of_clusters(np.random.default_rng(0), 0.6, images=600)
    for condition, part in sides_by_condition(other).items():
        shares, right = known_answers(*part, (tagger.k,)).by_k[tagger.k]
        confidence = tagger.confidences[condition].calibrate(shares)
        answers.append((confidence >= tagger.confidences[condition].threshold, right))
    given, right = map(np.concatenate, zip(*answers))
    assert right.mean() < 0.85 and 0.2 < given.mean() < 0.9
    assert right[given].mean() == pytest.approx(0.9, abs=0.05)


def test_k_and_calibrator_are_those_with_the_best_scores():
    tagger = fit_to_split(split_of_clusters(np.random.default_rng(1), 0.7), PRECISION)
    assert tagger.k == max(KS, key=tagger.area.get) and tagger.area[1] < tagger.area[tagger.k]
    assert tagger.method == min(tagger.error, key=tagger.error.get)
    assert all(each.own for each in tagger.confidences.values())


def test_an_attribute_of_few_answers_is_calibrated_on_all():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0, 1, 200)
    right = rng.uniform(0, 1, 200) < shares
    many, few = Known({5: (shares, right)}), Known({5: (shares[:4], ~right[:4])})
    tagger = fit_tagger({0: many, 3: few})
    assert tagger.confidences[0].own and not tagger.confidences[3].own
    assert len(tagger.confidences[3].right) == 4
    asked = np.linspace(0, 1, 20)
    both = [tagger.confidences[condition].calibrate(asked) for condition in (0, 3)]
    assert np.corrcoef(*both)[0, 1] > 0.9


def test_nothing_known_is_said():
    with pytest.raises(ValueError, match="no answer is known"):
        fit_tagger({})
