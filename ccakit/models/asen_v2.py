"""Attribute-Specific Embedding Network, second version (the authors' code; the base of ASEN++)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel
from ccakit.models.head import apply_norm, head_norm_layer
from ccakit.models.trunks.cnn import MapTrunk


class ScaledAttention(nn.Module):
    """The two attentions from a condition's embedding: a scaled dot product for places, then the channels.

    (B, C, h, w), condition embeddings (B, R, A) -> (B, R, C). common: the width in which image and condition
    meet. norm: whether a BatchNorm follows the image's convolution, as in ASEN's second version but not in
    ASEN++.
    """

    def __init__(self, channels: int, condition_width: int, common: int, norm: bool) -> None:
        super().__init__()
        self.spatial_condition = nn.Linear(condition_width, common)
        self.spatial_image = nn.Conv2d(channels, common, 1)
        self.spatial_norm = nn.BatchNorm2d(common) if norm else nn.Identity()
        self.channel_condition = nn.Linear(condition_width, condition_width)
        self.channel_in = nn.Linear(channels + condition_width, channels // 2)
        self.channel_out = nn.Linear(channels // 2, channels)

    def place_weights(self, x: Tensor, condition: Tensor) -> Tensor:
        """Compute the spatial attention: (B, R, N), each row a softmax over the N = h * w places."""
        image = torch.tanh(self.spatial_norm(self.spatial_image(x))).flatten(2)  # (B, common, N)
        query = torch.tanh(self.spatial_condition(condition))  # (B, R, common)
        return (query @ image / image.shape[1] ** 0.5).softmax(dim=-1)

    def channel_weights(self, pooled: Tensor, condition: Tensor) -> Tensor:
        """Compute the channel attention: (B, R, C), 0 to 1."""
        query = F.relu(self.channel_condition(condition))
        return torch.sigmoid(self.channel_out(F.relu(self.channel_in(torch.cat([pooled, query], -1)))))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Give the attended vectors (B, R, C) and the spatial attention (B, R, N)."""
        weights = self.place_weights(x, condition)
        pooled = weights @ x.flatten(2).transpose(1, 2)  # (B, R, N) @ (B, N, C) -> (B, R, C)
        return pooled * self.channel_weights(pooled, condition), weights


class ASENV2(ConditionalModel):
    """l2(channel attention(spatial attention(map))): without an FC, so that E is the map's C."""

    source = "Ma et al., second version"
    faithfulness = "as the authors' code"
    options = ("head",)  # of its norm, as it has no FC

    def __init__(self, trunk: MapTrunk, conditions: int, *, embed_dim: int | None = None, **options) -> None:
        width = trunk.embed_dim
        if embed_dim not in (None, width):
            reason = f"asen-v2 has no FC, its embedding has the map's {width} channels"
            raise ValueError(f"embed_dim={embed_dim}: {reason}")
        super().__init__(trunk, conditions, **options)
        self.condition = nn.Embedding(conditions, width // 2)
        self.attend = ScaledAttention(width, width // 2, width // 2, norm=True)
        self.norm = head_norm_layer(self.head_norm, width, self.head_conditions)

    def project(self, tokens: Tensor, condition: Tensor) -> Tensor:
        x, _ = self.attend(tokens, self.condition(condition))
        return apply_norm(self.norm, x.float(), condition)

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute the spatial attention, of one head: (B, 1, N)."""
        return self.attend.place_weights(tokens, self.condition(condition[:, None]))
