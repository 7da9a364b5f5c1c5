"""Eq. 7, from what a system reads of an image to its embedding: one head for all conditions, or for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.each import LinearEach
from ccakit.processes import all_sum

HEAD_NORMS = ("none", "batchnorm")


class BatchNormEach(nn.Module):
    """A BatchNorm for each condition: (B, R, E), conditions (B, R) -> (B, R, E).

    Each has statistics, of its own rows in all processes, and a scale and shift.
    """

    eps, momentum = 1e-5, 0.1  # as nn.BatchNorm1d

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(conditions * width))  # flat, as weight decay spares vectors
        self.bias = nn.Parameter(torch.zeros(conditions * width))
        self.register_buffer("running_mean", torch.zeros(conditions, width))
        self.register_buffer("running_var", torch.ones(conditions, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = self._statistics(x.flatten(0, 1), condition.flatten())
        scale, shift = self.weight.view_as(mean) * (var + self.eps).rsqrt(), self.bias.view_as(mean)
        return (x - mean[condition]) * scale[condition] + shift[condition]

    def _statistics(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and variance of each condition's rows, each (K, E): (M, E), conditions (M,)."""

        def sum_each(rows: Tensor) -> Tensor:
            sums = rows.new_zeros(len(self.running_mean), rows.shape[1])
            return all_sum(sums.index_add(0, condition, rows))

        count = sum_each(x.new_ones(len(x), 1))  # (K, 1)
        mean = sum_each(x) / count.clamp(min=1)
        var = sum_each((x - mean[condition]).square()) / count.clamp(min=1)
        with torch.no_grad():
            momentum = self.momentum * (count > 1)  # conditions without rows stay as they are
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * count / (count - 1).clamp(min=1), momentum)
        return mean, var


def head_norm_layer(kind: str, width: int, conditions: int | None = None) -> nn.Module:
    """Create the layer between the FC and the L2 of a head: nothing, as in the paper, or a BatchNorm.

    The BatchNorm keeps a training from scratch from collapsing. conditions: K, for one for each condition.
    Raises ValueError for another kind.
    """
    if kind not in HEAD_NORMS:
        raise ValueError(f"head norm {kind!r}: one of {HEAD_NORMS}")
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm1d(width) if conditions is None else BatchNormEach(conditions, width)


def apply_norm(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """Apply a layer of `head_norm_layer`: (..., E), conditions (...) unless it is shared -> (..., E)."""
    return norm(x, condition) if isinstance(norm, BatchNormEach) else norm(x.flatten(0, -2)).view_as(x)


class Head(nn.Module):
    """Eq. 7: l2(FC(x)). (..., D) -> (..., E), each vector of length 1. norm: see `head_norm_layer`.

    conditions: K, for an FC and a norm of each condition; x is then (B, R, D), under conditions (B, R).
    """

    def __init__(self, width: int, embed_dim: int, norm: str = "none", conditions: int | None = None) -> None:
        super().__init__()
        shared = conditions is None
        self.fc = nn.Linear(width, embed_dim) if shared else LinearEach(conditions, width, embed_dim)
        self.norm = head_norm_layer(norm, embed_dim, conditions)

    def project(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Compute the head's output before the L2: (..., D) -> (..., E)."""
        x = self.fc(x, condition) if isinstance(self.fc, LinearEach) else self.fc(x)
        return apply_norm(self.norm, x.float(), condition)  # compared in float32, also in mixed precision

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return F.normalize(self.project(x, condition), dim=-1)  # Eq. 7
