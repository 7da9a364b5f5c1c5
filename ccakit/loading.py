"""An epoch's batches from where it stands, by worker processes if wanted; one that fails names its batch."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from ccakit.data.errors import DataError
from ccakit.objectives import Steps

NAMED = 5  # images of a batch that are named


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
        )  # fmt: skip
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
        problem = (f"{told} at batch {at} of epoch {steps.epoch}, or soon after: {len(images)} images, of them "
                   f"{', '.join(names)} ({str(error).splitlines()[0]})")  # fmt: skip
        remedy = "Look at these images and at the memory; --workers 0 loads in the main process; --resume goes on."
        return DataError(steps.inputs._list, problem, remedy, line=int(images[0]) + 1)
