"""Where a run stands in its budget, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ccakit.config import Budget


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps beside weights, optimizer and RNG."""

    step: int = 0
    """Batches that the run has had; one step of the optimizer each, or for every `accumulate` of them."""
    epoch: int = 0
    batch: int = 0
    """Batches that the epoch has had."""
    rows: list[list[float]] = field(default_factory=list)
    """Loss, triplets and spread of each of them."""
    terms: dict[str, float] = field(default_factory=dict)
    """The system's own losses in the last of them."""
    learning_rate: float = 0.0
    """Of the last of them."""
    seconds: float = 0.0
    images: int = 0
    best: float = -1.0
    best_epoch: int = -1
    collapsed: bool = False
    unreadable: dict[str, int] = field(default_factory=dict)
    """How many batches drew each image that cannot be read, by index."""

    def share(self, budget: Budget, steps_per_epoch: int) -> float:
        """How much of the budget is used, 0 to 1."""
        used = {"epochs": self.step / steps_per_epoch, "steps": self.step, "seconds": self.seconds}[budget.kind]
        return min(1.0, used / budget.amount)

    def together(self, budget: Budget, steps_per_epoch: int, accumulate: int) -> int:
        """How many batches from here on make one step of the optimizer: `accumulate`, or those that are left in the
        epoch, or of a budget in steps."""
        left = min(accumulate, steps_per_epoch - self.batch)
        return max(1, min(left, int(budget.amount) - self.step)) if budget.kind == "steps" else left

    def images_per_second(self) -> float:
        """Over the whole run, validation left out."""
        return self.images / max(self.seconds, 1e-9)


def learning_rate(share: float, peak: float, warmup: float) -> float:
    """Linear warm-up over the first `warmup` of the budget, then a cosine to 0."""
    if share < warmup:
        return peak * (share + 1e-3) / (warmup + 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
