"""The drawings of notebook 08, retrieval; they are not figures of the paper."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.show import style

from .basics import PAGE, panels


def judged(picture: np.ndarray, text: str, right: bool | None) -> tuple[np.ndarray, str, str | None]:
    """Return a cell of `picture_rows`: tick and green frame, cross and orange one, or neither (None)."""
    if right is None:
        return picture, text, None
    return picture, f"{'✓' if right else '✗'} {text}", style.RIGHT if right else style.WRONG


def picture_rows(rows: Sequence[tuple], across: int = 1) -> Figure:
    """Draw rows of pictures, `across` rows side by side.

    rows: (title, colour of the title, cells) each; a cell is (picture, text under it, colour of its frame or
    None).
    """
    longest, down = max(len(cells) for _, _, cells in rows), -(-len(rows) // across)
    side = 1.05
    figure = style.new_figure(across * (side * longest + 0.8), down * (side + 0.5))
    grids = [part.subplots(down, longest, squeeze=False) for part in np.ravel(figure.subfigures(1, across))]
    for grid in grids:
        for ax in grid.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    for number, (title, color, cells) in enumerate(rows):
        axes = grids[number // down][number % down]
        axes[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8, color=style.ink(color))
        for ax, (picture, text, frame) in zip(axes, cells):
            style.show_picture(ax, picture, text, frame)
    return figure


def ranking_strips(rankings: Mapping[str, np.ndarray]) -> Figure:
    """Draw rankings (bool, best first) as strips: a dark line is a relevant candidate."""
    figure, axes = panels(PAGE, 2.4, rows=len(rankings))
    for ax, (title, relevant) in zip(axes, rankings.items()):
        extent = (0, len(relevant), 0, 1)
        ax.imshow(1.0 - relevant[None], aspect="auto", cmap="gray", interpolation="nearest", extent=extent)
        ax.set_title(title, fontsize=8, loc="left")
        ax.set(yticks=[], xticks=[0, len(relevant)] if ax is axes[-1] else [])
    return figure


def confusion_tables(tables: Sequence[np.ndarray], attributes: Attributes) -> Figure:
    """Draw tables (values, values) of counts, rows in shares of their sum; a row without a count is white."""
    figure, axes = panels(11.5, 4.3, 2, -(-len(tables) // 2))
    colors = style.attribute_colors(len(attributes))
    for condition, (ax, table) in enumerate(zip(axes.flat, tables)):
        sums = table.sum(axis=1, keepdims=True)
        ax.imshow(np.where(sums > 0, table / np.maximum(sums, 1), np.nan), cmap="Blues", vmin=0, vmax=1)
        ax.set_title(attributes.title(condition), color=style.ink(colors[condition]), fontweight="bold")
        names = [textwrap.shorten(value, 18, placeholder="…") for value in attributes.values[condition]]
        ax.set_yticks(range(len(names)), [f"{name}  {label}" for label, name in enumerate(names)])
        ax.set_xticks(range(len(names)), range(len(names)))
    return figure
