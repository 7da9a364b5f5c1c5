"""A timm network by name, with weights from its hub or a local file; one clear error where that cannot be had."""

from __future__ import annotations

from pathlib import Path

import timm
from timm.models import load_state_dict
from torch import Tensor, nn

from ccakit.models.trunks.frozen import TrunkError

ENOUGH = 0.5
FIXED = ("num_classes", "features_only", "out_indices")  # options that are ours, not the user's


def build(name: str, works: str, *, pretrained: bool, weights: str | Path | None, **options) -> nn.Module:
    """`timm.create_model(name, **options)` with the hub's weights, a local file's, or random ones.

    works: what to try instead, for messages. TrunkError for options that the network does not take, and for weights
    that cannot be loaded or are another network's.
    """
    overlay = {}
    if weights is not None:
        if not Path(weights).is_file():
            raise TrunkError(f"{weights}: no such weights file for {name}")
        overlay["pretrained_cfg_overlay"] = {"file": str(weights), "custom_load": False}
    try:
        net = timm.create_model(name, pretrained=pretrained or weights is not None, **options, **overlay)
    except Exception as error:  # the hub's, the file's or timm's own: of many types
        raise _reason(name, works, weights, options, error) from error
    if weights is not None:
        _check_found(name, net, Path(weights))
    return net


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _reason(name: str, works: str, weights, options: dict, error: Exception) -> TrunkError:
    """Whose fault an error is: the options', where the network cannot be built from random weights either."""
    try:
        timm.create_model(name, pretrained=False, **options)
    except Exception as without:  # noqa: BLE001 - as above
        given = (
            ", ".join(f"{key}={value}" for key, value in options.items() if key not in FIXED)
            or "what is wanted"
        )
        return TrunkError(f"{name} does not take {given} ({first_line(without)}); what works: {works}")
    remedy = "give a file with --weights, or start from random weights with --no-pretrained"
    source = weights or "timm's hub"
    return TrunkError(f"the weights of {name} cannot be loaded from {source} ({first_line(error)}); {remedy}")


def _check_found(name: str, net: nn.Module, weights: Path) -> None:
    """TrunkError where the file is another network's: timm leaves random what it does not find there.

    At least half of the network's matrices have to be the file's; position embeddings are interpolated to other sizes.
    """
    there = {
        _mark(t) for t in load_state_dict(str(weights), weights_only=True).values() if isinstance(t, Tensor)
    }
    matrices = [tensor for tensor in net.state_dict().values() if tensor.ndim > 1]
    found = sum(_mark(tensor) in there for tensor in matrices)
    if found < ENOUGH * len(matrices):
        told = f"{found} of the network's {len(matrices)} matrices are there"
        raise TrunkError(f"{weights}: not the weights of {name}: {told}; give its own, or --no-pretrained")


def _mark(tensor: Tensor) -> tuple:
    """What tells a tensor from others, whatever its name and kind of numbers."""
    numbers = tensor.detach().float().flatten()
    return tuple(tensor.shape), tuple(numbers[:4].tolist()), float(numbers.double().sum())
