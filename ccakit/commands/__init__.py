"""The commands: a module each, with settings `Config` and `run(config)`, which returns what --json prints."""

from __future__ import annotations

import sys


def print_findings(dataset) -> None:
    """Print on stderr what was odd about a data set when it was read."""
    for finding in dataset.findings:
        print(f"note: {finding}", file=sys.stderr)
