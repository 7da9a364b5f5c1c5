"""Load an epoch's batches, in worker processes if wanted; one that fails names its batch.

Workers pass a batch through shared memory (/dev/shm). Where there is no room for it (containers have 64 MiB
by default), the batch goes through a pipe: slower, and the same. torch would look for the room in a thread
whose errors nobody hears of, and the main process would wait for ever.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ccakit import processes
from ccakit.errors import DataError, first_line

log = logging.getLogger("ccakit")
HOUR = 3600.0  # seconds
NAMED = 5  # images of a batch that are named
LOST = ("DataLoader", "Too many open files")  # in torch's errors where a worker gives nothing more
ROOM = "give it more (docker run --shm-size 2g), or take fewer --workers"


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


def pack(batch: tuple[Tensor, dict[str, Tensor]]) -> tuple:
    """Send a batch from a worker: inputs in shared memory or, without room there, as an array by a pipe."""
    inputs, extra = batch
    arrays = {name: values.numpy() for name, values in extra.items()}
    try:
        return inputs.share_memory_(), arrays
    except (RuntimeError, OSError):
        return inputs.numpy(), arrays


def _check_room(workers: int) -> None:
    """Raise OSError where the locks of so many workers have no room: torch would leave some workers alive."""
    _ = [multiprocessing.Event(), *(multiprocessing.Queue() for _ in range(workers + 1))]


class Loader:
    """Give the batches of `steps` from `first` on, one with each `next()`.

    workers: loader processes; 0 loads in this one. timeout: seconds after which a worker that gives nothing
    is an error; 0: an hour, as nothing waits for ever. Used as a context, it names the batch at which a
    worker died.
    """

    def __init__(self, steps: Steps, first: int, workers: int = 0, timeout: float = 0.0) -> None:
        self.steps, self.at = steps, first
        self._packed = self._warned = False
        batches = range(first, len(steps))
        if workers == 0:
            self._batches = map(steps.__getitem__, batches)
            return
        own = torch.Generator().manual_seed(0)  # the training's random numbers stay as they are
        options = dict(num_workers=workers, generator=own, timeout=timeout or HOUR, collate_fn=pack)
        loader = DataLoader(steps, batch_size=None, sampler=batches, **options)
        try:
            _check_room(workers)
            self._batches, self._packed = iter(loader), True
        except OSError as error:
            problem = "/dev/shm: loader processes cannot be started (%s); this process loads alone; %s"
            log.warning(problem, error.strerror or error, ROOM)
            self._batches = map(steps.__getitem__, batches)

    def next(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Load the next batch: (inputs, extra)."""
        with self:
            batch = next(self._batches)
        self.at += 1
        return self._unpack(batch) if self._packed else batch

    def _unpack(self, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
        """Take out what `pack` sent; warn once an epoch where batches do not fit into shared memory."""
        inputs, extra = batch
        if isinstance(inputs, np.ndarray):
            if not self._warned:
                size = f"{inputs.nbytes / 2**20:.3g} MiB"
                log.warning("/dev/shm has no room for batches of %s, which take a slower way; %s", size, ROOM)
            self._warned, inputs = True, torch.from_numpy(inputs)
        return inputs, {name: torch.from_numpy(values) for name, values in extra.items()}

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind, error, _) -> None:
        cut_off = isinstance(error, (ConnectionError, EOFError))  # it died while it sent a batch
        if cut_off:
            with suppress(RuntimeError):  # torch's, as soon as its signal comes: here, not in other work
                time.sleep(1)
        if error is not None and self._packed:
            with suppress(RuntimeError):  # torch's, for each one more that died
                self._batches._shutdown_workers()  # or they wait as long as the error's traceback holds them
        if cut_off or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)):
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DataError:
        at, steps = min(self.at, len(self.steps) - 1), self.steps
        images, _ = steps.objective.prepare(steps.batches[at])
        names = [steps.inputs.split.filenames[image] for image in images[:NAMED].tolist()]
        what = "gave nothing in time" if "timed out" in str(error) else "died"
        problem = (
            f"a loader process {what} at batch {at} of epoch {steps.epoch}, or soon after: {len(images)} "
            f"images, among them {', '.join(names)} ({first_line(error)})"
        )
        failed = steps.inputs.error(int(images[0]), problem)
        failed.remedy = (
            "Look at these images and at the memory; --workers 0 loads in the main process; --resume goes on."
        )
        return failed
