"""`ccakit demo`: draw the default data, train CCA on it, print the table, write the pictures."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccakit.checkpoint import SavedModel, load_model, write_json
from ccakit.config import DemoConfig, TrainConfig, from_preset, to_dict
from ccakit.data.errors import DataError
from ccakit.data.garments import redraw, write_garments
from ccakit.data.layout import Dataset, Split, read_dataset
from ccakit.evaluation import evaluate, table, targets
from ccakit.inputs import FeatureInputs, ImageInputs, inputs_for
from ccakit.training import train


def demo(config: DemoConfig) -> dict:
    """Run the demo into `config.out`; returns what metrics.json holds.

    A run folder that holds the same demo already is not trained again; another one's is refused.
    """
    started = time.perf_counter()
    print(f"drawing {config.train} + {config.valid} + {config.test} garments in {config.data} (kept there)", flush=True)
    write_garments(config.data, config.train, config.valid, config.test, seed=config.seed, labels=config.labels)
    dataset = read_dataset(config.data)
    saved, facts = _trained(config, dataset)
    print("ranking the test split and scoring the heatmaps", flush=True)
    inputs = inputs_for(saved.model, dataset["test"], saved.transform, cache=True)
    metrics = {**evaluate(saved, inputs, dataset["test"]), **facts}
    write_json(config.out / "metrics.json", metrics)
    if config.pictures:
        _pictures(config, saved, inputs, dataset)
    seconds = time.perf_counter() - started
    title = f"{config.model} on {dataset.name}, test, mAP in percent (drawn data, not the paper's)"
    print("\n" + table(metrics, title))
    print("\n".join(targets(metrics)))
    print(f"trained for {metrics['train_seconds']:.0f} s, {seconds:.0f} s in all; everything is in {config.out}")
    return metrics


def _trained(config: DemoConfig, dataset: Dataset) -> tuple[SavedModel, dict]:
    """The trained model and its facts; from the folder, where this very demo has been trained before."""
    settings = TrainConfig(data=config.data, out=config.out, model=config.model, budget=config.budget, seed=config.seed)
    wanted = json.loads(json.dumps({**to_dict(settings), "about": dataset.about}))  # as JSON has it, as is the kept one
    kept = config.out / "demo.json"
    del wanted["data"], wanted["out"]
    before = json.loads(kept.read_text()) if kept.exists() else None
    if before and before["facts"] and before["demo"] == wanted:
        print(f"{config.out} holds this demo's model already; delete the folder to train it again", flush=True)
        return load_model(config.out), before["facts"]
    if before and before["facts"]:
        raise DataError(config.out, "holds a demo with other settings", "Choose another --out, or delete it.")
    if before:  # broken off while it trained
        _remove_own(config.out)
    elif config.out.is_dir() and any(config.out.iterdir()):
        raise DataError(config.out, "already holds a run, or other files", "Choose another --out, or delete it.")
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(kept, {"demo": wanted, "facts": None})
    print(f"training {config.model} on {settings.trunk}, {settings.budget}", flush=True)
    saved, facts = train(settings, dataset)
    write_json(kept, {"demo": wanted, "facts": facts})
    return saved, facts


def _remove_own(out: Path) -> None:
    """Remove what a demo broken off has written, and nothing else."""
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("config.json", "versions.json", "log.csv", "train.log", "model.json", "model.safetensors"):
        (out / name).unlink(missing_ok=True)


def _pictures(config: DemoConfig, saved: SavedModel, inputs, dataset: Dataset) -> None:
    from ccakit import pictures, plots

    print("drawing heatmaps.png, spaces.png and ranking.png", flush=True)
    split, picture = dataset["test"], redrawn(dataset, "test")
    three = pictures.pick_images(split, 3, config.seed)
    plots.save(pictures.heatmaps(saved, inputs, split, three, picture), config.out / "heatmaps.png")
    plots.save(pictures.spaces(saved, inputs, split, seed=config.seed), config.out / "spaces.png")
    plots.save(pictures.rankings(saved, inputs, split, picture, seed=config.seed), config.out / "ranking.png")


def redrawn(dataset: Dataset, split: str, size: int = 256) -> Callable[[int], np.ndarray]:
    """Drawn garments of a split, drawn again at `size` pixels, so that figures are sharp."""
    return lambda image: redraw(dataset.about, split, int(image), size)


@dataclass
class DemoRun:
    """A finished demo: its folder, model, data, the test split with its inputs and pictures, and metrics.json."""

    folder: Path
    saved: SavedModel
    dataset: Dataset
    split: Split
    inputs: FeatureInputs | ImageInputs
    picture: Callable[[int], np.ndarray]
    metrics: dict


def open_demo(preset: str | None = None) -> DemoRun:
    """The demo's run for notebooks and figures: `runs/demo` if it is there, else a smoke run, made on the spot.

    preset: "smoke" or "demo", by default what the environment variable CCAKIT_PRESET says. Paths are those of the
    project's folder, wherever the caller was started.
    """
    home = project_folder()
    preset = preset or os.environ.get("CCAKIT_PRESET")
    if preset is None:
        preset = "demo" if (home / "runs/demo/metrics.json").exists() else "smoke"
    config = from_preset(DemoConfig, preset)
    config.out, config.data = home / config.out, home / config.data
    if not (config.out / "metrics.json").exists():
        config.pictures = False
        demo(config)
    write_garments(config.data, config.train, config.valid, config.test, seed=config.seed, labels=config.labels)
    saved, dataset = load_model(config.out), read_dataset(config.data)
    inputs = inputs_for(saved.model, dataset["test"], saved.transform, cache=True, progress=False)
    metrics = json.loads((config.out / "metrics.json").read_text())
    return DemoRun(config.out, saved, dataset, dataset["test"], inputs, redrawn(dataset, "test"), metrics)


def project_folder() -> Path:
    """The nearest folder upward that holds notebooks/, else the current one."""
    here = Path.cwd()
    return next((f for f in (here, *here.parents) if (f / "notebooks").is_dir()), here)
