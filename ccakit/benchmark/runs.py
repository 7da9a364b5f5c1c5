"""Every system under one protocol: the same sampler, trunk class, budget and evaluation; one row a run.

A run is (mode, variant, model, seed). What a finished run found is in its folder's `result.json`, and all of
them together in one CSV file. A benchmark that was stopped goes on from either, so that the CSV file alone is
enough.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch

from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.plan import Trial, plan, settings_of
from ccakit.benchmark.results import MEASURED, PER_ATTRIBUTE, at_chance, read_rows, write_rows
from ccakit.data.inputs import inputs_for
from ccakit.data.layout import read_dataset
from ccakit.data.split import Dataset
from ccakit.disk import write_json
from ccakit.errors import DataError
from ccakit.evaluation.evaluate import evaluate
from ccakit.evaluation.run import Run
from ccakit.models.saved import SavedModel
from ccakit.settings import to_dict
from ccakit.training.config import TrainConfig
from ccakit.training.run_folder import data_facts, versions
from ccakit.training.trainer import train

log = logging.getLogger("ccakit")
NOT_COMPARED = (  # settings that change no result, but for whether there is one
    "resume",
    "json",
    "out",
    "data",
    "workers",
    "max_unreadable",
    "skip_unreadable",
)
PROTOCOL = 1  # raise it when a default of TrainConfig changes: rows of before are then of another protocol


def benchmark(config: BenchmarkConfig) -> list[dict]:
    """Run what is missing, measure speed, write the CSV file; returns its rows.

    A run that fails is a row that says so and is tried again the next time. Raises DataError where the folder
    holds runs with other settings.
    """
    dataset = read_dataset(config.data)
    runs, started, file = plan(config), time.perf_counter(), config.results_file(dataset.name)
    done = finished(config, runs, dataset)
    others = [row for row in read_rows(file) if _run_of(row) not in runs] if file.exists() else []
    todo = [run for run in runs if run not in done]
    print(f"{dataset.name}: {len(runs)} runs, {len(done)} of them done; {config.budget} each", flush=True)
    if todo:
        _keep_features(config, todo, dataset)
    for count, (run, row) in enumerate(zip(todo, _all(config, todo, dataset)), 1):
        done[run] = row
        print(f"{count}/{len(todo)} {describe(row)}", flush=True)
        write_rows(file, others + _in_order(runs, done))
    if todo:
        print(f"{len(todo)} runs in {(time.perf_counter() - started) / 60:.1f} min", flush=True)
    if config.speed:
        from ccakit.benchmark.speed import measure_speed

        todo = [run for run in runs if done[run].get("embed_ms") is None and not _failed(done[run])]
        speeds = measure_speed(config, todo, dataset)
        for run in runs:
            done[run].update(speeds.get((run.mode, run.variant, run.model), {}))
    rows = _in_order(runs, done)
    write_rows(file, others + rows)
    return rows


def _all(config: BenchmarkConfig, todo: list[Trial], dataset: Dataset):
    """Results of the runs, as they come."""
    if config.jobs == 1:
        yield from (run_one(config, run, dataset) for run in todo)
        return
    threads = max(1, torch.get_num_threads() // config.jobs)
    with ProcessPoolExecutor(config.jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        yield from pool.map(_in_process, [config] * len(todo), todo)


def _in_process(config: BenchmarkConfig, run: Trial) -> dict:
    return run_one(config, run, read_dataset(config.data))


def _keep_features(config: BenchmarkConfig, runs: list[Trial], dataset: Dataset) -> None:
    """Compute the features of frozen trunks once, before several processes want them."""
    from ccakit.training.trainer import Trainer

    seen = set()
    for run in runs:
        settings = settings_of(config, run, dataset)
        if settings.cache and (settings.trunk, settings.weights) not in seen:
            try:
                saved = Trainer(settings, dataset, quiet=True).saved
                seen.add((settings.trunk, settings.weights))
                for name in ("train", "valid", "test"):
                    _inputs(settings, saved, dataset, name)
            except (ValueError, RuntimeError) as error:  # its run will be a row that says so
                log.warning("features are not kept: %s", error)


def _inputs(settings: TrainConfig, saved: SavedModel, dataset: Dataset, split: str, progress: bool = True):
    """A split's inputs, of which as many images may be unreadable as the settings say."""
    share = settings.max_unreadable if split == "train" else float(settings.skip_unreadable)
    options = dict(cache=settings.cache, progress=progress, max_unreadable=share)
    return inputs_for(saved.model, dataset[split], saved.transform, **options)


