"""Save and read training states, checkpoints `step-N`: model, optimizer, random numbers and the run's facts.

A checkpoint is written whole or not at all. A run does not go on from one that was changed: state.json has a
digest of each file beside it and of itself, and all of it is compared with the run's model before anything is
loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import torch
from annotated_types import Ge, Len
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ccakit import disk
from ccakit.errors import DataError
from ccakit.training.progress import Progress

log = logging.getLogger("ccakit")
FORMAT = 2
FILES = ("model.safetensors", "optimizer.safetensors")
ScalerValue = Literal["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"]


@dataclass
class Facts:
    """The content of state.json."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    format: Literal[2]
    digests: dict[str, str]
    """The checksum of each of FILES."""
    step: int
    progress: Progress
    processes: Annotated[int, Ge(1)]
    scaler: Optional[Annotated[dict[ScalerValue, int | float], Len(5)]]
    """The state of fp16's gradient scaler, if there is one."""
    digest: str
    """The checksum of all the others."""


@dataclass
class State:
    """Hold a checkpoint: the run's facts, the model's tensors, and those of the optimizer and of each
    process's RNG, by their names in the file."""

    facts: Facts
    model: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]


def rng_state() -> dict[str, torch.Tensor]:
    """Get the state of this process's random number generators."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def save_state(folder: Path, model, optimizer, progress: Progress, *, scaler, rngs: list, keep: int) -> None:
    """Write a checkpoint `step-N` to `folder`, and delete all but the last `keep`.

    scaler: the state of fp16's gradient scaler, or None. rngs: `rng_state` of each process. OSError where it
    cannot be written; earlier checkpoints then stay as they are.
    """
    facts = {"step": progress.step, "progress": vars(progress), "processes": len(rngs), "scaler": scaler}
    partial, target = folder / ".partial-new", folder / f"step-{progress.step:08d}"
    try:
        with disk.named(target):
            _write_state(partial, model, optimizer, facts, rngs)
            _remove(target)
            os.replace(partial, target)
            disk.sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    remove_old(folder, progress.step, keep)


def _write_state(partial: Path, model, optimizer, facts: dict, rngs: list[dict]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    entries = {**optimizer.state_dict()["state"], **{f"rng/{rank}": rng for rank, rng in enumerate(rngs)}}
    others = {
        f"{key}/{name}": torch.as_tensor(x) for key, entry in entries.items() for name, x in entry.items()
    }
    disk.save_tensors(model.state_dict(), partial / FILES[0])
    disk.save_tensors(others, partial / FILES[1])
    digests = {name: disk.file_digest(partial / name) for name in FILES}
    disk.write_json(partial / "state.json", sealed({"format": FORMAT, "digests": digests, **facts}))
    disk.sync(partial)


def sealed(facts: dict) -> dict:
    """Add a digest of the facts to them, instead of an earlier one."""
    facts = {name: value for name, value in facts.items() if name != "digest"}
    text = json.dumps(json.loads(json.dumps(facts)), sort_keys=True)  # as it is read again
    return {**facts, "digest": hashlib.sha256(text.encode()).hexdigest()}


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it is not one any more as soon as this begins."""
    if checkpoint.exists():
        gone = checkpoint.with_name(".partial-old")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(checkpoint, gone)
        shutil.rmtree(gone)


def remove_old(folder: Path, step: int, keep: int) -> None:
    """Delete the checkpoints before a step, all but the last `keep` of the folder."""
    for old in newest_first(folder)[keep:]:
        if old.name < f"step-{step:08d}":
            _remove(old)


def remove_leftovers(folder: Path) -> None:
    """Delete what a run that was killed has left half written or half deleted."""
    for partial in folder.glob(".partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def newest_first(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def last_good_state(folder: Path, model, optimizer) -> State | None:
    """Read the newest checkpoint that is whole and of this model; warn of newer ones that are not.

    None where there is no checkpoint; DataError where there are some, but no good one.
    """
    problems = []
    for checkpoint in newest_first(folder):
        try:
            return read_state(checkpoint, model, optimizer)
        except DataError as error:
            log.warning("%s; trying the checkpoint before it", error)
            problems.append(f"{error.path.relative_to(folder)} {error.problem}")
    if not problems:
        return None
    remedy = "Delete it to begin again with --resume."
    raise DataError(folder, f"holds no checkpoint to go on from: {'; '.join(problems)}", remedy)


def read_state(checkpoint: Path, model, optimizer) -> State:
    """Read a checkpoint; DataError where it is not whole, was changed, or is another model's."""
    remedy = f"Delete {checkpoint} to go on from the checkpoint before it."
    values = disk.read_json(checkpoint / "state.json", remedy)
    try:
        facts = _parse(values)
    except ValueError as error:
        raise DataError(checkpoint / "state.json", str(error), remedy) from error
    weights, others = (disk.load_tensors(checkpoint / name, remedy) for name in FILES)
    expected = model.state_dict(), _expected(others, facts.processes, optimizer)
    for name, tensors, wanted in zip(FILES, (weights, others), expected):
        if disk.file_digest(checkpoint / name) != facts.digests.get(name):
            raise DataError(checkpoint / name, "is not what was written", remedy)
        if differ := disk.differences(tensors, wanted):
            problem = f"holds another model than the config's, or another run: it {differ}"
            raise DataError(checkpoint / name, problem, remedy)
    return State(facts, weights, others)


def _parse(values: dict) -> Facts:
    """Check the content of state.json; ValueError for what no run writes."""
    try:
        facts = TypeAdapter(Facts).validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"is wrong at {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    progress = facts.progress
    if values["progress"].keys() - {"unreadable"} != vars(progress).keys():  # which version 0.1 kept
        raise ValueError("does not hold a run's progress")
    if facts.step != progress.step:
        raise ValueError(f"is of step {facts.step}, but its progress of another")
    if len(progress.rows) != progress.batch:
        raise ValueError("has a progress whose rows are not those of its batches")
    if values != sealed(values):
        raise ValueError("is not what was written")
    return facts


def _expected(others: dict, processes: int, optimizer) -> dict[str, torch.Tensor]:
    """Give tensors of the names, shapes and types that `others` must have: AdamW's moments of parameters that
    have had a gradient, and the random number generators of all processes."""
    expected, rng = {}, rng_state()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        if f"{number}/step" in others:
            expected[f"{number}/step"] = torch.tensor(0.0)
            expected[f"{number}/exp_avg"] = expected[f"{number}/exp_avg_sq"] = parameter
    for process in range(min(processes, len(others) + 1)):  # one too many is enough to be missed
        expected[f"rng/{process}/cpu"] = rng["cpu"]
        if (cuda := f"rng/{process}/cuda") in others:
            expected[cuda] = rng.get("cuda", others[cuda])
    return expected


def put_state(state: State, model, optimizer, process: int = 0) -> Progress:
    """Load what `read_state` read into model, optimizer and RNG; return where the run stands."""
    model.load_state_dict(state.model)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in state.others.items():
        number, moment = name.split("/", 1)
        if number != "rng":
            moments.setdefault(int(number), {})[moment] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    rng = f"rng/{process % state.facts.processes}"
    torch.set_rng_state(state.others[f"{rng}/cpu"])
    if torch.cuda.is_available() and f"{rng}/cuda" in state.others:
        torch.cuda.set_rng_state(state.others[f"{rng}/cuda"])
    return state.facts.progress
