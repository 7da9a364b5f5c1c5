"""Several processes for a test, forked from one interpreter that has torch and ccakit imported already.

`run_ranks(3, job, *arguments)` calls a function of rank_jobs.py in three processes that find each other as
those of torchrun do. The first call in a worker of pytest starts the interpreter, in some seconds; each
process is then a fork of it, as fresh as a new one, and starts in a tenth of a second. `torchrun` itself
starts real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import rank_jobs

GRACE = 20  # seconds in which the other processes have to see that one has failed

_server = multiprocessing.get_context("forkserver")
# what jobs import beside ccakit's own; lancedb itself is not preloaded, as it must not be forked
_server.set_forkserver_preload(
    ["rank_jobs", "ccakit.evaluation.evaluate", "ccakit.catalogue.index", "lance_namespace", "torch._dynamo"]
)


@dataclass
class Ended:
    """How processes ended: each exit code, -9 after SIGKILL, and what they wrote to stderr and stdout."""

    codes: list[int]
    stderr: str
    stdout: str = ""


def run_ranks(world_size: int, job: Callable, *arguments, check: bool = True, timeout: float = 180) -> Ended:
    """Call `job(*arguments)` in so many processes, which form one group; with 1, in a process by itself.

    `job` is a function of a module that a new interpreter can import. After one has failed the others have
    `GRACE` seconds to end as well. A process that is still there then, or after `timeout` seconds, is killed,
    and the test fails with TimeoutError. With `check` every exit code has to be 0.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for rank in range(world_size):
            place = (rank, world_size, store.port, folder)
            ranks.append(_server.Process(target=_rank, args=(place, job, arguments), daemon=False))
            ranks[-1].start()
        late = _wait(ranks, timeout)
        outputs = [[Path(folder, f"{rank}.{name}") for rank in range(world_size)] for name in ("err", "out")]
        stderr, stdout = ("".join(file.read_text() for file in files if file.exists()) for files in outputs)
    if late:
        raise TimeoutError(f"{job.__name__}: ranks {late} of {world_size} did not end\n{stderr[-4000:]}")
    codes = [rank.exitcode for rank in ranks]
    assert not check or not any(codes), f"{job.__name__}: exit codes {codes}\n{stderr[-4000:]}"
    return Ended(codes, stderr, stdout)


def _wait(ranks: list, timeout: float) -> list[int]:
    """Wait for all processes, and kill those that do not end in time; returns which."""
    end, failed = time.monotonic() + timeout, False
    alive = list(ranks)
    while alive and time.monotonic() < end:
        wait([rank.sentinel for rank in alive], timeout=1)
        alive = [rank for rank in alive if rank.is_alive()]
        if not failed and any(rank.exitcode for rank in ranks):
            failed, end = True, min(end, time.monotonic() + GRACE)
    for rank in alive:
        rank.kill()
        rank.join()
    return [number for number, rank in enumerate(ranks) if rank in alive]


def _rank(place: tuple, job: Callable, arguments: tuple) -> None:
    """Be one of the processes: write to files of its own, and know the others as torchrun would tell it."""
    import cv2

    from ccakit.processes import leave_group

    rank, world_size, port, folder = place
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder, f"{rank}.{name}"), os.O_WRONLY | os.O_CREAT), descriptor)
    cv2.setNumThreads(1)
    usual = multiprocessing.get_all_start_methods()[0]  # that of a process of torchrun, and not this one's
    multiprocessing.set_start_method(usual, force=True)
    if world_size > 1:
        facts = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world_size, LOCAL_WORLD_SIZE=world_size)
        facts |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        facts |= dict(TORCHELASTIC_USE_AGENT_STORE=True, TORCHELASTIC_RESTART_COUNT=0)
        os.environ.update({name: str(value) for name, value in facts.items()})
    try:
        job(*arguments)
    finally:
        leave_group()  # the processes of multiprocessing skip atexit


def torchrun(
    world_size: int, *arguments, flags: tuple = (), check: bool = True, timeout: float = 600
) -> Ended:
    """Run a job of rank_jobs.py by its name and arguments, or `-m` a module, in torchrun's interpreters.

    Behind "--" nothing is torchrun's: it takes --run for the beginning of its own --run-path.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", world_size, *flags]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    module = arguments[0] == "-m"
    command += ["-m", "--", *arguments[1:]] if module else ["--", rank_jobs.__file__, *arguments]
    return run_command(command, check, timeout)


def run_command(command: list, check: bool = True, timeout: float = 600) -> Ended:
    """Run a command line, and end it with all its processes after `timeout` seconds."""
    words = [str(word) for word in command]
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    with subprocess.Popen(words, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert not check or process.returncode == 0, stderr[-4000:]
    return Ended([process.returncode], stderr, stdout)
