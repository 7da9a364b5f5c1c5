"""What the tables share: blocks of rows and notes, and how they are drawn and written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shared
from matplotlib.figure import Figure

from ccakit.benchmark.results import read_rows
from ccakit.show import style
from ccakit.text_table import in_markdown


@dataclass
class Block:
    """A part of a table: its title, the columns' heads, rows of texts, and notes under it.

    A cell between ** is bold; `marked` holds the (row, column) of cells that contradict something, set in
    orange.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    marked: set[tuple[int, int]] = field(default_factory=set)

    def markdown(self) -> str:
        """Write the block as Markdown."""
        lines = [f"**{in_markdown(self.title)}**", "", f"| {' | '.join(map(in_cell, self.head))} |"]
        lines.append("|" + "---|" * len(self.head))
        for i, row in enumerate(self.rows):
            marks = [" (!)" if (i, j) in self.marked else "" for j in range(len(row))]
            cells = [in_cell(cell) + mark for cell, mark in zip(row, marks)]
            lines.append(f"| {' | '.join(cells)} |")
        lines = lines if self.rows else lines[:1]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])


def in_cell(cell: str) -> str:
    """Write a cell in Markdown, bold between ** and as it is within."""
    bold = len(cell) > 4 and cell.startswith("**") and cell.endswith("**")
    return f"**{in_markdown(cell[2:-2])}**" if bold else in_markdown(cell)


@dataclass
class Sheet:
    """A table of the paper: blocks one below the other, each with facts of one kind."""

    title: str
    blocks: list[Block]

    def markdown(self) -> str:
        """Write the table as Markdown."""
        return "\n\n".join([f"### {self.title}", *(block.markdown().strip() for block in self.blocks)]) + "\n"


LINE, CELL = 0.135, 6.2  # inches a line, points a letter, of a table


def draw_sheet(sheet: Sheet) -> Figure:
    """Draw the table at the text's width, as high as its rows need."""
    notes = [[style.wrapped(note, 150) for note in block.notes] for block in sheet.blocks]
    heads = [
        max((head.count("\n") + 1 for head in block.head), default=0) if block.rows else 0
        for block in sheet.blocks
    ]
    lines = [
        (heads[i] + len(block.rows) + 3.05 if block.rows else 1.9) + sum(n.count("\n") + 1 for n in notes[i])
        for i, block in enumerate(sheet.blocks)
    ]
    height = LINE * (sum(lines) + 1.5)
    canvas = shared.Canvas(shared.TEXT, height, CELL)
    y = height - LINE
    canvas.text(0.05, y, sheet.title, ha="left", fontweight="bold", fontsize=8)
    for block, head, its_notes in zip(sheet.blocks, heads, notes):
        y = _draw_block(canvas, block, y - 1.5 * LINE, head, its_notes)
    return canvas.figure


def _draw_block(canvas: shared.Canvas, block: Block, y: float, head: int, notes: list[str]) -> float:
    """Draw a block from the height y down; return where it ends."""
    canvas.text(0.05, y, block.title, ha="left", fontweight="bold", fontsize=6.8)
    if block.rows:
        edges = _columns(canvas, block)
        _rule(canvas, y - 0.6 * LINE, 0.8, edges[-1])
        for x, text, align in zip(edges, block.head, ["left", *["right"] * len(edges)]):
            canvas.text(x, y - (0.65 + head) * LINE, text, ha=align, va="baseline", linespacing=1.1)
        y -= (head + 0.95) * LINE
        _rule(canvas, y, 0.5, edges[-1])
        for i, row in enumerate(block.rows):
            y -= LINE if i else 0.75 * LINE
            for j, (x, cell) in enumerate(zip(edges, row)):
                color = style.ink(style.WRONG) if (i, j) in block.marked else "black"
                weight = "bold" if cell.startswith("**") else "normal"
                canvas.text(
                    x,
                    y - 0.25 * LINE,
                    cell.strip("*"),
                    ha="right" if j else "left",
                    va="baseline",
                    color=color,
                    fontweight=weight,
                )
        y -= 0.65 * LINE
        _rule(canvas, y, 0.8, edges[-1])
        y += 0.2 * LINE
    for note in notes:
        count = note.count("\n") + 1
        canvas.text(0.05, y - 0.5 * LINE, note, ha="left", va="top", fontsize=shared.SMALL, linespacing=1.25)
        y -= count * LINE
    return y - 0.4 * LINE


def _rule(canvas: shared.Canvas, y: float, width: float, end: float) -> None:
    canvas.ax.plot([0.05, end], [y, y], color="black", linewidth=width, solid_capstyle="butt")


def _columns(canvas: shared.Canvas, block: Block) -> list[float]:
    """Place columns by the widths of their cells: the first column's left edge, the others' right edges."""

    def width(text: str) -> float:
        style = dict(
            fontsize=CELL, parse_math=False, fontweight="bold" if text.startswith("**") else "normal"
        )
        drawn = canvas.ax.text(0, 0, text.strip("*"), **style)
        size = drawn.get_window_extent().width / canvas.figure.dpi
        drawn.remove()
        return size

    widths = [max(map(width, column)) for column in zip(block.head, *block.rows)]
    gap = min(0.45, (shared.TEXT - 0.1 - sum(widths)) / max(1, len(widths) - 1))
    return [0.05, *(0.05 + np.cumsum(widths)[1:] + gap * np.arange(1, len(widths)))]


def write_sheet(sheet: Sheet, name: str, out: Path) -> list[Path]:
    """Write the table as PNG, PDF and Markdown; return the paths."""
    paths = shared.write(draw_sheet(sheet), name, out)
    paths.append(out / f"{name}.md")
    paths[-1].write_text(sheet.markdown(), "utf-8")
    print(paths[-1])
    return paths


RESULTS = ("--results", dict(type=Path, default=None, help="a results file of `ccakit benchmark`"))
DRAWN = {"garments": "drawn garments, with FashionAI's attributes", "fashion_mnist": "Fashion-MNIST"}


def about(dataset: str) -> str:
    """Describe a data set of ours in words."""
    return DRAWN.get(dataset, dataset)


def named(path: Path) -> str:
    """Write a path relative to the project's folder if it lies there."""
    return str(path.relative_to(shared.ROOT) if path.is_relative_to(shared.ROOT) else path)


def results(file: Path) -> list[dict]:
    """Read the rows of a results file; none if it is not there."""
    return read_rows(file) if Path(file).exists() else []


def method(name: str, row: dict) -> str:
    """Write a method's name, with a dagger if the paper says that the figures are its own reproduction."""
    return name + (" †" if row["reproduced_by_paper"] else "")


def bold(value: float, best: float) -> str:
    """Write a figure with two decimals, bold if it is the best."""
    return f"**{value:.2f}**" if value == best else f"{value:.2f}"


def minus(text: str) -> str:
    """Write real minus signs in a text."""
    return re.sub(r"(?<![\w.])-(?=\d)|(?<= )-(?= )", "−", text)


def contradicted(dataset: str, table: str, audit: dict) -> list[str]:
    """List the paper's claims about a table that its figures contradict, a sentence each."""
    return [
        minus(f"Contradicted ({each['where']}): {each['says']}; {each['computed']}.")
        for each in audit["claims"]
        if not each["holds"]
        and (each["where"] == table or dataset in each["says"].split(":")[0].split(" on ")[-1])
        and each["where"] != "Table 1"
    ]
