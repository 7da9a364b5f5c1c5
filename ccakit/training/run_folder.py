"""Open a run's folder, begun or resumed, and keep its log."""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import re
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from ccakit.data.split import Dataset
from ccakit.disk import named, read_json, write_json, write_lines, write_text, writing
from ccakit.errors import DataError
from ccakit.evaluation.provenance import TRAIN_IMAGES, data_record, differences
from ccakit.settings import to_dict
from ccakit.training.checkpoints import newest_first, remove_leftovers
from ccakit.training.config import TrainConfig
from ccakit.version import __version__

log = logging.getLogger("ccakit")
COLUMNS = tuple("step epoch loss learning_rate images_per_second triplets spread valid_map_weighted".split())
HEADER = ",".join(COLUMNS)
ROW = r"\d+,\d+(,-?\d+(\.\d+)?(e[+-]?\d+)?){6}"
VARIABLES = (
    "ACCELERATE_",
    "CUBLAS_",
    "CUDA_",
    "CUDNN_",
    "MKL_",
    "NCCL_",
    "NVIDIA_TF32",
    "OMP_",
    "TORCH_ALLOW_",
)
ROUNDING = {"compile", "checkpoint_activations"}  # settings that change the last digits
MAY_DIFFER = ROUNDING | set(  # when a run is resumed
    "resume json out data workers max_unreadable skip_unreadable checkpoint_every keep loader_timeout".split()
)


def open_folder(out: Path, config: TrainConfig, dataset: Dataset) -> bool:
    """Prepare the folder of a run; return whether the run is resumed.

    DataError where it holds another run, or none to resume. Processes that the launcher restarted resume by
    themselves.
    """
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    begun, data = (out / "config.json").exists(), data_record(dataset)
    if begun and not (config.resume or restarted):
        remedy = "Resume it with --resume, choose another --out, or delete it."
        raise DataError(out, "already holds a run", remedy)
    if config.resume and not out.is_dir():  # a run that was stopped while it opened begins again
        raise DataError(out, "holds no run to resume", "Train without --resume.")
    if begun:
        _check_same(out, config, read_json(out / "config.json", "Train into another --out."))
        _check_data(out / "data.json", data)
        remove_leftovers(out / "checkpoints")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "versions.json", {**versions(), "environment": _environment()})
        write_json(out / "data.json", data)
        write_json(out / "config.json", to_dict(config))
    if not begun or not (out / TRAIN_IMAGES).exists():
        write_lines(out / TRAIN_IMAGES, dataset["train"].filenames)
    return begun


def _check_same(out: Path, config: TrainConfig, before: dict) -> None:
    now, defaults = (json.loads(json.dumps(to_dict(each))) for each in (config, TrainConfig()))
    before = {**defaults, **before}  # earlier versions lack settings, which had their default
    changes = {k: f"{k} was {before[k]}, now {now[k]}" for k in now if now[k] != before[k]}
    for name in ROUNDING & changes.keys():
        log.warning("%s: %s; sums differ in the last digits", out, changes[name])
    if differ := [change for name, change in changes.items() if name not in MAY_DIFFER]:
        problem = f"was written by another run: {'; '.join(differ)}"
        raise DataError(out / "config.json", problem, "Use the same settings.")


def _check_data(file: Path, now: dict) -> None:
    """Raise DataError where the data set is not the one that the run began with; it says what differs."""
    before = read_json(file, "Train into another --out.")
    before = {"lists": now["lists"], **before}  # earlier versions did not write them
    if before == now:
        return
    differ = differences(before, now)
    problem = f"is of other data than --data: {'; '.join(differ) or 'other attributes or values'}"
    raise DataError(file, problem, "Use the same data set.")


def writing_run(out: Path) -> AbstractContextManager[None]:
    """Raise DataError where a file of the run cannot be written: it says from where --resume goes on."""
    last = next((checkpoint.name for checkpoint in newest_first(out / "checkpoints")), "the beginning")
    return writing(out, f"--resume then goes on from {last}")


def keep_rows(out: Path, epochs: int) -> None:
    """Keep the first so many epochs in log.csv; make the file where it is missing.

    The last line may be cut short, as a killed run leaves it; DataError for any other line that no run
    writes.
    """
    file = out / "log.csv"
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    lines = [line.strip() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(HEADER if number == 1 else ROW, line):
            remedy = "Put the run's own file there, or delete it to begin another."
            raise DataError(file, "is not a line of a run's log", remedy, line=number)
    kept = [line for line in lines[1:] if int(line.split(",")[1]) <= epochs]
    write_text(file, "".join(f"{line}\r\n" for line in [HEADER, *kept]))


def add_row(out: Path, row: dict) -> None:
    """Append a line to log.csv."""
    with named(out / "log.csv"), open(out / "log.csv", "a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerow({k: round(v, 6) for k, v in row.items()})


def _environment() -> dict[str, str]:
    """Give the variables that may change the digits of a result."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


def versions() -> dict:
    """List the versions, the threads and the device that a run uses."""
    import numpy
    import timm

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "ccakit": __version__,
        **{package.__name__: package.__version__ for package in (torch, timm, numpy)},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": device or "cpu",
    }
