"""What every system is: encode an image once, then look at it under any condition."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.trunks.frozen import FrozenStem

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

    def project(self, x: Tensor) -> Tensor:
        """What stands before the L2: (..., D) -> (..., E)."""
        x = self.fc(x).float()  # in mixed precision, what is compared is float32
        return self.norm(x.flatten(0, -2)).view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(x), dim=-1)  # Eq. 7


class Outputs(NamedTuple):
    """What training sees of a model.

    embedding: (B, E) or (B, K, E), which the objective compares. also: further embeddings of the same shape that
    are compared in the same way. terms: the system's own losses, scalars. Both by name, see `own_losses`.
    """

    embedding: Tensor
    also: dict[str, Tensor]
    terms: dict[str, Tensor]


class ConditionalModel(nn.Module):
    """The interface that data, training, evaluation, pictures and widget know.

    tokens     = model.encode(images)                the shared trunk, once an image
    embedding  = model.embed(tokens, condition)      (B, E), L2-normalised: one condition an image
    embeddings = model.spaces(tokens)                (B, K, E): all conditions
    maps       = model.attention(tokens, condition)  (B, H, h, w), for the systems that attend

    own_losses: the losses that belong to the system, by name, with their weights. shares_trunk: whether all
    conditions of an image share one pass of the trunk.
    """

    own_losses: dict[str, float] = {}
    shares_trunk = True

    def __init__(self, trunk: FrozenStem, conditions: int, embed_dim: int | None = None) -> None:
        super().__init__()
        if conditions < 1:
            raise ValueError(f"conditions={conditions}: at least one is needed")
        self.trunk, self.conditions = trunk, conditions
        self.embed_dim = embed_dim or trunk.embed_dim

    @property
    def keeps_features(self) -> bool:
        """Whether the stem's output is all that the model needs of an image, so that it may be kept."""
        return self.trunk.freezes

    def stem(self, images: Tensor) -> Tensor:
        """The frozen part of the trunk, whose output may be kept: (B, 3, height, width) -> features."""
        return self.trunk.stem(images)

    def encode_features(self, features: Tensor) -> Tensor:
        """What `stem` gave -> tokens (B, P+N, D)."""
        return self.trunk.tail(features)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) -> tokens (B, P+N, D): once an image."""
        return self.encode_features(self.stem(images))

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens of B images, condition (B, R) int -> (B, R, E): each image under R conditions."""
        raise NotImplementedError

    def embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens (B, P+N, D), condition (B,) int -> (B, E)."""
        return self.read(tokens, self.check_condition(condition, tokens)[:, None])[:, 0]

    def spaces(self, tokens: Tensor) -> Tensor:
        """tokens (B, P+N, D) -> (B, K, E): every condition of every image."""
        return self.read(tokens, self.every(tokens))

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens (B, P+N, D), condition (B,) int -> (B, H, h, w): the softmax weights on the patches."""
        raise NotImplementedError(f"{type(self).__name__} does not attend")

    def outputs(self, tokens: Tensor, condition: Tensor | None, labels: Tensor) -> Outputs:
        """What training compares, and the system's own losses.

        condition (B,): one an image, of a batch of triplets: anchors, positives and negatives, a third each; None:
        all spaces. labels: (B,), or (B, K) for all spaces; -1 where there is none.
        """
        return Outputs(self.spaces(tokens) if condition is None else self.embed(tokens, condition), {}, {})

    def advance(self, share: float) -> None:
        """Told before each training step how much of the budget is used, 0 to 1, for systems with stages."""

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        """Parameters whose learning rate is a part of the others' at present, and that part."""
        return [], 1.0

    def all_of(self, condition: int, tokens: Tensor) -> Tensor:
        """(B,) filled with one condition."""
        return torch.full((len(tokens),), condition, dtype=torch.long, device=tokens.device)

    def every(self, tokens: Tensor) -> Tensor:
        """(B, K): all conditions for each image."""
        return torch.arange(self.conditions, device=tokens.device).expand(len(tokens), -1)

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
        labels: Tensor | None = None,
    ) -> Tensor | Outputs:
        """`embed(encode(images), condition)`, or all spaces where no condition is given; Outputs given labels.

        gather: (B',) indices into the encoded images, so that each distinct image of a batch of triplets is
        encoded once; `condition` then has B' entries. cached: `inputs` are the stem's output, not images.
        """
        tokens = self.encode_features(inputs) if cached else self.encode(inputs)
        tokens = tokens if gather is None else tokens[gather]
        if labels is not None:
            return self.outputs(tokens, condition, labels)
        return self.spaces(tokens) if condition is None else self.embed(tokens, condition)


def choose_losses(known: dict[str, float], without: tuple[str, ...]) -> dict[str, float]:
    """A system's own losses but for those named; ValueError for a name it has not."""
    if unknown := sorted(set(without) - set(known)):
        raise ValueError(
            f"no loss {', '.join(unknown)} to leave out; this system has: {', '.join(known) or 'none'}"
        )
    return {name: weight for name, weight in known.items() if name not in without}
