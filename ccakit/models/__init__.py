"""Every compared system behind one interface: `create_model`, `list_models`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ccakit.models.base import ConditionalModel
from ccakit.models.cca import CCA
from ccakit.models.triplet import TripletNetwork
from ccakit.models.trunk import TrunkError, create_vit

__all__ = ["ConditionalModel", "ModelInfo", "TrunkError", "create_model", "list_models"]


@dataclass(frozen=True)
class ModelInfo:
    """A system that can be created: its name here, where it comes from, and how faithful it is."""

    name: str
    source: str
    faithfulness: str
    build: Callable[..., ConditionalModel]


_MODELS = {
    info.name: info
    for info in (
        ModelInfo("cca-type1", "the paper, Eq. 2, 4-7", "after the paper; choices in docs/deviations.md",
                  partial(CCA, token="type1")),
        ModelInfo("cca-type2", "the paper, Eq. 3, 4-7", "after the paper; choices in docs/deviations.md",
                  partial(CCA, token="type2")),
        ModelInfo("triplet", "Tables 2-5, Triplet network", "the same trunk and loss, the condition ignored",
                  TripletNetwork),
    )
}  # fmt: skip


def list_models() -> list[ModelInfo]:
    """All systems that `create_model` knows."""
    return list(_MODELS.values())


def create_model(
    name: str,
    *,
    conditions: int,
    trunk: str = "lite",
    pretrained: bool = True,
    weights: str | Path | None = None,
    image_size: int | None = None,
    freeze: str | int = "none",
    embed_dim: int | None = None,
    head_norm: str = "none",
    trunk_options: dict | None = None,
    **options,
) -> ConditionalModel:
    """Create a system by name.

    name: one of `list_models()`. conditions: K. trunk, pretrained, weights, image_size, trunk_options: see
    `ccakit.models.trunk.create_vit`. freeze: see `Trunk`. embed_dim: E of Eq. 7, D by default. head_norm: see
    `Head`. options: the system's own (CCA: query, residual). The model's `pretrained_cfg` is the trunk's.
    Raises ValueError for an unknown name, TrunkError for a trunk that does not work.
    """
    if name not in _MODELS:
        raise ValueError(f"no model {name!r}; there are: {', '.join(_MODELS)}")
    vit = create_vit(trunk, pretrained=pretrained, weights=weights, image_size=image_size, **trunk_options or {})
    model = _MODELS[name].build(
        vit, conditions, freeze=freeze, embed_dim=embed_dim, head_norm=head_norm, **options
    )
    model.pretrained_cfg = dict(vit.pretrained_cfg)
    model.image_size = tuple(vit.patch_embed.img_size)
    return model
