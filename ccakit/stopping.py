"""Ctrl-C and SIGTERM during training: noted at once, acted on between two steps."""

from __future__ import annotations

import signal
import sys
import threading


class Stopped(KeyboardInterrupt):
    """A run that was stopped by Ctrl-C, after it has saved where it stands; the message says how to go on."""


class Terminated(SystemExit):
    """The same by SIGTERM; the exit code is 143."""


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


def stop(number: int, message: str, tell: bool = True) -> None:
    """End as a signal asks for: Stopped for Ctrl-C, Terminated with one line on stderr for SIGTERM."""
    if number == signal.SIGINT:
        raise Stopped(message)
    if tell:
        print(message, file=sys.stderr, flush=True)
    raise Terminated(128 + number)
