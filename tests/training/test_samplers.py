"""Samplers: every triplet is valid, the draws follow the rule by its name, nothing hangs."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from ccakit.loss import same_value
from ccakit.training.objectives import choose_layout
from ccakit.training.samplers import (
    BalancedBatches,
    Relations,
    ShuffledBatches,
    TripletSampler,
    repeat_factors,
)

# condition 0: values 0 (one image), 1 (six), 2 (three); condition 1: values 0 and 1, few labelled
ROWS = np.array(
    [
        [0, 0, 0],
        [1, 0, 1],
        [2, 0, 1],
        [3, 0, 1],
        [4, 0, 1],
        [5, 0, 1],
        [6, 0, 1],
        [7, 0, 2],
        [8, 0, 2],
        [9, 0, 2],
        [0, 1, 0],
        [1, 1, 0],
        [9, 1, 1],
    ]
)


def draw(rows=ROWS, conditions=2, count=3000, **options):
    sampler = TripletSampler(rows, conditions, batch_size=100, triplets_per_epoch=count, **options)
    batches = list(sampler.epoch(0))
    assert len(batches) == len(sampler) == count // 100
    fields = ("anchor", "positive", "negative", "condition")
    return np.concatenate([np.stack([getattr(b, f) for f in fields], 1) for b in batches])


@pytest.mark.parametrize("negatives", ["asen", "asen++"])
def test_every_triplet_is_valid(negatives):
    value = {(i, c): v for i, c, v in ROWS.tolist()}
    triplets = draw(negatives=negatives)
    for a, p, n, c in triplets.tolist():
        assert a != p and value[a, c] == value[p, c] != value[n, c]
    assert 0 not in triplets[triplets[:, 3] == 0, 0]  # a value with one image is never the anchor's
    assert 0 in triplets[triplets[:, 3] == 0, 2]  # but serves as a negative


def test_negatives_follow_their_name():
    """With anchors of value 1, "asen" meets value 0 in 1 of 4 images, "asen++" in 1 of 2 values."""
    for negatives, expected in (("asen", 1 / 4), ("asen++", 1 / 2)):
        triplets = draw(count=6000, negatives=negatives)
        of = triplets[(triplets[:, 3] == 0) & np.isin(triplets[:, 0], range(1, 7))]
        assert np.mean(of[:, 2] == 0) == pytest.approx(expected, abs=0.04)
    conditions = Counter(triplets[:, 3].tolist())
    assert conditions[0] / len(triplets) == pytest.approx(0.5, abs=0.04)  # conditions are uniform


def test_an_image_with_several_values_is_no_negative_of_either():
    rows = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 1], [3, 0, 1], [4, 0, 1]])
    for _, _, n, _ in draw(rows, 1, 1000).tolist():
        assert n != 2


def test_no_triplet_at_all_is_an_error_not_a_hang():
    for rows in (
        [[0, 0, 0], [1, 0, 1]],
        [[0, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]],
    ):
        with pytest.raises(ValueError, match="no triplet"):
            draw(np.array(rows), 1)
    with pytest.raises(ValueError, match="asen"):
        draw(negatives="hard")


def test_epochs_depend_on_seed_and_epoch_alone():
    sampler = TripletSampler(ROWS, 2, batch_size=10, triplets_per_epoch=20, seed=4)
    first, again, other = (next(sampler.epoch(e)).anchor.tolist() for e in (3, 3, 4))
    assert first == again != other


def test_distinct_images_are_loaded_once():
    batch = next(TripletSampler(ROWS, 2, batch_size=50, triplets_per_epoch=50).epoch(0))
    images, gather = batch.distinct()
    assert len(images) == len(set(images.tolist())) <= 10
    assert (images[gather] == np.concatenate([batch.anchor, batch.positive, batch.negative])).all()


def test_shuffled_batches_visit_every_labelled_image():
    rows = np.array([[i, i % 3, i % 2] for i in range(0, 40, 2)])
    sampler = ShuffledBatches(rows, batch_size=5, seed=1)
    seen = np.concatenate(list(sampler.epoch(0)))
    assert sorted(seen) == list(range(0, 40, 2))
    uneven = ShuffledBatches(rows, batch_size=6)
    epochs = [np.concatenate(list(uneven.epoch(e))) for e in range(8)]
    assert all(len(set(e)) == len(e) == 18 for e in epochs)  # full batches; who is left over changes
    assert set(np.concatenate(epochs)) == set(range(0, 40, 2))
    assert ShuffledBatches(rows, batch_size=500).epoch(0).__next__().shape == (20,)


def test_rare_attributes_are_oversampled():
    often, rare = [[i, 0, i % 3] for i in range(100)], [[i, 2, i % 2] for i in range(5)]  # none of 1
    rows = np.array(often + rare)
    images, factors = repeat_factors(rows, 0.5)
    assert images.tolist() == list(range(100))
    assert factors[:5] == pytest.approx(0.5 / 0.05) and factors[5:] == pytest.approx(1)
    assert repeat_factors(rows, 0.05)[1] == pytest.approx(1)  # none is rarer than that

    sampler = ShuffledBatches(rows, batch_size=10, oversample=0.5, seed=3)
    epochs = [list(sampler.epoch(epoch)) for epoch in range(20)]
    assert all(len(batches) == len(sampler) == 10 for batches in epochs)
    assert all(len(set(batch)) == len(batch) for batches in epochs for batch in batches)
    counts = np.bincount(np.concatenate([batch for batches in epochs for batch in batches]), minlength=100)
    assert counts[:5] == pytest.approx(20 * 10 * 100 / 145, rel=0.1)  # 145 repetitions for the 100 places
    assert counts[5:].mean() == pytest.approx(20 * 100 / 145, rel=0.1)

    plain, none_rare = (ShuffledBatches(rows, batch_size=10, oversample=share, seed=3) for share in (0, 0.05))
    assert all((a == b).all() for a, b in zip(plain.epoch(2), none_rare.epoch(2)))
    assert sampler.repeats and not none_rare.repeats and not plain.repeats


def test_balanced_batches_hold_conditions_values_images():
    rng = np.random.default_rng(0)
    condition = rng.integers(0, 4, 900)
    rows = np.stack([np.arange(900), condition, rng.integers(0, 6, 900)], 1)
    sampler = BalancedBatches(rows, 4, layout=(2, 3, 5))
    for batch in list(sampler.epoch(0))[:20]:
        of = rows[batch]
        assert len(set(of[:, 1])) == 2 and len(batch) == 30
        assert set(Counter(map(tuple, of[:, 1:].tolist())).values()) == {5}
    small = list(BalancedBatches(ROWS, 2, layout=(8, 8, 8)).epoch(0))  # fewer than asked for: all there are
    assert sorted(small[0].tolist()) == list(range(10))


def test_relations_are_those_of_the_label_matrix():
    import torch

    labels = np.random.default_rng(0).integers(-1, 3, (12, 4))
    rows = np.array([[i, c, labels[i, c]] for i in range(12) for c in range(4) if labels[i, c] >= 0])
    images = np.array([3, 1, 11, 4, 4])
    expected = same_value(torch.from_numpy(labels[images]))
    assert (Relations(rows, 4, 12).of(images) == expected.numpy()).all()


def test_relations_of_many_values_are_those_of_sets():
    """More values than a word has bits, several an image, images without any."""
    rng = np.random.default_rng(0)
    rows = np.stack(
        [rng.integers(0, 30, 90), rng.integers(0, 3, 90), rng.choice([0, 63, 64, 150, 151], 90)], axis=1
    )
    images = rng.permutation(32)
    carried = [[set(rows[(rows[:, 0] == i) & (rows[:, 1] == c), 2]) for i in images] for c in range(3)]
    expected = [[[0 if not (a and b) else 1 if a & b else -1 for b in of] for a in of] for of in carried]
    found = Relations(rows, 3, 32).of(images)
    assert found.dtype == np.int8 and found.tolist() == expected and set(found.flat) == {-1, 0, 1}


def test_images_with_a_value_in_common_are_positives():
    rows = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1], [2, 0, 2]])
    expected = [[[1, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 0]]]
    assert Relations(rows, 1, 4).of(np.arange(4)).tolist() == expected


def test_relations_of_an_attribute_of_numbers_take_the_memory_of_the_labels():
    """20,000 images with a value each, and two more attributes: a bit a value and image would be 450 MiB."""
    n, images = 20_000, np.arange(0, 20_000, 400)
    rows = np.array([[i, c, [i, i % 3, i % 50][c]] for i in range(n) for c in range(3)])
    tracemalloc.start()
    found = Relations(rows, 3, n).of(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * rows.nbytes
    for c, value in enumerate((images, images % 3, images % 50)):
        assert (found[c] == np.where(value[:, None] == value, 1, -1)).all()


def labelled(single, double):
    """Rows of images with one label each, of 4 attributes, then of images with two."""
    condition = np.arange(single + double) % 4
    rows = np.stack([np.arange(single + double), condition, np.arange(single + double) % 5], 1)
    second = rows[single:].copy()
    second[:, 1] = (second[:, 1] + 1) % 4
    return np.concatenate([rows, second])


@pytest.mark.parametrize(
    ("single", "double", "balanced"),
    [(2000, 0, True), (1999, 1, True), (180, 20, True), (179, 21, False), (0, 100, False)],
)
def test_batches_are_balanced_where_hardly_any_image_has_labels_of_two_attributes(single, double, balanced):
    layout, why = choose_layout(labelled(single, double))
    assert layout == ((2, 5, 6) if balanced else None)
    assert why.startswith(
        f"{single} of {single + double} labelled images carry a label of one attribute alone"
    )
    several = labelled(single, 0)
    several = np.concatenate([several, several + [0, 0, 1]])  # two values of one attribute are one
    assert not single or choose_layout(several)[0] == (2, 5, 6)
    assert choose_layout(labelled(single, double), (1, 2, 3)) == ((1, 2, 3), "by --balance")
