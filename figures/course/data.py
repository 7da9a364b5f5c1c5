"""The drawings of notebook 01, data preparation; they are not figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.show import style

from .basics import PAGE, panels, titled


def titled_pictures(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> Figure:
    """Draw rows of pictures, each with its title above it."""
    figure, axes = panels(PAGE, 2 * len(rows), len(rows), max(map(len, rows)), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, cells in zip(axes, rows):
        for ax, (picture, title) in zip(row, cells):
            ax.imshow(picture)
            ax.set_title(title, fontsize=8)
    return figure


def share_panels(
    shares: Sequence[np.ndarray], wanted: Sequence[np.ndarray], attributes: Attributes
) -> Figure:
    """Draw each attribute's shares (0..1) by label as bars, the wanted ones as black marks."""
    figure, axes = panels(PAGE, 3.3, 2, -(-len(shares) // 2))
    colors = style.attribute_colors(len(attributes))
    for condition, (ax, share, mark) in enumerate(zip(axes.flat, shares, wanted)):
        ax.bar(range(len(share)), 100 * share, color=colors[condition])
        ax.plot(range(len(mark)), 100 * mark, "k_", markersize=9)
        ax.set_title(attributes.title(condition))
    figure.supylabel("share of labels (%)", fontsize=8)
    figure.supxlabel("label (0: Invisible)", fontsize=8)
    return figure


def frequency_curves(counts: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """Draw how many candidates a value has, most frequent first: a panel a data set, a line an attribute."""
    figure, axes = panels(PAGE, 4.1, columns=len(counts), sharey=True)
    for ax, (name, attributes) in zip(axes, counts.items()):
        colors = style.attribute_colors(8) if len(attributes) == 8 else style.value_colors(len(attributes))
        for (attribute, numbers), color in zip(attributes.items(), colors):
            ordered = np.sort(numbers)[::-1]
            ax.plot(np.arange(1, len(ordered) + 1), ordered, color=color, label=titled(attribute))
        ax.set(title=name, xlabel="values, most frequent first", xscale="log")
        ax.set_yscale("symlog", linthresh=1)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=8)
    axes[0].set_ylabel("candidates")
    return figure
