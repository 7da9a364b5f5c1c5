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
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ccakit.disk import (
    differences,
    file_digest,
    load_tensors,
    named,
    read_json,
    save_tensors,
    sync,
    write_json,
)
from ccakit.errors import DataError
from ccakit.training.progress import Progress

log = logging.getLogger("ccakit")
FORMAT = 2
KEEP = 2
FILES = ("model.safetensors", "optimizer.safetensors")
SCALER = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}


@dataclass
class State:
    """Hold a checkpoint: the run's facts, the tensors of model and optimizer, and each process's RNG."""

    facts: dict
    model: dict[str, torch.Tensor]
    moments: dict[int, dict[str, torch.Tensor]]
    rng: list[dict[str, torch.Tensor]]


def rng_state() -> dict[str, torch.Tensor]:
    """Get the state of this process's random number generators."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def save_state(
    folder: Path, model, optimizer, progress: Progress, *, scaler=None, rngs=None, keep: int = KEEP
) -> None:
    """Write a checkpoint `step-N` to `folder`, and delete all but the last `keep`.

    scaler: the state of fp16's gradient scaler, if any. rngs: `rng_state` of each process, by default of this
    process alone. OSError where it cannot be written; earlier checkpoints then stay as they are.
    """
    partial, rngs = folder / f".partial-{os.getpid()}", rngs or [rng_state()]
    facts = {"step": progress.step, "progress": vars(progress), "processes": len(rngs), "scaler": scaler}
    target = folder / f"step-{progress.step:08d}"
    try:
        with named(target):
            _write_state(partial, model, optimizer, facts, rngs)
            _remove(target)
            os.replace(partial, target)
            sync(folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    remove_old(folder, progress.step, keep)


def _write_state(partial: Path, model, optimizer, facts: dict, rngs: list[dict]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    entries = {**optimizer.state_dict()["state"], **{f"rng/{rank}": rng for rank, rng in enumerate(rngs)}}
    others = {
        f"{key}/{name}": torch.as_tensor(x) for key, entry in entries.items() for name, x in entry.items()
    }
    save_tensors(model.state_dict(), partial / FILES[0])
    save_tensors(others, partial / FILES[1])
    digests = {name: file_digest(partial / name) for name in FILES}
    write_json(partial / "state.json", sealed({"format": FORMAT, "digests": digests, **facts}))
    sync(partial)


def sealed(facts: dict) -> dict:
    """Add a digest of the facts to them, instead of an earlier one."""
    facts = {name: value for name, value in facts.items() if name != "digest"}
    text = json.dumps(json.loads(json.dumps(facts)), sort_keys=True)  # as it is read again
    return {**facts, "digest": hashlib.sha256(text.encode()).hexdigest()}


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it is not one any more as soon as this begins."""
    if checkpoint.exists():
        gone = checkpoint.parent / f".partial-{os.getpid()}-old"
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(checkpoint, gone)
        shutil.rmtree(gone)


def remove_old(folder: Path, step: int, keep: int) -> None:
    """Delete the checkpoints before a step, all but the last `keep` of the folder."""
    for old in newest_first(folder)[max(1, keep) :]:
        if old.name < f"step-{step:08d}":
            _remove(old)


def remove_leftovers(folder: Path) -> None:
    """Delete what ended processes have left half written or half deleted."""
    for partial in folder.glob(".partial-*"):
        owner = partial.name.split("-")[1]
        if not (owner.isdigit() and int(owner) != os.getpid() and Path(f"/proc/{owner}").exists()):
            shutil.rmtree(partial, ignore_errors=True)


