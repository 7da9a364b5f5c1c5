"""A table as text for a terminal: the one way in which commands print rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

ANSI = re.compile(r"\033\[\d*m")  # a colour, which takes no room


def text_table(
    rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,), rules: Collection[int] = ()
) -> str:
    """Align rows of cells, as many in each: columns are as wide as their widest cell, two spaces apart.

    rows: of text, the head among them. left: columns of words, from the left; others end at the right.
    rules: rows before which a line is drawn.

    >>> print(text_table([["attribute", "mAP"], ["tone", "9.50"], ["macro", "10.25"]], rules=[2]))
    attribute    mAP
    tone        9.50
    ----------------
    macro      10.25
    """
    widths = [max(map(_width, column)) for column in zip(*rows)]
    lines = []
    for index, row in enumerate(rows):
        if index in rules:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = []
        for column, cell in enumerate(row):
            padding = " " * (widths[column] - _width(cell))
            cells.append(cell + padding if column in left else padding + cell)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _width(cell: str) -> int:
    return len(ANSI.sub("", cell))
