"""The drawings of notebook 07, attention heatmaps; they are not figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.evaluation import pointing
from ccakit.show import style
from ccakit.show.heat import heatmap, overlay

from .basics import BLUE, PAGE, panels, two_lines


def hit_bars(scores: Mapping[str, Sequence[float]], titles: Sequence[str]) -> Figure:
    """Draw shares of hits (0..1) by attribute: the first score in colour, its controls in greys beside it."""
    figure, ax = panels(PAGE, 3)
    for offset, (name, values) in enumerate(scores.items()):
        color = BLUE if offset == 0 else str(0.3 + 0.17 * offset)
        ax.bar(np.arange(len(titles)) + 0.2 * offset, 100 * np.array(values), 0.2, color=color, label=name)
    ax.set_xticks(np.arange(len(titles)) + 0.3, [title.replace(" ", "\n") for title in titles], fontsize=8)
    ax.set_ylabel("hits (%)")
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def map_steps(image: np.ndarray, maps: np.ndarray) -> Figure:
    """Draw how a map becomes heat: the picture, the raw weights, and the heat over the picture.

    image: uint8 RGB. maps: (H, h, w) or (h, w), softmax weights. Few patches hold most of the weight, so
    colours follow the square root of the weights, from their own least to their own largest.
    """
    weights = pointing.one_map(maps)
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(6.4, 2.2)
        axes = figure.subplots(1, 3)
        style.show_picture(axes[0], image)
        drawn = axes[1].imshow(weights, cmap="inferno", norm=PowerNorm(0.5, weights.min(), weights.max()))
        style.bare_axes(axes[1])
        figure.colorbar(drawn, ax=axes[1], ticks=[weights.min(), weights.max()], format="%.2g", fraction=0.05)
        style.show_picture(axes[2], overlay(image, heatmap(weights, image.shape[:2])))
        height, width = weights.shape
        for ax, title in zip(axes, ("picture", f"weights, {height} x {width}", "heat over the picture")):
            ax.set_title(title)
    return figure


def condition_maps(maps: Sequence[np.ndarray], attributes: Attributes, cmap: str = "inferno") -> Figure:
    """Draw one map a condition, side by side, each on its own scale."""
    figure, axes = panels(PAGE, 1.6, columns=len(maps))
    colors = style.attribute_colors(len(attributes))
    for condition, (ax, shown) in enumerate(zip(axes, maps)):
        ax.imshow(shown, cmap=cmap)
        ax.set_title(two_lines(attributes, condition), color=style.ink(colors[condition]))
        ax.set_axis_off()
    return figure


def head_rows(figure: Figure, conditions: Sequence[int], attributes: Attributes) -> Figure:
    """Name the rows of a heatmap grid of heads by condition, in its colour; heads have none of their own."""
    columns = len(figure.axes) // len(conditions)
    colors = style.attribute_colors(len(attributes))
    for ax, condition in zip(figure.axes[::columns], conditions):
        color = style.ink(colors[condition])
        ax.set_ylabel(two_lines(attributes, condition), color=color, fontweight="bold", fontsize=9)
    for ax in figure.axes[:columns]:
        ax.title.set(color="black", fontweight="normal")
    return figure
