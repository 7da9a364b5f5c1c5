"""The runs of a benchmark, and how each of them trains."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ccakit.benchmark.config import BenchmarkConfig
from ccakit.data.split import Dataset
from ccakit.models.registry import model_info
from ccakit.settings import from_dict, to_dict
from ccakit.training.config import TrainConfig


@dataclass(frozen=True)
class Trial:
    """One training of the benchmark."""

    mode: str
    variant: str
    model: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies in the benchmark's folder."""
        return Path(self.mode) / (self.variant.replace(" ", ",") or "default") / f"{self.model}-{self.seed}"


def plan(config: BenchmarkConfig) -> list[Trial]:
    """All runs, a seed of all systems before the next seed. ValueError for an unknown system."""
    names = config.model_names()
    for name in names:
        model_info(name)
    runs = product(config.seed_list(), config.modes, config.variants, names)
    return [Trial(mode, variant, name, seed) for seed, mode, variant, name in runs]


def settings_of(config: BenchmarkConfig, run: Trial, dataset: Dataset) -> TrainConfig:
    """How a run trains. An epoch shows as many images in mode triplets as in mode spaces."""
    images = len(dataset["train"].filenames)
    trunk, weights = config.trunk, config.weights
    if model_info(run.model).reads == "map":
        weights = config.cnn_weights or (weights if config.cnn_trunk == trunk else None)
        trunk = config.cnn_trunk
    base = TrainConfig(
        data=config.data,
        out=config.out / run.folder,
        seed=run.seed,
        model=run.model,
        trunk=trunk,
        mode=run.mode,
        budget=config.budget,
        freeze=config.freeze,
        pretrained=config.pretrained,
        weights=weights,
        image_size=config.image_size,
        cache=config.freeze != "none",
        batch_size=config.batch_size,
        lr=config.lr,
        triplets_per_epoch=max(config.batch_size, images // 3),
        evaluate_every=config.evaluate_every,
        mixed_precision=config.mixed_precision,
        workers=config.workers,
        max_unreadable=config.max_unreadable,
        skip_unreadable=config.skip_unreadable,
    )
    varied = dict(word.split("=", 1) for word in run.variant.split())
    varied |= {name: varied[name].split(",") for name in ("without", "balance") if name in varied}
    return from_dict(TrainConfig, {**to_dict(base), **varied}, where=f"variant {run.variant!r}")
