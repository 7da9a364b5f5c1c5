"""Figure 6: the spaces of three attributes, as CCA, ASEN and CAMNet make them.

t-SNE of the same test images in every row, coloured by the attribute's values. Unlike the paper's, all
systems here have one trunk and one budget, and every panel says the attribute's mAP, which t-SNE cannot show.
"""

from __future__ import annotations

import shared
from matplotlib.figure import Figure

from ccakit.show import style

SYSTEMS, ATTRIBUTES = ("cca-type2", "asen", "camnet"), ("neck_design", "sleeve_length", "coat_length")


def draw(runs, attributes=ATTRIBUTES, points: int = 250, seed: int = 0) -> Figure:
    """Draw a row a run (of the same data) and a column an attribute; the values are named below."""
    known = runs[0].attributes
    chosen = [known.condition(name) for name in attributes if name in known.names]
    chosen = chosen or list(range(min(3, len(known))))
    images = shared.some_images(runs[0], points, seed)
    with shared.lettering(6.5):
        figure = style.new_figure(shared.TEXT, 1.9 * len(runs) + 0.85)
        grid = figure.subplots(len(runs), len(chosen), squeeze=False)
        for axes, run in zip(grid, runs):
            spaces, scores = shared.in_spaces(run, images), shared.scores(run)
            for ax, c in zip(axes, chosen):
                shared.draw_space(ax, spaces[c], images[c], run, c, 5, seed)
                _write_score(ax, scores[known.names[c]])
            axes[0].set_ylabel(run.title, fontsize=8, fontweight="bold")
        for ax, c in zip(grid[0], chosen):
            style.title_attribute(ax, known, c, fontsize=8)
        for ax, c in zip(grid[-1], chosen):
            shared.name_values(ax, known.values[c], 18)
    return figure


def _write_score(ax, score: float) -> None:
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.07 * (high - low))  # room for the text
    box = dict(facecolor="white", edgecolor="none", alpha=0.8, pad=1)
    ax.text(0.99, 0.985, f"mAP {score:.1f}", transform=ax.transAxes, ha="right", va="top", bbox=box)


def main(argv=None):
    given = shared.arguments(
        __doc__, argv, shared.RUN, shared.RUNS, ("--points", dict(type=int, default=250))
    )
    runs = shared.compared(SYSTEMS, shared.run_or_demo(given.run), given.runs)
    return shared.write(draw(runs, points=given.points), "figure6", given.out, *runs)


if __name__ == "__main__":
    main()
