"""The drawings of notebook 09, efficiency; they are not figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccakit.show import style

from .basics import BLUE, DARK_RED, GREEN, GREY, PAGE, RED, SKY, finish, legend_below, panels


def name_points(ax: Axes, points: dict[str, tuple[float, float]], size: float = 7) -> None:
    """Write each point's name at its right, on a logarithmic x axis; move names up that would overlap."""
    low, high = ax.get_ylim()
    line = 0.055 * (high - low)
    written: list[tuple[float, float]] = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        below = [other + line for other_x, other in written if abs(np.log(other_x / x)) < 0.6]
        height = max([y, *below])
        written.append((x, height))
        ax.annotate(name, (x, y), (1.1 * x, height), fontsize=size, va="center")
    ax.set_ylim(low, max(high, *(height + 0.03 * (high - low) for _, height in written)))


def system_kind(title: str) -> str:
    """Return what a system of the paper is, by its title in the tables."""
    if "CCA" in title:
        return "CCA"
    return "other transformers" if title.startswith("TF") else "CNNs"


def scores_over_parameters(
    points: Mapping, titles: Mapping[str, str], networks: Mapping[str, tuple]
) -> Figure:
    """Draw printed scores over parameters (log scale), a panel a data set.

    points: {data set: {system: (millions of parameters, score)}}. networks: {data set: (K, millions of K
    ViTs)}, a dotted line.
    """
    colors = {"CCA": BLUE, "other transformers": DARK_RED, "CNNs": GREEN}
    figure, axes = panels(PAGE, 3.9, columns=len(points))
    for ax, (dataset, systems) in zip(axes, points.items()):
        for name, (millions, score) in systems.items():
            ax.plot(millions, score, "o", color=colors[system_kind(name)], markersize=5)
        count, of_networks = networks[dataset]
        ax.axvline(of_networks, color=GREY, linestyle=":")
        ax.text(of_networks / 1.08, sum(ax.get_ylim()) / 2, f"{count} ViTs", ha="right", fontsize=8)
        name_points(ax, systems)
        ax.set(xscale="log", xlim=(6, 1200), xlabel="parameters (M)", title=titles[dataset])
    legend_below(figure, axes[0], colors, "o")
    return figure


def operation_bars(ax: Axes, gigaflops) -> None:
    """Draw a bar a way (rows of a DataFrame), made of its parts (columns)."""
    start = np.zeros(len(gigaflops))
    for part, color in zip(gigaflops.columns, (SKY, BLUE, RED)):
        ax.barh(gigaflops.index, gigaflops[part], left=start, color=color, label=part)
        start += gigaflops[part].to_numpy()
    ax.set(xlabel="GFLOP an image", xlim=(0, 1.1 * start.max()))
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize=8, loc="upper right")


def time_curves(ratios: Mapping, floors: Mapping, eight: Mapping[str, float]) -> Figure:
    """Draw measured time of all spaces, in units of a plain forward, over the number of conditions.

    ratios: {title: {conditions: ratios of all rounds}}; points are medians, bars quartiles. floors: {title:
    (numbers of conditions, ratios of operations)}. eight: {title: time of eight forwards}.
    """
    figure, axes = panels(4.35 * len(ratios), 3.1, columns=len(ratios), squeeze=False)
    for ax, (title, measured) in zip(axes[0], ratios.items()):
        low, middle, high = np.percentile(list(measured.values()), [25, 50, 75], axis=1)
        ax.plot(*floors[title], color="0.4", linestyle="--", label="floor")
        bars, label = [middle - low, high - middle], "spaces, measured (quartiles)"
        ax.errorbar(list(measured), middle, bars, color=BLUE, fmt="o-", markersize=4, capsize=2, label=label)
        ax.axhline(1, color="0.7", linewidth=0.8)
        text = f"8 forwards: {eight[title]:.1f}"
        ax.text(0.98, 0.96, text, transform=ax.transAxes, ha="right", va="top", fontsize=8, color=style.WRONG)
        ax.set(xscale="log", title=title, xlabel="conditions K", ylabel="time, of a plain forward")
        ax.set_ylim(min(0.85, low.min() - 0.02), max(1.25, high.max() + 0.1))
        ticks = [1, 2, 4, 8, 16, 32, 64]
        finish(ax, xticks=ticks)
    for ax in axes[0, 1:]:
        ax.get_legend().remove()
    axes[0, 0].get_legend().set_loc("upper left")
    return figure
