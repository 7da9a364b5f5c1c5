"""What systems cost, measured side by side in one process: all K spaces of an image, and a training step."""

from __future__ import annotations

import time
from itertools import islice
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.plan import Trial, settings_of
from ccakit.data.split import Dataset
from ccakit.training.batches import Steps
from ccakit.training.trainer import Trainer

ROUNDS, STEPS, BATCH = 3, 8, 64


class _Measured:
    """A system at the start of its training, its steps and its timings."""

    def __init__(self, config: BenchmarkConfig, run: Trial, dataset: Dataset) -> None:
        self.run = run
        self.trainer = Trainer(settings_of(config, run, dataset), dataset, quiet=True)
        self.trainer.open_training()
        self.model = self.trainer.saved.model
        self.steps = list(islice(Steps(self.trainer.objective, 0, self.trainer.inputs), STEPS))
        images = torch.randn(BATCH, 3, *self.model.image_size, generator=torch.Generator().manual_seed(0))
        self.images = images.to(self.trainer.accelerator.device)
        self.embed_ms, self.images_per_second = [], []

    def mflops(self) -> float:
        """Millions of multiply-adds of the products and convolutions from one image to its K embeddings, times 2."""
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.model.eval()(self.images[:1])
        return counter.get_total_flops() / 1e6

    def embed(self) -> None:
        with torch.inference_mode():
            self.model.eval()
            self.embed_ms.append(1000 * self._seconds(lambda: self.model(self.images)) / BATCH)

    def train(self) -> None:
        self.model.train()
        count = sum(len(inputs) for inputs, _ in self.steps)
        seconds = self._seconds(lambda: [self.trainer.step(*step) for step in self.steps])
        self.images_per_second.append(count / seconds)

    def _seconds(self, work) -> float:
        started = time.perf_counter()
        work()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


def measure_speed(
    config: BenchmarkConfig, runs: list[Trial], dataset: Dataset
) -> dict[tuple[str, str, str], dict]:
    """(mode, variant, model) -> what it costs: medians of rounds in which the systems of a mode take turns.

    embed_mflops, embed_ms: from an image to its K embeddings, in batches of 64; images_per_second: of
    training, inputs in memory (the last stage, for a system with stages).
    """
    groups: dict[tuple[str, str], dict[str, Trial]] = {}
    for run in runs:
        groups.setdefault((run.mode, run.variant), {}).setdefault(run.model, run)
    found = {}
    for (mode, variant), group in groups.items():
        print(f"measuring speed: {mode} {variant}".rstrip(), flush=True)
        for name, speeds in _measure(config, list(group.values()), dataset).items():
            found[mode, variant, name] = speeds
    return found


def _measure(config: BenchmarkConfig, group: list[Trial], dataset: Dataset) -> dict[str, dict]:
    measured = [_Measured(config, run, dataset) for run in group]
    for each in measured:  # the first time counts for nothing
        each.trainer.progress.step = each.trainer.progress.seconds = (
            10**9
        )  # the last stage, by any kind of budget
        each.train(), each.embed()
        each.embed_ms.clear(), each.images_per_second.clear()
    for _ in range(ROUNDS):
        for each in measured:
            each.train(), each.embed()
    return {
        each.run.model: {
            "embed_mflops": round(each.mflops(), 1),
            "embed_ms": round(median(each.embed_ms), 3),
            "images_per_second": round(median(each.images_per_second), 1),
        }
        for each in measured
    }
