"""CAMNet, after the paper's description: CSN's mask made three-dimensional, spatial attention after it.

No code is public. The paper: "Unlike CSN, CAMNet was extended to 3D feature maps and applied to the spatial
attention mechanism." Ours: a mask of K x C x h x w through ReLU, begun as CSN's; a 7x7 convolution over the
masked map's channel mean and maximum, as in CBAM, then a softmax over places; the weighted sum, FC and L2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel
from ccakit.models.trunks.cnn import MapTrunk


class CAMNet(ConditionalModel):
    """l2(FC(spatial attention(map * mask))) under a condition."""

    source = "the paper, section 2, Figure 2"
    faithfulness = (
        "after the paper, with our choices: K x C x h x w mask, CBAM's spatial attention with a softmax"
    )
    options = ("head",)

    def __init__(self, trunk: MapTrunk, conditions: int, **options) -> None:
        super().__init__(trunk, conditions, **options)
        self.mask = nn.Parameter(torch.empty(conditions, trunk.embed_dim, *trunk.grid_size).normal_(0.9, 0.7))
        self.score = nn.Conv2d(2, 1, 7, padding=3)
        self.head = self.create_head()

    def attend(self, tokens: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Give the masked map (B, R, C, N) and its spatial attention (B, R, N)."""
        masked = tokens[:, None] * F.relu(self.mask)[condition]  # (B, R, C, h, w)
        pooled = torch.stack([masked.mean(2), masked.amax(2)], 2).flatten(0, 1)  # (B * R, 2, h, w)
        return masked.flatten(3), self.score(pooled).view(*condition.shape, -1).softmax(-1)

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        masked, weights = self.attend(tokens, condition)
        pooled = (masked @ weights[..., None])[..., 0]  # (B, R, C, N) @ (B, R, N, 1) -> (B, R, C)
        return self.head(pooled, condition)

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute the spatial attention, of one head: (B, 1, N)."""
        return self.attend(tokens, condition[:, None])[1]
