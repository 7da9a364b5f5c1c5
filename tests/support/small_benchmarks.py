"""Benchmarks of two small systems on few garments, and what they train: for the tests of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ccakit.benchmark import runs as module
from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.results import TRAINED
from ccakit.models.saved import load_model

MODELS, SEEDS, MODES = ("csn", "triplet"), (0, 1), ("spaces", "triplets")
SMALL = "lite_width=32 lite_heads=2"


def config(garments, out, **options):
    small = dict(image_size=64, batch_size=16, lr=3e-3, budget="epochs=1", speed=False)
    return BenchmarkConfig(
        data=garments, out=out, **{"models": ",".join(MODELS), "seeds": "0,1", **small, **options}
    )


def watch_training(monkeypatch, train: Callable | None = None) -> list[tuple]:
    """Note which (mode, model, seed) are trained from now on, in order; by `train`, if that is given."""
    calls, train = [], train or module.train

    def watched(settings, dataset=None, quiet=False):
        calls.append((settings.mode, settings.model, settings.seed))
        return train(settings, dataset, quiet=quiet)

    monkeypatch.setattr(module, "train", watched)
    return calls


def trained_before(finished: Path, changed: Callable[[str], dict] | None = None) -> Callable:
    """A `train` that takes model and facts from a finished benchmark, for tests of what is made of them.

    changed: the facts that differ, by the model's name; it may raise what training would raise.
    """

    def train(settings, dataset=None, quiet=False):
        folder = finished / settings.mode / "default" / f"{settings.model}-{settings.seed}"
        row = json.loads((folder / "result.json").read_text())
        settings.out.mkdir(parents=True, exist_ok=True)
        facts = {**{name: row[name] for name in TRAINED}, "unreadable": 0, "collapsed": False}
        return load_model(folder), {**facts, **(changed(settings.model) if changed else {})}

    return train


def status_of(row: dict) -> str:
    """The status of a run that neither failed nor collapsed: an epoch of 64 garments may teach nothing."""
    learnt = row["map_weighted"] >= row["random_map_weighted"] + 1
    return "ok" if learnt else "at chance"
