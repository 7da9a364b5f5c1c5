"""Attribute-Specific Embedding Network, first version (Ma et al., AAAI 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel, Head
from ccakit.models.trunks.frozen import FrozenStem


class AttributeAttention(nn.Module):
    """ASEN's two attentions on a map: where to look under a condition, then which channels to keep.

    (B, C, h, w), condition (B, R) int -> (B, R, C). common: the width in which image and condition meet, C / 2 as
    in the authors' code (512 of 1024).
    """

    def __init__(self, channels: int, conditions: int, common: int | None = None) -> None:
        super().__init__()
        common = common or channels // 2
        self.spatial_condition = nn.Linear(conditions, common, bias=False)
        self.spatial_image = nn.Conv2d(channels, common, 1)
        self.spatial_score = nn.Conv2d(common, 1, 1)
        self.channel_condition = nn.Linear(conditions, channels, bias=False)
        self.channel_in = nn.Linear(2 * channels, common)
        self.channel_out = nn.Linear(common, channels)

    def where(self, x: Tensor, condition: Tensor) -> Tensor:
        """The spatial attention: (B, R, N), each row a softmax over the N = h * w places."""
        image = torch.tanh(self.spatial_image(x)).flatten(2)  # (B, common, N)
        given = torch.tanh(self.spatial_condition.weight.T)[condition]  # FC of a one-hot: (B, R, common)
        weight = self.spatial_score.weight.flatten() * given
        return torch.tanh(weight @ image + self.spatial_score.bias).softmax(dim=-1)

    def which(self, pooled: Tensor, condition: Tensor) -> Tensor:
        """The channel attention: (B, R, C), 0 to 1."""
        given = F.relu(self.channel_condition.weight.T)[condition]  # (B, R, C)
        return torch.sigmoid(self.channel_out(F.relu(self.channel_in(torch.cat([pooled, given], -1)))))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        pooled = self.where(x, condition) @ x.flatten(2).transpose(1, 2)  # (B, R, N) @ (B, N, C) -> (B, R, C)
        return pooled * self.which(pooled, condition)


class ASEN(ConditionalModel):
    """l2(FC(channel attention(spatial attention(map)))) under a condition."""

    def __init__(
        self, trunk: FrozenStem, conditions: int, *, embed_dim: int | None = None, head_norm: str = "none"
    ) -> None:
        super().__init__(trunk, conditions, embed_dim)
        self.attend = AttributeAttention(trunk.embed_dim, conditions)
        self.head = Head(trunk.embed_dim, self.embed_dim, head_norm)

    def as_map(self, tokens: Tensor) -> Tensor:
        """What the attentions read: (B, C, h, w)."""
        return tokens

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head(self.attend(self.as_map(tokens), condition))

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """The spatial attention: (B, 1, h, w)."""
        rows = self.attend.where(self.as_map(tokens), self.check_condition(condition, tokens)[:, None])
        return rows.unflatten(-1, self.trunk.grid_size)
