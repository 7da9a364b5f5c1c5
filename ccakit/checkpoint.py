"""Models and training states on disk: safetensors and JSON, each written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import ccakit
from ccakit.attributes import Attributes
from ccakit.data.errors import DataError
from ccakit.data.images import ImageTransform
from ccakit.models import ConditionalModel, create_model

FORMAT = 1
KEEP = 2


@dataclass
class SavedModel:
    """A model that knows its conditions, values and image transform."""

    model: ConditionalModel
    attributes: Attributes
    transform: ImageTransform
    recipe: dict
    """The arguments of `create_model` that made it."""


def write_json(path: Path, values: dict) -> None:
    """JSON, atomically."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(partial, path)


def read_json(path: Path, remedy: str) -> dict:
    """JSON; DataError with the remedy where it is missing or broken."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(path, "is missing", remedy) from error
    except (OSError, ValueError) as error:
        raise DataError(path, f"is not readable JSON ({error})", remedy) from error
    if not isinstance(values, dict):
        raise DataError(path, "does not hold a JSON object", remedy)
    return values


def _save_tensors(tensors: dict, path: Path) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial)
    os.replace(partial, path)


def _load_tensors(path: Path, remedy: str) -> dict:
    if not path.is_file():
        raise DataError(path, "is missing", remedy)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(path, f"is not a whole safetensors file ({error})", remedy) from error


def save_model(folder: Path, saved: SavedModel) -> None:
    """Write model.safetensors and model.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _save_tensors(saved.model.state_dict(), folder / "model.safetensors")
    attributes = {name: list(values) for name, values in zip(saved.attributes.names, saved.attributes.values)}
    write_json(folder / "model.json", {
        "format": FORMAT, "ccakit": ccakit.__version__, "recipe": saved.recipe,
        "attributes": attributes, "transform": saved.transform.to_dict(),
    })  # fmt: skip


def load_model(folder: str | Path) -> SavedModel:
    """The model that `save_model` wrote, in eval mode; DataError names the file that does not fit."""
    folder = Path(folder)
    remedy = "Give a run folder with model.safetensors and model.json, or train one: ccakit train."
    facts = read_json(folder / "model.json", remedy)
    tensors = _load_tensors(folder / "model.safetensors", remedy)
    try:
        attributes = Attributes(tuple(facts["attributes"]), tuple(map(tuple, facts["attributes"].values())))
        transform = ImageTransform.from_dict(facts["transform"])
        model = create_model(**facts["recipe"], pretrained=False)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(folder / "model.json", f"does not describe a model ({error})", remedy) from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        problem = f"does not hold the weights that model.json describes ({str(error).splitlines()[1].strip()})"
        raise DataError(folder / "model.safetensors", problem, remedy) from error
    return SavedModel(model.eval(), attributes, transform, facts["recipe"])


def save_state(folder: Path, step: int, model, optimizer, facts: dict) -> None:
    """A checkpoint `step-N` in `folder`: model, optimizer, RNG and `facts`; older ones than the last go."""
    target, partial = folder / f"step-{step:08d}", folder / f".partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = optimizer.state_dict()
    moments = {f"{index}/{name}": torch.as_tensor(value)
               for index, entry in state["state"].items() for name, value in entry.items()}  # fmt: skip
    _save_tensors(model.state_dict(), partial / "model.safetensors")
    _save_tensors({**moments, "rng": torch.get_rng_state()}, partial / "optimizer.safetensors")
    write_json(partial / "state.json", {"format": FORMAT, "step": step, **facts})
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)


def last_state(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def load_state(checkpoint: Path, model, optimizer) -> dict:
    """Put a checkpoint back into model, optimizer and RNG; returns its facts."""
    remedy = f"Delete {checkpoint} to go on from the checkpoint before it."
    facts = read_json(checkpoint / "state.json", remedy)
    tensors = _load_tensors(checkpoint / "optimizer.safetensors", remedy)
    try:
        model.load_state_dict(_load_tensors(checkpoint / "model.safetensors", remedy))
    except RuntimeError as error:
        raise DataError(checkpoint, "holds another model than the config's", "Train into another folder.") from error
    if "rng" not in tensors or "progress" not in facts:
        raise DataError(checkpoint, "is not a whole checkpoint", remedy)
    torch.set_rng_state(tensors.pop("rng"))
    state: dict = {}
    for name, tensor in tensors.items():
        index, entry = name.split("/")
        state.setdefault(int(index), {})[entry] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return facts
