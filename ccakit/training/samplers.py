"""Draw the images of a training step: conditional triplets (Eq. 8), and batches for all spaces at once.

Every sampler is seeded and draws an epoch at a time, so that an epoch's batches depend on (seed, epoch)
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

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


class ValueIndex:
    """Index images by condition and value, from label rows (R, 3): image, condition, label.

    Raises ValueError where no condition can form a triplet.
    """

    def __init__(self, rows: np.ndarray, conditions: int) -> None:
        self.images, self.starts, self.pooled, self.anchors = [], [], [], []
        for condition in range(conditions):
            labelled = rows[rows[:, 1] == condition]
            pairs = np.unique(labelled[:, [2, 0]], axis=0)  # by value, then by image
            starts = np.unique(pairs[:, 0], return_index=True)[1]
            pooled = pairs[:, 1]
            images = np.split(pooled, starts[1:])
            total = len(np.unique(pooled))
            self.images.append(images)  # of each value
            self.starts.append(starts)  # where they begin in `pooled`
            self.pooled.append(pooled)
            # values with two images, where a labelled image lacks the value
            self.anchors.append([value for value, having in enumerate(images) if 1 < len(having) < total])
        self.usable = [condition for condition in range(conditions) if self.anchors[condition]]
        if not self.usable:
            raise ValueError("no condition has two images of one value and one of another: no triplet exists")


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
    """Draw batches of distinct images, each labelled image at most once an epoch; for images with several
    labels.

    Batches are full; the images left over, fewer than a batch, differ between epochs.
    """

    def __init__(self, rows: np.ndarray, *, batch_size: int, seed: int = 0) -> None:
        self.images = np.unique(rows[:, 0])
        self.batch_size, self.seed = min(batch_size, len(self.images)), seed

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]


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
