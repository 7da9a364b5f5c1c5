"""`ccakit demo`: draw the default data, train CCA on it, print the table, write the pictures."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ccakit.settings import CommandConfig, Positive

if TYPE_CHECKING:
    from ccakit.evaluation.run import Run

SMALL = dict(train=800, valid=200, test=400, budget="epochs=6")


@dataclass
class Config(CommandConfig):
    """Draw the default data, train CCA on it, print the table and write the pictures."""

    presets: ClassVar[dict[str, dict]] = {
        "smoke": dict(SMALL, out=Path("runs/smoke"), data=Path("data/garments-smoke")),
        "demo": {},
    }

    out: Path = Path("runs/demo")
    """The run folder."""
    data: Path = Path("data/garments")
    """The folder of the drawn data; it is drawn unless it is there."""
    train: Positive = 6000
    """Images to draw for training."""
    valid: Positive = 1000
    """Images to draw for choosing the best epoch."""
    test: Positive = 2500
    """Images to draw for the table."""
    model: str = "cca-type2"
    """A name of `ccakit params --list`."""
    budget: str = "epochs=15"
    """How long to train: epochs=N, steps=N, or a time such as 4m."""
    labels: Literal["all", "one", "rare"] = "all"
    """Labels of an image: all; one, as in FashionAI; or rare: in train, few images carry some attributes."""
    pictures: bool = True
    """Draw heatmaps, t-SNE and rankings."""
    seed: int = 0
    """The seed of the data and of training."""


def run(config: Config) -> dict:
    """Run the demo into `config.out`; returns what metrics.json holds.

    Where the folder holds the same demo already, nothing is trained. Raises DataError where it holds another
    run.
    """
    from ccakit.disk import check_output, write_json
    from ccakit.evaluation.evaluate import evaluate, table, targets
    from ccakit.evaluation.run import open_run
    from ccakit.models.registry import model_info

    model_info(config.model)  # an unknown name is an error before anything is drawn or written
    check_output(config.out / "metrics.json")
    started, images = time.perf_counter(), f"{config.train} + {config.valid} + {config.test}"
    print(f"drawing {images} garments in {config.data} (kept there)", flush=True)
    _draw(config)
    facts = _train_once(config)
    print("ranking the test split and scoring the heatmaps", flush=True)
    demo = open_run(config.out, data=config.data, progress=True)
    metrics = {**evaluate(demo), **facts}
    write_json(config.out / "metrics.json", metrics)
    if config.pictures:
        _draw_pictures(config, demo)
    seconds = time.perf_counter() - started
    title = f"{config.model} on {demo.dataset.name}, test, mAP in percent (drawn data, not the paper's)"
    print("\n" + table(metrics, title))
    print("\n".join(targets(metrics)))
    training = f"trained for {metrics['train_seconds']:.0f} s"
    print(f"{training}, {seconds:.0f} s in all; everything is in {config.out}")
    return metrics


def _draw(config: Config) -> None:
    from ccakit.data.drawn import write_garments

    counts = (config.train, config.valid, config.test)
    write_garments(config.data, *counts, seed=config.seed, labels=config.labels)


def _train_once(config: Config) -> dict:
    """Train the model, unless the folder holds this demo already; returns training's facts.

    demo.json in the folder holds the demo's settings and, once trained, its facts.
    """
    from ccakit.data.layout import read_dataset
    from ccakit.disk import write_json
    from ccakit.errors import DataError
    from ccakit.settings import to_dict
    from ccakit.training.config import TrainConfig, setting_changes
    from ccakit.training.trainer import train

    shared = {name: getattr(config, name) for name in ("data", "out", "model", "budget", "seed")}
    settings, file = TrainConfig(**shared), config.out / "demo.json"
    dataset = read_dataset(config.data)
    demo = json.loads(json.dumps({**to_dict(settings), "about": dataset.about}))  # as JSON has it
    del demo["data"], demo["out"]
    remedy = "Choose another --out, or delete it."
    kept = json.loads(file.read_text("utf-8")) if file.exists() else None
    if kept and kept["facts"]:
        if changes := setting_changes(kept["demo"], demo):
            problem = f"holds a demo with other settings ({'; '.join(changes.values())})"
            raise DataError(config.out, problem, remedy)
        print(f"{config.out} holds this demo's model already; delete it to train again", flush=True)
        return kept["facts"]
    if kept:
        _remove_interrupted(config.out)
    elif config.out.is_dir() and any(config.out.iterdir()):
        raise DataError(config.out, "already holds a run, or other files", remedy)
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(file, {"demo": demo, "facts": None})
    print(f"training {config.model} on {settings.trunk}, {settings.budget}", flush=True)
    _, facts = train(settings, dataset)
    write_json(file, {"demo": demo, "facts": facts})
    return facts


def _remove_interrupted(out: Path) -> None:
    """Remove what an interrupted demo has written, and nothing else."""
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("config.json", "versions.json", "log.csv", "train.log", "model.json", "model.safetensors"):
        (out / name).unlink(missing_ok=True)


def _draw_pictures(config: Config, demo) -> None:
    from ccakit.show import pictures
    from ccakit.show.style import save

    print("drawing heatmaps.png, spaces.png and ranking.png", flush=True)
    three = pictures.pick_images(demo.split, 3, config.seed)
    save(pictures.heatmaps(demo, three), config.out / "heatmaps.png")
    save(pictures.spaces(demo, seed=config.seed), config.out / "spaces.png")
    save(pictures.rankings(demo, seed=config.seed), config.out / "ranking.png")


def open_demo(preset: str | None = None) -> Run:
    """Open the demo's run on its test split: `runs/demo` if it is there, else a smoke run made on the spot.

    preset: "smoke" or "demo"; by default the environment variable CCAKIT_PRESET. Paths are in the project's
    folder, wherever the caller was started.
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
