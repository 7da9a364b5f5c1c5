"""Every system under one protocol: the same sampler, trunk class, budget and evaluation; a row for each run.

A run is a trial: (mode, variant, model, seed). Its row is in its folder's `result.json`, and all rows are in
one CSV file. A benchmark that was stopped continues from either, so that the CSV file alone is enough.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import torch

from ccakit import processes
from ccakit.benchmark.beside_paper import write_beside_paper
from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.plan import Trial, plan, settings_of
from ccakit.benchmark.results import (
    MEASURED,
    PER_ATTRIBUTE,
    PER_TRIPLETS,
    TRAINED,
    at_chance,
    read_rows,
    write_rows,
)
from ccakit.benchmark.speed import measure_speed
from ccakit.data.layout import read_dataset
from ccakit.data.split import SPLITS, Dataset
from ccakit.disk import check_output, file_digest, write_json
from ccakit.errors import DataError
from ccakit.evaluation.evaluate import evaluate
from ccakit.evaluation.provenance import data_facts
from ccakit.evaluation.run import Run
from ccakit.models.registry import create_on_meta
from ccakit.models.saved import SavedModel
from ccakit.models.trunks.weight_files import find_weights
from ccakit.settings import to_dict
from ccakit.training.acceleration import create_accelerator
from ccakit.training.config import TrainConfig
from ccakit.training.run_folder import versions
from ccakit.training.setup import inputs_of, recipe_of
from ccakit.training.trainer import Trainer, train

log = logging.getLogger("ccakit")
# Settings that do not change a result; some decide whether there is one.
NOT_COMPARED = ("resume", "json", "out", "data", "workers", "max_unreadable", "skip_unreadable")
STEM = ("trunk", "weights", "image_size", "read_block", "freeze")  # settings that change kept features
PROTOCOL = 2  # raise it when a default of TrainConfig changes: earlier rows then belong to another protocol


def benchmark(config: BenchmarkConfig) -> list[dict]:
    """Train what is missing, measure speed, write the CSV file; returns its rows.

    A run that fails is a row that says so, and is tried again the next time. Raises DataError where the
    folder holds runs with other settings.
    """
    if config.jobs > 1 and processes.launched():
        raise ValueError(f"jobs={config.jobs}: several processes train each run together; leave out --jobs")
    processes.start("nccl" if torch.cuda.is_available() else "gloo")
    dataset = read_dataset(config.data)
    started, file = time.perf_counter(), config.results_file(dataset.name)
    trials = plan(config, dataset.name)
    check_output(file)
    kept = read_rows(file) if file.exists() else []
    done = finished(config, trials, dataset, kept)
    todo = [trial for trial in trials if trial not in done]
    print(f"{dataset.name}: {len(trials)} runs, {len(done)} of them done; {config.budget} each", flush=True)
    if earlier := sum(_trial_of(row) in todo and not _failed(row) for row in kept):
        print(f"{file}: {earlier} rows are of other settings or data; the new runs replace them", flush=True)
    if todo:
        _check(config, todo, dataset)
        _keep_features(config, todo, dataset)
        for count, (trial, row) in enumerate(zip(todo, _run_all(config, todo, dataset)), 1):
            done[trial] = row
            print(f"{count}/{len(todo)} {describe(row)}", flush=True)
            _write(file, _joined(kept, trials, done))
        print(f"{len(todo)} runs in {(time.perf_counter() - started) / 60:.1f} min", flush=True)
    if config.speed:
        unmeasured = [t for t in trials if done[t].get("embed_ms") is None and not _failed(done[t])]
        speeds = measure_speed(config, unmeasured, dataset)
        for trial in trials:
            done[trial].update(speeds.get((trial.mode, trial.variant, trial.model), {}))
    _write(file, _joined(kept, trials, done))
    return _in_order(trials, done)


def _write(file: Path, rows: list[dict]) -> None:
    """Write the rows in the main process, and the paper's figures beside them, where it has some."""
    if processes.is_main():
        write_rows(file, rows)
        write_beside_paper(file, rows)


