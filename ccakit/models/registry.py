"""Every compared system by name: `create_model`, `list_models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ccakit.models.adde import ADDE
from ccakit.models.asen import ASEN
from ccakit.models.asen_pp import ASENPP
from ccakit.models.asen_v2 import ASENV2
from ccakit.models.base import ConditionalModel
from ccakit.models.camnet import CAMNet
from ccakit.models.cca import CCA
from ccakit.models.csn import CSN
from ccakit.models.m2fashion import M2Fashion
from ccakit.models.networks import Networks
from ccakit.models.tf_asen import TFASEN
from ccakit.models.tf_csn import TFCSN
from ccakit.models.triplet import MapTripletNetwork, TripletNetwork
from ccakit.models.trunks.cnn import create_map_trunk, is_transformer
from ccakit.models.trunks.frozen import FrozenStem, TrunkError
from ccakit.models.trunks.lite import LITE
from ccakit.models.trunks.vit import create_vit

__all__ = ["ConditionalModel", "ModelInfo", "TrunkError", "create_model", "list_models"]

FASHIONAI = (6, 9, 8, 6, 5, 5, 10, 5)
PAPER_TRUNKS = {"map": "resnet50", "tokens": "vit_base_r50_s16_224"}
LOCAL_TRUNK = "resnet34"


@dataclass(frozen=True)
class ModelInfo:
    """A system that can be created. All but name, title and build are described at `ConditionalModel`.

    name: for `create_model`. title: its row in the paper's tables, or a title of ours where no row fits.
    build: creates it on a trunk. options: those that `create_model` takes for this system. shares_trunk: of
    the system as its source has it; a model says by its own `shares_trunk` what it does (ASEN++ with crop
    "map" shares the trunk).
    """

    name: str
    title: str
    source: str
    faithfulness: str
    build: Callable[..., ConditionalModel] = field(repr=False)
    reads: str
    options: tuple[str, ...]
    classifies: bool
    if_shared: str
    shares_trunk: bool

    def parameters(self, trunk: str | None = None, values: Sequence[int] = FASHIONAI) -> int:
        """Count the parameters on a trunk, by default the paper's ResNet-50 or ViT.

        values: how many values each attribute has, by default FashionAI's.
        """
        given = {"values": values} if self.classifies else {}
        return count_parameters(
            create_on_meta(self.name, len(values), trunk or PAPER_TRUNKS[self.reads], **given)
        )


def _info(name: str, title: str, system: type[ConditionalModel], **fixed: str) -> ModelInfo:
    """Describe a system whose options `fixed` have one value."""
    options = [option for option in system.options if option not in fixed]
    if system.own_losses:
        options.append("without")
    settings = [f"{option} {value}" for option, value in fixed.items()]
    return ModelInfo(
        name=name,
        title=title,
        source=system.source,
        faithfulness="; ".join([system.faithfulness, *settings]),
        build=partial(system, **fixed),
        reads=system.reads,
        options=tuple(options),
        classifies=system.classifies,
        if_shared=system.if_shared,
        shares_trunk=system.shares_trunk,
    )


_MODELS = {
    info.name: info
    for info in (
        _info("triplet", "Triplet network", TripletNetwork),
        _info("networks", "K networks", Networks),
        _info("csn", "CSN", CSN),
        _info("csn-preset", "CSN (pre-set masks)", CSN, mask="preset"),
        _info("csn-fixed", "CSN (fixed masks)", CSN, mask="fixed"),
        _info("asen", "ASEN", ASEN),
        _info("asen-v2", "ASEN (second version)", ASENV2),
        _info("camnet", "CAMNet", CAMNet),
        _info("m2fashion", "M2Fashion", M2Fashion),
        _info("asen-pp", "ASEN++", ASENPP),
        _info("adde", "ADDE-C", ADDE),
        _info("tf-csn", "TF-CSN", TFCSN),
        _info("tf-asen", "TF-ASEN", TFASEN),
        _info("cca-type1", "CCA (Type-1)", CCA, token="type1"),
        _info("cca-type2", "CCA (Type-2)", CCA, token="type2"),
    )
}


def list_models() -> list[ModelInfo]:
    """List all systems that `create_model` knows, in the order of the paper's tables."""
    return list(_MODELS.values())


