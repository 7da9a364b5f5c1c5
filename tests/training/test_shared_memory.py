"""Loader processes where /dev/shm has no room: they do without it, say so, and nothing waits for ever."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ccakit.errors import DataError
from ccakit.training.batches import Loader, pack

BATCHES, ROWS = 5, 8


class Steps(torch.utils.data.Dataset):
    """Batches of 96 KiB, and one small tensor beside each."""

    epoch = 0

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int):
        images = torch.arange(ROWS * 3 * 32 * 32, dtype=torch.float32).view(ROWS, 3, 32, 32) + index
        return images, {"labels": torch.tensor([index, 7])}


def check(loader: Loader) -> None:
    for index in range(BATCHES):
        images, extra = loader.next()
        assert torch.equal(images, Steps()[index][0]) and extra["labels"].tolist() == [index, 7]
        images += 1  # flips and moves write into a batch


@pytest.fixture
def small_shared_memory(monkeypatch):
    """No file of shared memory may be larger than 64 KiB; the worker processes inherit that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_that_do_not_fit_take_a_pipe(small_shared_memory, caplog, workers):
    with pytest.raises(RuntimeError):
        torch.zeros(1 << 16).share_memory_()
    check(Loader(Steps(), 0, workers, timeout=60))
    (said,) = caplog.messages
    assert said.startswith("/dev/shm has no room for batches of 0.0938 MiB, which take a slower way; ")
    assert "--shm-size" in said and "--workers" in said


@pytest.mark.parametrize("workers", [0, 2])
def test_where_there_is_room_nothing_is_said(caplog, workers):
    check(Loader(Steps(), 0, workers, timeout=60))
    assert caplog.messages == []
    assert multiprocessing.active_children() == [], "workers end with their loader"
    shared, extra = pack(Steps()[0])
    assert shared.is_shared() and isinstance(extra["labels"], np.ndarray)


def test_room_that_ends_in_the_midst_changes_no_batch(caplog, monkeypatch):
    """Other programs fill /dev/shm while the loader runs."""
    share = torch.Tensor.share_memory_

    def share_even(self):
        if int(self.flatten()[0]) % 2:
            raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")
        return share(self)

    monkeypatch.setattr(torch.Tensor, "share_memory_", share_even)
    check(Loader(Steps(), 0, 2, timeout=60))
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), FileNotFoundError(2, "No such file")]
)
def test_without_any_shared_memory_the_main_process_loads(caplog, monkeypatch, error):
    """Not even the locks of a queue fit, or there is no /dev/shm."""

    def no_locks(*_, **__):
        raise error

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", no_locks)
    check(Loader(Steps(), 0, 2, timeout=60))
    (said,) = caplog.messages
    assert said.startswith(f"/dev/shm: loader processes cannot be started ({error.strerror}); ")


def test_locks_for_some_workers_alone_start_none(caplog, monkeypatch):
    """torch would start workers until the room ends, and leave those to themselves."""
    made, locks = [], multiprocessing.synchronize.SemLock.__init__

    def few_locks(self, *given, **named):
        made.append(self)
        if len(made) > 12:
            raise OSError(28, "No space left on device")
        locks(self, *given, **named)

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", few_locks)
    check(Loader(Steps(), 0, 8, timeout=60))
    assert len(caplog.messages) == 1 and multiprocessing.active_children() == []


def test_too_few_open_files_are_an_error_that_names_the_batch():
    steps = Steps()
    steps.batches, steps.objective = (
        [np.arange(3)] * BATCHES,
        SimpleNamespace(prepare=lambda rows: (rows, {})),
    )
    names = SimpleNamespace(filenames=["a.png", "b.png", "c.png"])
    steps.inputs = SimpleNamespace(split=names, error=lambda index, text: DataError("list.txt", text, ""))
    with pytest.raises(DataError, match="at batch 0 of epoch 0.*Too many open files"), Loader(steps, 0):
        raise RuntimeError("Too many open files. Communication with the workers is no longer possible.")