def _check(config: BenchmarkConfig, trials: list[Trial], dataset: Dataset) -> None:
    """Raise the error of the first trial where none can begin, as with a precision that the device lacks."""
    errors = []
    for trial in trials:
        settings = settings_of(config, trial, dataset)
        try:
            create_accelerator(settings.mixed_precision)
            create_on_meta(**recipe_of(settings, dataset.attributes))
            return
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _run_all(config: BenchmarkConfig, trials: list[Trial], dataset: Dataset) -> Iterator[dict]:
    """Yield the trials' rows, in order."""
    if config.jobs == 1:
        yield from (run_one(config, trial, dataset) for trial in trials)
        return
    threads = max(1, torch.get_num_threads() // config.jobs)
    with ProcessPoolExecutor(config.jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        yield from pool.map(run_one, repeat(config), trials, repeat(dataset))


def _keep_features(config: BenchmarkConfig, trials: list[Trial], dataset: Dataset) -> None:
    """Compute the features of frozen trunks once, before several processes want them."""
    planned = [settings_of(config, trial, dataset) for trial in trials]
    stems = {tuple(getattr(each, name) for name in STEM): each for each in planned if each.cache}
    for settings in stems.values():
        try:
            saved = Trainer(settings, dataset, quiet=True).saved
            for name in SPLITS:
                inputs_of(settings, saved, dataset[name])
        except (ValueError, RuntimeError) as error:  # the row of its run will say so
            log.warning("features are not kept: %s", error)


def run_one(config: BenchmarkConfig, trial: Trial, dataset: Dataset) -> dict:
    """Train a trial and rank the test split; returns its row, kept in `result.json`. A failure is a row.

    Raises DataError where the folder holds another run.
    """
    folder = config.out / trial.folder
    begun = (folder / "config.json").exists()
    settings = replace(settings_of(config, trial, dataset), resume=begun)
    row = {
        "dataset": dataset.name,
        **asdict(trial),
        "trunk": settings.trunk,
        "budget": settings.budget,
        **machine(),
        "settings": settings_digest(settings, dataset),
    }
    try:
        saved, facts = train(settings, dataset, quiet=True)
        inputs = inputs_of(settings, saved, dataset["test"], progress=False)
        row |= _results(saved, facts, evaluate(Run(folder, saved, dataset, inputs)))
    except (ValueError, RuntimeError, FloatingPointError) as error:
        if isinstance(error, DataError) and begun and error.path.is_relative_to(folder):
            raise
        row["status"] = f"failed: {str(error).splitlines()[0]}"
        folder.mkdir(parents=True, exist_ok=True)
    if processes.is_main():
        write_json(folder / "result.json", row)
    return row


def _results(saved: SavedModel, facts: dict, metrics: dict) -> dict:
    """The results in a finished run's row. unreadable: images left out of training and of test."""
    parameters = list(saved.model.parameters())
    chance = "at chance" if at_chance(metrics) else "ok"
    return {
        "status": "collapsed" if facts["collapsed"] else chance,
        **{name: metrics.get(name) for name in MEASURED},
        "unreadable": facts["unreadable"] + metrics["unreadable"],
        **{name: facts[name] for name in TRAINED},
        "parameters": sum(p.numel() for p in parameters),
        "shares_trunk": saved.model.shares_trunk,
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        **({"own_left_out": metrics["own_left_out"]} if metrics["own_left_out"] else {}),
        **{PER_ATTRIBUTE + name: value for name, value in metrics["map_per_attribute"].items()},
        **{PER_TRIPLETS + name: v for name, v in metrics.get("triplet_accuracy_per_attribute", {}).items()},
    }


def machine() -> dict:
    """Describe the machine that a run was made on."""
    facts = versions()
    device = facts["device"] if torch.cuda.is_available() else f"CPU {platform.machine()}"
    return {"threads": facts["threads"], "torch": facts["torch"], "device": device}


def finished(config: BenchmarkConfig, trials: list[Trial], dataset: Dataset, kept: list[dict]) -> dict:
    """Find the row of each trial that is done: in its folder, else, with equal settings, in the rows `kept`.

    A trial that failed is not done. Raises DataError for a folder of other settings.
    """
    done = {}
    for trial in trials:
        digest = settings_digest(settings_of(config, trial, dataset), dataset)
        rows = [row for row in kept if _trial_of(row) == trial and row["settings"] == digest]
        row, result = rows[0] if rows else {}, config.out / trial.folder / "result.json"
        if result.exists():
            row = {**row, **json.loads(result.read_text("utf-8"))}
            if row["settings"] != digest:
                remedy = "Choose another --out, or delete it."
                raise DataError(result, "is of a benchmark with other settings, or other data", remedy)
        if row and not _failed(row):
            done[trial] = row
    return done


def _failed(row: dict) -> bool:
    return row["status"].startswith("failed")


def _trial_of(row: dict) -> Trial:
    return Trial(row["mode"], row["variant"] or "", row["model"], row["seed"])


def settings_digest(settings: TrainConfig, dataset: Dataset) -> str:
    """Name a protocol by eight hexadecimal digits, from the data and the settings that are not defaults."""
    usual = to_dict(TrainConfig())
    values = {k: v for k, v in to_dict(settings).items() if k not in NOT_COMPARED and v != usual[k]}
    found = find_weights(settings.trunk, settings.pretrained, None) if settings.weights is None else None
    if found is not None:  # the file in data/weights, which no setting names
        values["weights"] = file_digest(found)
    values |= {"dataset": data_facts(dataset)["digest"], "protocol": PROTOCOL}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _joined(kept: list[dict], trials: list[Trial], done: dict[Trial, dict]) -> list[dict]:
    """The rows of a results file: those it has of trials that are not done yet, then those that are done."""
    return [row for row in kept if _trial_of(row) not in done] + _in_order(trials, done)


def _in_order(trials: list[Trial], done: dict[Trial, dict]) -> list[dict]:
    """The rows that are done, by mode, variant and system in the order of the plan, then by seed."""
    modes, variants, models = ([getattr(t, part) for t in trials] for part in ("mode", "variant", "model"))

    def place(trial: Trial) -> tuple:
        return modes.index(trial.mode), variants.index(trial.variant), models.index(trial.model), trial.seed

    return [done[trial] for trial in sorted(trials, key=place) if trial in done]


def describe(row: dict) -> str:
    """Describe a run in a line."""
    name = " ".join(filter(None, (row["mode"], row["variant"], row["model"], f"seed {row['seed']:g}")))
    if row.get("map_weighted") is None:
        return f"{name}: {row['status']}"
    status = "" if row["status"] == "ok" else f" ({row['status']})"
    if n := row.get("own_left_out"):
        status += f" ({n} queries are candidates too: left out of their own rankings)"
    return f"{name}: weighted mAP {row['map_weighted']:.2f}{status}, {row['train_seconds']:.0f} s"
