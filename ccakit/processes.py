"""Training and embedding in several processes, as `torchrun` and `accelerate launch` start them.

Every process draws the same batch and loads its own part of it. `gather` and `all_sum` join the parts with
gradients, so that each process has the loss of the whole batch. The backward pass adds up the gradients of N
processes, which is N times the gradient; DistributedDataParallel's mean over N processes makes it that of a
single process. In one process these functions do nothing.
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

TIMEOUT = timedelta(hours=2)  # to compute kept features takes long; a dead process is noticed at once
LAUNCHER = ("RANK", "MASTER_ADDR", "MASTER_PORT")
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "NCCL error")


class OtherProcessError(ValueError):
    """The error that ended another process of the run."""


def variable(name: str, default: int = 0) -> int:
    """Read a whole number that a launcher sets; ValueError names the variable."""
    value = os.environ.get(name) or default
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"the environment's {name}={value} is not a whole number; unset it") from None


def launched() -> bool:
    """Whether a launcher started other processes with this one."""
    return dist.is_available() and variable("WORLD_SIZE", 1) > 1


def start(backend: str = "gloo") -> None:
    """Join the processes that a launcher started with this one, unless this is done already."""
    if launched() and not dist.is_initialized():
        if missing := [name for name in LAUNCHER if name not in os.environ]:
            asked = f"WORLD_SIZE={os.environ['WORLD_SIZE']} asks for other processes"
            problem = f"{asked}, without {', '.join(missing)}"
            raise ValueError(f"{problem}; start them with torchrun, or unset it")
        store, process, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        # under a prefix of its own, as the store still has the addresses of dead processes
        store = dist.PrefixStore(f"restart-{restarts}", store)
        dist.init_process_group(backend, store=store, rank=process, world_size=count, timeout=TIMEOUT)


@atexit.register
def leave_group() -> None:
    """Leave the other processes. A process that ends while its groups have threads is sometimes aborted."""
    _cpu_group.cache_clear()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Count the processes that work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number this process, from 0, the main one."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


@cache
def _cpu_group():
    """Make a group for tensors on the CPU, so that they never mix with the mean of the gradients."""
    return dist.new_group(backend="gloo", timeout=TIMEOUT)


def shard(rows: np.ndarray) -> np.ndarray:
    """Take this process's part of a batch's rows: they are contiguous, and sizes differ by 1 at most."""
    return np.array_split(rows, world_size())[rank()]


def all_max(values: list[float]) -> list[float]:
    """Take the largest of each value over all processes."""
    if world_size() == 1:
        return values
    joined = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(joined, dist.ReduceOp.MAX, group=_cpu_group())
    return joined.tolist()


def gather_objects(value: object) -> list:
    """Give the value of each process, in order of rank."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value, group=_cpu_group())
    return values


def gather_dicts(values: dict) -> dict:
    """Join the entries of all processes' dictionaries."""
    return {key: value for each in gather_objects(values) for key, value in each.items()}


@contextmanager
def local_main_first() -> Iterator[None]:
    """Let one process of each machine do the work inside before the others begin it."""
    first = variable("LOCAL_RANK") == 0
    if not first:
        gather_objects(None)
    yield
    if first:
        gather_objects(None)


@contextmanager
def together() -> Iterator[None]:
    """Raise OtherProcessError, not the network's error, where another process ends during the work inside."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not any(sign in str(error) for sign in LOST):
            raise
        message = f"process {rank()}: another process has ended; its reason is its own"
        raise OtherProcessError(message) from error


@contextmanager
def raise_in_all() -> Iterator[None]:
    """Raise an error of one process in all. The work inside must not wait for other processes."""
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    if not all_max([error is not None])[0]:
        return
    for number, raised in enumerate(gather_objects(error and (str(error), type(error).__name__))):
        if raised and error is None:
            kind = NotImplementedError if raised[1] == "NotImplementedError" else OtherProcessError
            raise kind(f"process {number}: {raised[0]}")
    raise error


def run_on_main(work: Callable[[], object]) -> object:
    """Do the work in the main process; return its result, or raise its error, in all.

    Joins the others first: a process that has not would take itself for the main one.
    """
    start()
    result = [None]
    with raise_in_all():
        if is_main():
            result[0] = work()
    if world_size() > 1:
        dist.broadcast_object_list(result, 0, group=_cpu_group())
    return result[0]


def gather(x: Tensor) -> Tensor:
    """Join the rows of all processes, in order of rank, with gradients: (n, ...) of each -> (sum of n, ...).

    Each process puts its n rows, which may be more or fewer than another's, among zeros; the sum has them
    all.
    """
    if world_size() == 1:
        return x
    counts = gather_objects(len(x))
    before, after = sum(counts[: rank()]), sum(counts[rank() + 1 :])
    zeros = [x.new_zeros(count, *x.shape[1:]) for count in (before, after)]
    return all_sum(torch.cat([zeros[0], x, zeros[1]]))


def gather_sides(x: Tensor, sides: int) -> Tensor:
    """Join the sides of all processes: (sides x n, ...) of each, side after side -> the same for all rows."""
    return x if world_size() == 1 else torch.cat([gather(side) for side in x.chunk(sides)])


def all_sum(x: Tensor) -> Tensor:
    """Add up over processes, with gradients: the gradient is the sum of the processes' gradients."""
    return x if world_size() == 1 else _AllReduce.apply(x)


class _AllReduce(torch.autograd.Function):
    """`torch.distributed.nn.functional.all_reduce`, which torch 2.14 warns against."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.detach().contiguous().clone()
        dist.all_reduce(total, group=None if x.is_cuda else _cpu_group())
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _AllReduce.apply(grad)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Keep the memory that a step frees for the next one, up to 2 GiB; return whether it is so from now on.

    By default, glibc gives tensors of some MiB back to the system, which clears their pages each time.
    Training and features call this when they begin; importing ccakit changes nothing. Measured on 2 cores: a
    training step of all of `lite` on 192 pictures takes 2.9 s instead of 7.9 s, and 2.6 GiB more memory.
    Nothing changes where a MALLOC_ variable or GLIBC_TUNABLES is set by hand, nor on systems without glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
    except (OSError, AttributeError):  # another system, or another C library
        return False
