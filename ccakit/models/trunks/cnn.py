"""The trunk of systems that read a CNN's feature map: a timm CNN cut at stride 16, or `lite`'s CNN.

    images -> stem (the CNN, if frozen; may be cached) -> features -> tail -> tokens

`tokens` are here a map (B, C, h, w): 1024 x 14 x 14 for a ResNet-50 cut after its third stage, at 224 pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import cache

import timm
import torch
from torch import nn

from ccakit.models.trunks.frozen import FrozenStem, TrunkError, check_passage, check_size, checked_once
from ccakit.models.trunks.lite import LITE, create_lite
from ccakit.models.trunks.timm_weights import create_timm

STRIDE = 16
WORKING_CNNS = ("resnet50 (the paper's)", "resnet34", "resnet18", "efficientnet_b0", "lite (ours, for CPUs)")
TRANSFORMERS = (
    "vision_transformer",
    "vision_transformer_hybrid",
    "deit",
    "eva",
    "beit",
    "naflexvit",
)  # in timm


class MapTrunk(FrozenStem):
    """A CNN and, for `lite`, the 1x1 convolution after it that its transformer has as well.

    channels: C. settings: timm's, of the images; `input_size` is (3, height, width). freeze: "none", or
    "backbone" ("all" is the same): the CNN is not trained.
    """

    def __init__(
        self, backbone: nn.Module, proj: nn.Module, channels: int, settings: dict, freeze: str | int = "none"
    ) -> None:
        super().__init__()
        if freeze not in ("none", "backbone", "all"):
            raise TrunkError(f"freeze={freeze}: a CNN is frozen as a whole (backbone) or not at all (none)")
        self.backbone, self.proj = backbone, proj
        self.embed_dim, self.pretrained_cfg = channels, settings
        self.image_size = tuple(settings["input_size"][1:])
        self.grid_size = tuple(math.ceil(side / STRIDE) for side in self.image_size)
        self.freeze_stem(0 if freeze == "none" else 1)

    def stages(self) -> list[nn.Module]:
        return [self.backbone, self.proj]


def create_map_trunk(
    name: str,
    *,
    image_size: int | None = None,
    multiple_of: int = STRIDE,
    freeze: str | int = "none",
    **options,
) -> MapTrunk:
    """Create a CNN trunk.

    name: a timm CNN, or `lite`. image_size: pixels a side, a multiple of `multiple_of`. options: passed on to
    `create_lite` or to `create_timm` (pretrained, weights; `lite`'s width is C). Raises TrunkError for
    anything else; weights are loaded only after the checks.
    """
    if name == LITE:
        vit = create_lite(image_size=image_size, **options)
        embed = vit.patch_embed
        return MapTrunk(embed.backbone, embed.proj, vit.embed_dim, vit.pretrained_cfg, freeze)
    works = f"{', '.join(WORKING_CNNS)}, and timm's other CNNs"
    options.update(features_only=True, out_indices=(_stage(name, works),))
    without_weights = {**options, "pretrained": False, "weights": None}
    _check(name, works, image_size, multiple_of, freeze, without_weights)
    return _map_trunk(create_timm(name, works, **options), image_size, freeze)


@checked_once
def _check(
    name: str, works: str, image_size: int | None, multiple_of: int, freeze: str | int, options: dict
) -> None:
    """Raise TrunkError for a network that, built without weights, cannot be a trunk at this image size."""
    with torch.device("meta"):
        trunk = _map_trunk(create_timm(name, works, **options), image_size, freeze)
    check_size(name, trunk.image_size, (multiple_of, multiple_of))
    check_passage(name, trunk, trunk.image_size, (1, trunk.embed_dim, *trunk.grid_size))


def _map_trunk(net: nn.Module, image_size: int | None, freeze: str | int) -> MapTrunk:
    """Make a trunk of a timm CNN that gives one feature map."""
    size = (image_size, image_size) if image_size else net.pretrained_cfg["input_size"][1:]
    settings = {**net.pretrained_cfg, "input_size": (3, *size)}
    backbone = nn.Sequential(OrderedDict(net=net))
    return MapTrunk(backbone, nn.Identity(), net.feature_info.channels()[-1], settings, freeze)


@cache
def _stage(name: str, works: str) -> int:
    """Find the index of the last feature map of stride 16 of a timm CNN; TrunkError if it has none."""
    if is_transformer(name):
        problem = "is a vision transformer, and this system reads a CNN's feature map"
        raise TrunkError(f"{name} {problem}; what works: {works}")
    with torch.device("meta"):
        net = create_timm(name, works, pretrained=False, features_only=True)
    if getattr(net, "output_fmt", "NCHW") != "NCHW":  # EfficientNet's features carry none
        raise TrunkError(f"{name} gives its maps channels last; what works: {works}")
    info = net.feature_info
    stages = [index for index, stride in zip(info.out_indices, info.reduction()) if stride == STRIDE]
    if not stages:
        raise TrunkError(f"{name} has no feature map of stride {STRIDE}; what works: {works}")
    return stages[-1]


def is_transformer(name: str) -> bool:
    """Whether timm builds a vision transformer, of one grid from start to end, by this name."""
    return timm.is_model(name) and timm.model_entrypoint(name).__module__.split(".")[-1] in TRANSFORMERS
