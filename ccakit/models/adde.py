"""ADDE-C (Hou et al., ICCV 2021), the encoder part: one MLP and one classifier an attribute on a shared trunk.

The public code has an AlexNet or a ResNet-18, 340 dimensions an attribute, and trains by classification; its
Zappos50K variant, which Table 5 cites, is not public. Ours: a two-layer MLP an attribute on the pooled map, whose
L2-normalised output is the attribute's space; the triplet loss, and the classifiers' cross entropy beside it
(`classify`, weight 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import HEAD_NORMS, ConditionalModel, Outputs, choose_losses
from ccakit.models.classifier import ValueClassifier
from ccakit.models.trunks.cnn import MapTrunk


class ADDE(ConditionalModel):
    """l2(MLP_c(mean over places)). embed_dim: a space's; ADDE's code has 340. values: of each attribute."""

    own_losses = {"classify": 1.0}

    def __init__(
        self,
        trunk: MapTrunk,
        conditions: int,
        *,
        values: Sequence[int],
        embed_dim: int | None = None,
        head_norm: str = "none",
        without: tuple[str, ...] = (),
    ) -> None:
        super().__init__(trunk, conditions, embed_dim)
        if head_norm not in HEAD_NORMS:
            raise ValueError(f"head norm {head_norm!r}: one of {HEAD_NORMS}")
        width, out = trunk.embed_dim, self.embed_dim
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, out),
                nn.BatchNorm1d(out) if head_norm == "batchnorm" else nn.Identity(),
            )
            for _ in range(conditions)
        )
        self.classifier = ValueClassifier(out, values)
        self.own_losses = choose_losses(self.own_losses, without)

    def project(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Before the L2: tokens (B, C, h, w), condition (B, R) -> (B, R, E)."""
        pooled = tokens.mean(dim=(2, 3))
        every = torch.stack([mlp(pooled).float() for mlp in self.mlps], dim=1)  # (B, K, E)
        return every.gather(1, condition[..., None].expand(-1, -1, every.shape[-1]))

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return F.normalize(self.project(tokens, condition), dim=-1)

    def outputs(self, tokens: Tensor, condition: Tensor | None, labels: Tensor) -> Outputs:
        rows = self.every(tokens) if condition is None else condition[:, None]
        projected, terms = self.project(tokens, rows), {}
        if "classify" in self.own_losses:
            terms["classify"] = self.classifier.loss(projected, rows, labels.view(rows.shape))
        embedding = F.normalize(projected, dim=-1)
        return Outputs(embedding if condition is None else embedding[:, 0], {}, terms)
