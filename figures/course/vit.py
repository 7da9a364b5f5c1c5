"""The drawings of notebook 10, a real ViT; they are not figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.show import style
from ccakit.show.heat import heatmap, overlay

from .basics import BLUE, GREY, PAGE, RED, finish, panels


def depth_lines(
    blocks: Sequence[int], scores: np.ndarray, attributes: Attributes, mean: np.ndarray
) -> Figure:
    """Draw a line an attribute over the depth that is read, and the mean in black.

    scores: (len(blocks), K), in percent. mean: (len(blocks),).
    """
    figure, ax = panels(6.4, 3.2)
    for condition, color in enumerate(style.attribute_colors(len(attributes))):
        name = attributes.title(condition)
        ax.plot(blocks, scores[:, condition], "o-", markersize=3, linewidth=1, color=color, label=name)
    ax.plot(blocks, mean, "o-", color="black", linewidth=2, markersize=4, label="weighted mean")
    ax.set(xlabel="tokens before block", ylabel="mAP, nothing trained (%)")
    ax.set_xticks(blocks)
    figure.legend(loc="outside right center", frameon=False, fontsize=7.5)
    return figure


def cost_and_score(rows: Sequence[Mapping], lite: float | None = None) -> Figure:
    """Draw mAP (a point a run) and cost over the block that CCA reads; rows as benchmarks.vit writes them."""
    figure, (left, right) = panels(PAGE, 2.9, columns=2)
    blocks = sorted({row["block"] for row in rows})
    of_block = [[row for row in rows if row["block"] == block] for block in blocks]
    for block, runs in zip(blocks, of_block):
        left.plot([block] * len(runs), [row["map_weighted"] for row in runs], "o", color=BLUE, markersize=4)
    means = [np.mean([row["map_weighted"] for row in runs]) for runs in of_block]
    left.plot(blocks, means, color=BLUE, linewidth=1, label="CCA Type-2 in the frozen ViT")
    if lite is not None:
        left.axhline(lite, color=GREY, linestyle="--", linewidth=1, label="lite, equal epochs")
    finish(left, xticks=blocks, xlabel="block that is read", ylabel="weighted mAP, test (%)")
    shares = {"time": (RED, "spaces_time"), "operations": (BLUE, "spaces_operations")}
    for name, (color, column) in shares.items():
        right.plot(
            blocks, [runs[0][column] for runs in of_block], "o-", color=color, markersize=4, label=name
        )
    right.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    labels = dict(xlabel="block that is read", ylabel="8 spaces / plain forward")
    finish(right, xticks=blocks, ylim=(0, 1.1), **labels)
    return figure


def system_bars(scores: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw a group of bars a system, a bar for each block that it reads: {title: {block: mAP}}."""
    blocks = sorted({block for by_block in scores.values() for block in by_block})
    figure, ax = panels(PAGE, 2.6)
    width = 0.8 / max(1, len(blocks))
    for number, block in enumerate(blocks):
        heights = [by_block.get(block, np.nan) for by_block in scores.values()]
        color = BLUE if number == 0 else str(0.35 + 0.2 * number)
        at = np.arange(len(scores)) + (number - (len(blocks) - 1) / 2) * width
        bars = ax.bar(at, heights, width, color=color, label=f"block {block}")
        ax.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    ax.set_xticks(np.arange(len(scores)), list(scores), fontsize=8)
    ax.set_ylabel("weighted mAP (%)")
    ax.legend(frameon=False, fontsize=8, ncols=len(blocks), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def attention_rows(rows: Sequence[tuple[np.ndarray, Mapping[str, np.ndarray]]]) -> Figure:
    """Draw a row a picture: the picture, then a heatmap of it for each name: [(picture, {name: (h, w)})]."""
    with plt.rc_context(style.STYLE):
        columns = len(rows[0][1]) + 1
        figure = style.new_figure(1.3 * columns, 1.35 * len(rows) + 0.3)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, (picture, maps) in zip(grid, rows):
            style.show_picture(axes[0], picture)
            for ax, weights in zip(axes[1:], maps.values()):
                style.show_picture(ax, overlay(picture, heatmap(weights, picture.shape[:2])))
        for ax, name in zip(grid[0, 1:], rows[0][1]):
            ax.set_title(style.wrapped(name, 14))
    return figure
