"""A classifier of the queried attribute's value, which M2Fashion and ADDE train beside the triplet loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.processes import all_sum


class ValueClassifier(nn.Module):
    """One linear layer for the values of all attributes, read at those of the condition.

    values: how many values each of the K attributes has.
    """

    def __init__(self, width: int, values: Sequence[int]) -> None:
        super().__init__()
        self.fc = nn.Linear(width, sum(values))
        owner = [condition for condition, count in enumerate(values) for _ in range(count)]
        self.register_buffer("starts", torch.tensor([0, *accumulate(values[:-1])]), persistent=False)
        self.register_buffer("owner", torch.tensor(owner), persistent=False)

    def loss(self, x: Tensor, condition: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy over rows with a label: x (..., width), condition and labels (...,), -1 for none."""
        known = labels >= 0
        condition, labels = condition[known], labels[known]
        logits = self.fc(x[known]).float().masked_fill(self.owner != condition[:, None], -torch.inf)
        target = self.starts[condition] + labels
        count = int(all_sum(torch.tensor(len(target))))
        return all_sum(F.cross_entropy(logits, target, reduction="sum")) / max(1, count)