def newest_first(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def last_good_state(folder: Path, model, optimizer) -> State | None:
    """Read the newest checkpoint that is whole and of this model; warn of newer ones that are not.

    None where there is no checkpoint; DataError where there are some, but no good one.
    """
    bad: list[DataError] = []
    for checkpoint in newest_first(folder):
        try:
            state = read_state(checkpoint, model, optimizer)
        except DataError as error:
            bad.append(error)
            continue
        for error in bad:
            log.warning("%s; going on from the checkpoint before it", error)
        return state
    if bad:
        problems = "; ".join(f"{error.path.relative_to(folder)} {error.problem}" for error in bad)
        remedy = "Delete it to begin again with --resume."
        raise DataError(folder, f"holds no checkpoint to go on from: {problems}", remedy)
    return None


def read_state(checkpoint: Path, model, optimizer) -> State:
    """Read a checkpoint; DataError where it is not whole, was changed, or is another model's."""
    remedy = f"Delete {checkpoint} to go on from the checkpoint before it."
    facts = read_json(checkpoint / "state.json", remedy)
    with _naming(checkpoint / "state.json", remedy):
        if facts.get("format") != FORMAT:
            raise ValueError(f"has the format {facts.get('format')!r}, and this ccakit reads {FORMAT}")
        if facts != sealed(facts):
            raise ValueError("is not what was written")
        _check_facts(facts)
    weights, others = (load_tensors(checkpoint / name, remedy) for name in FILES)
    for name in FILES:
        with _naming(checkpoint / name, remedy):
            if file_digest(checkpoint / name) != facts["digests"][name]:
                raise ValueError("is not what was written")
    with _naming(checkpoint / FILES[0], remedy):
        if differ := differences(weights, model.state_dict()):
            raise ValueError(f"holds another model than the config's: it {differ}")
    with _naming(checkpoint / FILES[1], remedy):
        return State(facts, weights, _moments(others, optimizer), _rngs(others, facts["processes"]))


@contextmanager
def _naming(file: Path, remedy: str) -> Iterator[None]:
    """Turn a ValueError inside into a DataError of the file."""
    try:
        yield
    except ValueError as error:
        raise DataError(file, str(error), remedy) from error


def _check_facts(facts: dict) -> None:
    """Raise ValueError where state.json says what no run writes."""
    digests, processes, scaler = (facts.get(name) for name in ("digests", "processes", "scaler"))
    if not isinstance(digests, dict) or digests.keys() != set(FILES):
        raise ValueError(f"does not hold the digests of {' and '.join(FILES)}")
    if type(processes) is not int or processes < 1:
        raise ValueError(f"is of {processes!r} processes")
    if Progress.from_json(facts.get("progress")).step != facts.get("step"):
        raise ValueError(f"is of step {facts.get('step')!r}, but its progress of another")
    if scaler and not (
        isinstance(scaler, dict) and scaler.keys() == SCALER and _are_numbers(scaler.values())
    ):
        raise ValueError("does not hold the state of a gradient scaler")


def _are_numbers(values: Iterable) -> bool:
    return all(type(value) in (int, float) for value in values)


def _moments(tensors: dict, optimizer) -> dict[int, dict[str, torch.Tensor]]:
    """Take AdamW's moments by the parameter's number; ValueError where a tensor is not its parameter's."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, moment = name.partition("/")
        if number == "rng":
            continue
        if not re.fullmatch("[0-9]{1,9}", number) or not moment or int(number) >= len(parameters):
            raise ValueError(f"holds {name}, which belongs to no parameter")
        moments.setdefault(int(number), {})[moment] = tensor
    for number, entry in moments.items():
        wanted = {"step": torch.tensor(0.0), "exp_avg": parameters[number], "exp_avg_sq": parameters[number]}
        if differ := differences(entry, wanted):
            raise ValueError(f"does not hold the moments of parameter {number}: it {differ}")
    return moments


def _rngs(tensors: dict, processes: int) -> list[dict[str, torch.Tensor]]:
    """Take each process's random number generators; ValueError where one is missing, or is not one."""
    states = {name: tensor for name, tensor in tensors.items() if name.startswith("rng/")}
    wanted = {f"rng/{process}/cpu" for process in range(min(processes, len(states)))}
    others = {name.replace("cpu", "cuda") for name in wanted}
    if len(wanted) < processes or not wanted <= states.keys() <= wanted | others:
        raise ValueError(f"does not hold the random number generators of {processes} processes")
    rngs: list[dict[str, torch.Tensor]] = [{} for _ in range(processes)]
    for name, state in states.items():
        _, process, device = name.split("/")
        try:
            if device == "cpu" or torch.cuda.is_available():
                torch.Generator(device).set_state(state)
        except (RuntimeError, TypeError) as error:
            problem = f"holds {name}, which is not a random number generator's state ({error})"
            raise ValueError(problem) from error
        rngs[int(process)][device] = state
    return rngs


def put_state(state: State, model, optimizer, process: int = 0) -> Progress:
    """Load what `read_state` read into model, optimizer and RNG; return where the run stands."""
    model.load_state_dict(state.model)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state.moments, "param_groups": groups})
    rng = state.rng[process % len(state.rng)]
    torch.set_rng_state(rng["cpu"])
    if torch.cuda.is_available() and "cuda" in rng:
        torch.cuda.set_rng_state(rng["cuda"])
    return Progress.from_json(state.facts["progress"])
