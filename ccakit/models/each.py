"""Layers that have weights of each condition: an FC, and an adapter beside a block's FFN."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHARING = ("shared", "each")  # one for all conditions, or one for each


class LinearEach(nn.Module):
    """An FC for each condition: (B, R, ..., D), conditions (B, R) -> (B, R, ..., E).

    It begins as `nn.Linear` does. groups: the sizes at "...", by default none; each has FCs of its own.
    """

    def __init__(self, conditions: int, width: int, out: int, groups: tuple[int, ...] = ()) -> None:
        super().__init__()
        bound, each = width**-0.5, (conditions, *groups)
        self.weight = nn.Parameter(torch.empty(*each, width, out).uniform_(-bound, bound))  # (K, ..., D, E)
        self.bias = nn.Parameter(torch.empty(*each, out).uniform_(-bound, bound))  # (K, ..., E)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        if condition.stride(0) == 0:  # the same conditions for every image, as in `spaces`
            own = self.weight[condition[0]]
            return torch.einsum("br...d,r...de->br...e", x, own) + self.bias[condition]
        every = torch.einsum("br...d,k...de->brk...e", x, self.weight)  # smaller than a (D, E) for each row
        own = condition.view(*condition.shape, 1, *[1] * (every.ndim - 3))
        return every.gather(2, own.expand(-1, -1, 1, *every.shape[3:]))[:, :, 0] + self.bias[condition]


class Adapter(nn.Module):
    """A small MLP of each condition beside a block's FFN: (B, R, D), conditions (B, R) -> (B, R, D).

    A parallel adapter (He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", ICLR
    2022), one for each condition, as Rebuffi et al. ("Learning multiple visual domains with residual
    adapters", NeurIPS 2017) have one for each domain. hidden: its width between the two FCs.
    """

    def __init__(self, conditions: int, width: int, hidden: int) -> None:
        super().__init__()
        self.down = LinearEach(conditions, width, hidden)
        self.up = LinearEach(conditions, hidden, width)
        nn.init.zeros_(self.up.weight)  # it begins as none, so that pre-trained blocks begin as they are
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(x, condition)), condition)
