"""Load an epoch's batches, in worker processes if wanted; one that fails names its batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ccakit import processes
from ccakit.errors import DataError

NAMED = 5  # images of a batch that are named


class Steps(torch.utils.data.Dataset):
    """Load an epoch's batches: `steps[i]` -> (inputs, extra). With a seed, images are flipped at random."""

    def __init__(self, objective, epoch: int, inputs, flip_seed: int | None = None) -> None:
        self.objective, self.inputs = objective, inputs
        self.batches = list(objective.sampler.epoch(epoch))
        self.flip_seed, self.epoch = flip_seed, epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        all_images = self.objective.images(self.batches[index])
        images, extra = self.objective.prepare(self.batches[index])
        inputs = self.inputs.load(images)
        if self.flip_seed is not None:
            rng = np.random.default_rng([self.flip_seed, self.epoch, index])
            flipped = all_images[rng.random(len(all_images)) < 0.5]  # the same images in all processes
            rows = torch.from_numpy(np.isin(images, flipped))
            inputs[rows] = inputs[rows].flip(-1)
        if processes.world_size() > 1:
            extra["images"] = torch.tensor(len(all_images))
        return inputs, extra


class Loader:
    """Give the batches of `steps` from `first` on, one with each `next()`.

    workers: loader processes; 0 loads in this one. timeout: seconds after which a worker that gives nothing
    is an error; 0: never. Used as a context, it names the batch at which a worker died.
    """

    def __init__(self, steps: Steps, first: int, workers: int = 0, timeout: float = 0.0) -> None:
        self.steps, self.at = steps, first
        batches = range(first, len(steps))
        if workers == 0:
            self._batches = map(steps.__getitem__, batches)
            return
        own = torch.Generator().manual_seed(0)  # the training's random numbers stay as they are
        options = dict(num_workers=workers, generator=own, timeout=timeout)
        self._batches = iter(DataLoader(steps, batch_size=None, sampler=batches, **options))

    def next(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Load the next batch: (inputs, extra)."""
        with self:
            batch = next(self._batches)
        self.at += 1
        return batch

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind, error, _) -> None:
        if isinstance(error, RuntimeError) and "DataLoader" in str(error):
            raise self._failed(error) from error

    def _failed(self, error: RuntimeError) -> DataError:
        at, steps = min(self.at, len(self.steps) - 1), self.steps
        images, _ = steps.objective.prepare(steps.batches[at])
        names = [steps.inputs.split.filenames[image] for image in images[:NAMED].tolist()]
        what = "gave nothing in time" if "timed out" in str(error) else "died"
        problem = (
            f"a loader process {what} at batch {at} of epoch {steps.epoch}, or soon after: {len(images)} "
            f"images, among them {', '.join(names)} ({str(error).splitlines()[0]})"
        )
        failed = steps.inputs.error(int(images[0]), problem)
        failed.remedy = (
            "Look at these images and at the memory; --workers 0 loads in the main process; --resume goes on."
        )
        return failed
