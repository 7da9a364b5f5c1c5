"""Set up training: the model's arguments, the optimizer's groups, the learning rate."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial

from timm.optim import param_groups_weight_decay
from torch import nn

from ccakit.attributes import Attributes
from ccakit.data.inputs import FeatureInputs, ImageInputs, inputs_for
from ccakit.data.split import Split
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import model_info
from ccakit.models.saved import SavedModel
from ccakit.models.trunks.frozen import FrozenStem
from ccakit.models.trunks.lite import LITE
from ccakit.training.config import TrainConfig


def recipe_of(config: TrainConfig, attributes: Attributes) -> dict:
    """List the arguments of `create_model`, as JSON can keep them, without the weights to start from."""
    info = model_info(config.model)
    recipe = {
        "name": config.model,
        "conditions": len(attributes),
        "trunk": config.trunk,
        "image_size": config.image_size,
        "freeze": int(config.freeze) if config.freeze.isdigit() else config.freeze,
        "embed_dim": config.embed_dim,
        "head_norm": config.head_norm,
    }
    if config.read_block is not None:
        recipe["read_block"] = config.read_block
    if config.trunk == LITE:
        sizes = dict(width=config.lite_width, depth=config.lite_depth, num_heads=config.lite_heads)
        recipe["trunk_options"] = sizes
    if "head" in info.options:
        recipe["head"] = config.head
    if "query" in info.options:
        recipe.update(query=config.query, residual=config.residual, wv=config.wv, adapter=config.adapter)
    if "crop" in info.options:
        recipe["crop"] = "map" if config.cache and config.freeze in ("backbone", "all") else "image"
    if info.system.classifies:
        recipe["values"] = list(attributes.sizes)
    if config.without:
        recipe["without"] = list(config.without)
    return recipe


def unreadable_share(config: TrainConfig, split: str) -> float:
    """Give the share of a split's images that may be unreadable."""
    return config.max_unreadable if split == "train" else float(config.skip_unreadable)


def inputs_of(
    config: TrainConfig, saved: SavedModel, split: Split, progress: bool = True
) -> ImageInputs | FeatureInputs:
    """Open what a run's model is fed of a split, see `inputs_for`."""
    share = unreadable_share(config, split.name)
    options = dict(cache=config.cache, progress=progress, max_unreadable=share)
    return inputs_for(saved.model, split, saved.transform, **options)


def parameter_groups(model: ConditionalModel, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Make AdamW's groups: with and without weight decay, and for each the parameters that learn alike.

    slow: whether they are the model's slow parameters. lr_scale: 1 in the system itself; in the trunk,
    `layer_decay` to the power of 1 in its last block, of 2 in the one before, and so on.
    """
    slow = {id(parameter) for parameter in model.slow_parameters()[0]}
    trunks = [module for module in model.modules() if isinstance(module, FrozenStem)]  # K in K networks
    stages = [found for trunk in trunks for found in _depths(trunk)]
    scale = {id(p): layer_decay**depth for depth, stage in stages for p in stage.parameters()}
    groups = []
    for group in param_groups_weight_decay(model, weight_decay):
        alike = defaultdict(list)
        for p in group["params"]:
            alike[id(p) not in slow, scale.get(id(p), 1.0)].append(p)
        for (fast, lr_scale), params in sorted(alike.items(), key=lambda item: item[0]):
            groups.append({**group, "params": params, "slow": not fast, "lr_scale": lr_scale})
    return groups


def _depths(trunk: FrozenStem) -> list[tuple[int, nn.Module]]:
    """Number a trunk's stages from the system back, the last block as 1; all that is before blocks alike."""
    stages, blocks = trunk.stages(), len(getattr(trunk, "blocks", ()))
    return [(min(len(stages) - index, blocks + 1), stage) for index, stage in enumerate(stages)]


def checkpoint_activations(model: ConditionalModel) -> None:
    """Make the trunk's trained blocks compute their inside again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    for block in getattr(model.trunk, "blocks", ()):
        if any(parameter.requires_grad for parameter in block.parameters()):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def learning_rate(share: float, peak: float, warmup: float) -> float:
    """Compute the rate: a linear warm-up over the share `warmup` of the budget, then a cosine to 0."""
    if share < warmup:
        return peak * (share + 1e-3) / (warmup + 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
