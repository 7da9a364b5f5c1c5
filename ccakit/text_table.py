"""A table as text for a terminal, the one way in which commands print rows; and text in Markdown."""

from __future__ import annotations

import re
import unicodedata
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
    rows = [[re.sub(r"[\t\r\n]+", " ", cell) for cell in row] for row in rows]
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
    """Count the columns of a terminal that a cell takes: two for a wide letter, none for a mark on one."""
    letters = [letter for letter in ANSI.sub("", cell) if not unicodedata.combining(letter)]
    return len(letters) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in letters)


def in_markdown(text: str) -> str:
    """Write a text of users so that Markdown, also within a table, shows it as it is.

    >>> print(in_markdown("neck_design"), in_markdown("$0-$25 | <b> *x* _y_"))
    neck_design &#36;0-&#36;25 \\| &lt;b> \\*x\\* \\_y\\_
    """
    text = re.sub(r"&(?=#?\w+;)", "&amp;", re.sub(r"\s+", " ", text)).replace("<", "&lt;")
    text = re.sub(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return text.replace("$", "&#36;")
