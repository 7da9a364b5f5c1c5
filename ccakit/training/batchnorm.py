"""BatchNorms whose statistics are those of all processes; torch's SyncBatchNorm needs GPUs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ccakit.processes import all_sum, world_size


def share_statistics(model: nn.Module) -> None:
    """Make every trained BatchNorm (1d, 2d, timm's) normalise with the statistics of all processes' rows,
    where there are several."""
    if world_size() == 1:
        return
    training = model.training
    model.train()  # the frozen ones stay in eval mode
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.training:
            module.row_weights = None
            module.forward = partial(_forward, module)
    model.train(training)


def weigh_rows(module: nn.Module, weights: Tensor | None) -> None:
    """Set how much each row (n,) of the next batch counts in the statistics of the module's BatchNorms: an
    image that several processes encode counts once."""
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.row_weights = weights


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    """(n, C, ...) -> (n, C, ...)"""
    if not norm.training:
        return type(norm).forward(norm, x)
    out = _normalise(norm, x if x.dtype == torch.float64 else x.float()).to(x.dtype)
    drop, act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())  # timm's
    return act(drop(out))


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    rows = x.flatten(2) if x.ndim > 2 else x[..., None]  # (n, C, ...) -> (n, C, P)
    weights = x.new_ones(len(x)) if norm.row_weights is None else norm.row_weights.to(x)
    weights = weights[:, None, None]
    count = all_sum(weights.sum() * rows.shape[2])
    mean = all_sum((weights * rows).sum((0, 2))) / count  # (C,)
    centred = rows - mean[:, None]
    variance = all_sum((weights * centred.square()).sum((0, 2))) / count
    if norm.running_mean is not None:
        norm.num_batches_tracked += 1
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.detach(), momentum)
        norm.running_var.lerp_(variance.detach() * count / (count - 1), momentum)
    out = centred * (variance + norm.eps).rsqrt()[:, None]
    if norm.weight is not None:
        out = out * norm.weight[:, None] + norm.bias[:, None]
    return out.view(x.shape)
