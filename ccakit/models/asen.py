"""Attribute-Specific Embedding Network, first version (Ma et al., AAAI 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel
from ccakit.models.trunks.frozen import FrozenStem


class AttributeAttention(nn.Module):
    """ASEN's two attentions on a map: where to look under a condition, then which channels to keep.

    (B, C, h, w), condition (B, R) int -> (B, R, C).
    """

    def __init__(self, channels: int, conditions: int) -> None:
        super().__init__()
        common = channels // 2  # where image and condition meet, as in the authors' code (512 of 1024)
        self.spatial_condition = nn.Linear(conditions, common, bias=False)
        self.spatial_image = nn.Conv2d(channels, common, 1)
        self.spatial_score = nn.Conv2d(common, 1, 1)
        self.channel_condition = nn.Linear(conditions, channels, bias=False)
        self.channel_in = nn.Linear(2 * channels, common)
        self.channel_out = nn.Linear(common, channels)

    def place_weights(self, x: Tensor, condition: Tensor) -> Tensor:
        """Compute the spatial attention: (B, R, N), each row a softmax over the N = h * w places."""
        image = torch.tanh(self.spatial_image(x)).flatten(2)  # (B, common, N)
        query = torch.tanh(self.spatial_condition.weight.T)[condition]  # FC of a one-hot: (B, R, common)
        weight = self.spatial_score.weight.flatten() * query
        return torch.tanh(weight @ image + self.spatial_score.bias).softmax(dim=-1)

    def channel_weights(self, pooled: Tensor, condition: Tensor) -> Tensor:
        """Compute the channel attention: (B, R, C), 0 to 1."""
        query = F.relu(self.channel_condition.weight.T)[condition]  # (B, R, C)
        return torch.sigmoid(self.channel_out(F.relu(self.channel_in(torch.cat([pooled, query], -1)))))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, N, C)
        pooled = self.place_weights(x, condition) @ places  # (B, R, N) @ (B, N, C) -> (B, R, C)
        return pooled * self.channel_weights(pooled, condition)


class ASEN(ConditionalModel):
    """l2(FC(channel attention(spatial attention(map)))) under a condition."""

    source = "Ma et al., AAAI 2020"
    faithfulness = "as the authors' code"
    options = ("head",)

    def __init__(self, trunk: FrozenStem, conditions: int, **options) -> None:
        super().__init__(trunk, conditions, **options)
        self.attend = AttributeAttention(trunk.embed_dim, conditions)
        self.head = self.create_head()

    def as_map(self, tokens: Tensor) -> Tensor:
        """Give the map that the attentions read: (B, C, h, w)."""
        return tokens

    def project(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head.project(self.attend(self.as_map(tokens), condition), condition)

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute the spatial attention, of one head: (B, 1, N)."""
        return self.attend.place_weights(self.as_map(tokens), condition[:, None])