def model_info(name: str) -> ModelInfo:
    """Find a system by name; ValueError lists the names there are."""
    if name not in _MODELS:
        raise ValueError(f"no model {name!r}; there are: {', '.join(_MODELS)}")
    return _MODELS[name]


def create_model(
    name: str,
    *,
    conditions: int,
    trunk: str = LITE,
    pretrained: bool = True,
    weights: str | Path | None = None,
    image_size: int | None = None,
    freeze: str | int = "none",
    embed_dim: int | None = None,
    head_norm: str = "none",
    trunk_options: dict | None = None,
    values: Sequence[int] | None = None,
    **options,
) -> ConditionalModel:
    """Create a system by name.

    name: one of `list_models()`. conditions: K. trunk, pretrained, weights, image_size, trunk_options: see
    `ccakit.models.trunks.vit.create_vit` and, for systems that read a CNN's map,
    `ccakit.models.trunks.cnn.create_map_trunk`. freeze: see `Trunk`. embed_dim: E of Eq. 7, D by default.
    head_norm: see `head_norm_layer`. values: the number of values of each attribute, for systems that
    classify. options: the system's own (CCA: query, residual; CSN: mask; asen-pp: crop, local; `without`:
    names of own losses to leave out). Raises ValueError for an unknown name or option, TrunkError for a trunk
    that does not work.
    """
    info = model_info(name)
    if unknown := sorted(set(options) - set(info.options)):
        known = ", ".join(info.options) or "none"
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has: {known}")
    options.update(embed_dim=embed_dim, head_norm=head_norm)
    if info.classifies:
        if values is None or len(values) != conditions:
            expected = f"how many each of the {conditions} attributes has"
            raise ValueError(f"{name} has a classifier: give values, {expected}")
        options["values"] = tuple(values)
    source = dict(pretrained=pretrained, weights=weights, image_size=image_size, **trunk_options or {})
    if reads_on(name, trunk) == "tokens":
        return info.build(create_vit(trunk, **source), conditions, freeze=freeze, **options)
    cnn = create_map_trunk(trunk, freeze=freeze, **source)
    if name == "asen-pp":
        options = _with_local_trunk(cnn, trunk, source, freeze, options)
    build = MapTripletNetwork if name == "triplet" else info.build
    return build(cnn, conditions, **options)


def reads_on(name: str, trunk: str) -> str:
    """Say what a system reads on a trunk, "tokens" or "map"; only the triplet network runs on both."""
    if name == "triplet" and trunk != LITE and not is_transformer(trunk):
        return "map"
    return model_info(name).reads


def _with_local_trunk(cnn: FrozenStem, trunk: str, source: dict, freeze: str | int, options: dict) -> dict:
    """Complete ASEN++'s options: the crop, and the trunk named `local` for pictures of half the side.

    The crop is "map" on a frozen CNN, whose output may be kept without the picture, else "image".
    """
    crop = options.get("crop", "map" if cnn.freezes else "image")
    if crop != "image":
        return {**options, "crop": crop}
    name = options.get("local") or (LITE if trunk == LITE else LOCAL_TRUNK)
    half = {**source, "weights": None, "image_size": 16 * cnn.grid_size[0] // 2}
    return {**options, "crop": crop, "local": create_map_trunk(name, freeze=freeze, **half)}


def create_on_meta(name: str, conditions: int, trunk: str, **options) -> ConditionalModel:
    """Create a system's shapes only, without memory or weights: to count what it has."""
    with torch.device("meta"):
        return create_model(name, conditions=conditions, trunk=trunk, pretrained=False, **options)


def count_parameters(module: nn.Module) -> int:
    """Count a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
