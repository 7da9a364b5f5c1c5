"""Benchmarks of two small systems on few garments, and what they train: for the tests of the benchmark."""

from __future__ import annotations

from ccakit.benchmark import runs as module
from ccakit.benchmark.config import BenchmarkConfig

MODELS, SEEDS, MODES = ("csn", "triplet"), (0, 1), ("spaces", "triplets")
SMALL = "lite_width=32 lite_heads=2"


def config(garments, out, **options):
    return BenchmarkConfig(
        **{
            **dict(
                data=garments,
                out=out,
                models=",".join(MODELS),
                seeds="0,1",
                budget="epochs=1",
                image_size=64,
                batch_size=16,
                speed=False,
                lr=3e-3,
            ),
            **options,
        }
    )


def watch_training(monkeypatch) -> list[tuple]:
    """Which (mode, model, seed) are trained from now on, in order."""
    calls, real = [], module.train

    def train(settings, dataset=None, quiet=False):
        calls.append((settings.mode, settings.model, settings.seed))
        return real(settings, dataset, quiet=quiet)

    monkeypatch.setattr(module, "train", train)
    return calls


def status_of(row: dict) -> str:
    """What a run that neither failed nor collapsed is called: an epoch of 64 garments may teach nothing."""
    learnt = row["map_weighted"] >= row["random_map_weighted"] + 1
    return "ok" if learnt else "at chance"