def run_one(config: BenchmarkConfig, run: Trial, dataset: Dataset) -> dict:
    """Train and rank the test split; the row, which `result.json` keeps. What fails is a row, too.

    DataError where the folder holds something else than this run.
    """
    folder = config.out / run.folder
    begun = (folder / "config.json").exists()
    settings = replace(settings_of(config, run, dataset), resume=begun)
    about = {
        "dataset": dataset.name,
        **vars(run),
        "trunk": settings.trunk,
        "budget": settings.budget,
        **machine(),
        "settings": settings_digest(settings, dataset),
    }
    try:
        saved, facts = train(settings, dataset, quiet=True)
        inputs = _inputs(settings, saved, dataset, "test", progress=False)
        metrics = evaluate(Run(folder, saved, dataset, inputs))
    except (ValueError, RuntimeError, FloatingPointError) as error:
        if isinstance(error, DataError) and begun and error.path.is_relative_to(folder):
            raise
        row = {**about, "status": f"failed: {str(error).splitlines()[0]}"}
        folder.mkdir(parents=True, exist_ok=True)
    else:
        row = {**about, **_found(saved, facts, metrics)}
    write_json(folder / "result.json", row)
    return row


def _found(saved: SavedModel, facts: dict, metrics: dict) -> dict:
    """What a finished run's row says of it. unreadable: images left out of training and of test."""
    parameters = list(saved.model.parameters())
    return {
        "status": "collapsed" if facts["collapsed"] else "at chance" if at_chance(metrics) else "ok",
        **{name: metrics.get(name) for name in MEASURED},
        "unreadable": facts["unreadable"] + metrics["unreadable"],
        **{name: facts[name] for name in ("best_epoch", "epochs", "images", "train_seconds")},
        "parameters": sum(p.numel() for p in parameters),
        "shares_trunk": saved.model.shares_trunk,
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        **{PER_ATTRIBUTE + name: value for name, value in metrics["map_per_attribute"].items()},
    }


def machine() -> dict:
    """What a run was made on."""
    facts = versions()
    device = facts["device"] if torch.cuda.is_available() else f"CPU {platform.machine()}"
    return {"threads": facts["threads"], "torch": facts["torch"], "device": device}


def finished(config: BenchmarkConfig, runs: list[Trial], dataset: Dataset) -> dict[Trial, dict]:
    """The rows of the runs that are done: from their folders, else from the results file if the settings are equal.

    DataError for a folder of other settings. What failed is not done.
    """
    file, done = config.results_file(dataset.name), {}
    kept = read_rows(file) if file.exists() else []
    for run in runs:
        digest = settings_digest(settings_of(config, run, dataset), dataset)
        result = config.out / run.folder / "result.json"
        row = next((r for r in kept if _run_of(r) == run and r["settings"] == digest), None)
        if result.exists():
            row = {**(row or {}), **json.loads(result.read_text())}
            if row["settings"] != digest:
                remedy = "Choose another --out, or delete it."
                raise DataError(result, "is of a benchmark with other settings, or other data", remedy)
        if row and not _failed(row):
            done[run] = row
    return done


def _failed(row: dict) -> bool:
    return row["status"].startswith("failed")


def _run_of(row: dict) -> Trial:
    return Trial(row["mode"], row["variant"] or "", row["model"], row["seed"])


def settings_digest(settings: TrainConfig, dataset: Dataset) -> str:
    """Eight digits that tell one protocol from another: the settings that are not the defaults, and the data."""
    usual = to_dict(TrainConfig())
    values = {k: v for k, v in to_dict(settings).items() if k not in NOT_COMPARED and v != usual[k]}
    values |= {"dataset": data_facts(dataset)["digest"], "protocol": PROTOCOL}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _in_order(runs: list[Trial], done: dict[Trial, dict]) -> list[dict]:
    """The rows that there are: by mode, variant, system and seed, each in the order asked for."""
    first = {
        part: list(dict.fromkeys(getattr(run, part) for run in runs)) for part in ("mode", "variant", "model")
    }
    order = sorted(runs, key=lambda r: (*(first[p].index(getattr(r, p)) for p in first), r.seed))
    return [done[run] for run in order if run in done]


def describe(row: dict) -> str:
    """One run in a line."""
    name = " ".join(filter(None, (row["mode"], row["variant"], row["model"], f"seed {row['seed']:g}")))
    if row.get("map_weighted") is None:
        return f"{name}: {row['status']}"
    told = "" if row["status"] == "ok" else f" ({row['status']})"
    return f"{name}: weighted mAP {row['map_weighted']:.2f}{told}, {row['train_seconds']:.0f} s"
