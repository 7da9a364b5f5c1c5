"""Conditional Similarity Networks (Veit et al., CVPR 2017), as ASEN and the paper compare them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel, Outputs
from ccakit.models.trunks.frozen import FrozenStem
from ccakit.processes import gather

MASKS = ("learned", "preset", "fixed")


class ConditionMask(nn.Module):
    """A mask over the embedding for each condition: (...,) int -> (..., E).

    learned: drawn from normal(0.9, 0.7), through ReLU. preset: 1 on the condition's own part and 0.1
    elsewhere, then learned, through ReLU. fixed: 1 on the condition's own part, 0 elsewhere, not trained.
    """

    def __init__(self, kind: str, conditions: int, width: int) -> None:
        super().__init__()
        if kind not in MASKS:
            raise ValueError(f"mask {kind!r}: one of {MASKS}")
        if kind != "learned" and width < conditions:
            raise ValueError(f"mask {kind!r}: {conditions} disjoint parts do not fit into {width} dimensions")
        self.kind = kind
        table = torch.empty(conditions, width).normal_(0.9, 0.7)
        if kind != "learned":
            part = width // conditions
            table.fill_(0.1 if kind == "preset" else 0.0)
            for condition in range(conditions):
                table[condition, condition * part : (condition + 1) * part] = 1
        self.table = nn.Parameter(table, requires_grad=kind != "fixed")

    def forward(self, condition: Tensor) -> Tensor:
        table = self.table if self.kind == "fixed" else F.relu(self.table)
        return table[condition]


class CSN(ConditionalModel):
    """One general embedding an image; a condition is a mask on it: l2(FC(pool(map)) * mask).

    mask: see `ConditionMask`. Its own losses are those of CSN's code: `embedding_norm`, 5e-3 |general
    embedding|_2 / sqrt(B), and `mask_norm`, 5e-4 |mask|_1 / B. (ASEN's comparison trains without them:
    without=("embedding_norm", "mask_norm").) With a head of each condition, the general embedding is one of
    each, too.
    """

    source = "Veit et al., CVPR 2017"
    faithfulness = (
        "as CSN's code, its two norms included; E = C and cosine distance as in ASEN's comparison, "
        "which has no norms"
    )
    options = ("head", "mask")
    own_losses = {"embedding_norm": 5e-3, "mask_norm": 5e-4}

    def __init__(self, trunk: FrozenStem, conditions: int, *, mask: str = "learned", **options) -> None:
        super().__init__(trunk, conditions, **options)
        self.head = self.create_head()
        self.mask = ConditionMask(mask, conditions, self.embed_dim)

    def pool(self, tokens: Tensor) -> Tensor:
        """Average the map: tokens (B, C, h, w) -> (B, C)."""
        return tokens.mean(dim=(2, 3))

    def masked(self, tokens: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give, before the L2, the masked embedding (B, R, E), the general one, the masks (B, R, E).

        The general embedding is (B, 1, E), or (B, R, E) with a head of each condition.
        """
        pooled = self.pool(tokens)[:, None]  # (B, 1, C)
        if self.head_conditions is not None:
            pooled = pooled.expand(-1, condition.shape[1], -1)
        general, mask = self.head.project(pooled, condition), self.mask(condition)
        return general * mask, general, mask

    def project(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.masked(tokens, condition)[0]

    def outputs(self, tokens: Tensor, condition: Tensor | None, labels: Tensor) -> Outputs:
        masked, general, mask = self.masked(tokens, self.condition_rows(tokens, condition))
        sides = 1 if condition is None else 3  # CSN's norms are means over anchors, positives and negatives
        norms = [part.norm() / part[..., 0].numel() ** 0.5 for part in map(gather, general.chunk(sides))]
        terms = {
            "embedding_norm": torch.stack(norms).mean(),
            "mask_norm": gather(mask.abs().sum(-1)).mean(),
        }
        own = {name: terms[name] for name in self.own_losses}
        return Outputs(F.normalize(masked, dim=-1), {}, own).shaped_for(condition)
