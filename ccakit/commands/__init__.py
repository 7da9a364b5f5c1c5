"""The commands: a module each, with settings `Config` and `run(config)`, which returns what --json prints."""

from __future__ import annotations

import os
import sys


def speaks() -> bool:
    """Whether this process prints: of several that a launcher started, the main one does."""
    launched = "MASTER_ADDR" in os.environ and (os.environ.get("WORLD_SIZE") or "1") != "1"
    return not launched or os.environ.get("RANK", "0") == "0"


def note(text: str) -> None:
    """Print a line on stderr, once, of however many processes."""
    if speaks():
        print(text, file=sys.stderr)


def note_findings(dataset) -> None:
    """Print on stderr what was odd about a data set when it was read."""
    for finding in dataset.findings:
        note(f"note: {finding}")
