"""Draw the images of a training step: conditional triplets (Eq. 8), and batches for all spaces at once.

Every sampler is seeded and draws an epoch at a time, so that an epoch's batches depend on (seed, epoch)
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ccakit.data.value_index import ValueIndex
from ccakit.metrics import equal_pairs

NEGATIVES = ("asen", "asen++")


class TripletBatch(NamedTuple):
    """T triplets (anchor, positive, negative, condition): each array (T,), images by index."""

    anchor: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    condition: np.ndarray

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """List the distinct images (U,), and where each triplet's images are in it (3T,)."""
        return np.unique(np.concatenate([self.anchor, self.positive, self.negative]), return_inverse=True)


class TripletSampler:
    """Draw conditional triplets (Eq. 8): a condition, a value with at least two images, two of these images,
    and a negative of the same condition.

    negatives: "asen" draws uniformly among the images of other values, "asen++" draws another value first.
    Conditions and anchor values are uniform, as in both. A value with one image is never an anchor's, and an
    image that also carries the anchor's value (DeepFashion) is never its negative.
    """

    def __init__(
        self,
        rows: np.ndarray,
        conditions: int,
        *,
        batch_size: int,
        triplets_per_epoch: int,
        negatives: str = "asen",
        seed: int = 0,
    ) -> None:
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives {negatives!r}: one of {NEGATIVES}")
        self.index = ValueIndex(rows, conditions)
        self.batch_size, self.triplets_per_epoch = batch_size, triplets_per_epoch
        self.negatives, self.seed = negatives, seed

    def __len__(self) -> int:
        """Batches an epoch."""
        return max(1, self.triplets_per_epoch // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[TripletBatch]:
        rng = np.random.default_rng([self.seed, epoch])
        for _ in range(len(self)):
            drawn = np.array([self._draw(rng) for _ in range(self.batch_size)], dtype=np.int64)
            yield TripletBatch(*drawn.T)

    def _draw(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        while True:  # ends, as every anchor value has a negative
            condition = self.index.usable[rng.integers(len(self.index.usable))]
            images, anchors = self.index.images[condition], self.index.anchors[condition]
            value = anchors[rng.integers(len(anchors))]
            anchor, positive = _two_of(images[value], rng)
            negative = self._negative(condition, value, rng)
            begin, end = np.searchsorted(images[value], [negative, negative + 1])
            if begin == end:  # the negative does not carry the value, too
                return anchor, positive, negative, condition

    def _negative(self, condition: int, value: int, rng: np.random.Generator) -> int:
        images = self.index.images[condition]
        if self.negatives == "asen++":
            other = rng.integers(len(images) - 1)
            pool = images[other + (other >= value)]
            return int(pool[rng.integers(len(pool))])
        pooled, size = self.index.pooled[condition], len(images[value])
        drawn = rng.integers(len(pooled) - size)
        return int(pooled[drawn + size * (drawn >= self.index.starts[condition][value])])


class ShuffledBatches:
    """Draw batches of distinct images; for images with several labels.

    oversample: the share of images from which an attribute is no longer rare. Where none is rare, each
    labelled image comes at most once an epoch, and the images left over, fewer than a batch, differ between
    epochs. Else an image comes as often as its `repeat_factors` say, in an epoch that is as long.
    """

    def __init__(self, rows: np.ndarray, *, batch_size: int, oversample: float = 0.0, seed: int = 0) -> None:
        self.images, self.factors = repeat_factors(rows, oversample)
        self.repeats = bool((self.factors > 1).any())
        self.batch_size, self.seed = min(batch_size, len(self.images)), seed

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        order = self._order(np.random.default_rng([self.seed, epoch]))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = order[start : start + self.batch_size]
            yield batch[np.sort(np.unique(batch, return_index=True)[1])]

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """Shuffle the images, each repeated by its factor, with its repetitions evenly apart."""
        if not self.repeats:
            return rng.permutation(self.images)
        first = rng.random(len(self.images))  # in units of the distance between an image's repetitions
        counts = np.ceil(self.factors - first).astype(int)
        index = np.repeat(np.arange(len(self.images)), counts)
        repetition = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
        place = (first[index] + repetition) / self.factors[index]
        return self.images[index[np.argsort(place)]]


def repeat_factors(rows: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Say how many times as often each labelled image is drawn: (R, 3) rows -> (N,) images, (N,) factors.

    An attribute that fewer than `threshold` of the N images carry has the factor threshold / its share, all
    others 1; an image has the largest factor of its attributes. Source: repeat factor sampling, Gupta et al.,
    "LVIS", CVPR 2019, with attributes for classes, and without the square root, which leaves them rare.
    """
    pairs = np.unique(rows[:, :2], axis=0)
    images, index = np.unique(pairs[:, 0], return_inverse=True)
    share = np.bincount(pairs[:, 1])[pairs[:, 1]] / len(images)  # of each pair's attribute
    factors = np.ones(len(images))
    np.maximum.at(factors, index, threshold / share)
    return images, factors


class BalancedBatches:
    """Draw batches of `conditions` x `values` x `images` of each; for images with one label (FashionAI).

    Conditions are drawn without repetition, and so are the values of each; all images of a value are taken
    where it has too few. An epoch has as many batches as all labelled images fill.
    """

    def __init__(
        self, rows: np.ndarray, conditions: int, *, layout: tuple[int, int, int] = (2, 5, 6), seed: int = 0
    ) -> None:
        self.index = ValueIndex(rows, conditions)
        self.layout, self.seed = layout, seed
        self.count = len(np.unique(rows[:, 0]))

    def __len__(self) -> int:
        return max(1, self.count // int(np.prod(self.layout)))

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([self.seed, epoch])
        conditions, values, images = self.layout
        for _ in range(len(self)):
            taken = []
            for c in rng.permutation(self.index.usable)[:conditions]:
                for v in self._values(c, values, rng):
                    pool = self.index.images[c][v]
                    taken.append(rng.choice(pool, min(images, len(pool)), replace=False))
            yield np.unique(np.concatenate(taken))

    def _values(self, condition: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `count` values of a condition; one at least has two images."""
        first = rng.choice(self.index.anchors[condition])
        rest = rng.permutation([v for v in range(len(self.index.images[condition])) if v != first])
        return np.append(first, rest[: count - 1])


class Relations:
    """Find which images of a batch share a value, from label rows; see `ccakit.loss.same_value`.

    `of(images)` -> (K, B, B) int8. Images with several values of an attribute share a value if they have any
    in common. The memory is that of the label rows, however many values there are.
    """

    def __init__(self, rows: np.ndarray, conditions: int, images: int) -> None:
        rows = rows[np.argsort(rows[:, 0], kind="stable"), :3]
        self.conditions = conditions
        self.starts = np.searchsorted(rows[:, 0], np.arange(images + 1))  # where an image's rows begin
        self.condition, self.value = rows[:, 1].copy(), rows[:, 2].copy()

    def of(self, images: np.ndarray) -> np.ndarray:
        begin, counts = self.starts[images], self.starts[images + 1] - self.starts[images]
        place = np.repeat(np.arange(len(images)), counts)  # in the batch, of each of its label rows
        row = np.arange(len(place)) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
        condition, value = self.condition[row], self.value[row]
        known = np.zeros((self.conditions, len(images)), bool)
        known[condition, place] = True
        relation = -(known[:, :, None] & known[:, None, :]).astype(np.int8)  # (K, B, B)
        same = condition + self.conditions * value  # a number for each value of each condition
        one, other = equal_pairs(same, same).T
        relation[condition[one], place[one], place[other]] = 1
        return relation


def _two_of(pool: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    first = int(rng.integers(len(pool)))
    second = int(rng.integers(len(pool) - 1))
    return int(pool[first]), int(pool[second + (second >= first)])
