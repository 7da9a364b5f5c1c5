"""Random numbers: one seed, several independent streams, and single numbers that cost little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .values import VERSION

BLOCK = 128


class Dice:
    """A stream of uniform random numbers in [0, 1), made a block at a time."""

    def __init__(self, key: tuple[int, ...], first: list[float]) -> None:
        self._key, self._block, self._more = key, first, None

    def roll(self) -> float:
        """Return a number in [0, 1)."""
        if not self._block:
            if self._more is None:
                self._more = _generator(*self._key)
            self._block = self._more.random(BLOCK).tolist()
        return self._block.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.roll()

    def chance(self, probability: float) -> bool:
        return self.roll() < probability

    def sign(self) -> int:
        return 1 if self.roll() < 0.5 else -1

    def whole(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + int(self.roll() * (high - low + 1))

    def pick(self, options: Sequence, weights: Sequence[float] | None = None):
        """Return one of the options, with probabilities in proportion to the weights, or equal ones."""
        if weights is None:
            return options[int(self.roll() * len(options))]
        left = self.roll() * sum(weights)
        for option, weight in zip(options, weights):
            left -= weight
            if left < 0:
                return option
        return options[-1]


def streams(count: int, *key: int) -> list[Dice]:
    """Make independent streams from the key (and VERSION); what one uses does not change another."""
    blocks = _generator(*key).random((count, BLOCK)).tolist()
    return [Dice((*key, i), block) for i, block in enumerate(blocks)]


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((VERSION, *key))))
