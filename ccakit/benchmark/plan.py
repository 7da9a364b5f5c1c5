"""The trials of a benchmark, and how each of them trains."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

from ccakit.benchmark.config import BenchmarkConfig, changes
from ccakit.data.split import Dataset
from ccakit.models.registry import model_info
from ccakit.settings import from_dict, to_dict
from ccakit.training.config import TrainConfig

# The settings that a benchmark passes on to its trials under the same name.
SHARED = {field.name for field in fields(BenchmarkConfig)} & {field.name for field in fields(TrainConfig)} - {
    "json"
}
PAPERS_TRIPLET = ("triplet", "paper")  # the paper's triplet network reads a CNN


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


def plan(config: BenchmarkConfig, dataset: str = "") -> list[Trial]:
    """List all trials: all systems of a seed before the next seed. ValueError for an unknown system."""
    names = config.model_names(dataset)
    for name in names:
        model_info(name)
    parts = product(config.seed_list(), config.modes, config.variants, names)
    return [Trial(mode, variant, name, seed) for seed, mode, variant, name in parts]


def settings_of(config: BenchmarkConfig, trial: Trial, dataset: Dataset) -> TrainConfig:
    """Write the settings of a trial's training."""
    trunk, weights = config.trunk, config.weights
    if model_info(trial.model).system.reads == "map" or (trial.model, config.train_preset) == PAPERS_TRIPLET:
        same_trunk = config.cnn_trunk == config.trunk
        trunk, weights = config.cnn_trunk, config.cnn_weights or (config.weights if same_trunk else None)
    shared = {name: value for name, value in to_dict(config).items() if name in SHARED}
    settings = TrainConfig.presets[config.train_preset] | shared
    settings |= {"trunk": trunk, "weights": weights, "out": config.out / trial.folder}
    settings |= {"seed": trial.seed, "model": trial.model, "mode": trial.mode}
    settings["cache"] = config.freeze != "none" and not settings.get("flip", False)
    third = max(config.batch_size, len(dataset["train"].filenames) // 3)
    settings["triplets_per_epoch"] = config.triplets_per_epoch or third
    varied = changes(trial.variant)
    varied |= {name: varied[name].split(",") for name in ("without", "balance") if name in varied}
    return from_dict(TrainConfig, {**settings, **varied}, where=f"variant {trial.variant!r}")
