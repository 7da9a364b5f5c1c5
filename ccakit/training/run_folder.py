"""Open a run's folder, begun or resumed, and keep its log."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import platform
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from ccakit import processes
from ccakit.data.split import Dataset
from ccakit.disk import named, read_json, write_json, write_lines, write_text, writing
from ccakit.errors import DataError
from ccakit.evaluation.provenance import TRAIN_IMAGES, data_record, differences
from ccakit.models.trunks.weight_files import in_weights_folder
from ccakit.settings import to_dict
from ccakit.training.checkpoints import newest_first, remove_leftovers
from ccakit.training.config import TrainConfig, setting_changes
from ccakit.version import __version__

log = logging.getLogger("ccakit")
COLUMNS = tuple("step epoch loss learning_rate images_per_second triplets spread valid_map_weighted".split())
HEADER = ",".join(COLUMNS)
EACH = "valid_map:"  # log.csv has a column `valid_map:NAME` of each attribute's mAP; 0.1 wrote none
NUMBER = r"-?\d+(\.\d+)?(e[+-]?\d+)?"
ROW = rf"\d+,\d+(,{NUMBER}){{6}}"
VARIABLES = (
    "ACCELERATE_",
    "ATEN_",
    "CUBLAS_",
    "CUDA_",
    "CUDNN_",
    "DNNL_",
    "MKL_",
    "NCCL_",
    "NVIDIA_TF32",
    "OMP_",
    "ONEDNN_",
    "TIMM_",
    "TORCH_ALLOW_",
    "TORCHDYNAMO_",
)
ROUNDING = {"compile", "checkpoint_activations"}  # settings that change the last digits
MAY_DIFFER = ROUNDING | set(  # when a run is resumed
    "resume json out data workers max_unreadable skip_unreadable checkpoint_every keep loader_timeout".split()
)


def open_folder(out: Path, config: TrainConfig, dataset: Dataset, weights: Sequence[dict] = ()) -> bool:
    """Prepare the folder of a run; return whether the run is resumed.

    weights: the files that the trunk started from (`weights_record`). DataError where the folder
    holds another run, or none to resume. Processes that the launcher restarted resume by themselves.
    """
    restarted = processes.variable("TORCHELASTIC_RESTART_COUNT") > 0
    begun, data = (out / "config.json").exists(), data_record(dataset)
    if begun and not (config.resume or restarted):
        remedy = "Resume it with --resume, choose another --out, or delete it."
        raise DataError(out, "already holds a run", remedy)
    if config.resume and not out.is_dir():  # a run that was stopped while it opened begins again
        raise DataError(out, "holds no run to resume", "Train without --resume.")
    if begun:
        _check_same(out, config, read_json(out / "config.json", "Train into another --out."))
        _check_data(out / "data.json", data)
        _check_weights(out, config, weights)
        remove_leftovers(out / "checkpoints")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "versions.json", {**versions(), "environment": _environment()})
        write_json(out / "data.json", data)
        write_json(out / "weights.json", {"files": list(weights)})
        write_json(out / "config.json", to_dict(config))
    if not begun or not (out / TRAIN_IMAGES).exists():
        write_lines(out / TRAIN_IMAGES, dataset["train"].filenames)
    return begun


def _check_same(out: Path, config: TrainConfig, before: dict) -> None:
    changes = setting_changes(before, json.loads(json.dumps(to_dict(config))))
    for name in ROUNDING & changes.keys():
        log.warning("%s: %s; sums differ in the last digits", out, changes[name])
    by_content = {"weights"} if (out / "weights.json").exists() else set()  # a file may have moved
    if differ := [change for name, change in changes.items() if name not in MAY_DIFFER | by_content]:
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


def _check_weights(out: Path, config: TrainConfig, now: Sequence[dict]) -> None:
    """Raise DataError where the trunk has started from other files than the run began with.

    Its frozen part decides what features are kept, before the checkpoint is read.
    """
    file, remedy = out / "weights.json", "Put the run's own file there, or train into another --out."
    if file.exists():
        before = read_json(file, remedy).get("files", [])
    elif config.weights is None:  # earlier versions took no file by themselves
        before, now = [], [each for each in now if in_weights_folder(each["file"])]
    else:
        return
    if sorted(each["sha256"] for each in before) != sorted(each["sha256"] for each in now):
        was, is_now = (", ".join(each["file"] for each in some) or "no file" for some in (before, now))
        raise DataError(out, f"was begun with other weights: {was}, now {is_now}, by their checksums", remedy)


def writing_run(out: Path) -> AbstractContextManager[None]:
    """Raise DataError where a file of the run cannot be written: it says from where --resume goes on."""
    last = next((checkpoint.name for checkpoint in newest_first(out / "checkpoints")), "the beginning")
    return writing(out, f"--resume then goes on from {last}")


def keep_rows(out: Path, epochs: int, attributes: Sequence[str] = ()) -> None:
    """Keep the first so many epochs in log.csv; make the file where it is missing.

    A new file has a column of each of the attributes; one that is there keeps its columns. The last line
    may be cut short, as a killed run leaves it; DataError for any other line that no run writes.
    """
    file = out / "log.csv"
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    lines = [line.strip() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    header = lines[0] if lines else _line([*COLUMNS, *map(column_of, attributes)])
    each = _cells(header.removeprefix(HEADER).removeprefix(","))
    known = f"{header},".startswith(f"{HEADER},") and all(name.startswith(EACH) for name in each)
    row = re.compile(rf"{ROW}(,({NUMBER})?){{{len(each)}}}")
    for number, line in enumerate(lines, 1):
        if not (known if number == 1 else row.fullmatch(line)):
            remedy = "Put the run's own file there, or delete it to begin another."
            raise DataError(file, "is not a line of a run's log", remedy, line=number)
    kept = [line for line in lines[1:] if int(line.split(",")[1]) <= epochs]
    write_text(file, "".join(f"{line}\r\n" for line in [header, *kept]))


def add_row(out: Path, row: dict) -> None:
    """Append a line to log.csv, with what it has columns for."""
    columns = _cells((out / "log.csv").read_bytes().decode().splitlines()[0])
    rounded = {name: round(value, 6) for name, value in row.items()}
    with named(out / "log.csv"), open(out / "log.csv", "a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, columns, extrasaction="ignore").writerow(rounded)


def column_of(attribute: str) -> str:
    """Name the column of an attribute; a line break in its name is a space."""
    return EACH + " ".join(attribute.split())


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _cells(line: str) -> list[str]:
    return next(csv.reader([line]), [])


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
