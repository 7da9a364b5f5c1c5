"""The drawings of notebook 00, start here; they are not figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.show import style

from .basics import panels, titled, two_lines


def count_points(ax: Axes) -> int:
    """Return how many points the scatters of an axes hold."""
    return sum(len(points.get_offsets()) for points in ax.collections)


def similarity_tables(tables: Sequence[np.ndarray], names: Sequence[str], attributes: Attributes) -> Figure:
    """Draw a table of cosines for each condition, side by side."""
    figure, axes = panels(9.4, 1.7, columns=len(tables))
    colors = style.attribute_colors(len(attributes))
    ticks = range(len(names))
    for condition, (ax, table) in enumerate(zip(axes, tables)):
        image = ax.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
        ax.set_title(two_lines(attributes, condition), color=style.ink(colors[condition]))
        ax.set(xticks=ticks, xticklabels=names, yticks=ticks, yticklabels=[] if condition else names)
        ax.tick_params(length=0, labelsize=8)
    bar = figure.colorbar(image, ax=axes, ticks=[-1, 0, 1], fraction=0.02, pad=0.01)
    bar.set_label("cosine", fontsize=8)
    return figure


def map_bars(maps: Mapping[str, float], chance: Mapping[str, float]) -> Figure:
    """Draw mAP (%) by attribute as bars, a random ranking's as strokes."""
    figure, ax = panels(7.2, 2.8)
    ax.barh([titled(name) for name in maps], list(maps.values()), color=style.attribute_colors(len(maps)))
    ax.plot(list(chance.values()), range(len(chance)), "k|", markersize=14, label="random ranking")
    ax.set(xlim=(0, 100), xlabel="mAP (%)")
    ax.invert_yaxis()
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return figure
