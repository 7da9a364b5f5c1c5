"""Where a run stands in its budget, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args, get_origin, get_type_hints

from ccakit.training.config import Budget


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
    """Whether all embeddings of a batch were one point, in some space, when the last epoch ended."""

    @classmethod
    def from_json(cls, values: object) -> Progress:
        """Where a run stood, by what JSON has kept of it; ValueError for what no run can have written."""
        kinds = get_type_hints(cls)
        if isinstance(values, dict):
            values = {name: value for name, value in values.items() if name != "unreadable"}  # of version 0.1
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise ValueError("does not hold a run's progress")
        for name, kind in kinds.items():
            if not _is(values[name], kind):
                raise ValueError(f"has a progress whose {name} is not of type {cls.__annotations__[name]}")
        progress = cls(**values)
        if min(progress.step, progress.epoch, progress.batch, progress.images, progress.seconds) < 0:
            raise ValueError("has a progress below 0")
        if len(progress.rows) != progress.batch or any(len(row) != 3 for row in progress.rows):
            raise ValueError("has a progress whose rows are not those of its batches")
        return progress

    def share(self, budget: Budget, steps_per_epoch: int) -> float:
        """How much of the budget is used, 0 to 1."""
        used = {"epochs": self.step / steps_per_epoch, "steps": self.step, "seconds": self.seconds}[
            budget.kind
        ]
        return min(1.0, used / budget.amount)

    def together(self, budget: Budget, steps_per_epoch: int, accumulate: int) -> int:
        """How many batches from here on make one step of the optimizer: `accumulate`, or those that are left in the
        epoch, or of a budget in steps."""
        left = min(accumulate, steps_per_epoch - self.batch)
        return max(1, min(left, int(budget.amount) - self.step)) if budget.kind == "steps" else left

    def images_per_second(self) -> float:
        """Over the whole run, validation left out."""
        return self.images / max(self.seconds, 1e-9)


def _is(value: object, kind: type) -> bool:
    """Whether a value from JSON is of an annotated type; a float is finite, and may be written as an integer."""
    of = get_args(kind)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is(k, of[0]) and _is(v, of[1]) for k, v in value.items())
    if of:
        return isinstance(value, list) and all(_is(each, of[0]) for each in value)
    return type(value) in (int, float) and math.isfinite(value) if kind is float else type(value) is kind
