"""The drawings of notebook 06, disentanglement; they are no figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.show import style

from .basics import PAGE, panels


def bare_panels(width: float, height: float, rows: int, columns: int) -> tuple[Figure, Axes]:
    """Return a figure and its axes, framed and without ticks."""
    figure, axes = panels(width, height, rows, columns)
    for ax in np.ravel(axes):
        style.bare_axes(ax)
    return figure, axes


def value_scatters(layouts: Mapping[str, np.ndarray], labels: np.ndarray, values: Sequence[str]) -> Figure:
    """Draw several layouts (n, 2) of the same points, coloured by label, in rows of three."""
    figure, axes = bare_panels(PAGE, 2.7 * -(-len(layouts) // 3), -(-len(layouts) // 3), 3)
    colors = np.array(style.value_colors(len(values)))
    for ax, (title, places) in zip(np.ravel(axes), layouts.items()):
        ax.scatter(*places.T, s=8, c=colors[labels], linewidth=0)
        ax.set_title(title)
    return figure


def condition_scatters(
    layouts: Mapping[str, np.ndarray], condition: np.ndarray, attributes: Attributes
) -> Figure:
    """Draw layouts (n, 2) of the same points side by side, coloured by condition."""
    figure, axes = bare_panels(PAGE, 4.6, 1, len(layouts))
    colors = style.attribute_colors(len(attributes))
    for ax, (title, places) in zip(axes, layouts.items()):
        ax.scatter(*places.T, s=6, c=np.array(colors)[condition], linewidth=0)
        ax.set_title(title)
    titles = [attributes.title(c) for c in range(len(attributes))]
    handles = [axes[0].plot([], [], "o", color=color, label=title)[0] for title, color in zip(titles, colors)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def heat_matrices(matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Draw (K, K) matrices of 0..1 side by side, row names once; grey is unknown (NaN)."""
    figure, axes = panels(PAGE, 2.8, columns=len(matrices), sharey=True)
    blues = plt.get_cmap("Blues").with_extremes(bad="0.85")
    for ax, (title, matrix) in zip(axes, matrices.items()):
        ax.imshow(np.ma.masked_invalid(matrix), cmap=blues, vmin=0, vmax=1)
        ax.set_title(title)
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        ax.tick_params(length=0)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set_ylabel("space of")
    return figure


def points_of(ax: Axes) -> np.ndarray:
    """Return the places (n, 2) of an axes' first scatter."""
    return np.asarray(ax.collections[0].get_offsets())


def matrix_of(ax: Axes) -> np.ndarray:
    """Return the matrix that an axes shows, NaN where it is unknown."""
    return ax.images[0].get_array().filled(np.nan)
