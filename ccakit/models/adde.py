"""ADDE-C (Hou et al., ICCV 2021), the encoder: one MLP and one classifier an attribute on a shared trunk.

The public code has an AlexNet or a ResNet-18, 340 dimensions an attribute, and trains by classification; its
Zappos50K variant, which Table 5 cites, is not public. Ours: a two-layer MLP an attribute on the pooled map,
whose L2-normalised output is the attribute's space; the triplet loss, and the classifiers' cross entropy
beside it (`classify`, weight 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ccakit.models.classifier import ClassifyingModel, ValueClassifier
from ccakit.models.head import head_norm_layer
from ccakit.models.trunks.cnn import MapTrunk


class ADDE(ClassifyingModel):
    """l2(MLP_c(mean over places)). embed_dim: of one space, 340 in ADDE's code. values: of each attribute."""

    source = "Hou et al., ICCV 2021"
    faithfulness = (
        "after the paper, with our choices: an MLP and a classifier a condition, triplet loss beside it"
    )

    def __init__(self, trunk: MapTrunk, conditions: int, *, values: Sequence[int], **options) -> None:
        super().__init__(trunk, conditions, **options)
        self.mlps = nn.ModuleList(self._mlp(trunk.embed_dim, self.embed_dim) for _ in range(conditions))
        self.classifier = ValueClassifier(self.embed_dim, values)

    def _mlp(self, width: int, out: int) -> nn.Sequential:
        norm = head_norm_layer(self.head_norm, out)
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out), norm)

    def project(self, tokens: Tensor, condition: Tensor) -> Tensor:
        pooled = tokens.mean(dim=(2, 3))  # (B, C, h, w) -> (B, C)
        spaces = torch.stack([mlp(pooled).float() for mlp in self.mlps], dim=1)  # (B, K, E)
        return spaces.gather(1, condition[..., None].expand(-1, -1, spaces.shape[-1]))
