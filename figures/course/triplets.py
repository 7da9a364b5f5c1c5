"""The drawings of notebook 03, triplets and loss; they are no figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ccakit.show import style

from .basics import BLUE, GREY, PAGE, RED, finish, panels


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
