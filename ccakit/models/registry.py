"""Every compared system behind one interface: `create_model`, `list_models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

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
from ccakit.models.trunks.frozen import TrunkError
from ccakit.models.trunks.lite import LITE
from ccakit.models.trunks.vit import create_vit

__all__ = ["ConditionalModel", "ModelInfo", "TrunkError", "create_model", "list_models"]

FASHIONAI = (6, 9, 8, 6, 5, 5, 10, 5)
PAPER_TRUNKS = {"map": "resnet50", "tokens": "vit_base_r50_s16_224"}


@dataclass(frozen=True)
class ModelInfo:
    """A system that can be created.

    name: here; title: in the paper's tables, and what sets it apart from the row of that name if it is another.
    source: where it comes from. faithfulness: how near to it. build: what makes it. reads: "tokens" of a vision
    transformer or the "map" of a CNN. options: what `build` takes beside the common arguments. classifies: whether it
    needs to know how many values each attribute has. if_shared: what a model of it is that shares the trunk all the
    same.
    """

    name: str
    title: str
    source: str
    faithfulness: str
    build: Callable[..., ConditionalModel] = field(repr=False)
    reads: str = "map"
    options: tuple[str, ...] = ()
    classifies: bool = False
    if_shared: str = ""

    @property
    def shares_trunk(self) -> bool:
        """Whether all conditions share one pass of the trunk: not for ASEN++'s local branch and K networks.

        This is of the system as its source has it. A model says by its own `shares_trunk` what it does: ASEN++ with
        crop "map" shares.
        """
        return self.name not in ("asen-pp", "networks")

    def parameters(self, trunk: str | None = None, values: Sequence[int] = FASHIONAI) -> int:
        """How many parameters it has on a trunk (by default the paper's, ResNet-50 or ViT) for attributes of so
        many values (by default FashionAI's)."""
        trunk = trunk or PAPER_TRUNKS[self.reads]
        given = {"values": values} if self.classifies else {}
        with torch.device("meta"):  # shapes only: no memory, no time
            model = create_model(self.name, trunk=trunk, conditions=len(values), pretrained=False, **given)
        return sum(p.numel() for p in model.parameters())


_CCA = "after the paper; choices in docs/deviations.md"
_AFTER = "after the paper, with our choices: "
_ON_MAP = (
    "not the authors' ASEN++: crops are cut from the map, and a 3x3 convolution stands for the second CNN"
)
_CSN = "as CSN's code, its two norms included; E = C and cosine distance as in ASEN's comparison, which has no norms"
_MODELS = {
    info.name: info
    for info in (
        ModelInfo(
            "triplet",
            "Triplet network",
            "Tables 2-4",
            "the same trunk and loss, the condition ignored",
            TripletNetwork,
            "tokens",
        ),
        ModelInfo(
            "networks", "K networks", "Figure 1a", "one triplet network a condition", Networks, "tokens"
        ),
        ModelInfo(
            "csn", "CSN", "Veit et al., CVPR 2017", f"{_CSN}; learned masks", CSN, options=("mask", "without")
        ),
        ModelInfo(
            "csn-preset",
            "CSN (pre-set masks)",
            "Veit et al., CVPR 2017",
            f"{_CSN}; masks disjoint at first, then learned",
            partial(CSN, mask="preset"),
            options=("without",),
        ),
        ModelInfo(
            "csn-fixed",
            "CSN (fixed masks)",
            "Veit et al., CVPR 2017",
            f"{_CSN}; fixed disjoint masks",
            partial(CSN, mask="fixed"),
            options=("without",),
        ),
        ModelInfo("asen", "ASEN", "Ma et al., AAAI 2020", "as the authors' code", ASEN),
        ModelInfo(
            "asen-v2", "ASEN (second version)", "Ma et al., second version", "as the authors' code", ASENV2
        ),
        ModelInfo(
            "camnet",
            "CAMNet",
            "the paper, section 2, Figure 2",
            _AFTER + "K x C x h x w mask, CBAM's spatial attention with a softmax",
            CAMNet,
        ),
        ModelInfo(
            "m2fashion",
            "M2Fashion",
            "the paper, section 2",
            _AFTER + "asen and a linear classifier of the condition's values",
            M2Fashion,
            options=("without",),
            classifies=True,
        ),
        ModelInfo(
            "asen-pp",
            "ASEN++",
            "Dong et al., TIP 2021",
            f"as the authors' code, with crops of the resized picture; on kept features, {_ON_MAP}",
            ASENPP,
            options=("crop", "local", "without"),
            if_shared=_ON_MAP,
        ),
        ModelInfo(
            "adde",
            "ADDE-C",
            "Hou et al., ICCV 2021",
            _AFTER + "an MLP and a classifier a condition, triplet loss beside it",
            ADDE,
            options=("without",),
            classifies=True,
        ),
        ModelInfo(
            "tf-csn",
            "TF-CSN",
            "the paper, section 4.6",
            _AFTER + "learned masks, FC before the mask",
            TFCSN,
            "tokens",
            options=("mask", "without"),
        ),
        ModelInfo(
            "tf-asen",
            "TF-ASEN",
            "the paper, section 4.6",
            _AFTER + "asen on the last block's [PATCH] tokens",
            TFASEN,
            "tokens",
        ),
        ModelInfo(
            "cca-type1",
            "CCA (Type-1)",
            "the paper, Eq. 2, 4-7",
            _CCA,
            partial(CCA, token="type1"),
            "tokens",
            ("query", "residual"),
        ),
        ModelInfo(
            "cca-type2",
            "CCA (Type-2)",
            "the paper, Eq. 3, 4-7",
            _CCA,
            partial(CCA, token="type2"),
            "tokens",
            ("query", "residual"),
        ),
    )
}
LOCAL_TRUNK = "resnet34"


def list_models() -> list[ModelInfo]:
    """All systems that `create_model` knows, in the order of the paper's tables."""
    return list(_MODELS.values())


def model_info(name: str) -> ModelInfo:
    """A system by name; ValueError lists what there is."""
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
    `ccakit.models.trunks.vit.create_vit` and, for systems that read a CNN's map, `feature_map.create_map_trunk`. freeze:
    see `Trunk`. embed_dim: E of Eq. 7, D by default. head_norm: see `Head`. values: of each attribute, for systems
    that classify. options: the system's own (CCA: query, residual; CSN: mask; asen-pp: crop, local; `without`: names
    of own losses to leave out). The model's `pretrained_cfg` is the trunk's.
    Raises ValueError for an unknown name or option, TrunkError for a trunk that does not work.
    """
    info = model_info(name)
    if unknown := sorted(set(options) - set(info.options)):
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; it has: {', '.join(info.options) or 'none'}"
        )
    common = dict(embed_dim=embed_dim, head_norm=head_norm, **options)
    if info.classifies:
        if values is None or len(values) != conditions:
            raise ValueError(
                f"{name} has a classifier: give values, how many each of the {conditions} attributes has"
            )
        common["values"] = tuple(values)
    source = dict(pretrained=pretrained, weights=weights, image_size=image_size, **trunk_options or {})
    if reads_on(name, trunk) == "tokens":
        vit = create_vit(trunk, **source)
        model = info.build(vit, conditions, freeze=freeze, **common)
        model.pretrained_cfg, model.image_size = dict(vit.pretrained_cfg), tuple(vit.patch_embed.img_size)
        return model
    return _on_map(info, trunk, conditions, freeze, source, common)


def reads_on(name: str, trunk: str) -> str:
    """What a system reads on a trunk, "tokens" or "map": the triplet network alone runs on either kind of trunk."""
    if name == "triplet" and trunk != LITE and not is_transformer(trunk):
        return "map"
    return model_info(name).reads


def _on_map(
    info: ModelInfo, trunk: str, conditions: int, freeze, source: dict, common: dict
) -> ConditionalModel:
    cnn, settings = create_map_trunk(trunk, freeze=freeze, **source)
    build, side = MapTripletNetwork if info.reads == "tokens" else info.build, 16 * cnn.grid_size[0]
    if info.name == "asen-pp":
        common["crop"] = common.get("crop", "map" if cnn.freezes else "image")
        if common["crop"] == "image":
            name = common.pop("local", None) or (LITE if trunk == LITE else LOCAL_TRUNK)
            half = {**source, "weights": None, "image_size": side // 2}
            common["local"] = create_map_trunk(name, freeze=freeze, **half)[0]
    model = build(cnn, conditions, **common)
    model.pretrained_cfg, model.image_size = (
        settings,
        (source["image_size"] or settings["input_size"][1],) * 2,
    )
    return model
