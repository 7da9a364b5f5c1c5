"""A classifier of the queried attribute's value, which M2Fashion and ADDE-C train beside the triplet loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel, Outputs
from ccakit.processes import all_sum


class ValueClassifier(nn.Module):
    """One linear layer for the values of all attributes; a condition uses the logits of its own values.

    values: how many values each of the K attributes has.
    """

    def __init__(self, width: int, values: Sequence[int]) -> None:
        super().__init__()
        self.fc = nn.Linear(width, sum(values))
        counts = torch.tensor(values)
        numbers = torch.arange(len(values))
        owner = numbers.repeat_interleave(counts, output_size=sum(values))  # the attribute of each logit
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)
        self.register_buffer("owner", owner, persistent=False)

    def loss(self, x: Tensor, condition: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean cross entropy over the rows that have a label, of all processes.

        x: (..., width); condition and labels: (...,), labels -1 where there is none.
        """
        known = labels >= 0
        condition, labels = condition[known], labels[known]
        logits = self.fc(x[known]).float().masked_fill(self.owner != condition[:, None], -torch.inf)
        target = self.starts[condition] + labels
        count = int(all_sum(torch.tensor(len(target))))
        return all_sum(F.cross_entropy(logits, target, reduction="sum")) / max(1, count)


class ClassifyingModel(ConditionalModel):
    """A system with a classifier of the condition's values on `project`, the embedding before its L2.

    The cross entropy is added to the triplet loss (`classify`, weight 1). A subclass creates
    `self.classifier`.
    """

    classifies = True
    own_losses = {"classify": 1.0}
    classifier: ValueClassifier

    def outputs(self, tokens: Tensor, condition: Tensor | None, labels: Tensor) -> Outputs:
        rows = self.condition_rows(tokens, condition)
        projected, terms = self.project(tokens, rows), {}
        if "classify" in self.own_losses:
            terms["classify"] = self.classifier.loss(projected, rows, labels.view(rows.shape))
        return Outputs(F.normalize(projected, dim=-1), {}, terms).shaped_for(condition)
