"""Models on disk: safetensors and JSON. Training states are in `ccakit.training.checkpoints`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.transform import ImageTransform
from ccakit.disk import differences, load_tensors, read_json, save_tensors, write_json
from ccakit.errors import DataError
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import create_model, create_on_meta
from ccakit.version import __version__

FORMAT = 1
REMEDY = "Give a run folder with model.safetensors and model.json, or train one: ccakit train."
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
    """A model with its conditions, their values, and its image transform."""

    model: ConditionalModel
    attributes: Attributes
    transform: ImageTransform
    recipe: dict
    """The arguments of `create_model` that created it."""


def save_model(folder: Path, saved: SavedModel) -> None:
    """Write model.safetensors and model.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(saved.model.state_dict(), folder / "model.safetensors")
    description = {
        "format": FORMAT,
        "ccakit": __version__,
        "recipe": saved.recipe,
        "attributes": dict(zip(saved.attributes.names, saved.attributes.values)),
        "transform": saved.transform.to_dict(),
    }
    write_json(folder / "model.json", description)


def load_model(folder: str | Path) -> SavedModel:
    """Load the model that `save_model` wrote, in eval mode; DataError names the file that does not fit."""
    folder = Path(folder)
    description = read_json(folder / "model.json", REMEDY)
    tensors = load_tensors(folder / "model.safetensors", REMEDY)
    try:
        attributes, transform, recipe = _parse(description)
        model = create_on_meta(**recipe)  # compared before anything is built
        expected, size = model.state_dict(), model.trunk.image_size
        if transform.size != size:
            raise ValueError(f"its transform gives {transform.size} pixels, and its trunk takes {size}")
    except Exception as error:  # noqa: BLE001 - a wrong description fails in as many ways as there are models
        reason = f"KeyError: {error}" if isinstance(error, KeyError) else error
        raise DataError(folder / "model.json", f"does not describe a model ({reason})", REMEDY) from error
    if found := differences(tensors, expected):
        problem = f"does not hold the weights that model.json describes: it {found}"
        raise DataError(folder / "model.safetensors", problem, REMEDY)
    model = create_model(**recipe, pretrained=False)
    model.load_state_dict(tensors)
    return SavedModel(model.eval(), attributes, transform, recipe)


def model_digest(saved: SavedModel) -> str:
    """Digest what a picture's embeddings depend on: weights, recipe, transform, conditions; 16 hex digits."""
    facts = [saved.recipe, saved.transform.to_dict(), saved.attributes.names]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(saved.model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _parse(description: dict) -> tuple[Attributes, ImageTransform, dict]:
    """Read attributes, transform and recipe out of model.json; raise some exception if it is invalid."""
    recipe, names = description["recipe"], description["attributes"]
    if description.get("format", FORMAT) != FORMAT:
        raise ValueError(f"its format is {description['format']}, and this ccakit reads {FORMAT}")
    if outside := OUTSIDE & {*recipe, *(recipe.get("trunk_options") or {})}:
        raise ValueError(f"a recipe names no files or addresses, as in {', '.join(sorted(outside))}")
    for values in names.values():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError("each attribute has a list of value names")
    attributes = Attributes(tuple(names), tuple(map(tuple, names.values())))
    if len(attributes) != recipe["conditions"]:
        raise ValueError(f"{recipe['conditions']} conditions, but {len(attributes)} attributes")
    transform = ImageTransform.from_dict(description["transform"])
    if not transform(np.zeros((8, 8, 3), np.uint8)).isfinite().all():
        raise ValueError("the transform's mean and std are not finite")
    return attributes, transform, recipe
