"""Models and training states on disk: safetensors and JSON, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import ccakit
from ccakit.attributes import Attributes
from ccakit.data.errors import DataError
from ccakit.data.images import ImageTransform
from ccakit.models import ConditionalModel, create_model

log = logging.getLogger("ccakit")
FORMAT = 1
KEEP = 2
OUTSIDE = {"weights", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}


@dataclass
class SavedModel:
    """A model that knows its conditions, values and image transform."""

    model: ConditionalModel
    attributes: Attributes
    transform: ImageTransform
    recipe: dict
    """The arguments of `create_model` that made it."""


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""
    partial = path.with_suffix(f"{path.suffix}.{os.getpid()}.partial")
    try:
        with open(partial, "w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, values: dict) -> None:
    """JSON, atomically."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """JSON; DataError with the remedy where it is missing or broken."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(path, "is missing", remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"is not readable JSON ({error})", remedy) from error
    if not isinstance(values, dict):
        raise DataError(path, "does not hold a JSON object", remedy)
    return values


def _save_tensors(tensors: dict, path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except SafetensorError as error:  # how it tells of a full disk
        raise OSError(str(error)) from error
    finally:
        partial.unlink(missing_ok=True)


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
        attributes, transform, recipe = _described(facts)
        with torch.device("meta"):  # names and shapes only, which are compared before anything is built
            wanted = create_model(**recipe, pretrained=False).state_dict()
    except Exception as error:  # noqa: BLE001 - what describes no model fails in as many ways as there are models
        told = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else error
        raise DataError(folder / "model.json", f"does not describe a model ({told})", remedy) from error
    _check_tensors(folder / "model.safetensors", tensors, wanted, remedy)
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


def _check_tensors(file: Path, tensors: dict, wanted: dict, remedy: str) -> None:
    """DataError unless a file's tensors have the names, shapes and kinds (of fractions or not) that are wanted."""
    alike = {n for n in {*tensors} & {*wanted} if tensors[n].shape == wanted[n].shape
             and tensors[n].is_floating_point() == wanted[n].is_floating_point()}  # fmt: skip
    found = {
        "lacks": [name for name in wanted if name not in tensors],
        "also has": [name for name in tensors if name not in wanted],
        "has in another shape or type": [name for name in wanted if name in tensors and name not in alike],
    }
    told = [f"{what} {names[0]}" + f" and {len(names) - 1} more" * (len(names) > 1) for what, names in found.items()
            if names]  # fmt: skip
    if told:
        raise DataError(file, f"does not hold the weights that model.json describes: it {', '.join(told)}", remedy)


@dataclass
class State:
    """What a checkpoint holds: the run's facts, the model's tensors, the optimizer's, and each process's RNG."""

    facts: dict
    model: dict[str, torch.Tensor]
    moments: dict[int, dict[str, torch.Tensor]]
    rng: dict[str, torch.Tensor]


def rng_state() -> dict[str, torch.Tensor]:
    """The state of this process's random number generators."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def save_state(folder: Path, step: int, model, optimizer, facts: dict, *, rngs=None, keep: int = KEEP) -> None:
    """A checkpoint `step-N` in `folder`: model, optimizer, RNG and `facts`; all but the last `keep` go.

    rngs: `rng_state` of each process, by default of this one. DataError where it cannot be written; those before it
    are left as they are.
    """
    partial = folder / f".partial-{os.getpid()}"
    try:
        _write_state(partial, step, model, optimizer, facts, rngs or [rng_state()])
        target = folder / f"step-{step:08d}"
        _remove(target)
        os.replace(partial, target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        before = last_state(folder)
        remedy = f"Make room there; --resume then goes on from {before.name if before else 'the beginning'}."
        raise DataError(folder, f"takes no checkpoint of step {step} ({error.strerror or error})", remedy) from error
    for old in _newest_first(folder)[max(1, keep) :]:
        _remove(old)


def _write_state(partial: Path, step: int, model, optimizer, facts: dict, rngs: list[dict]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    entries = optimizer.state_dict()["state"].items()
    moments = {f"{i}/{name}": torch.as_tensor(value) for i, entry in entries for name, value in entry.items()}
    rng = {f"rng/{process}/{name}": state for process, each in enumerate(rngs) for name, state in each.items()}
    _save_tensors(model.state_dict(), partial / "model.safetensors")
    _save_tensors({**moments, **rng}, partial / "optimizer.safetensors")
    digests = {name: _digest(partial / name) for name in ("model.safetensors", "optimizer.safetensors")}
    write_json(partial / "state.json", {"format": FORMAT, "step": step, "digests": digests, **facts})
    _sync(partial)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    """Have the folder's entries on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint, which is none any more as soon as this begins."""
    if checkpoint.exists():
        gone = checkpoint.parent / f".partial-{os.getpid()}-old"
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(checkpoint, gone)
        shutil.rmtree(gone)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that are no more have left half written or half deleted."""
    for partial in folder.glob(".partial-*"):
        owner = partial.name.split("-")[1]
        if not (owner.isdigit() and int(owner) != os.getpid() and Path(f"/proc/{owner}").exists()):
            shutil.rmtree(partial, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def last_state(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def last_good_state(folder: Path) -> State | None:
    """The newest checkpoint that is whole, with a warning for newer ones that are not; None where there is none."""
    for checkpoint in _newest_first(folder):
        try:
            return read_state(checkpoint)
        except DataError as error:
            log.warning("%s; going on from the checkpoint before it", error)
    return None


def read_state(checkpoint: Path) -> State:
    """A checkpoint's content; DataError where it is not whole."""
    remedy = f"Delete {checkpoint} to go on from the checkpoint before it."
    facts = read_json(checkpoint / "state.json", remedy)
    tensors = {name: _load_tensors(checkpoint / f"{name}.safetensors", remedy) for name in ("model", "optimizer")}
    for name, digest in facts.get("digests", {}).items():
        if _digest(checkpoint / name) != digest:
            raise DataError(checkpoint / name, "is not what was written", remedy)
    state = State(facts, tensors["model"], {}, {})
    for name, tensor in tensors["optimizer"].items():
        if name.startswith("rng"):
            state.rng[name.removeprefix("rng").lstrip("/") or "0/cpu"] = tensor
        else:
            index, entry = name.split("/")
            state.moments.setdefault(int(index), {})[entry] = tensor
    if not state.rng or "progress" not in facts:
        raise DataError(checkpoint, "is not a whole checkpoint", remedy)
    return state


def put_state(state: State, model, optimizer, process: int = 0) -> dict:
    """Put a checkpoint back into model, optimizer and RNG; returns its facts. DataError for another model's."""
    try:
        model.load_state_dict(state.model)
    except RuntimeError as error:
        problem = "holds another model than the config's"
        raise DataError(Path(f"step {state.facts['step']}"), problem, "Train into another folder.") from error
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state.moments, "param_groups": groups})
    saved = 1 + max(int(name.split("/")[0]) for name in state.rng)
    torch.set_rng_state(state.rng[f"{process % saved}/cpu"])
    if torch.cuda.is_available() and (cuda := state.rng.get(f"{process % saved}/cuda")) is not None:
        torch.cuda.set_rng_state(cuda)
    return state.facts


def load_state(checkpoint: Path, model, optimizer) -> dict:
    """`read_state`, then `put_state`."""
    return put_state(read_state(checkpoint), model, optimizer)
