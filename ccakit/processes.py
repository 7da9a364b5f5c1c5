"""Training and embedding in several processes, as `torchrun` and `accelerate launch` start them.

Every process draws the same whole batch and loads its own part. `gather` and `total` join the parts with gradients:
each process then has the whole batch's loss, its backward adds up what the processes send, which is N times the
gradient, and DistributedDataParallel's mean over N processes makes it the single process's. In one process all of
these do nothing.
"""

from __future__ import annotations

import atexit
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(
    hours=2
)  # the main process may compute kept features for long; a dead process is seen at once

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "NCCL error")


class OtherProcessError(ValueError):
    """What ended another process of the run, told in this one."""


def launched() -> bool:
    """Whether a launcher started other processes with this one."""
    return dist.is_available() and int(os.environ.get("WORLD_SIZE", 1)) > 1


def start(backend: str = "gloo") -> None:
    """Join the processes that a launcher started with this one, unless that is done."""
    if launched() and not dist.is_initialized():
        store, process, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
        restarts = os.environ.get(
            "TORCHELASTIC_RESTART_COUNT", "0"
        )  # addresses of dead processes are in the store
        store = dist.PrefixStore(f"restart-{restarts}", store)
        dist.init_process_group(backend, store=store, rank=process, world_size=count, timeout=TIMEOUT)


@atexit.register
def leave_group() -> None:
    """Leave the other processes. A process whose groups still have threads when it ends is aborted now and then."""
    _cpu_group.cache_clear()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0, the main one."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


@cache
def _cpu_group():
    """A group of its own for what lies on the CPU, so that it never mixes with the mean of the gradients."""
    return dist.new_group(backend="gloo", timeout=TIMEOUT)


def _group(x: Tensor):
    return None if x.is_cuda else _cpu_group()


def shard(rows: np.ndarray) -> np.ndarray:
    """This process's part of the rows of a whole batch: a contiguous one, sizes differ by 1 at most."""
    return np.array_split(rows, world_size())[rank()]


def all_max(values: list[float]) -> list[float]:
    """The largest of each value over all processes."""
    if world_size() == 1:
        return values
    joined = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(joined, dist.ReduceOp.MAX, group=_cpu_group())
    return joined.tolist()


def gather_objects(value: object) -> list:
    """The value of each process, in their order."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value, group=_cpu_group())
    return values


def gather_dicts(values: dict) -> dict:
    """The entries of all processes' dictionaries."""
    if world_size() == 1:
        return values
    return {key: value for of in gather_objects(values) for key, value in sorted(of.items())}


@contextmanager
def local_main_first() -> Iterator[None]:
    """Let one process of each machine do the work inside before the others begin it."""
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if not first:
        gather_objects(None)
    yield
    if first:
        gather_objects(None)


def run_on_main(work: Callable[[], object]) -> object:
    """What `work` returns in the main process, in all; its error, if it raises one, is raised in all."""
    if world_size() == 1:
        return work()
    told, error = [None, None], None
    if is_main():
        try:
            told = [work(), None]
        except Exception as raised:
            error, told = raised, [None, str(raised)]
    dist.broadcast_object_list(told, 0, group=_cpu_group())
    if told[1] is not None:
        raise error or OtherProcessError(told[1])
    return told[0]


@contextmanager
def together() -> Iterator[None]:
    """OtherProcessError in the place of what the network says where another process ends during the work inside."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not any(sign in str(error) for sign in LOST):
            raise
        raise OtherProcessError(
            f"process {rank()}: another process has ended; its reason is its own"
        ) from error


@contextmanager
def raise_in_all() -> Iterator[None]:
    """Where work inside, which must not wait for other processes, fails in one process, all end with its reason."""
    error = None
    try:
        yield
    except Exception as raised:
        if world_size() == 1:
            raise
        error = raised
    if not all_max([error is not None])[0]:
        return
    told = gather_objects(None if error is None else (str(error), isinstance(error, NotImplementedError)))
    told = [(f"process {i}: {each[0]}", each[1]) for i, each in enumerate(told) if each is not None]
    if told:
        raise error or (NotImplementedError if told[0][1] else OtherProcessError)(told[0][0])


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, in their order: (n, ...) of each, n may differ -> (sum of n, ...), with gradients."""
    return x if world_size() == 1 else _Gather.apply(x)


def gather_sides(x: Tensor, sides: int) -> Tensor:
    """`gather` where each process holds so many sides, one after the other: all of the first side come first."""
    return x if world_size() == 1 else torch.cat([gather(side) for side in x.chunk(sides)])


def all_sum(x: Tensor) -> Tensor:
    """The sum over processes, with gradients."""
    return x if world_size() == 1 else _Total.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.counts = [int(count) for count in gather_objects(len(x))]
        padded = x.new_zeros(max(ctx.counts), *x.shape[1:])
        padded[: len(x)] = x.detach()
        parts = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(parts, padded, group=_group(x))
        return torch.cat([part[:count] for part, count in zip(parts, ctx.counts)])

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad, first = grad.contiguous().clone(), sum(ctx.counts[: rank()])
        dist.all_reduce(grad, group=_group(grad))
        return grad[first : first + ctx.counts[rank()]]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.detach().contiguous().clone()
        dist.all_reduce(x, group=_group(x))
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=_group(grad))
        return grad


def sum_arrays(x: np.ndarray) -> np.ndarray:
    """The sum of the processes' arrays; each holds its own rows and 0 elsewhere."""
    if world_size() == 1:
        return x
    joined = torch.from_numpy(x).clone()
    dist.all_reduce(joined, group=_cpu_group())
    return joined.numpy()


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """From now on, what a step frees is kept for the next one, up to 2 GiB; returns whether it is so.

    By default glibc gives tensors of some MiB back to the system, which clears their pages anew each time. Training
    and features ask for this when they begin; importing ccakit changes nothing. Measured on 2 cores: a training step
    of the whole of `lite` on 192 pictures 2.9 s in the place of 7.9 s, for 2.6 GiB more of memory. Nothing is done
    where a MALLOC_ variable or GLIBC_TUNABLES is set by hand, nor on systems without glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
    except (OSError, AttributeError):  # another system, or another C library
        return False
