"""End a run early: for Ctrl-C and SIGTERM, between two steps, and for numbers that are not finite."""

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
    """Ctrl-C stopped a run of one process, which has saved; the message says how to go on."""


class StopSignals:
    """Keep in `number` which signal came, SIGINT or SIGTERM; unless patient, a second Ctrl-C ends at once."""

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
    """End the run: Stopped for Ctrl-C in a single process; else a line on stderr, and SystemExit with 130 for
    Ctrl-C, 143 for SIGTERM."""
    if number == signal.SIGINT and processes.world_size() == 1:
        raise Stopped(message)
    log_in_main(message)
    raise SystemExit(128 + number)


def stop_if_not_finite(value: float, text: str) -> None:
    """End the run where a number is NaN or infinite in one of the processes, which all call this.

    text: the name of the number and the step, with {} for the number. FloatingPointError in a single process;
    of several, the main one logs the message and all end with exit code 1.
    """
    if not processes.all_max([not math.isfinite(value)])[0]:
        return
    values = processes.gather_objects(value)
    bad = [number for number, each in enumerate(values) if not math.isfinite(each)]
    where = f" in process {', '.join(map(str, bad))}" if len(bad) < len(values) else ""
    message = f"{text.format(values[bad[0]])}{where}; {SMALLER}"
    if processes.world_size() == 1:
        raise FloatingPointError(message)
    log_in_main(message)
    raise SystemExit(1)


def check_weights(model: nn.Module, steps: int) -> None:
    """End the run where weights are not finite after so many steps; the loss before them may have been."""
    sizes = [parameter.detach().abs().max() for parameter in model.parameters() if parameter.numel()]
    largest = torch.stack(sizes).max()  # NaN where one is
    stop_if_not_finite(float(largest), f"weights are not finite ({{}}) after step {steps - 1}")


def log_in_main(message: str) -> None:
    """Log an error in the main process. All wait for it, as a launcher ends all as soon as one has ended."""
    if processes.is_main():
        log.error(message)
    processes.gather_objects(None)
