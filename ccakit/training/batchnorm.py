"""A BatchNorm whose statistics are those of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.processes import all_sum, world_size


class GlobalBatchNorm(nn.Module):
    """Normalise as a BatchNorm (1d, 2d, timm's) does, with the statistics of all processes' rows.

    torch's SyncBatchNorm needs GPUs. The state is the BatchNorm's, under the same names. row_weights: (n,),
    how much each row counts in the statistics: an image that several processes encode counts once.
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
            out = self._normalise(x if x.dtype == torch.float64 else x.float()).to(x.dtype)
        else:
            out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return self.act(self.drop(out))

    def _normalise(self, x: Tensor) -> Tensor:
        rows = x.flatten(2) if x.ndim > 2 else x[..., None]  # (n, C, ...) -> (n, C, P)
        weights = x.new_ones(len(x)) if self.row_weights is None else self.row_weights.to(x)
        weights = weights[:, None, None]
        count = all_sum(weights.sum() * rows.shape[2])
        mean = all_sum((weights * rows).sum((0, 2))) / count  # (C,)
        centred = rows - mean[:, None]
        variance = all_sum((weights * centred.square()).sum((0, 2))) / count
        if self.running_mean is not None:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * (variance + self.eps).rsqrt()[:, None]
        if self.weight is not None:
            out = out * self.weight[:, None] + self.bias[:, None]
        return out.view(x.shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def share_statistics(model: nn.Module) -> None:
    """Make every trained BatchNorm use the statistics of all processes, where there are several."""
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
    """Set how much each row of the next batch counts in the statistics of the module's BatchNorms."""
    for child in module.modules():
        if isinstance(child, GlobalBatchNorm):
            child.row_weights = weights
