"""Check a training before it begins: a few steps, what they need, and which images cannot be read.

Everything is as in training, and nothing is left behind: what a frozen trunk gives is computed for the images
of these steps alone, in a temporary folder.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ccakit import processes
from ccakit.data.inputs import FeatureInputs, ImageInputs, find_unreadable, keep_features
from ccakit.data.split import Dataset, Split
from ccakit.evaluation.embedding import embed_images, readable
from ccakit.text_table import text_table
from ccakit.training.batches import Steps
from ccakit.training.config import TrainConfig
from ccakit.training.memory import machine_memory, process_memory
from ccakit.training.setup import unreadable_share
from ccakit.training.trainer import Trainer

WARM_UP, STEPS = 2, 5
VALIDATED = 64  # images of a process, in a batch
END = 10**9  # steps or seconds: the last stage of any budget, which needs most
NAMED = 5  # unreadable images that are printed
GIB = 2**30


class SomeFeatures:
    """Hold the kept features of some of a split's images, by their index in the split."""

    cached = True

    def __init__(self, images: np.ndarray, features: FeatureInputs, inputs: ImageInputs) -> None:
        self.images, self.features, self.unreadable = images, features, inputs.unreadable

    def load(self, indices: np.ndarray) -> Tensor:
        return self.features.load(np.searchsorted(self.images, indices))


class CheckTrainer(Trainer):
    """Train a few steps with the inputs of their images alone; `folder` is removed afterwards."""

    def __init__(self, config: TrainConfig, dataset: Dataset | None, folder: Path) -> None:
        super().__init__(config, dataset)
        folders = processes.gather_objects(folder)
        # that of this machine's first process; the ranks of a machine follow each other
        self.folder = folders[processes.rank() - processes.variable("LOCAL_RANK")]
        self.look_seconds, self.feature_seconds = 0.0, 0.0  # for all images; for one

    def open_inputs(self, split: Split) -> ImageInputs:
        """Find the images of a split that cannot be read, however many they are."""
        inputs = ImageInputs(split, self.saved.transform, max_unreadable=1.0)
        seconds = self._timed(lambda: find_unreadable(inputs, self.folder))[1]
        if unreadable_share(self.config, split.name):  # training looks, too
            self.look_seconds += processes.all_max([seconds])[0]
        return inputs

    def open_training(self) -> None:
        super().open_training()
        self.images_of = {"train": self.inputs, "valid": self.valid_inputs}
        self.steps = Steps(self.objective, 0, self.inputs, self.config.seed if self.config.flip else None)
        self.warm_up = max(WARM_UP, self.config.accumulate)  # the optimizer has taken a step
        self.steps.batches = list(islice(_repeat(self.steps.batches), self.warm_up + STEPS))
        drawn = np.concatenate([self.objective.images(batch) for batch in self.steps.batches])
        self.steps.inputs = self.inputs = self._part(self.inputs, drawn)
        self.validated = np.unique(np.concatenate(readable(self.valid_inputs).sides())[:, 0])
        self.shown = self.validated[: VALIDATED * processes.world_size()]
        self.valid_inputs = self._part(self.valid_inputs, self.shown)

    def _part(self, inputs: ImageInputs, images: np.ndarray) -> ImageInputs | SomeFeatures:
        """Compute the features of some images, where training keeps them."""
        model, split = self.saved.model, inputs.split
        if not (self.config.cache and model.keeps_features):
            return inputs
        images = np.unique(images)
        names = [split.filenames[image] for image in images]
        some = ImageInputs(replace(split, filenames=names), inputs.transform)
        with processes.local_main_first():
            features, seconds = self._timed(lambda: keep_features(model, some, self.folder, progress=False))
        self.feature_seconds = processes.all_max([seconds / len(images), self.feature_seconds])[0]
        return SomeFeatures(images, features, inputs)

    def run_steps(self) -> dict:
        """Take the steps; returns their median seconds, those of loading, and the images of a batch."""
        self.progress.step = self.progress.seconds = END
        self.model.train()
        loading, training, counts = [], [], []
        for number in range(len(self.steps)):
            before = self.progress.images
            with processes.raise_in_all():
                batch, seconds = self._timed(lambda number=number: self.steps[number])
            loading.append(seconds)
            own = len(batch[0])
            training.append(self._timed(lambda batch=batch: self.step(*batch))[1])
            counts.append(self.progress.images - before)
        slowest = processes.all_max([median(loading[self.warm_up :]), median(training[self.warm_up :])])
        return {"load_seconds": slowest[0], "step_seconds": slowest[1], "images": median(counts), "own": own}

    def validation_seconds(self) -> float:
        """Measure how long validation takes, by a batch of each process."""
        model = self.saved.model

        def embed() -> None:
            embed_images(model, self.valid_inputs, self.shown, batch_size=VALIDATED)

        self._timed(embed)
        seconds = processes.all_max([self._timed(embed)[1]])[0]
        return seconds * len(self.validated) / len(self.shown)

    def _timed(self, work: Callable[[], object]) -> tuple[object, float]:
        started = time.perf_counter()
        result = work()
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return result, time.perf_counter() - started


def _repeat(batches: list):
    """Go through the batches again and again: a small data set has few."""
    while True:
        yield from batches


