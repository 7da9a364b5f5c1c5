"""Reliability diagrams: how often answers are right, against how sure they were said to be."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.evaluation.calibration import expected_calibration_error, reliability
from ccakit.show.style import STYLE, attribute_colors, ink, new_figure, title_attribute

BINS = 10  # fewer than the error's: each point stands for more answers


def reliability_grid(
    answers: Mapping[int, tuple[np.ndarray, np.ndarray]], attributes: Attributes, columns: int = 5
) -> Figure:
    """Draw a diagram for each attribute, and one for all: on the diagonal, answers are as right as they say.

    answers: {condition: (confidence (n,), right (n,))}. A point is a bin of answers; its area grows with
    their number, and its bar is the 95% interval of the share that is right (Wilson).
    """
    panels = list(answers.items())
    if len(panels) > 1:
        together = tuple(map(np.concatenate, zip(*answers.values())))
        panels.append((None, together))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with plt.rc_context(STYLE):
        figure = new_figure(1.75 * columns + 0.3, 2.15 * rows + 0.4)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        colors = attribute_colors(len(attributes))
        for ax, (condition, (confidence, right)) in zip(grid.flat, panels):
            _panel(ax, confidence, right, "0.2" if condition is None else ink(colors[condition]))
            if condition is None:
                ax.set_title("all attributes", fontweight="bold", color="0.2")
            else:
                title_attribute(ax, attributes, condition, width=24)
        for ax in grid.flat[len(panels) :]:
            ax.remove()
        for ax in grid[:, 0]:
            ax.set_ylabel("share right")
        for column in range(columns):
            last = (len(panels) - 1 - column) // columns
            grid[last, column].set_xlabel("confidence")
            grid[last, column].tick_params(labelbottom=True)
    return figure


def _panel(ax: Axes, confidence: np.ndarray, right: np.ndarray, color: str | tuple[float, ...]) -> None:
    ax.plot([0, 1], [0, 1], color="0.75", linewidth=0.8, zorder=0)
    found = reliability(confidence, right, BINS)
    there = found.count > 0
    count, x, y = found.count[there], found.confidence[there], found.accuracy[there]
    low, high = wilson_interval(y, count)
    ax.vlines(x, low, high, color=color, linewidth=0.9, alpha=0.5)
    ax.scatter(x, y, 6 + 90 * count / count.sum(), color=color, zorder=3, linewidth=0, clip_on=False)
    error = 100 * expected_calibration_error(confidence, right)
    ax.text(1, 0, f"error {error:.1f}%\n{count.sum()} answers", ha="right", fontsize=7, color="0.3")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def wilson_interval(share: np.ndarray, count: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Compute the interval of a share of `count` by Wilson's score: its lower and upper ends.

    >>> low, high = wilson_interval(np.array([1.0]), np.array([10]))
    >>> float(low[0].round(3)), float(high[0].round(3))
    (0.722, 1.0)
    """
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return middle - half, middle + half
