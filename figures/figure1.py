"""Figure 1: K networks for K attributes, or one network that is switched; what each costs.

Our own drawing, with parameters and operations, which the paper's figure does not have: counted on the
paper's trunk as K grows.
"""

from __future__ import annotations

from functools import cache

import shared
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from ccakit.models.registry import create_model
from ccakit.show import style

TRUNK, SYSTEM = "vit_base_r50_s16_224", "cca-type2"


def costs(name: str, conditions: int, trunk: str = TRUNK) -> tuple[float, float]:
    """Count parameters, and operations (2 a multiply-add) of one image and all K embeddings, by shapes."""
    return _counted(name, conditions, trunk)


@cache  # here the trunk is part of the key, also if it is the default
def _counted(name: str, conditions: int, trunk: str) -> tuple[float, float]:
    with torch.device("meta"), torch.inference_mode():
        model = create_model(name, trunk=trunk, conditions=conditions, pretrained=False).eval()
        image = torch.empty(1, 3, *model.trunk.image_size)
        with FlopCounterMode(display=False) as counter:  # not around create_model, which runs the CNN once
            model(image)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()


def draw(trunk: str = TRUNK, most: int = 16) -> Figure:
    """Draw (a) K networks, (b) one network, (c) parameters and (d) operations by K; at the text's width."""
    canvas = shared.Canvas(shared.TEXT, 2.9)
    colors = style.attribute_colors(8)
    _many(canvas, colors)
    _one(canvas, colors)
    counts = sorted({1, 2, 4, 8, most})
    single = costs("triplet", 1, trunk)
    one = [costs(SYSTEM, k, trunk) for k in counts]
    for index, (bottom, title, unit) in enumerate(
        ((0.65, "parameters (M)", 1e6), (0.13, "GFLOP an image", 1e9))
    ):
        ax = canvas.figure.add_axes((0.765, bottom, 0.215, 0.265))
        many_costs = [k * single[index] / unit for k in counts]
        one_costs = [cost[index] / unit for cost in one]
        _lines(ax, counts, many_costs, one_costs, in_float32=index == 0)
        ax.set_title(f"({'cd'[index]}) {title}", fontsize=7.5, loc="left", x=-0.24, fontweight="bold")
    return canvas.figure


def _lines(ax, counts, many, one, in_float32: bool) -> None:
    """Draw the costs of K networks and of one network; write those at K = 8 (and GB in float32)."""
    at = counts.index(8)
    for costs_by_k, name, color, marker, x, offset in (
        (many, "K networks", style.WRONG, "s", 8, (-4, 1)),
        (one, "one network", style.PALETTE[0], "o", counts[-1] + 0.6, (0, 3)),
    ):
        ax.plot(counts, costs_by_k, color=color, marker=marker, markersize=3, linewidth=1.2)
        text = f"{name},\nK = 8: {costs_by_k[at]:,.0f}"
        if in_float32:
            text += f"\n({4 * costs_by_k[at] / 1e3:.1f} GB)"
        options = dict(textcoords="offset points", ha="right", va="bottom", fontsize=6.2)
        ax.annotate(text, (x, costs_by_k[at]), offset, color=style.ink(color), **options)
    ax.set(
        xlim=(0, counts[-1] + 0.6), ylim=(0, 1.08 * many[-1]), xticks=[0, *counts[2:]], xlabel="conditions K"
    )
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=6.5)
    ax.xaxis.label.set(fontsize=6.5)
    ax.xaxis.labelpad = 1


def _spaces(canvas, x: float, y: float, color: str, text: str) -> None:
    """Draw an embedding space: a few clusters in a circle."""
    canvas.circle(x, y, 0.19, "", "white")
    for dx, dy in ((-0.09, 0.05), (0.07, 0.09), (0.02, -0.09)):
        canvas.ax.plot(
            [x + dx, x + dx + 0.035, x + dx - 0.02],
            [y + dy, y + dy + 0.03, y + dy + 0.04],
            ".",
            color=color,
            markersize=2.5,
        )
    canvas.text(x, y - 0.27, text, color=style.ink(color), fontsize=6.5)


def _many(canvas, colors) -> None:
    canvas.text(0.1, 2.78, "(a) K networks", ha="left", fontweight="bold", fontsize=7.5)
    canvas.person(0.38, 1.5, 0.55)
    for y, number, color in ((2.35, "1", colors[0]), (1.5, "2", colors[1]), (0.45, "K", colors[6])):
        canvas.arrow((0.62, 1.5), (0.78, y), (0.92, y)) if y != 1.5 else canvas.arrow((0.62, y), (0.92, y))
        canvas.box(1.26, y, 0.66, 0.5, f"network {number}\n(all layers)", shared.SWITCHED, fontsize=6.5)
        canvas.arrow((1.59, y), (1.76, y))
        _spaces(canvas, 1.97, y, color, f"space {number}")
    canvas.text(1.26, 0.98, "⋮", fontsize=11)


def _one(canvas, colors) -> None:
    canvas.text(2.32, 2.78, "(b) one network, switched", ha="left", fontweight="bold", fontsize=7.5)
    canvas.person(2.6, 1.5, 0.55)
    canvas.arrow((2.82, 1.5), (2.93, 1.5))
    canvas.box(3.21, 1.5, 0.54, 0.9, "layers\n1 … L−1", shared.SHARED, fontsize=6.5)
    canvas.text(3.21, 0.97, "once\nan image", fontsize=6.2, va="top")
    canvas.box(3.85, 1.5, 0.5, 0.9, "layer L:\ncross\natten-\ntion", shared.SWITCHED, fontsize=6.5)
    canvas.arrow((3.48, 1.5), (3.6, 1.5))
    canvas.text(3.85, 0.97, "one row\na condition", fontsize=6.2, va="top")
    canvas.box(3.7, 2.35, 0.86, 0.26, "condition 1 … K", shared.SWITCHED, fontsize=6.2)
    canvas.arrow((3.85, 2.22), (3.85, 1.95))
    for y, number, color in ((2.35, "1", colors[0]), (1.5, "2", colors[1]), (0.45, "K", colors[6])):
        end = (4.34, y) if y == 1.5 else (4.37, y + (0.08 if y < 1.5 else -0.08))
        canvas.arrow((4.1, 1.5), end)
        _spaces(canvas, 4.53, y, color, f"space {number}")
    canvas.text(4.53, 0.86, "⋮", fontsize=11)


def main(argv=None):
    given = shared.arguments(__doc__, argv, ("--trunk", dict(default=TRUNK)))
    return shared.write(draw(given.trunk), "figure1", given.out)


if __name__ == "__main__":
    main()
