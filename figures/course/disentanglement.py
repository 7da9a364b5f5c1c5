"""The drawings of notebook 06, disentanglement; they are not figures of the paper."""

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


def value_scatters(
    points: np.ndarray, rows: np.ndarray, values: Sequence[str], settings: Mapping[str, Mapping]
) -> Figure:
    """Draw one space (n, E) by several t-SNEs, coloured by value, in rows of three.

    rows: (n, 3), image, condition, label of each point. settings: {title: options of `style.tsne`}.
    """
    figure, axes = bare_panels(PAGE, 2.7 * -(-len(settings) // 3), -(-len(settings) // 3), 3)
    colors = np.array(style.value_colors(len(values)))
    for ax, (title, options) in zip(np.ravel(axes), settings.items()):
        ax.set_title(title)
        (places,) = style.tsne(ax, [points], [rows[:, 0]], **options)
        ax.scatter(*places.T, s=8, c=colors[rows[:, 2]], linewidth=0)
    return figure


def condition_scatters(
    systems: Mapping[str, Sequence[np.ndarray]], images: Sequence[np.ndarray], attributes: Attributes
) -> Figure:
    """Draw the spaces of systems side by side, each system's K spaces (n, E) together, by condition.

    images: the images of each space's points, (n,) each, the same for all systems.
    """
    figure, axes = bare_panels(PAGE, 4.6, 1, len(systems))
    colors = style.attribute_colors(len(attributes))
    condition = np.repeat(np.arange(len(attributes)), [len(some) for some in images])
    for ax, (title, spaces) in zip(axes, systems.items()):
        ax.set_title(title)
        places = np.concatenate(style.tsne(ax, spaces, images, seed=0))
        ax.scatter(*places.T, s=6, c=np.array(colors)[condition], linewidth=0)
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