def check(config: TrainConfig, dataset: Dataset | None = None) -> dict:
    """Take a few steps of a training, and compute what all of it needs; nothing is left behind.

    "processes": of each process its device, its part of a batch, and its peak memory in GiB. "hours": of the
    look for unreadable images, features, steps, validation, and all. "unreadable": the images of each split
    that cannot be read. "refused": the error with which training ends, if they are too many. All processes of
    a launcher call this.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = CheckTrainer(config, dataset, Path(folder))
        with processes.together():
            trainer.open_training()
            found = trainer.run_steps()
            found["validation_seconds"] = trainer.validation_seconds()
            each = processes.gather_objects(_process(trainer, found.pop("own")))
    return {
        "model": config.model,
        "trunk": config.trunk,
        "mode": config.mode,
        "dataset": trainer.dataset.name,
        "processes": each,
        **_duration(trainer, found),
        "unreadable": {name: inputs.report() for name, inputs in trainer.images_of.items()},
        "looked_at": {name: len(inputs) for name, inputs in trainer.images_of.items()},
        "refused": _refusal(trainer),
    }


def _process(trainer: CheckTrainer, images: int) -> dict:
    """Describe a process: its device, what it holds of a batch, and its peak memory."""
    device, batch = trainer.accelerator.device, {"images": images}
    if trainer.config.mode == "triplets":
        batch = {"triplets": len(processes.shard(np.arange(trainer.config.batch_size))), **batch}
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        name, peak, all_of_it = facts.name, torch.cuda.max_memory_reserved(device), facts.total_memory
    else:
        name, peak, all_of_it = device.type, process_memory("VmHWM"), machine_memory()
    return {"device": name, "batch": batch, "peak_gib": peak / GIB, "of_gib": all_of_it / GIB}


def _duration(trainer: CheckTrainer, found: dict) -> dict:
    """Compute how long all of the training takes, from the seconds of a step."""
    config, budget, epoch = trainer.config, trainer.budget, len(trainer.objective.sampler)
    reading, training = found["load_seconds"] / _readers(config.workers), found["step_seconds"]
    step = max(reading, training) if config.workers else reading + training
    batches = {"epochs": budget.amount * epoch, "steps": budget.amount, "seconds": budget.amount / step}
    epochs = batches[budget.kind] / epoch
    kept = sum(len(inputs) for inputs in trainer.images_of.values())
    seconds = {
        "look": trainer.look_seconds,
        "features": trainer.feature_seconds * kept,
        "steps": step * batches[budget.kind],
        "validation": found["validation_seconds"] * max(1, round(epochs / config.evaluate_every)),
    }
    seconds["all"] = sum(seconds.values())
    rates = {"steps": training, "reading": reading, "both": step}
    return {
        "images_per_second": {name: found["images"] / max(each, 1e-9) for name, each in rates.items()},
        "workers": config.workers,
        "epochs": epochs,
        "batches": batches[budget.kind],
        "hours": {name: each / 3600 for name, each in seconds.items()},
    }


def _readers(workers: int) -> float:
    """Estimate how many times as fast so many loader processes read, by the cores that are left for them.

    One process reads in up to four threads, and was timed while all processes of the machine did so.
    """
    cores = os.cpu_count() or 1
    busy = min(4, cores) * processes.variable("LOCAL_WORLD_SIZE", 1)
    return max(1.0, min(workers, cores / busy))


def _refusal(trainer: CheckTrainer) -> str:
    """Say with which error training would end over its unreadable images; "" if it would not."""
    for name, inputs in trainer.images_of.items():
        inputs.max_unreadable = unreadable_share(trainer.config, name)
        try:
            inputs.check()
        except ValueError as error:
            return str(error)
    return ""


def table(facts: dict) -> str:
    """Write what `check` found for a terminal."""
    rows = [["process", "device", "batch", "peak memory"]]
    for number, each in enumerate(facts["processes"]):
        batch = ", ".join(f"{count} {what}" for what, count in each["batch"].items())
        memory = f"{each['peak_gib']:.1f} of {each['of_gib']:.1f} GiB"
        rows.append([str(number), each["device"], batch, memory])
    rate, hours = facts["images_per_second"], facts["hours"]
    by = f" by {facts['workers']} loader processes (estimated)" if facts["workers"] else ""
    parts = [f"{name} {hours[name]:.2f}" for name in hours if name != "all" and hours[name]]
    lines = [
        f"{facts['model']} on {facts['trunk']}, mode {facts['mode']}, {facts['dataset']}",
        text_table(rows, left=(0, 1, 2)),
        f"images/s: {rate['both']:,.1f} (steps {rate['steps']:,.1f}, reading {rate['reading']:,.1f}{by})",
        f"to the end: {facts['epochs']:,.1f} epochs, {facts['batches']:,.0f} batches, "
        f"{hours['all']:.2f} hours ({', '.join(parts)})",
        *(_unreadable(facts, name) for name in facts["unreadable"]),
    ]
    return "\n".join(lines)


def _unreadable(facts: dict, name: str) -> str:
    images, count = facts["unreadable"][name], facts["looked_at"][name]
    named = [f"{each['file']} (line {each['line']}: {each['reason']})" for each in images[:NAMED]]
    more = [f"{len(images) - NAMED} more"] if len(images) > NAMED else []
    which = f": {', '.join(named + more)}" if named else ""
    return f"unreadable: {len(images)} of {count:,} images of {name}{which}"
