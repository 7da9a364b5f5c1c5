"""Eq. 9, the triplet loss with conditions: over given triplets, and over all valid ones of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

MINING = ("all", "active")


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Compute 1 - cos of L2-normalised vectors: (..., E), (..., E) -> (...)."""
    return 1 - (a * b).sum(dim=-1)


def triplet_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2, mining: str = "all"
) -> Tensor:
    """Compute max(0, DIST(a, p | c) - DIST(a, n | c) + m), the mean over T triplets. Source: Eq. 9.

    anchor, positive, negative: (T, E), L2-normalised embeddings under each triplet's condition.
    mining: "all" takes the mean over all triplets (as Eq. 9), "active" over those whose loss is above 0.
    """
    violation = cosine_distance(anchor, positive) - cosine_distance(anchor, negative) + margin
    return _mean(violation.relu(), torch.ones_like(violation), mining)


def same_value(labels: Tensor) -> Tensor:
    """Relate the images of a batch under each condition: (B, K) labels, -1 unlabelled -> (K, B, B) int8.

    1: the same value; -1: another value; 0: one of the two images has no label.
    """
    columns = labels.T  # (K, B)
    known = (columns[:, :, None] >= 0) & (columns[:, None, :] >= 0)
    same = columns[:, :, None] == columns[:, None, :]
    return (2 * same.to(torch.int8) - 1) * known


def spaces_loss(
    embeddings: Tensor, relation: Tensor, margin: float = 0.2, mining: str = "all"
) -> tuple[Tensor, int]:
    """Compute Eq. 9 over every valid triplet that a batch holds under any condition (Eq. 8).

    embeddings: (B, K, E), L2-normalised. relation: (K, B, B), see `same_value`. Returns the mean (see
    `triplet_loss` for mining) and the number of valid triplets; without any, the loss is 0 with a gradient.
    """
    spaces = embeddings.transpose(0, 1)  # (B, K, E) -> (K, B, E)
    distance = 1 - spaces @ spaces.transpose(1, 2)  # (K, B, B)
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=relation.device)
    k, a, p = ((relation == 1) & ~itself).nonzero(as_tuple=True)  # every positive pair, P of them
    violation = distance[k, a, p][:, None] - distance[k, a] + margin  # (P, B): against every image
    valid = relation[k, a] == -1  # (P, B): those that are negatives
    return _mean(violation.relu() * valid, valid, mining), int(valid.sum())


def _mean(loss: Tensor, weight: Tensor, mining: str) -> Tensor:
    if mining not in MINING:
        raise ValueError(f"mining {mining!r}: one of {MINING}")
    count = weight.sum() if mining == "all" else (loss > 0).sum()
    return loss.sum() / count.clamp(min=1)


def spread(embeddings: Tensor) -> float:
    """Measure how far a batch is from one point, in the narrowest space: (B, K, E) -> 0 (collapsed) to 1.

    1 - |mean embedding|^2, which is the mean cosine distance of two embeddings drawn at random.
    """
    centre = embeddings.detach().float().mean(dim=0)  # (K, E)
    return float((1 - centre.square().sum(dim=-1)).min())
