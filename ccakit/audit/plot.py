"""The audit's picture: how many images each value has."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccakit.show.plots import plt
from ccakit.show.style import STYLE, WRONG, attribute_colors, ink, new_figure, wrapped

LINES = {"train": "-", "test": "--", "valid": ":"}
FEW = 2  # images that a value needs, to be anchor and positive, or query and answer


def plot(result: dict) -> Figure:
    """Draw the images per value, from the result of `audit`: a panel an attribute, a line a split, log scale.

    The values stand by rank, most images first. Values with fewer than two images are marked; one without any
    stands at 0.
    """
    names = list(result["attributes"])
    splits = {name: result["splits"][name]["attributes"] for name in LINES if name in result["splits"]}
    counts = {name: {split: facts[name]["images"] for split, facts in splits.items()} for name in names}
    most = max(max(images) for by_split in counts.values() for images in by_split.values())
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with plt.rc_context(STYLE):
        figure = new_figure(2.5 * columns + 0.3, 1.55 * rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, name, color in zip(grid.flat, names, attribute_colors(len(names))):
            _panel(ax, counts[name], ink(color))
            ax.set_title(wrapped(name.replace("_", " "), 30), color=ink(color), fontweight="bold")
            ax.set(
                xlabel=f"{len(result['attributes'][name])} values, most images first", ylim=(0, 1.5 * most)
            )
        for ax in grid.flat[len(names) :]:
            ax.remove()
        for ax in grid[:, 0]:
            ax.set_ylabel("images")
        handles = [plt.Line2D([], [], color="0.3", linestyle=LINES[split], label=split) for split in splits]
        few = plt.Line2D([], [], color=WRONG, marker="o", markersize=3, linestyle="", label="0 or 1 image")
        handles.append(few)
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _panel(ax, counts: dict[str, list[int]], color: str) -> None:
    """Draw a line a split: images against the value's rank, most first."""
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
