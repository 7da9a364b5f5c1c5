"""Where a run stands in its budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Len
from pydantic import ConfigDict

from ccakit.training.config import Budget

Count = Annotated[int, Ge(0)]


@dataclass
class Progress:
    """Hold where a run stands: what a checkpoint keeps beside weights, optimizer and RNG."""

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)

    step: Count = 0
    """Batches of the run; one step of the optimizer for each, or for every `accumulate` of them."""
    epoch: Count = 0
    batch: Count = 0
    """Batches of the epoch."""
    rows: list[Annotated[list[float], Len(3, 3)]] = field(default_factory=list)
    """Loss, triplets and spread of each of the epoch's batches."""
    terms: dict[str, float] = field(default_factory=dict)
    """The system's own losses in the last batch."""
    learning_rate: float = 0.0
    """That of the last batch."""
    seconds: Annotated[float, Ge(0)] = 0.0
    images: Count = 0
    best: float = -1.0
    best_epoch: int = -1
    collapsed: bool = False
    """Whether all embeddings of a batch were one point, in some space, at the end of the last epoch."""

    def share(self, budget: Budget, steps_per_epoch: int) -> float:
        """Compute how much of the budget is used, 0 to 1."""
        used = {"epochs": self.step / steps_per_epoch, "steps": self.step, "seconds": self.seconds}
        return min(1.0, used[budget.kind] / budget.amount)

    def group_size(self, budget: Budget, steps_per_epoch: int, accumulate: int) -> int:
        """Count the batches of the next step of the optimizer: `accumulate`, or fewer at the end of the epoch
        or of a budget in steps."""
        left = min(accumulate, steps_per_epoch - self.batch)
        return max(1, min(left, int(budget.amount) - self.step)) if budget.kind == "steps" else left

    def images_per_second(self) -> float:
        """Compute the speed of the run, without validation."""
        return self.images / max(self.seconds, 1e-9)
