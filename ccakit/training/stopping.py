"""How a run ends before its time: Ctrl-C and SIGTERM, noted at once and acted on between two steps, and numbers that
are not finite."""

from __future__ import annotations

import logging
import math
import signal
import threading

import torch
from torch import nn

from ccakit import processes

log = logging.getLogger("ccakit")
SMALLER = "try a smaller --lr, a longer --warmup, --head-norm batchnorm, or --mixed-precision no"


class Stopped(KeyboardInterrupt):
    """A run of one process that was stopped by Ctrl-C, after it has saved; the message says how to go on."""


class Terminated(SystemExit):
    """The same by SIGTERM, or in several processes; the exit code is 143, or 130 for Ctrl-C."""


class Ended(SystemExit):
    """One of several processes that end together for a reason that the main one has told; the exit code is 1."""


class StopSignals:
    """While this context is open, SIGINT and SIGTERM set `number`; a second Ctrl-C, where it may, ends at once."""

    def __init__(self, patient: bool = False) -> None:
        self.number, self.patient, self._before = 0, patient, {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        if self.number and number == signal.SIGINT and not self.patient:
            raise KeyboardInterrupt
        self.number = number


def stop(number: int, message: str) -> None:
    """End as a signal asks for: Stopped for Ctrl-C in a single process, else Terminated with one line on stderr."""
    if number == signal.SIGINT and processes.world_size() == 1:
        raise Stopped(message)
    tell_once(message)
    raise Terminated(128 + number)


def stop_if_not_finite(value: float, told: str) -> None:
    """End the run where a number is NaN or infinite, in all processes if it is so in one; all call this together.

    told: what the number is and the step, with {} for it. FloatingPointError in a single process; of several, the main
    one says it and all end with exit code 1.
    """
    bad = not math.isfinite(value)
    if not processes.all_max([bad])[0]:
        return
    found = {
        number: each for number, each in enumerate(processes.gather_objects(value)) if not math.isfinite(each)
    }
    where = f" in process {', '.join(map(str, found))}" if len(found) < processes.world_size() else ""
    message = f"{told.format(next(iter(found.values())))}{where}; {SMALLER}"
    if processes.world_size() == 1:
        raise FloatingPointError(message)
    tell_once(message)
    raise Ended(1)


def check_weights(model: nn.Module, steps: int) -> None:
    """`stop_if_not_finite` for the weights after so many steps; the last one's loss may have been finite."""
    largest = [parameter.detach().abs().max() for parameter in model.parameters() if parameter.numel()]
    largest = float(torch.stack(largest).max())  # NaN where one is
    stop_if_not_finite(largest, f"weights are not finite ({{}}) after step {steps - 1}")


def tell_once(message: str) -> None:
    """A line of the log, on stderr too, by the main process; all wait for it, as a launcher ends the others as soon as
    one has ended."""
    if processes.is_main():
        log.error(message)
    processes.gather_objects(None)
