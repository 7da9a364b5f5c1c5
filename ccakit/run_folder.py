"""A run's folder: that it is this run's, its log, and where the run goes on."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import platform
from pathlib import Path

import torch

import ccakit
from ccakit.checkpoint import read_json, remove_leftovers, write_json, write_text
from ccakit.config import TrainConfig, to_dict
from ccakit.data.errors import DataError
from ccakit.data.layout import Dataset

log = logging.getLogger("ccakit")
COLUMNS = ("step", "epoch", "loss", "learning_rate", "images_per_second", "triplets", "spread", "valid_map_weighted")
ROUNDING = ("compile", "checkpoint_activations")
MAY_DIFFER = (  # on resuming
    "resume", "json", "out", "data", "workers", "max_unreadable", "skip_unreadable", "checkpoint_every", "keep",
    "loader_timeout", *ROUNDING,
)  # fmt: skip


def open_folder(out: Path, config: TrainConfig, dataset: Dataset) -> bool:
    """Make the folder ready for a run that begins or goes on; returns whether it goes on.

    DataError where it holds another run, or none to resume. A process group that the launcher has restarted goes on
    without being told to.
    """
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    begun, resume = (out / "config.json").exists(), config.resume or restarted
    if begun and not resume:
        raise DataError(out, "already holds a run", "Go on with --resume, choose another --out, or delete it.")
    if config.resume and not begun and not out.is_dir():  # one that was stopped while it opened begins anew
        raise DataError(out, "holds no run to resume", "Train without --resume.")
    if begun:
        _check_same(out, config, read_json(out / "config.json", "Train into another --out."))
        if read_json(out / "data.json", "Train into another --out.") != data_facts(dataset):
            raise DataError(out / "data.json", "tells of other data than --data", "Use the same data set.")
        remove_leftovers(out / "checkpoints")
        return True
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "versions.json", versions())
    write_json(out / "data.json", data_facts(dataset))
    write_json(out / "config.json", to_dict(config))
    return False


def _check_same(out: Path, config: TrainConfig, before: dict) -> None:
    now = json.loads(json.dumps(to_dict(config)))
    before = {**json.loads(json.dumps(to_dict(TrainConfig()))), **before}  # settings that came later had their default
    for k in ROUNDING:
        if now[k] != before[k]:
            log.warning("%s: %s was %s, now %s; sums differ in the last digits", out, k, before[k], now[k])
    differ = [k for k in now if k not in MAY_DIFFER and now[k] != before[k]]
    if differ:
        told = "; ".join(f"{k} was {before[k]}, now {now[k]}" for k in differ)
        raise DataError(out / "config.json", f"was written by another run: {told}", "Use the same settings.")


def keep_rows(out: Path, epochs: int) -> None:
    """Leave in log.csv what the first so many epochs have written; make it where it is not there."""
    file, rows = out / "log.csv", []
    if file.exists():
        with open(file, newline="") as lines:
            rows = [row for row in list(csv.reader(lines))[1:] if len(row) == len(COLUMNS)]
    kept = [row for row in rows if int(row[1]) <= epochs]
    write_text(file, "".join(",".join(row) + "\r\n" for row in [COLUMNS, *kept]))


def add_row(out: Path, row: dict) -> None:
    """A line of log.csv."""
    with open(out / "log.csv", "a", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerow({k: round(v, 6) for k, v in row.items()})


def data_facts(dataset: Dataset) -> dict:
    """What a data set is, wherever it lies: its name, image counts, and a digest of lists and labels."""
    digest = hashlib.sha256(repr(dataset.attributes).encode())
    for split in dataset.splits.values():
        digest.update("\n".join(split.filenames).encode() + split.labels.tobytes())
    counts = {name: len(split.filenames) for name, split in dataset.splits.items()}
    return {"name": dataset.name, "images": counts, "digest": digest.hexdigest()[:16]}


def versions() -> dict:
    """What a run was made with."""
    import numpy
    import timm

    return {
        "ccakit": ccakit.__version__, "torch": torch.__version__, "timm": timm.__version__,
        "numpy": numpy.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
    }  # fmt: skip
