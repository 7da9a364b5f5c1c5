"""Every system under one protocol: the same sampler, trunk class, budget and evaluation; one row a run.

A run is (mode, variant, model, seed). What a finished run found is in its folder's `result.json`, and all of them
together in one CSV file. A benchmark that was stopped goes on from either, so that the CSV file alone is enough.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

from ccakit.checkpoint import SavedModel, write_json
from ccakit.command_config import BenchmarkConfig
from ccakit.config import TrainConfig, from_dict, to_dict
from ccakit.data.errors import DataError
from ccakit.data.layout import Dataset, read_dataset
from ccakit.evaluation import evaluate
from ccakit.inputs import inputs_for
from ccakit.models import model_info
from ccakit.training import data_facts, train, versions

log = logging.getLogger("ccakit")
COLUMNS = (
    "dataset", "mode", "variant", "model", "seed", "status", "map_weighted", "map_macro", "random_map_weighted",
    "triplet_accuracy", "pointing_game", "pointing_chance", "unreadable", "best_epoch", "epochs", "images",
    "train_seconds", "parameters", "trained_parameters", "shares_trunk", "embed_mflops", "embed_ms",
    "images_per_second", "trunk", "budget", "threads", "torch", "device", "settings",
)  # fmt: skip
MEASURED = COLUMNS[COLUMNS.index("map_weighted") : COLUMNS.index("unreadable")]
PER_ATTRIBUTE = "map:"
TEXT = ("dataset", "mode", "variant", "model", "status", "trunk", "budget", "torch", "device", "settings")
NOT_COMPARED = (  # settings that change no result, but for whether there is one
    "resume", "json", "out", "data", "workers", "max_unreadable", "skip_unreadable",
)  # fmt: skip
CHANCE_MARGIN = 1.0  # points of weighted mAP above a random ranking's, below which a run has learnt nothing
PROTOCOL = 1  # raise it when a default of TrainConfig changes: rows of before are then of another protocol


@dataclass(frozen=True)
class Run:
    """One training of the benchmark."""

    mode: str
    variant: str
    model: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies in the benchmark's folder."""
        return Path(self.mode) / (self.variant.replace(" ", ",") or "default") / f"{self.model}-{self.seed}"


def plan(config: BenchmarkConfig) -> list[Run]:
    """All runs, a seed of all systems before the next seed. ValueError for an unknown system."""
    names = config.model_names()
    for name in names:
        model_info(name)
    runs = product(config.seed_list(), config.modes, config.variants, names)
    return [Run(mode, variant, name, seed) for seed, mode, variant, name in runs]


