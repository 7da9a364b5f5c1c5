"""The audit's picture: how many images each value has."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccakit.show.plots import plt
from ccakit.show.style import STYLE, WRONG, attribute_colors, ink, new_figure

LINES = {"train": "-", "test": "--", "valid": ":"}
FEW = 2  # images a value needs, to be anchor and positive, or query and answer


def plot(result: dict) -> Figure:
    """Images per value, a panel an attribute, from the result of `audit`: values by rank, a line a split, log scale.

    Values with fewer than two images are marked; one without any stands at 0.
    """
    names, splits = list(result["attributes"]), result["splits"]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    most = 1.5 * max(max(of["images"]) for split in splits.values() for of in split["attributes"].values())
    with plt.rc_context(STYLE):
        figure = new_figure(2.5 * columns + 0.3, 1.55 * rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for c, (ax, name) in enumerate(zip(grid.flat, names)):
            counts = {
                split: splits[split]["attributes"][name]["images"] for split in LINES if split in splits
            }
            color = ink(attribute_colors(len(names))[c])
            _panel(ax, counts, color)
            ax.set_title(name.replace("_", " "), color=color, fontweight="bold")
            ax.set_xlabel(f"{len(result['attributes'][name])} values, most images first")
            ax.set_ylim(0, most)
        for ax in grid.flat[len(names) :]:
            ax.remove()
        for ax in grid[:, 0]:
            ax.set_ylabel("images")
        handles = [
            plt.Line2D([], [], color="0.3", linestyle=LINES[split], label=split)
            for split in LINES
            if split in splits
        ]
        handles.append(
            plt.Line2D([], [], color=WRONG, marker="o", markersize=3, linestyle="", label="0 or 1 image")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _panel(ax, counts: dict[str, list[int]], color: str) -> None:
    """A line a split: images against the value's rank, most first."""
    for split, images in counts.items():
        ordered = np.sort(images)[::-1]
        rank = np.arange(1, len(ordered) + 1)
        ax.plot(rank, ordered, LINES[split], color=color, linewidth=1.1, drawstyle="steps-mid")
        few = ordered < FEW
        if few.any():  # an empty line that is not clipped would have no bounds, and upset the layout
            ax.plot(rank[few], ordered[few], "o", color=WRONG, markersize=2, clip_on=False, zorder=3)
    ax.set_yscale("symlog", linthresh=1)
    ax.set_xlim(0.5, max(map(len, counts.values())) + 0.5)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.xaxis.get_major_locator().set_params(integer=True)
