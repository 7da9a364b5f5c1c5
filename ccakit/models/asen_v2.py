"""Attribute-Specific Embedding Network, second version (the authors' code; the base of ASEN++)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel
from ccakit.models.trunks.cnn import MapTrunk


class ScaledAttention(nn.Module):
    """The two attentions from a condition's embedding: a scaled dot product for the places, then the channels.

    (B, C, h, w), condition embeddings (B, R, A) -> (B, R, C). common: the width in which image and condition
    meet. norm: a BatchNorm after the image's convolution (ASEN's second version has it, ASEN++ has not).
    """

    def __init__(self, channels: int, given: int, common: int, norm: bool) -> None:
        super().__init__()
        self.spatial_condition = nn.Linear(given, common)
        self.spatial_image = nn.Conv2d(channels, common, 1)
        self.spatial_norm = nn.BatchNorm2d(common) if norm else nn.Identity()
        self.channel_condition = nn.Linear(given, given)
        self.channel_in = nn.Linear(channels + given, channels // 2)
        self.channel_out = nn.Linear(channels // 2, channels)

    def where(self, x: Tensor, given: Tensor) -> Tensor:
        """The spatial attention: (B, R, N), each row a softmax over the N = h * w places."""
        image = torch.tanh(self.spatial_norm(self.spatial_image(x))).flatten(2)  # (B, common, N)
        query = torch.tanh(self.spatial_condition(given))  # (B, R, common)
        return (query @ image / image.shape[1] ** 0.5).softmax(dim=-1)

    def which(self, pooled: Tensor, given: Tensor) -> Tensor:
        """The channel attention: (B, R, C), 0 to 1."""
        given = F.relu(self.channel_condition(given))
        return torch.sigmoid(self.channel_out(F.relu(self.channel_in(torch.cat([pooled, given], -1)))))

    def forward(self, x: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, R, C) and the spatial attention (B, R, N)."""
        where = self.where(x, given)
        pooled = where @ x.flatten(2).transpose(1, 2)  # (B, R, N) @ (B, N, C) -> (B, R, C)
        return pooled * self.which(pooled, given), where


class ASENV2(ConditionalModel):
    """l2(channel attention(spatial attention(map))): there is no FC, so that E is the map's C."""

    def __init__(
        self, trunk: MapTrunk, conditions: int, *, embed_dim: int | None = None, head_norm: str = "none"
    ) -> None:
        width = trunk.embed_dim
        if embed_dim not in (None, width):
            raise ValueError(
                f"embed_dim={embed_dim}: asen-v2 has no FC, its embedding has the map's {width} channels"
            )
        super().__init__(trunk, conditions, width)
        self.condition = nn.Embedding(conditions, width // 2)
        self.attend = ScaledAttention(width, width // 2, width // 2, norm=True)
        self.norm = nn.BatchNorm1d(width) if head_norm == "batchnorm" else nn.Identity()

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        x, _ = self.attend(tokens, self.condition(condition))
        return F.normalize(self.norm(x.flatten(0, 1).float()).view_as(x), dim=-1)

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """The spatial attention: (B, 1, h, w)."""
        given = self.condition(self.check_condition(condition, tokens)[:, None])
        return self.attend.where(tokens, given).unflatten(-1, self.trunk.grid_size)
