"""timm's networks, each built once in a process: a test that asks again gets a copy.

Most tests build the same few networks from the same seed; to draw their weights takes timm ten times as long
as a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

SMALL = 8_000_000  # parameters of the largest network that is kept


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
            if sum(parameter.numel() for parameter in model.parameters()) > SMALL:
                return model
            built[key] = model, torch.get_rng_state()
        model, state_afterwards = built[key]
        torch.set_rng_state(state_afterwards)
        return copy.deepcopy(model)

    return create
