"""The drawings of notebook 02, conditional cross attention; they are not figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ccakit.attributes import Attributes

from .basics import PAGE, panels


def patch_grids(pictures: Sequence[np.ndarray], grid: tuple[int, int]) -> Figure:
    """Draw pictures, cut by white lines into a grid (rows, columns) of patches."""
    figure, axes = panels(PAGE, 2.3, columns=len(pictures))
    for ax, picture in zip(axes, pictures):
        height, width = picture.shape[:2]
        ax.imshow(picture)
        ax.hlines(np.arange(1, grid[0]) * height / grid[0], 0, width - 1, color="w", linewidth=0.6)
        ax.vlines(np.arange(1, grid[1]) * width / grid[1], 0, height - 1, color="w", linewidth=0.6)
        ax.set_axis_off()
    return figure


def condition_tables(tables: Mapping[str, np.ndarray], attributes: Attributes) -> Figure:
    """Draw tables with a row a condition side by side, colours even around 0, each on its own scale."""
    figure, axes = panels(9.6, 2.6, columns=len(tables), sharey=True, width_ratios=[3, 3, 2])
    for ax, (title, table) in zip(axes, tables.items()):
        top = 1 if title.startswith("cosine") else abs(table).max()
        options = dict(aspect="auto", cmap="RdBu_r", interpolation="nearest")
        image = ax.imshow(table, vmin=-top, vmax=top, **options)
        ax.set(title=title, xticks=[])
        figure.colorbar(image, ax=ax, fraction=0.05)
    names = [attributes.title(c) for c in range(len(attributes))]
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    return figure
