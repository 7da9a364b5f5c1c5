"""A timm network by name, with weights from its hub or a local file; one clear error if that fails."""

from __future__ import annotations

from pathlib import Path

import timm
from timm.models import load_state_dict
from torch import Tensor, nn

from ccakit.errors import first_line
from ccakit.models.trunks.frozen import TrunkError
from ccakit.models.trunks.weight_files import FOLDER, find_weights

ENOUGH = 0.5
FIXED = ("num_classes", "features_only", "out_indices")  # options that are ours, not the user's


def create_timm(
    name: str, works: str, *, pretrained: bool = True, weights: str | Path | None = None, **options
) -> nn.Module:
    """Call `timm.create_model(name, **options)` with the hub's weights, a local file's, or random ones.

    works: what to try instead, for messages. pretrained: load weights, from data/weights/NAME.safetensors
    where it is there, else from timm's hub. weights: a local file instead (.safetensors, or .pth read with
    weights_only), or "hub". The network's `pretrained_cfg` names the file. Raises TrunkError for
    an unknown name, for options that the network does not take, and for weights that cannot be loaded or
    belong to another network.
    """
    if not timm.is_model(name):
        raise TrunkError(f"no trunk {name!r}; what works: {works}")
    overlay, pretrained = {}, pretrained or weights is not None
    weights = find_weights(name, pretrained, weights)
    if weights is not None:
        if not Path(weights).is_file():
            raise TrunkError(f"{weights}: no such weights file for {name}")
        overlay["pretrained_cfg_overlay"] = {"file": str(weights), "custom_load": False}
    try:
        net = timm.create_model(name, pretrained=pretrained, **options, **overlay)
    except Exception as error:  # of many types: the hub's, the file's or timm's own
        raise _explain(name, works, weights, options, error) from error
    if weights is not None:
        _check_weights(name, net, weights)
    return net


def _explain(name: str, works: str, weights, options: dict, error: Exception) -> TrunkError:
    """Blame the options if the network cannot be built without the weights either, else the weights."""
    try:
        timm.create_model(name, pretrained=False, **options)
    except Exception as options_error:  # noqa: BLE001 - of many types, as above
        given = ", ".join(f"{key}={value}" for key, value in options.items() if key not in FIXED)
        refused = f"{name} does not take {given or 'the options of this system'}"
        return TrunkError(f"{refused} ({first_line(options_error)}); what works: {works}")
    given = f"give a file with --weights, or lay it at {FOLDER / name}.safetensors"
    remedy = f"{given}, or start from random weights with --no-pretrained"
    source = weights or "timm's hub"
    return TrunkError(f"the weights of {name} cannot be loaded from {source} ({first_line(error)}); {remedy}")


def _check_weights(name: str, net: nn.Module, weights: Path) -> None:
    """Raise TrunkError if the file is another network's: timm leaves random what it does not find there.

    At least half of the network's matrices must be the file's; position embeddings are interpolated to other
    sizes.
    """
    tensors = load_state_dict(str(weights), weights_only=True).values()
    in_file = {_fingerprint(tensor) for tensor in tensors if isinstance(tensor, Tensor)}
    matrices = [tensor for tensor in net.state_dict().values() if tensor.ndim > 1]
    found = sum(_fingerprint(tensor) in in_file for tensor in matrices)
    if found < ENOUGH * len(matrices):
        problem = f"not the weights of {name}: it holds {found} of the network's {len(matrices)} matrices"
        raise TrunkError(f"{weights}: {problem}; give its own, or --no-pretrained")


def _fingerprint(tensor: Tensor) -> tuple:
    """Give what distinguishes a tensor from others, whatever its name and dtype."""
    numbers = tensor.detach().float().flatten()
    return tuple(tensor.shape), tuple(numbers[:4].tolist()), float(numbers.double().sum())
