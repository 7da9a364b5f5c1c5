"""Every compared system by name: `create_model`, `list_models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
from ccakit.models.trunks.frozen import FrozenStem, TrunkError, check_size
from ccakit.models.trunks.lite import LITE
from ccakit.models.trunks.vit import create_vit
from ccakit.models.trunks.weight_files import HUB

__all__ = ["ConditionalModel", "ModelInfo", "TrunkError", "create_model", "list_models"]

FASHIONAI = (6, 9, 8, 6, 5, 5, 10, 5)
PAPER_TRUNKS = {"map": "resnet50", "tokens": "vit_base_r50_s16_224"}
LOCAL_TRUNK = "resnet34"


@dataclass(frozen=True)
class ModelInfo:
    """A system that can be created.

    name: for `create_model`. title: its row in the paper's tables, or a title of ours where no row fits.
    system: the class, whose attributes describe it (see `ConditionalModel`). fixed: options of the class that
    have one value under this name.
    """

    name: str
    title: str
    system: type[ConditionalModel]
    fixed: dict[str, str] = field(default_factory=dict)

    @property
    def faithfulness(self) -> str:
        """How close the implementation is to its source, with the fixed options."""
        settings = [f"{option} {value}" for option, value in self.fixed.items()]
        return "; ".join([self.system.faithfulness, *settings])

    @property
    def options(self) -> list[str]:
        """The options that `create_model` takes for this system."""
        options = [option for option in self.system.options if option not in self.fixed]
        return [*options, "without"] if self.system.own_losses else options

    def parameters(self, trunk: str | None = None, values: Sequence[int] = FASHIONAI) -> int:
        """Count the parameters on a trunk, by default the paper's ResNet-50 or ViT.

        values: how many values each attribute has, by default FashionAI's.
        """
        given = {"values": values} if self.system.classifies else {}
        trunk = trunk or PAPER_TRUNKS[self.system.reads]
        model = create_on_meta(name=self.name, conditions=len(values), trunk=trunk, **given)
        return count_parameters(model)


MODELS = {
    info.name: info
    for info in (
        ModelInfo("triplet", "Triplet network", TripletNetwork),
        ModelInfo("networks", "K networks", Networks),
        ModelInfo("csn", "CSN", CSN),
        ModelInfo("csn-preset", "CSN (pre-set masks)", CSN, {"mask": "preset"}),
        ModelInfo("csn-fixed", "CSN (fixed masks)", CSN, {"mask": "fixed"}),
        ModelInfo("asen", "ASEN", ASEN),
        ModelInfo("asen-v2", "ASEN (second version)", ASENV2),
        ModelInfo("camnet", "CAMNet", CAMNet),
        ModelInfo("m2fashion", "M2Fashion", M2Fashion),
        ModelInfo("asen-pp", "ASEN++", ASENPP),
        ModelInfo("adde", "ADDE-C", ADDE),
        ModelInfo("tf-csn", "TF-CSN", TFCSN),
        ModelInfo("tf-asen", "TF-ASEN", TFASEN),
        ModelInfo("cca-type1", "CCA (Type-1)", CCA, {"token": "type1"}),
        ModelInfo("cca-type2", "CCA (Type-2)", CCA, {"token": "type2"}),
    )
}


def list_models() -> list[ModelInfo]:
    """List all systems that `create_model` knows, in the order of the paper's tables."""
    return list(MODELS.values())


def model_info(name: str) -> ModelInfo:
    """Find a system by name; ValueError lists the names there are."""
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]


def create_model(
    name: str,
    *,
    conditions: int,
    trunk: str = LITE,
    pretrained: bool = True,
    weights: str | Path | None = None,
    image_size: int | None = None,
    read_block: int | None = None,
    freeze: str | int = "none",
    embed_dim: int | None = None,
    head_norm: str = "none",
    trunk_options: dict | None = None,
    values: Sequence[int] | None = None,
    **options,
) -> ConditionalModel:
    """Create a system by name.

    name: one of `list_models()`. conditions: K. trunk, image_size, read_block, trunk_options: see
    `ccakit.models.trunks.vit.create_vit` and, for systems that read a CNN's map,
    `ccakit.models.trunks.cnn.create_map_trunk`. pretrained, weights: see
    `ccakit.models.trunks.timm_weights.create_timm`. freeze: see `Trunk`. embed_dim: E of Eq. 7, D by default.
    head_norm: see `head_norm_layer`. values: the number of values of each attribute, for systems that
    classify. options: the system's own (head: "shared" or one of "each" condition; CCA: query, residual;
    CSN: mask; asen-pp: crop, local; `without`: names of own losses to leave out). Raises ValueError for an
    unknown name or option, TrunkError for a trunk that does not work.
    """
    info = model_info(name)
    if conditions < 1:
        raise ValueError(f"conditions={conditions}: at least one is needed")
    if unknown := sorted(set(options) - set(info.options)):
        known = ", ".join(info.options) or "none"
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has: {known}")
    options.update(info.fixed, embed_dim=embed_dim, head_norm=head_norm)
    if info.system.classifies:
        if values is None or len(values) != conditions:
            expected = f"how many each of the {conditions} attributes has"
            raise ValueError(f"{name} has a classifier: give values, {expected}")
        options["values"] = tuple(values)
    source = dict(pretrained=pretrained, weights=weights, image_size=image_size, **trunk_options or {})
    if reads_on(name, trunk) == "tokens":
        vit = create_vit(trunk, read_block=read_block, **source)
        return info.system(vit, conditions, freeze=freeze, **options)
    if read_block is not None:
        problem = f"{name} reads the feature map of a CNN, which has no blocks"
        raise TrunkError(f"{problem}; leave out --read-block {read_block}")
    cnn = create_map_trunk(trunk, freeze=freeze, **source)
    if name == "asen-pp":
        options = _with_local_trunk(cnn, trunk, source, freeze, options)
    build = MapTripletNetwork if name == "triplet" else info.system
    return build(cnn, conditions, **options)


def reads_on(name: str, trunk: str) -> str:
    """Say what a system reads on a trunk, "tokens" or "map"; only the triplet network runs on both."""
    if name == "triplet" and trunk != LITE and not is_transformer(trunk):
        return "map"
    return model_info(name).system.reads


def _with_local_trunk(cnn: FrozenStem, trunk: str, source: dict, freeze: str | int, options: dict) -> dict:
    """Complete ASEN++'s options: the crop, and the trunk named `local` for pictures of half the side.

    The crop is "map" on a frozen CNN, whose output may be kept without the picture, else "image".
    """
    crop = options.get("crop", "map" if cnn.frozen else "image")
    if crop != "image":
        return {**options, "crop": crop}
    name = options.get("local") or (LITE if trunk == LITE else LOCAL_TRUNK)
    side = cnn.image_size[0]
    if name == LITE:
        check_size("asen-pp, which halves the picture, on lite", (side, side), (32, 32))
    given = source["weights"]
    own = HUB if given is not None and Path(given) == HUB else None  # a file is the larger trunk's
    half = {**source, "weights": own, "image_size": side // 2, "multiple_of": 8}
    return {**options, "crop": crop, "local": create_map_trunk(name, freeze=freeze, **half)}


def create_on_meta(**options) -> ConditionalModel:
    """Do what `create_model` does for shapes only, without memory or weights: to count or compare them."""
    with torch.device("meta"):
        return create_model(**options, pretrained=False)


def count_parameters(module: nn.Module) -> int:
    """Count a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
