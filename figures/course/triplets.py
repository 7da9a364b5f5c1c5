"""The drawings of notebook 03, triplets and loss; they are not figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ccakit.show import style

from .basics import BLUE, GREEN, GREY, PAGE, RED, finish, panels


def triplet_columns(columns: Sequence[Mapping]) -> Figure:
    """Draw triplets, one a column: anchor, positive, negative.

    A column holds its `title`, three `pictures` and three `values` written under them.
    """
    figure, axes = panels(PAGE, 4.8, 3, len(columns))
    for column, drawn in zip(axes.T, columns):
        for ax, picture, value in zip(column, drawn["pictures"], drawn["values"]):
            style.show_picture(ax, picture, value)
        column[0].set_title(drawn["title"], fontsize=8, fontweight="bold")
    for ax, side in zip(axes[:, 0], ("anchor", "positive", "negative")):
        ax.set_ylabel(side)
    return figure


def spread_and_loss(runs: Mapping[str, np.ndarray]) -> Figure:
    """Draw spread (left, log scale) and loss (right) of runs.

    runs: {setting: (seeds, steps, 2), loss and spread}.
    """
    figure, (left, right) = panels(PAGE, 3, columns=2)
    for (name, histories), color in zip(runs.items(), (RED, style.PALETTE[3], BLUE)):
        for seed, (losses, spreads) in enumerate(np.moveaxis(histories, 2, 1)):
            left.plot(spreads.clip(1e-4), color=color, linewidth=1.3, label=name if seed == 0 else None)
            right.plot(losses, color=color, linewidth=1)
    finish(left, yscale="log", xlabel="step", ylabel="spread (log)", ylim=(1e-4, 1.5))
    finish(right, xlabel="step", ylabel="loss (Eq. 9)", ylim=(0, 0.4))
    right.axhline(0.2, color=GREY, linestyle=":")
    return figure


def maps_by_labels(titles: Sequence[str], labelled: np.ndarray, maps: Mapping[str, np.ndarray]) -> Figure:
    """Draw each attribute's mAP under several ways to train; the attribute with the most labels comes first.

    titles: K. labelled: (K,), the share of the training images that carry a label of each attribute. maps:
    {way: (K,), percent}.
    """
    order = np.argsort(-labelled, kind="stable")
    rows = np.arange(len(order))
    figure, ax = panels(PAGE, 0.9 + 0.34 * len(order))
    found = np.stack(list(maps.values()))[:, order]  # (ways, K)
    ax.hlines(rows, found.min(axis=0), found.max(axis=0), color="0.85", linewidth=2, zorder=0)
    for (way, values), color in zip(maps.items(), (RED, style.PALETTE[3], BLUE, GREEN)):
        ax.plot(values[order], rows, "o", color=color, markersize=6, label=way)
    ax.set_yticks(rows, [f"{titles[c]}, {100 * labelled[c]:.0f}%" for c in order])
    ax.invert_yaxis()
    finish(ax, xlabel="mAP in percent; beside the names: images with a label, in train", xlim=(0, 102))
    ax.get_legend().remove()
    figure.legend(loc="outside upper center", ncols=len(maps), frameon=False, fontsize=8)
    return figure
