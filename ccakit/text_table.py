"""A table as text for a terminal: the one way in which commands print rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def text_table(
    rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,), rules: Collection[int] = ()
) -> str:
    """Align rows of cells, as many in each: columns are as wide as their widest cell, two spaces apart.

    rows: of text, the head among them. left: columns of words, which begin at the left; numbers end at the right.
    rules: rows before which a line is drawn.

    >>> print(text_table([["attribute", "mAP"], ["tone", "9.50"], ["macro", "10.25"]], rules=[2]))
    attribute    mAP
    tone        9.50
    ----------------
    macro      10.25
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for index, row in enumerate(rows):
        if index in rules:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [
            f"{cell:<{width}}" if column in left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