def settings_of(config: BenchmarkConfig, run: Run, dataset: Dataset) -> TrainConfig:
    """How a run trains. An epoch shows as many images in mode triplets as in mode spaces."""
    images = len(dataset["train"].filenames)
    trunk, weights = config.trunk, config.weights
    if model_info(run.model).reads == "map":
        weights = config.cnn_weights or (weights if config.cnn_trunk == trunk else None)
        trunk = config.cnn_trunk
    base = TrainConfig(
        data=config.data, out=config.out / run.folder, seed=run.seed, model=run.model, trunk=trunk, mode=run.mode,
        budget=config.budget, freeze=config.freeze, pretrained=config.pretrained, weights=weights,
        image_size=config.image_size, cache=config.freeze != "none", batch_size=config.batch_size, lr=config.lr,
        triplets_per_epoch=max(config.batch_size, images // 3), evaluate_every=config.evaluate_every,
        mixed_precision=config.mixed_precision, workers=config.workers, max_unreadable=config.max_unreadable,
        skip_unreadable=config.skip_unreadable,
    )  # fmt: skip
    varied = dict(word.split("=", 1) for word in run.variant.split())
    varied |= {name: varied[name].split(",") for name in ("without", "balance") if name in varied}
    return from_dict(TrainConfig, {**to_dict(base), **varied}, where=f"variant {run.variant!r}")


def benchmark(config: BenchmarkConfig) -> list[dict]:
    """Run what is missing, measure speed, write the CSV file; returns its rows.

    A run that fails is a row that says so and is tried again the next time. Raises DataError where the folder holds
    runs with other settings.
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
        from ccakit.speed import measure_speed

        todo = [run for run in runs if done[run].get("embed_ms") is None and not _failed(done[run])]
        speeds = measure_speed(config, todo, dataset)
        for run in runs:
            done[run].update(speeds.get((run.mode, run.variant, run.model), {}))
    rows = _in_order(runs, done)
    write_rows(file, others + rows)
    return rows


def _all(config: BenchmarkConfig, todo: list[Run], dataset: Dataset):
    """Results of the runs, as they come."""
    if config.jobs == 1:
        yield from (run_one(config, run, dataset) for run in todo)
        return
    threads = max(1, torch.get_num_threads() // config.jobs)
    with ProcessPoolExecutor(config.jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        yield from pool.map(_in_process, [config] * len(todo), todo)


def _in_process(config: BenchmarkConfig, run: Run) -> dict:
    return run_one(config, run, read_dataset(config.data))


def _keep_features(config: BenchmarkConfig, runs: list[Run], dataset: Dataset) -> None:
    """Compute the features of frozen trunks once, before several processes want them."""
    from ccakit.training import Trainer

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


def run_one(config: BenchmarkConfig, run: Run, dataset: Dataset) -> dict:
    """Train and rank the test split; the row, which `result.json` keeps. What fails is a row, too.

    DataError where the folder holds something else than this run.
    """
    folder = config.out / run.folder
    begun = (folder / "config.json").exists()
    settings = replace(settings_of(config, run, dataset), resume=begun)
    about = {"dataset": dataset.name, **vars(run), "trunk": settings.trunk, "budget": settings.budget, **machine(),
             "settings": settings_digest(settings, dataset)}  # fmt: skip
    try:
        saved, facts = train(settings, dataset, quiet=True)
        inputs = _inputs(settings, saved, dataset, "test", progress=False)
        metrics = evaluate(saved, inputs, dataset["test"])
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
    """What a finished run's row says of it. unreadable: images replaced in training, and left out of test."""
    parameters = list(saved.model.parameters())
    return {
        "status": "collapsed" if facts["collapsed"] else "at chance" if at_chance(metrics) else "ok",
        **{name: metrics.get(name) for name in MEASURED}, "unreadable": facts["unreadable"] + metrics["unreadable"],
        **{name: facts[name] for name in ("best_epoch", "epochs", "images", "train_seconds")},
        "parameters": sum(p.numel() for p in parameters), "shares_trunk": saved.model.shares_trunk,
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        **{PER_ATTRIBUTE + name: value for name, value in metrics["map_per_attribute"].items()},
    }  # fmt: skip


def at_chance(row: dict) -> bool:
    """Whether a run has learnt nothing: its weighted mAP is less than CHANCE_MARGIN above a random ranking's."""
    found, chance = row.get("map_weighted"), row.get("random_map_weighted")
    return None not in (found, chance) and found < chance + CHANCE_MARGIN


def machine() -> dict:
    """What a run was made on."""
    facts = versions()
    device = facts["device"] if torch.cuda.is_available() else f"CPU {platform.machine()}"
    return {"threads": facts["threads"], "torch": facts["torch"], "device": device}


def finished(config: BenchmarkConfig, runs: list[Run], dataset: Dataset) -> dict[Run, dict]:
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


def _run_of(row: dict) -> Run:
    return Run(row["mode"], row["variant"] or "", row["model"], row["seed"])


def settings_digest(settings: TrainConfig, dataset: Dataset) -> str:
    """Eight digits that tell one protocol from another: the settings that are not the defaults, and the data."""
    usual = to_dict(TrainConfig())
    values = {k: v for k, v in to_dict(settings).items() if k not in NOT_COMPARED and v != usual[k]}
    values |= {"dataset": data_facts(dataset)["digest"], "protocol": PROTOCOL}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _in_order(runs: list[Run], done: dict[Run, dict]) -> list[dict]:
    """The rows that there are: by mode, variant, system and seed, each in the order asked for."""
    first = {part: list(dict.fromkeys(getattr(run, part) for run in runs)) for part in ("mode", "variant", "model")}
    order = sorted(runs, key=lambda r: (*(first[p].index(getattr(r, p)) for p in first), r.seed))
    return [done[run] for run in order if run in done]


def write_rows(path: Path, rows: list[dict]) -> None:
    """The results as CSV: a line a run; columns `map:NAME` hold the attributes' mAPs in percent."""
    attributes = [name for row in rows for name in row if name.startswith(PER_ATTRIBUTE)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *dict.fromkeys(attributes)], restval="")
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_rows(path: Path) -> list[dict]:
    """The rows of a results file: numbers as int or float, empty cells as None."""
    with open(path, newline="") as file:
        return [{name: (text or None) if name in TEXT else _cell(text) for name, text in row.items()}
                for row in csv.DictReader(file)]  # fmt: skip


def _cell(text: str):
    for kind in (int, float):
        try:
            return kind(text) if text else None
        except ValueError:
            continue
    return {"True": True, "False": False}.get(text, text)


def describe(row: dict) -> str:
    """One run in a line."""
    name = " ".join(filter(None, (row["mode"], row["variant"], row["model"], f"seed {row['seed']:g}")))
    if row.get("map_weighted") is None:
        return f"{name}: {row['status']}"
    told = "" if row["status"] == "ok" else f" ({row['status']})"
    return f"{name}: weighted mAP {row['map_weighted']:.2f}{told}, {row['train_seconds']:.0f} s"
