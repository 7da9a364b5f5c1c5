"""The memory of this process and of the machine, in bytes; 0 where the system does not say it."""

from __future__ import annotations

import os
from pathlib import Path


def process_memory(name: str) -> int:
    """Read what Linux says of this process: VmRSS, in use now, or VmHWM, the most that was in use."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def machine_memory() -> int:
    """Give the memory of the machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
