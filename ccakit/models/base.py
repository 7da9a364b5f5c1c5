"""The interface of every system: encode an image once, then look at it under any condition."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.each import SHARING
from ccakit.models.head import Head
from ccakit.models.trunks.frozen import FrozenStem


class Outputs(NamedTuple):
    """What a model gives to the training objective.

    embedding: (B, E) for one condition an image, or (B, K, E) for all. extra: further embeddings by name, of
    the same shape, to which the objective applies the same loss. terms: the system's own losses by name, as
    scalars. The names are those of `ConditionalModel.own_losses`.
    """

    embedding: Tensor
    extra: dict[str, Tensor]
    terms: dict[str, Tensor]

    def shaped_for(self, condition: Tensor | None) -> Outputs:
        """Turn embeddings (B, 1, E) into (B, E) where each image has one condition; None keeps (B, K, E)."""
        if condition is None:
            return self
        extra = {name: embedding[:, 0] for name, embedding in self.extra.items()}
        return Outputs(self.embedding[:, 0], extra, self.terms)


class ConditionalModel(nn.Module):
    """The interface that data, training, evaluation, pictures and widget know.

    tokens     = model.encode(images)                the shared trunk, once an image
    embedding  = model.embed(tokens, condition)      (B, E), L2-normalised: one condition an image
    embeddings = model.spaces(tokens)                (B, K, E): all conditions
    maps       = model.attention(tokens, condition)  (B, H, h, w), for the systems that attend

    A system is a subclass. It implements `project` or `read`, and `attention_rows` if it attends. Its class
    attributes describe it:

    source: the paper or section that the system comes from. faithfulness: how close the implementation is to
    it. reads: "map" (of a CNN) or "tokens" (of a vision transformer). options: the constructor's arguments
    that belong to this system alone. classifies: whether the constructor needs `values`, the number of values
    of each attribute. own_losses: the weights of the system's own losses, by name. shares_trunk: whether all
    conditions of an image share one pass of the trunk. if_shared: how a model differs from its source where
    it shares the trunk and its source does not.
    """

    source: str
    faithfulness: str
    reads = "map"
    options: tuple[str, ...] = ()
    classifies = False
    own_losses: dict[str, float] = {}
    shares_trunk = True
    if_shared = ""

    def __init__(
        self,
        trunk: FrozenStem,
        conditions: int,
        *,
        embed_dim: int | None = None,
        head: str = "shared",
        head_norm: str = "none",
        without: tuple[str, ...] = (),
    ) -> None:
        """Create a system on a trunk.

        conditions: K. embed_dim: E, by default the trunk's width. head: "shared" by all conditions, or one of
        "each", in systems that have the option. head_norm: see `head_norm_layer`. without: names of own
        losses to leave out.
        """
        super().__init__()
        if head not in SHARING:
            raise ValueError(f"head {head!r}: one of {SHARING}")
        self.trunk, self.conditions = trunk, conditions
        self.embed_dim, self.head_norm = embed_dim or trunk.embed_dim, head_norm
        self.head_conditions = conditions if head == "each" else None
        self.own_losses = choose_losses(self.own_losses, without)

    def create_head(self) -> Head:
        """Create the head of Eq. 7 from the trunk's width to E."""
        return Head(self.trunk.embed_dim, self.embed_dim, self.head_norm, self.head_conditions)

    @property
    def keeps_features(self) -> bool:
        """Whether the model needs nothing of an image but the stem's output, so that this may be kept."""
        return self.trunk.frozen > 0

    def encode_features(self, features: Tensor) -> Tensor:
        """Turn the output of the trunk's stem, which may be kept, into tokens (B, P+N, D)."""
        return self.trunk.tail(features)

    def encode(self, images: Tensor) -> Tensor:
        """Run the shared trunk, once an image: (B, 3, height, width) -> tokens (B, P+N, D)."""
        return self.encode_features(self.trunk.stem(images))

    def project(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute what `read` normalises: tokens of B images, condition (B, R) int -> (B, R, E)."""
        raise NotImplementedError

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Embed each image under R conditions: tokens of B images, condition (B, R) int -> (B, R, E)."""
        return F.normalize(self.project(tokens, condition), dim=-1)

    def embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Embed each image under its condition: tokens (B, P+N, D), condition (B,) int -> (B, E)."""
        return self.read(tokens, self.check_condition(condition, tokens)[:, None])[:, 0]

    def spaces(self, tokens: Tensor) -> Tensor:
        """Embed each image under every condition: tokens (B, P+N, D) -> (B, K, E)."""
        return self.read(tokens, self.all_conditions(tokens))

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute the softmax weights on prefix tokens and patches: condition (B,) int -> (B, H, P+N)."""
        raise NotImplementedError(f"{type(self).__name__} does not attend")

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute the softmax weights on the patches: tokens (B, P+N, D), condition (B,) -> (B, H, h, w)."""
        return self.patch_map(self.attention_rows(tokens, self.check_condition(condition, tokens)))

    def attention_spaces(self, tokens: Tensor) -> Tensor:
        """Compute `attention` under every condition: tokens (B, P+N, D) -> (B, K, H, h, w)."""
        conditions = [self.repeat_condition(condition, tokens) for condition in range(self.conditions)]
        return torch.stack([self.attention(tokens, condition) for condition in conditions], dim=1)

    def outputs(self, tokens: Tensor, condition: Tensor | None, labels: Tensor) -> Outputs:
        """Compute the embeddings that training compares, and the system's own losses.

        condition: (B,), for a batch of triplets: a third each of anchors, positives and negatives; None: all
        spaces. labels: (B,), or (B, K) for all spaces; -1 where an image has no label.
        """
        return Outputs(self.spaces(tokens) if condition is None else self.embed(tokens, condition), {}, {})

    def advance(self, share: float) -> None:
        """Prepare for the next training step, in systems with stages. share: of the budget used, 0 to 1."""

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        """Return parameters with a smaller learning rate, and the factor of that rate at present."""
        return [], 1.0

    def repeat_condition(self, condition: int, tokens: Tensor) -> Tensor:
        """Return (B,) filled with one condition."""
        return torch.full((tokens.shape[0],), condition, dtype=torch.long, device=tokens.device)

    def all_conditions(self, tokens: Tensor) -> Tensor:
        """Return (B, K): all conditions for each image."""
        return torch.arange(self.conditions, device=tokens.device).expand(tokens.shape[0], -1)

    def condition_rows(self, tokens: Tensor, condition: Tensor | None) -> Tensor:
        """Return the conditions of each image as rows: (B,) -> (B, 1), or None -> (B, K), all conditions."""
        return self.all_conditions(tokens) if condition is None else condition[:, None]

    def patch_map(self, weights: Tensor) -> Tensor:
        """Arrange the patches, which come last, as a map: (..., P+N) -> (..., h, w)."""
        height, width = self.trunk.grid_size
        return weights[..., -height * width :].unflatten(-1, (height, width))

    def check_condition(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """Return `condition` if it holds one condition an image; raise ValueError if not."""
        if condition.shape != (tokens.shape[0],):
            expected = f"one an image, ({tokens.shape[0]},)"
            raise ValueError(f"condition has shape {tuple(condition.shape)}; {expected}")
        return condition

    def forward(
        self,
        inputs: Tensor,
        condition: Tensor | None = None,
        gather: Tensor | None = None,
        cached: bool = False,
        labels: Tensor | None = None,
    ) -> Tensor | Outputs:
        """Embed images under their conditions, or under all for None; with labels, give Outputs.

        gather: (B',) indices into the encoded images, so that each distinct image of a batch of triplets is
        encoded once; `condition` then has B' entries. cached: `inputs` are the stem's output instead of
        images.
        """
        tokens = self.encode_features(inputs) if cached else self.encode(inputs)
        tokens = tokens if gather is None else tokens[gather]
        if labels is not None:
            return self.outputs(tokens, condition, labels)
        return self.spaces(tokens) if condition is None else self.embed(tokens, condition)


def choose_losses(known: dict[str, float], without: tuple[str, ...]) -> dict[str, float]:
    """Return a system's own losses but those named in `without`; ValueError for an unknown name."""
    if unknown := sorted(set(without) - set(known)):
        existing = ", ".join(known) or "none"
        raise ValueError(f"no loss {', '.join(unknown)} to leave out; this system has: {existing}")
    return {name: weight for name, weight in known.items() if name not in without}
