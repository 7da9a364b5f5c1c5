"""What every system is: encode an image once, then look at it under any condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.trunk import Trunk

HEAD_NORMS = ("none", "batchnorm")


class Head(nn.Module):
    """Eq. 7: l2(FC(x)). (..., D) -> (..., E), each vector of length 1.

    norm="batchnorm" puts a BatchNorm between the two, which keeps training from scratch from collapsing; the
    paper has none.
    """

    def __init__(self, width: int, embed_dim: int, norm: str = "none") -> None:
        super().__init__()
        if norm not in HEAD_NORMS:
            raise ValueError(f"head norm {norm!r}: one of {HEAD_NORMS}")
        self.fc = nn.Linear(width, embed_dim)
        self.norm = nn.BatchNorm1d(embed_dim) if norm == "batchnorm" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x).float()  # in mixed precision, what is compared is float32
        return F.normalize(self.norm(x.flatten(0, -2)).view_as(x), dim=-1)  # Eq. 7


class ConditionalModel(nn.Module):
    """The interface that data, training, evaluation, pictures and widget know.

    tokens     = model.encode(images)                the shared trunk, once an image
    embedding  = model.embed(tokens, condition)      (B, E), L2-normalised: one condition an image
    embeddings = model.spaces(tokens)                (B, K, E): all conditions
    maps       = model.attention(tokens, condition)  (B, H, h, w), for the systems that attend
    """

    def __init__(self, trunk: Trunk, conditions: int, embed_dim: int | None = None) -> None:
        super().__init__()
        if conditions < 1:
            raise ValueError(f"conditions={conditions}: at least one is needed")
        self.trunk, self.conditions = trunk, conditions
        self.embed_dim = embed_dim or trunk.embed_dim

    def stem(self, images: Tensor) -> Tensor:
        """The frozen part of the trunk, whose output may be kept: (B, 3, height, width) -> features."""
        return self.trunk.stem(images)

    def encode_features(self, features: Tensor) -> Tensor:
        """What `stem` gave -> tokens (B, P+N, D)."""
        return self.trunk.tail(features)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) -> tokens (B, P+N, D): once an image."""
        return self.encode_features(self.stem(images))

    def embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens (B, P+N, D), condition (B,) int -> (B, E)."""
        raise NotImplementedError

    def spaces(self, tokens: Tensor) -> Tensor:
        """tokens (B, P+N, D) -> (B, K, E): every condition of every image."""
        return torch.stack([self.embed(tokens, self.all_of(k, tokens)) for k in range(self.conditions)], 1)

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens (B, P+N, D), condition (B,) int -> (B, H, h, w): the softmax weights on the patches."""
        raise NotImplementedError(f"{type(self).__name__} does not attend")

    def all_of(self, condition: int, tokens: Tensor) -> Tensor:
        """(B,) filled with one condition."""
        return torch.full((len(tokens),), condition, dtype=torch.long, device=tokens.device)

    def patch_map(self, weights: Tensor) -> Tensor:
        """Attention rows (B, H, P+N) -> their patch part as a map (B, H, h, w)."""
        return weights[..., self.trunk.num_prefix_tokens :].unflatten(-1, self.trunk.grid_size)

    def check_condition(self, condition: Tensor, tokens: Tensor) -> Tensor:
        if condition.shape != (len(tokens),):
            raise ValueError(f"condition has shape {tuple(condition.shape)}; one an image, ({len(tokens)},)")
        return condition

    def forward(
        self,
        inputs: Tensor,
        condition: Tensor | None = None,
        gather: Tensor | None = None,
        cached: bool = False,
    ) -> Tensor:
        """`embed(encode(images), condition)`, or all spaces where no condition is given.

        gather: (B',) indices into the encoded images, so that each distinct image of a batch of triplets is
        encoded once; `condition` then has B' entries. cached: `inputs` are the stem's output, not images.
        """
        tokens = self.encode_features(inputs) if cached else self.encode(inputs)
        if condition is None:
            return self.spaces(tokens)
        return self.embed(tokens if gather is None else tokens[gather], condition)
