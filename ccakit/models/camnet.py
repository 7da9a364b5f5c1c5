"""CAMNet, after the paper's description: CSN's mask made three-dimensional, spatial attention after it.

No code is public. The paper: "Unlike CSN, CAMNet was extended to 3D feature maps and applied to the spatial
attention mechanism." Ours: a mask of K x C x h x w through ReLU, begun as CSN's; a 7x7 convolution over the masked
map's channel mean and maximum, as in CBAM, then a softmax over places; the weighted sum, FC and L2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel, Head
from ccakit.models.trunks.cnn import MapTrunk


class CAMNet(ConditionalModel):
    """l2(FC(spatial attention(map * mask))) under a condition."""

    def __init__(
        self, trunk: MapTrunk, conditions: int, *, embed_dim: int | None = None, head_norm: str = "none"
    ) -> None:
        super().__init__(trunk, conditions, embed_dim)
        self.mask = nn.Parameter(torch.empty(conditions, trunk.embed_dim, *trunk.grid_size).normal_(0.9, 0.7))
        self.score = nn.Conv2d(2, 1, 7, padding=3)
        self.head = Head(trunk.embed_dim, self.embed_dim, head_norm)

    def attend(self, tokens: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """-> the masked map (B, R, C, N) and its spatial attention (B, R, N)."""
        masked = tokens[:, None] * F.relu(self.mask)[condition]  # (B, R, C, h, w)
        seen = torch.stack([masked.mean(2), masked.amax(2)], 2).flatten(0, 1)  # (B * R, 2, h, w)
        return masked.flatten(3), self.score(seen).view(*condition.shape, -1).softmax(-1)

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        masked, where = self.attend(tokens, condition)
        return self.head((masked @ where[..., None])[..., 0])  # (B, R, C, N) @ (B, R, N, 1) -> (B, R, C)

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """The spatial attention: (B, 1, h, w)."""
        _, where = self.attend(tokens, self.check_condition(condition, tokens)[:, None])
        return where.unflatten(-1, self.trunk.grid_size)
