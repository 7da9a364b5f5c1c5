"""The trials of a benchmark, and how each of them trains."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

from ccakit.benchmark.config import BenchmarkConfig
from ccakit.data.split import Dataset
from ccakit.models.registry import model_info
from ccakit.settings import from_dict, to_dict
from ccakit.training.config import TrainConfig

# The settings that a benchmark passes on to its trials under the same name.
SHARED = {field.name for field in fields(BenchmarkConfig)} & {field.name for field in fields(TrainConfig)} - {
    "json"
}


@dataclass(frozen=True)
class Trial:
    """One training of the benchmark: `variant` names the settings that differ from the benchmark's."""

    mode: str
    variant: str
    model: str
    seed: int

    @property
    def folder(self) -> Path:
        """The trial's folder in that of the benchmark."""
        return Path(self.mode) / (self.variant.replace(" ", ",") or "default") / f"{self.model}-{self.seed}"


def plan(config: BenchmarkConfig) -> list[Trial]:
    """List all trials: all systems of a seed before the next seed. ValueError for an unknown system."""
    names = config.model_names()
    for name in names:
        model_info(name)
    parts = product(config.seed_list(), config.modes, config.variants, names)
    return [Trial(mode, variant, name, seed) for seed, mode, variant, name in parts]


def settings_of(config: BenchmarkConfig, trial: Trial, dataset: Dataset) -> TrainConfig:
    """Write the settings of a trial's training. An epoch has as many images in both modes."""
    trunk, weights = config.trunk, config.weights
    if model_info(trial.model).system.reads == "map":
        same_trunk = config.cnn_trunk == config.trunk
        trunk, weights = config.cnn_trunk, config.cnn_weights or (config.weights if same_trunk else None)
    settings = {name: value for name, value in to_dict(config).items() if name in SHARED}
    settings |= {"trunk": trunk, "weights": weights, "out": config.out / trial.folder}
    settings |= {"seed": trial.seed, "model": trial.model, "mode": trial.mode}
    settings["cache"] = config.freeze != "none"
    settings["triplets_per_epoch"] = max(config.batch_size, len(dataset["train"].filenames) // 3)
    varied = dict(word.split("=", 1) for word in trial.variant.split())
    varied |= {name: varied[name].split(",") for name in ("without", "balance") if name in varied}
    return from_dict(TrainConfig, {**settings, **varied}, where=f"variant {trial.variant!r}")
