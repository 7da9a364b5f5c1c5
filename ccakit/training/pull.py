"""How conditions share the pull of a step: the gradients at their embeddings, weighed by their norms.

Eq. 9 is a mean over triplets. In mode `spaces` these are all triplets of a batch, so that an attribute counts
by about the cube of how often it is labelled, and a rare one hardly moves what all share. Kin: GradNorm (Chen
et al., ICML 2018), IMTL (Liu et al., ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LOOKED_AT = 100  # batches from which shares are estimated
STARVING = 0.2  # of an equal share, below which a condition is said to starve


def share_pull(embedding: Tensor, condition: Tensor, power: float) -> Tensor:
    """Return the embeddings as they are; in the backward pass, `weigh_conditions` weighs their gradient.

    embedding: (..., E), those of all processes. condition: (...). power: 0 leaves the gradient as it is.
    """
    return _SharePull.apply(embedding, condition, power) if power else embedding


def weigh_conditions(gradient: Tensor, condition: Tensor, power: float) -> Tensor:
    """Divide the gradient at each condition's embeddings by its norm to `power`; the whole keeps its norm.

    gradient: (..., E); condition: (...). A condition without gradient stays without.
    """
    own = F.one_hot(condition.flatten()).to(gradient)  # (M, K)
    norms = (gradient.square().sum(-1).flatten() @ own).sqrt()  # (K,)
    weights = torch.where(norms > 0, norms**-power, 0)
    smallest = torch.finfo(norms.dtype).tiny  # where no condition has a gradient
    weights = weights * norms.norm() / (weights * norms).norm().clamp(min=smallest)
    return gradient * weights[condition][..., None]


def expected_shares(objective, power: float) -> np.ndarray:
    """Estimate the share of each condition in the pull of a step, (K,), from labels and sampler alone.

    Each comparison is taken to pull alike, so that a condition's gradient is as large as its number of valid
    triplets in a batch. The shares are means over the first epoch's batches: a condition without a triplet in
    most of them starves at any power.
    """
    shares = []
    for batch in islice(objective.sampler.epoch(0), LOOKED_AT):
        counts = objective.comparisons(batch).astype(float)
        weights = np.where(counts > 0, counts, 1) ** (1 - power) * (counts > 0)
        shares.append(weights / max(1e-9, weights.sum()))
    return np.mean(shares, axis=0)


def starving(shares: np.ndarray) -> np.ndarray:
    """Say which conditions have less than STARVING of an equal share: (K,) bool."""
    return shares < STARVING / len(shares)


def describe_shares(names: Sequence[str], shares: Sequence[float]) -> str:
    """Write the shares in a line, the largest first, with a word on those that starve."""
    shares = np.asarray(shares)
    order = np.argsort(-shares, kind="stable")
    words = [f"{names[c].replace('_', ' ')} {100 * shares[c]:.1f}%" for c in order]
    hungry = [names[c].replace("_", " ") for c in order if starving(shares)[c]]
    end = f"; may starve: {', '.join(hungry)}" if hungry else ""
    return f"expected share of the pull: {', '.join(words)}{end}"


class _SharePull(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embedding: Tensor, condition: Tensor, power: float) -> Tensor:
        ctx.condition, ctx.power = condition, power
        return embedding.view_as(embedding)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return weigh_conditions(gradient, ctx.condition, ctx.power), None, None
