"""Training states on disk, checkpoints `step-N`: model, optimizer, random numbers and the run's facts.

A checkpoint is there whole or not at all, and one that was changed since is not gone on from: state.json has a digest
of each file beside it and of itself, and what it says is compared with the run's model before anything is put back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
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
    """What a checkpoint holds: the run's facts, the model's tensors, the optimizer's, and each process's RNG."""

    facts: dict
    model: dict[str, torch.Tensor]
    moments: dict[int, dict[str, torch.Tensor]]
    rng: list[dict[str, torch.Tensor]]


def rng_state() -> dict[str, torch.Tensor]:
    """The state of this process's random number generators."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def save_state(
    folder: Path, model, optimizer, progress: Progress, *, scaler=None, rngs=None, keep: int = KEEP
) -> None:
    """A checkpoint `step-N` in `folder`; all but the last `keep` go.

    scaler: the state of fp16's gradient scaler, if any. rngs: `rng_state` of each process, by default of this one.
    OSError where it cannot be written; those before it are left as they are.
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
    for old in newest_first(folder)[max(1, keep) :]:
        _remove(old)


def _write_state(partial: Path, model, optimizer, facts: dict, rngs: list[dict]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    entries = optimizer.state_dict()["state"].items()
    moments = {f"{i}/{name}": torch.as_tensor(value) for i, entry in entries for name, value in entry.items()}
    rng = {
        f"rng/{process}/{name}": state for process, each in enumerate(rngs) for name, state in each.items()
    }
    for name, tensors in zip(FILES, (model.state_dict(), {**moments, **rng})):
        save_tensors(tensors, partial / name)
    digests = {name: file_digest(partial / name) for name in FILES}
    write_json(partial / "state.json", sealed({"format": FORMAT, "digests": digests, **facts}))
    sync(partial)


def sealed(facts: dict) -> dict:
    """The facts with a digest of themselves, in the place of an earlier one."""
    facts = {name: value for name, value in facts.items() if name != "digest"}
    text = json.dumps(json.loads(json.dumps(facts)), sort_keys=True)  # as it is read again
    return {**facts, "digest": hashlib.sha256(text.encode()).hexdigest()}


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


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in a folder."""
    return sorted(folder.glob("step-*"), reverse=True)


def last_good_state(folder: Path, model, optimizer) -> State | None:
    """The newest checkpoint that is whole and of this model, with a warning for newer ones that are not.

    None where there is no checkpoint; DataError where there are some, but none that is good.
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
        told = "; ".join(f"{error.path.relative_to(folder)} {error.problem}" for error in bad)
        raise DataError(
            folder, f"holds no checkpoint to go on from: {told}", "Delete it to begin anew with --resume."
        )
    return None


def read_state(checkpoint: Path, model, optimizer) -> State:
    """A checkpoint's content; DataError where it is not whole, was changed, or is another model's or optimizer's."""
    remedy = f"Delete {checkpoint} to go on from the checkpoint before it."
    facts = read_json(checkpoint / "state.json", remedy)
    with _told_of(checkpoint / "state.json", remedy):
        if facts.get("format") != FORMAT:
            raise ValueError(f"has the format {facts.get('format')!r}, and this ccakit reads {FORMAT}")
        if facts != sealed(facts):
            raise ValueError("is not what was written")
        _check_facts(facts)
    weights, others = (load_tensors(checkpoint / name, remedy) for name in FILES)
    for name in FILES:
        with _told_of(checkpoint / name, remedy):
            if file_digest(checkpoint / name) != facts["digests"][name]:
                raise ValueError("is not what was written")
    with _told_of(checkpoint / FILES[0], remedy):
        if told := differences(weights, model.state_dict()):
            raise ValueError(f"holds another model than the config's: it {told}")
    with _told_of(checkpoint / FILES[1], remedy):
        return State(facts, weights, _moments(others, optimizer), _rngs(others, facts["processes"]))


@contextmanager
def _told_of(file: Path, remedy: str) -> Iterator[None]:
    """A ValueError inside becomes the DataError of a file."""
    try:
        yield
    except ValueError as error:
        raise DataError(file, str(error), remedy) from error


def _check_facts(facts: dict) -> None:
    """ValueError where state.json says what no run writes."""
    digests, processes, scaler = (facts.get(name) for name in ("digests", "processes", "scaler"))
    if not isinstance(digests, dict) or digests.keys() != set(FILES):
        raise ValueError(f"does not hold the digests of {' and '.join(FILES)}")
    if type(processes) is not int or processes < 1:
        raise ValueError(f"tells of {processes!r} processes")
    if Progress.from_json(facts.get("progress")).step != facts.get("step"):
        raise ValueError(f"is of step {facts.get('step')!r}, but its progress of another")
    known = scaler is None or isinstance(scaler, dict) and (not scaler or scaler.keys() == SCALER)
    if not known or not all(type(value) in (int, float) for value in (scaler or {}).values()):
        raise ValueError("tells of a gradient scaler that is none")


def _moments(tensors: dict, optimizer) -> dict[int, dict[str, torch.Tensor]]:
    """AdamW's moments by the parameter's number; ValueError where a tensor is not its parameter's."""
    parameters, moments = [p for group in optimizer.param_groups for p in group["params"]], {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(?:rng|([0-9]{1,9}))/.+", name)
        if not found or found[1] and int(found[1]) >= len(parameters):
            raise ValueError(f"holds {name}, which is of no parameter")
        if found[1]:
            moments.setdefault(int(found[1]), {})[name.split("/", 1)[1]] = tensor
    for number, entry in moments.items():
        wanted = {"step": torch.tensor(0.0), "exp_avg": parameters[number], "exp_avg_sq": parameters[number]}
        if told := differences(entry, wanted):
            raise ValueError(f"does not hold the moments of parameter {number}: it {told}")
    return moments


def _rngs(tensors: dict, processes: int) -> list[dict[str, torch.Tensor]]:
    """Each process's RNG; ValueError where one is missing, or is none."""
    states = {name: tensor for name, tensor in tensors.items() if name.startswith("rng/")}
    wanted = {f"rng/{process}/cpu" for process in range(min(processes, len(states)))}
    others = {name.replace("cpu", "cuda") for name in wanted}
    if len(wanted) < processes or not wanted <= states.keys() <= wanted | others:
        raise ValueError(f"does not hold the random number generators of {processes} processes")
    for name, state in states.items():
        try:
            if name in wanted or torch.cuda.is_available():
                torch.Generator(name.rsplit("/", 1)[1]).set_state(state)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"holds {name}, which is no random number generator's state ({error})"
            ) from error
    return [
        {kind: states[name] for kind in ("cpu", "cuda") if (name := f"rng/{process}/{kind}") in states}
        for process in range(processes)
    ]


def put_state(state: State, model, optimizer, process: int = 0) -> Progress:
    """Put what `read_state` gave into model, optimizer and RNG; returns where the run stands."""
    model.load_state_dict(state.model)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state.moments, "param_groups": groups})
    rng = state.rng[process % len(state.rng)]
    torch.set_rng_state(rng["cpu"])
    if torch.cuda.is_available() and "cuda" in rng:
        torch.cuda.set_rng_state(rng["cuda"])
    return Progress.from_json(state.facts["progress"])
