"""A run's folder: that it is this run's, its log, and where the run goes on."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import os
import platform
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from ccakit.data.split import Dataset, Split
from ccakit.disk import named, read_json, write_json, write_text, writing
from ccakit.errors import DataError
from ccakit.settings import to_dict
from ccakit.training.checkpoints import newest_first, remove_leftovers
from ccakit.training.config import TrainConfig
from ccakit.version import __version__

log = logging.getLogger("ccakit")
COLUMNS = (
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "images_per_second",
    "triplets",
    "spread",
    "valid_map_weighted",
)
ROUNDING = ("compile", "checkpoint_activations")
MAY_DIFFER = (  # on resuming
    "resume",
    "json",
    "out",
    "data",
    "workers",
    "max_unreadable",
    "skip_unreadable",
    "checkpoint_every",
    "keep",
    "loader_timeout",
    *ROUNDING,
)


def open_folder(out: Path, config: TrainConfig, dataset: Dataset) -> bool:
    """Make the folder ready for a run that begins or goes on; returns whether it goes on.

    DataError where it holds another run, or none to resume. A process group that the launcher has restarted goes on
    without being told to.
    """
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    begun, resume = (out / "config.json").exists(), config.resume or restarted
    if begun and not resume:
        raise DataError(
            out, "already holds a run", "Go on with --resume, choose another --out, or delete it."
        )
    if config.resume and not begun and not out.is_dir():  # one that was stopped while it opened begins anew
        raise DataError(out, "holds no run to resume", "Train without --resume.")
    if begun:
        _check_same(out, config, read_json(out / "config.json", "Train into another --out."))
        _check_data(out / "data.json", read_json(out / "data.json", "Train into another --out."), dataset)
        remove_leftovers(out / "checkpoints")
        return True
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "versions.json", versions())
    write_json(out / "data.json", {**data_facts(dataset), "lists": _list_digests(dataset)})
    write_json(out / "config.json", to_dict(config))
    return False


def _check_same(out: Path, config: TrainConfig, before: dict) -> None:
    now = json.loads(json.dumps(to_dict(config)))
    before = {
        **json.loads(json.dumps(to_dict(TrainConfig()))),
        **before,
    }  # settings that came later had their default
    for k in ROUNDING:
        if now[k] != before[k]:
            log.warning("%s: %s was %s, now %s; sums differ in the last digits", out, k, before[k], now[k])
    differ = [k for k in now if k not in MAY_DIFFER and now[k] != before[k]]
    if differ:
        told = "; ".join(f"{k} was {before[k]}, now {now[k]}" for k in differ)
        raise DataError(out / "config.json", f"was written by another run: {told}", "Use the same settings.")


def _check_data(file: Path, before: dict, dataset: Dataset) -> None:
    """DataError that says in what the data set is not the one that the run began with."""
    now = {**data_facts(dataset), "lists": _list_digests(dataset)}
    before = {"lists": now["lists"], **before}  # runs of earlier versions have not noted them
    if before == now:
        return
    told = (
        [f"its name was {before.get('name')}, now {now['name']}"] if before.get("name") != now["name"] else []
    )
    counts, lists = (
        [of.get(part) if isinstance(of.get(part), dict) else {} for of in (before, now)]
        for part in ("images", "lists")
    )
    for split in dict.fromkeys(name for of in counts for name in of):
        was, is_now = (of.get(split, 0) for of in counts)
        if was != is_now:
            told.append(f"{split} had {was} images, now {is_now}")
        elif lists[0].get(split) != lists[1].get(split):
            told.append(f"{split} has other files, labels, queries or candidates")
    told = "; ".join(told) or "other attributes or values"
    raise DataError(file, f"tells of other data than --data: {told}", "Use the same data set.")


def writing_run(out: Path) -> AbstractContextManager[None]:
    """What a run writes is written inside: DataError with the file, and from where --resume goes on, if it cannot."""
    last = next((checkpoint.name for checkpoint in newest_first(out / "checkpoints")), "the beginning")
    return writing(out, f"--resume then goes on from {last}")


def keep_rows(out: Path, epochs: int) -> None:
    """Leave in log.csv what the first so many epochs have written; make it where it is not there.

    The last line may be cut short, as a killed run leaves it; DataError for any other that no run writes.
    """
    file = out / "log.csv"
    rows = _rows(file) if file.exists() else []
    kept = [row for row in rows if int(row[1]) <= epochs]
    write_text(file, "".join(",".join(row) + "\r\n" for row in [COLUMNS, *kept]))


def _rows(file: Path) -> list[list[str]]:
    """The whole lines of a log.csv but for its first."""
    remedy = "Put the run's own file there, or delete it to begin another."
    lines = file.read_bytes().decode(errors="replace").splitlines(keepends=True)
    rows = [line.strip().split(",") for line in lines if line.endswith("\n")]
    for number, row in enumerate(rows, 1):
        if tuple(row) != COLUMNS if number == 1 else not _is_row(row):
            raise DataError(file, "is no line of a run's log", remedy, line=number)
    return rows[1:]


def _is_row(row: list[str]) -> bool:
    try:
        return (
            len(row) == len(COLUMNS) and int(row[1]) >= 0 and all(math.isfinite(float(cell)) for cell in row)
        )
    except ValueError:
        return False


def add_row(out: Path, row: dict) -> None:
    """A line of log.csv."""
    with named(out / "log.csv"), open(out / "log.csv", "a", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerow({k: round(v, 6) for k, v in row.items()})


def data_facts(dataset: Dataset) -> dict:
    """What a data set is, wherever it lies: its name, image counts, and a digest of lists and labels."""
    digest = hashlib.sha256(repr(dataset.attributes).encode())
    for split in dataset.splits.values():
        digest.update("\n".join(split.filenames).encode() + split.labels.tobytes())
    counts = {name: len(split.filenames) for name, split in dataset.splits.items()}
    return {"name": dataset.name, "images": counts, "digest": digest.hexdigest()[:16]}


def _list_digests(dataset: Dataset) -> dict[str, str]:
    """Of each split, a digest of all that training and validation take from it, queries and candidates too.

    Apart from `data_facts`, by whose digest finished benchmarks are known.
    """

    def digest(split: Split) -> str:
        found = hashlib.sha256("\n".join(split.filenames).encode())
        for rows in (split.labels, split.queries, split.candidates):
            found.update(b"none" if rows is None else repr(rows.shape).encode() + rows.tobytes())
        return found.hexdigest()[:16]

    return {name: digest(split) for name, split in dataset.splits.items()}


def versions() -> dict:
    """What a run was made with."""
    import numpy
    import timm

    return {
        "ccakit": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
    }
