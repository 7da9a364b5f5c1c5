"""Models on disk: safetensors and JSON. Training states are in `ccakit.training.checkpoints`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ccakit.attributes import Attributes
from ccakit.data.transform import ImageTransform
from ccakit.disk import differences, load_tensors, read_json, save_tensors, write_json
from ccakit.errors import DataError
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import create_model
from ccakit.version import __version__

__all__ = ["SavedModel", "load_model", "read_json", "save_model", "write_json"]
FORMAT = 1
OUTSIDE = {
    "weights",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
}


@dataclass
class SavedModel:
    """A model that knows its conditions, values and image transform."""

    model: ConditionalModel
    attributes: Attributes
    transform: ImageTransform
    recipe: dict
    """The arguments of `create_model` that made it."""


def save_model(folder: Path, saved: SavedModel) -> None:
    """Write model.safetensors and model.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(saved.model.state_dict(), folder / "model.safetensors")
    attributes = {name: list(values) for name, values in zip(saved.attributes.names, saved.attributes.values)}
    write_json(
        folder / "model.json",
        {
            "format": FORMAT,
            "ccakit": __version__,
            "recipe": saved.recipe,
            "attributes": attributes,
            "transform": saved.transform.to_dict(),
        },
    )


def load_model(folder: str | Path) -> SavedModel:
    """The model that `save_model` wrote, in eval mode; DataError names the file that does not fit."""
    folder = Path(folder)
    remedy = "Give a run folder with model.safetensors and model.json, or train one: ccakit train."
    facts = read_json(folder / "model.json", remedy)
    tensors = load_tensors(folder / "model.safetensors", remedy)
    try:
        attributes, transform, recipe = _described(facts)
        with torch.device("meta"):  # names and shapes only, which are compared before anything is built
            wanted = create_model(**recipe, pretrained=False).state_dict()
    except Exception as error:  # noqa: BLE001 - what describes no model fails in as many ways as there are models
        told = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else error
        raise DataError(folder / "model.json", f"does not describe a model ({told})", remedy) from error
    if told := differences(tensors, wanted):
        problem = f"does not hold the weights that model.json describes: it {told}"
        raise DataError(folder / "model.safetensors", problem, remedy)
    model = create_model(**recipe, pretrained=False)
    model.load_state_dict(tensors)
    return SavedModel(model.eval(), attributes, transform, recipe)


def _described(facts: dict) -> tuple[Attributes, ImageTransform, dict]:
    """What model.json says; an exception of some kind where that cannot be meant."""
    recipe, named = facts["recipe"], facts["attributes"]
    if facts.get("format", FORMAT) != FORMAT:
        raise ValueError(f"its format is {facts['format']}, and this ccakit reads {FORMAT}")
    if outside := OUTSIDE & {*recipe, *(recipe.get("trunk_options") or {})}:
        raise ValueError(f"a recipe names no files or addresses, as in {', '.join(sorted(outside))}")
    if not all(isinstance(v, list) and all(isinstance(each, str) for each in v) for v in named.values()):
        raise ValueError("each attribute has a list of value names")
    attributes = Attributes(tuple(named), tuple(map(tuple, named.values())))
    if len(attributes) != recipe["conditions"]:
        raise ValueError(f"{recipe['conditions']} conditions, but {len(attributes)} attributes")
    transform = ImageTransform.from_dict(facts["transform"])
    if not transform(np.zeros((8, 8, 3), np.uint8)).isfinite().all():
        raise ValueError("the transform's mean and std are not finite")
    return attributes, transform, recipe
