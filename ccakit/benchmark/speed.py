"""The costs of systems, measured side by side in one process: all K spaces of an image, and training."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby, islice
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.plan import Trial, settings_of
from ccakit.data.split import Dataset
from ccakit.training.batches import Steps
from ccakit.training.trainer import Trainer

ROUNDS, STEPS, BATCH = 3, 8, 64


def measure_speed(config: BenchmarkConfig, trials: list[Trial], dataset: Dataset) -> dict[tuple, dict]:
    """Measure the costs by (mode, variant, model): medians of rounds in which the systems take turns.

    embed_mflops, embed_ms: from an image to its K embeddings, in batches of 64. images_per_second: of
    training, with the inputs in memory (the last stage, for a system with stages). The seeds of a system are
    measured once.
    """
    systems, found = {(trial.mode, trial.variant, trial.model): trial for trial in trials}, {}
    for protocol, block in groupby(sorted(systems), lambda system: system[:2]):
        print("measuring speed:", *filter(None, protocol), flush=True)
        stopwatches = {system: _Stopwatch(config, systems[system], dataset) for system in block}
        for round_ in range(1 + ROUNDS):
            for stopwatch in stopwatches.values():
                stopwatch.measure(keep=round_ > 0)  # the first round warms up
        found |= {system: stopwatch.medians() for system, stopwatch in stopwatches.items()}
    return found


class _Stopwatch:
    """A system at the start of its training, its batches and its timings."""

    def __init__(self, config: BenchmarkConfig, trial: Trial, dataset: Dataset) -> None:
        self.trainer = Trainer(settings_of(config, trial, dataset), dataset, quiet=True)
        self.trainer.open_training()
        self.model = self.trainer.saved.model
        self.steps = list(islice(Steps(self.trainer.objective, 0, self.trainer.inputs), STEPS))
        # the last stage, by any kind of budget
        self.trainer.progress.step = self.trainer.progress.seconds = 10**9
        size, generator = self.model.trunk.image_size, torch.Generator().manual_seed(0)
        images = torch.randn(BATCH, 3, *size, generator=generator)
        self.images = images.to(self.trainer.accelerator.device)
        self.embed_ms, self.images_per_second = [], []

    def measure(self, keep: bool) -> None:
        """Train some steps and embed a batch; keep the timings if wanted."""
        self.model.train()
        before = self.trainer.progress.images
        seconds = self._seconds(lambda: [self.trainer.step(*step) for step in self.steps])
        speed = (self.trainer.progress.images - before) / seconds
        self.model.eval()
        with torch.inference_mode():
            seconds = self._seconds(lambda: self.model(self.images))
        if keep:
            self.images_per_second.append(speed)
            self.embed_ms.append(1000 * seconds / BATCH)

    def _seconds(self, work: Callable) -> float:
        started = time.perf_counter()
        work()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def medians(self) -> dict:
        return {
            "embed_mflops": round(self._mflops(), 1),
            "embed_ms": round(median(self.embed_ms), 3),
            "images_per_second": round(median(self.images_per_second), 1),
        }

    def _mflops(self) -> float:
        """Count what an image costs: twice the multiply-adds of products and convolutions, in millions."""
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.model.eval()(self.images[:1])
        return counter.get_total_flops() / 1e6
