"""An epoch's batches from where it stands, by worker processes if wanted; one that fails names its batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ccakit import processes
from ccakit.errors import DataError
from ccakit.training.objectives import REDRAW

NAMED = 5  # images of a batch that are named


class Steps(torch.utils.data.Dataset):
    """An epoch's batches, loaded: `steps[i]` -> (inputs, extra). With a seed, images are flipped at random.

    Images that cannot be read are replaced by other draws, which depend on the seed, the epoch and the batch alone;
    `extra["unreadable"]` then says which they were, and why. Where too few images are left, `inputs` is empty.
    """

    def __init__(self, objective, epoch: int, inputs, flip_seed: int | None = None, seed: int = 0) -> None:
        self.objective, self.inputs, self.seed = objective, inputs, seed
        self.batches = list(objective.sampler.epoch(epoch))
        self.flip_seed, self.epoch = flip_seed, epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        images, extra = self.objective.prepare(self.batches[index])
        inputs = self.inputs.load(images)
        if unreadable := self._unreadable(images):
            if processes.world_size() > 1:  # the others have to know
                return inputs, {**extra, "unreadable": unreadable}
            return self.replaced(index, unreadable, dict(zip(images.tolist(), inputs)))
        return self._flipped(index, self.batches[index], images, inputs), self._counted(
            self.batches[index], extra
        )

    def _counted(self, batch, extra: dict) -> dict:
        if processes.world_size() > 1:
            extra["images"] = torch.tensor(len(self.objective.images(batch)))
        return extra

    def _flipped(self, index: int, batch, images: np.ndarray, inputs: Tensor) -> Tensor:
        """The images of a batch, some of them flipped: those that are in one process, whatever part it has."""
        if self.flip_seed is not None:
            whole = self.objective.images(batch)
            flip = np.random.default_rng([self.flip_seed, self.epoch, index]).random(len(whole)) < 0.5
            flip = dict(zip(whole.tolist(), flip.tolist()))
            flip = torch.tensor([flip[image] for image in images.tolist()], dtype=torch.bool)
            inputs[flip] = inputs[flip].flip(-1)
        return inputs

    def _unreadable(self, images: np.ndarray) -> dict[int, str]:
        """Those of the images that cannot be read, and why."""
        known = self.inputs.unreadable
        return {i: known[i] for i in images.tolist() if i in known} if known else {}

    def replaced(self, index: int, unreadable: dict[int, str], loaded: dict[int, Tensor] | None = None):
        """The batch without its unreadable images, and what `steps[index]` gives beside it.

        unreadable: those of the whole batch; all processes call this together. loaded: what has been loaded of it.
        """
        rng = np.random.default_rng([self.seed, self.epoch, index, REDRAW])
        batch, found, loaded = self.batches[index], dict(unreadable), loaded or {}
        self.inputs.unreadable.update(found)
        while unreadable and not self.inputs.too_many():
            batch = self.objective.redraw(batch, set(found), rng)
            images, extra = self.objective.prepare(batch)
            new = np.array([i for i in images.tolist() if i not in loaded], np.int64)
            loaded.update(zip(new.tolist(), self.inputs.load(new) if len(new) else ()))
            unreadable = processes.gather_dicts(self._unreadable(images))
            self.inputs.unreadable.update(unreadable)
            found |= unreadable
        if unreadable or len(self.objective.images(batch)) < 2:  # too many to go on, or next to nothing left
            return torch.empty(0), {"unreadable": found}
        inputs = torch.stack([loaded[i] for i in images.tolist()])
        extra = self._counted(batch, {**extra, "unreadable": found})
        return self._flipped(index, batch, images, inputs), extra


class Loader:
    """The batches of `steps` from `first` on: `next()` gives one after the other.

    workers: loader processes; 0 loads in this one. timeout: seconds after which a worker that gives nothing is an
    error; 0: never. As a context, it says of a worker that dies at which batch that was.
    """

    def __init__(self, steps: Steps, first: int, workers: int = 0, timeout: float = 0.0) -> None:
        self.steps, self.at = steps, first
        batches = range(first, len(steps))
        if workers == 0:
            self._batches = map(steps.__getitem__, batches)
            return
        own = torch.Generator().manual_seed(0)  # leaves the training's random numbers alone
        loader = DataLoader(
            steps, batch_size=None, sampler=batches, num_workers=workers, generator=own, timeout=timeout
        )
        self._batches = iter(loader)

    def next(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The next batch: (inputs, extra)."""
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
        told = f"a loader process {'gave nothing in time' if 'timed out' in str(error) else 'died'}"
        problem = (
            f"{told} at batch {at} of epoch {steps.epoch}, or soon after: {len(images)} images, of them "
            f"{', '.join(names)} ({str(error).splitlines()[0]})"
        )
        remedy = (
            "Look at these images and at the memory; --workers 0 loads in the main process; --resume goes on."
        )
        return DataError(steps.inputs._list, problem, remedy, line=int(images[0]) + 1)
