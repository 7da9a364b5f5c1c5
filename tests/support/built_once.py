"""timm's networks, each built once in a process: a test that asks again gets a copy.

Most tests build the same few networks from the same seed; to draw their weights takes timm ten times as long
as a copy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

SMALL = 8_000_000  # parameters with values of the largest network that is kept


def built_once(create_model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Wrap `timm.create_model`; weights and the random numbers afterwards are those of a new build.

    Networks with weights to load are built as ever, as the file may change.
    """
    built: dict[tuple, tuple[nn.Module, torch.Tensor]] = {}

    def create(name: str, pretrained: bool = False, **options) -> nn.Module:
        if pretrained:
            return create_model(name, pretrained=pretrained, **options)
        random_state = torch.get_rng_state().numpy().tobytes()
        key = (name, repr(sorted(options.items())), torch.get_default_device(), random_state)
        if key not in built:
            model = create_model(name, **options)
            held = sum(parameter.numel() for parameter in model.parameters() if not parameter.is_meta)
            if held > SMALL:
                return model
            built[key] = model, torch.get_rng_state()
        model, state_afterwards = built[key]
        torch.set_rng_state(state_afterwards)
        return copy_network(model, {})

    return create


def copy_network(network: nn.Module, copies: dict[int, object]) -> nn.Module:
    """Copy modules, parameters and buffers, and share what else they hold: a quarter of deepcopy's time.

    copies: what has been copied, by its id: what two modules share, their copies share.
    """
    if id(network) in copies:
        return copies[id(network)]
    copied = copies[id(network)] = object.__new__(type(network))
    for name, value in vars(network).items():
        copied.__dict__[name] = value.copy() if isinstance(value, dict | list | set) else value
    for tensors in (copied._parameters, copied._buffers):
        tensors.update({name: _copy_tensor(tensor, copies) for name, tensor in tensors.items()})
    modules = copied._modules
    modules.update({name: module and copy_network(module, copies) for name, module in modules.items()})
    return copied


def _copy_tensor(tensor: torch.Tensor | None, copies: dict[int, object]) -> torch.Tensor | None:
    if tensor is not None and id(tensor) not in copies:
        copied = tensor.detach().clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(copied, tensor.requires_grad) if is_parameter else copied
    return tensor if tensor is None else copies[id(tensor)]
