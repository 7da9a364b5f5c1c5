"""`ccakit demo`: draw the default data, train CCA on it, print the table, write the pictures."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal


@dataclass
class Config:
    """Draw the default data, train CCA on it, print the table and write the pictures."""

    presets: ClassVar[dict[str, dict]] = {
        "smoke": dict(
            out=Path("runs/smoke"),
            data=Path("data/garments-smoke"),
            train=800,
            valid=200,
            test=400,
            budget="epochs=6",
        ),
        "demo": {},
    }

    out: Path = Path("runs/demo")
    """The run folder."""
    data: Path = Path("data/garments")
    """Where the drawn data set is, or goes."""
    train: int = 6000
    """Images to draw for training."""
    valid: int = 1000
    """Images to draw for choosing the best epoch."""
    test: int = 2500
    """Images to draw for the table."""
    model: str = "cca-type2"
    """A name of `ccakit params --list`."""
    budget: str = "epochs=15"
    """How long to train."""
    labels: Literal["all", "one"] = "all"
    """Images carry all their labels or, as in FashionAI, one."""
    pictures: bool = True
    """Draw heatmaps, t-SNE and ranking."""
    seed: int = 0
    """Of the data and of training."""
    json: bool = False
    """End with one machine-readable line."""


def run(config: Config) -> dict:
    """Run the demo into `config.out`; returns what metrics.json holds.

    A run folder that holds the same demo already is not trained again; another one's is refused.
    """
    from ccakit.data.inputs import inputs_for
    from ccakit.data.layout import read_dataset
    from ccakit.disk import write_json
    from ccakit.evaluation.evaluate import evaluate, table, targets
    from ccakit.evaluation.run import Run

    started = time.perf_counter()
    print(
        f"drawing {config.train} + {config.valid} + {config.test} garments in {config.data} (kept there)",
        flush=True,
    )
    _draw(config)
    dataset = read_dataset(config.data)
    saved, facts = _trained(config, dataset)
    print("ranking the test split and scoring the heatmaps", flush=True)
    inputs = inputs_for(saved.model, dataset["test"], saved.transform, cache=True)
    demo = Run(config.out, saved, dataset, inputs)
    metrics = {**evaluate(demo), **facts}
    write_json(config.out / "metrics.json", metrics)
    if config.pictures:
        _pictures(config, demo)
    seconds = time.perf_counter() - started
    title = f"{config.model} on {dataset.name}, test, mAP in percent (drawn data, not the paper's)"
    print("\n" + table(metrics, title))
    print("\n".join(targets(metrics)))
    print(
        f"trained for {metrics['train_seconds']:.0f} s, {seconds:.0f} s in all; everything is in {config.out}"
    )
    return metrics


def _draw(config: Config) -> None:
    from ccakit.data.drawn import write_garments

    write_garments(
        config.data, config.train, config.valid, config.test, seed=config.seed, labels=config.labels
    )


def _trained(config: Config, dataset):
    """The trained model and its facts; from the folder, where this very demo has been trained before."""
    from ccakit.disk import write_json
    from ccakit.errors import DataError
    from ccakit.models.saved import load_model
    from ccakit.settings import to_dict
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import train

    settings = TrainConfig(
        data=config.data, out=config.out, model=config.model, budget=config.budget, seed=config.seed
    )
    wanted = json.loads(
        json.dumps({**to_dict(settings), "about": dataset.about})
    )  # as JSON has it, as is the kept one
    kept = config.out / "demo.json"
    del wanted["data"], wanted["out"]
    before = json.loads(kept.read_text()) if kept.exists() else None
    if before and before["facts"] and before["demo"] == wanted:
        print(
            f"{config.out} holds this demo's model already; delete the folder to train it again", flush=True
        )
        return load_model(config.out), before["facts"]
    if before and before["facts"]:
        raise DataError(config.out, "holds a demo with other settings", "Choose another --out, or delete it.")
    if before:  # broken off while it trained
        _remove_own(config.out)
    elif config.out.is_dir() and any(config.out.iterdir()):
        raise DataError(
            config.out, "already holds a run, or other files", "Choose another --out, or delete it."
        )
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


def _pictures(config: Config, demo) -> None:
    from ccakit.show import pictures
    from ccakit.show.style import save

    print("drawing heatmaps.png, spaces.png and ranking.png", flush=True)
    three = pictures.pick_images(demo.split, 3, config.seed)
    save(pictures.heatmaps(demo, three), config.out / "heatmaps.png")
    save(pictures.spaces(demo, seed=config.seed), config.out / "spaces.png")
    save(pictures.rankings(demo, seed=config.seed), config.out / "ranking.png")


def open_demo(preset: str | None = None):
    """Open the demo's run on its test split: `runs/demo` if it is there, else a smoke run, made on the spot.

    preset: "smoke" or "demo", by default the value of the environment variable CCAKIT_PRESET. Paths are those of the
    project's folder, wherever the caller was started. Returns a `ccakit.evaluation.run.Run`.
    """
    from ccakit.data.split import SPLITS
    from ccakit.evaluation.run import open_run, project_folder
    from ccakit.settings import from_preset

    home = project_folder()
    preset = preset or os.environ.get("CCAKIT_PRESET")
    if preset is None:
        preset = "demo" if (home / "runs/demo/metrics.json").exists() else "smoke"
    config = from_preset(Config, preset)
    config.out, config.data = home / config.out, home / config.data
    if not (config.out / "metrics.json").exists():
        config.pictures = False
        run(config)
    _draw(config)
    return open_run(config.out, data=config.data, splits=SPLITS)
