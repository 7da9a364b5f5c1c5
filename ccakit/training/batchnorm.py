"""A BatchNorm whose statistics are those of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.processes import all_sum, world_size


class GlobalBatchNorm(nn.Module):
    """A BatchNorm (1d or 2d, timm's with an activation too) whose statistics are those of all processes' rows.

    Its state is the BatchNorm's, under the same names. row_weights: (n,), what each row counts in the statistics: an
    image that several processes encode counts as one.
    """

    row_weights: Tensor | None = None

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, ...) -> (n, C, ...)"""
        if self.training:
            out = self._normalised(x)
        else:
            out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return self.act(self.drop(out))

    def _normalised(self, x: Tensor) -> Tensor:
        rows, dims = x if x.dtype == torch.float64 else x.float(), [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        weights = rows.new_ones(len(x)) if self.row_weights is None else self.row_weights.to(rows)
        weights = weights.view([-1] + [1] * (x.ndim - 1))
        count = all_sum(weights.sum() * rows[0, 0].numel() if len(x) else weights.sum())
        mean = all_sum((weights * rows).sum(dims)) / count
        centred = rows - mean.view(shape)
        variance = all_sum((weights * centred.square()).sum(dims)) / count
        self._keep(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def share_statistics(model: nn.Module) -> None:
    """Make every BatchNorm that is trained see the whole batch; frozen ones, and one process, stay as they are."""
    if world_size() == 1:
        return
    training = model.training
    model.train()  # the frozen ones stay in eval mode
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
                setattr(module, name, GlobalBatchNorm(child))
    model.train(training)


def weigh_rows(module: nn.Module, weights: Tensor | None) -> None:
    """Set what each row of the next batch counts in the statistics of the module's BatchNorms."""
    for child in module.modules():
        if isinstance(child, GlobalBatchNorm):
            child.row_weights = weights
