"""Figure 6: the spaces of three attributes, as CCA, ASEN and CAMNet make them.

t-SNE of the same test images in every row, coloured by the attribute's values. Unlike the paper's, all systems here
have one trunk and one budget, and every panel says the attribute's mAP, which t-SNE cannot show.
"""

from __future__ import annotations

import shared
from matplotlib.figure import Figure

from ccakit.show import plots, style

SYSTEMS, ATTRIBUTES = ("cca-type2", "asen", "camnet"), ("neck_design", "sleeve_length", "coat_length")


def draw(runs, attributes=ATTRIBUTES, points: int = 250, seed: int = 0) -> Figure:
    """A row a run (of the same data), a column an attribute; the values are named below."""
    of = runs[0].split.attributes
    chosen = [of.condition(name) for name in attributes if name in of.names] or list(range(min(3, len(of))))
    images, labels = shared.some_images(runs[0], points, seed), runs[0].split.label_matrix()
    with plots.plt.rc_context(shared.lettering(6.5)):
        figure = style.new_figure(shared.TEXT, 1.9 * len(runs) + 0.85)
        grid = figure.subplots(len(runs), len(chosen), squeeze=False)
        for row, run in zip(grid, runs):
            spaces, maps = shared.in_spaces(run, images), shared.scores(run)
            for ax, c in zip(row, chosen):
                rows = images[c]
                shared.scatter_values(ax, style.tsne(spaces[c], seed), labels[rows, c], of.values[c], 5)
                style.bare_axes(ax, style.attribute_colors(len(of))[c])
                low, high = ax.get_ylim()
                ax.set_ylim(low, high + 0.07 * (high - low))  # room for the text
                ax.text(
                    0.99,
                    0.985,
                    f"mAP {maps[of.names[c]]:.1f}",
                    transform=ax.transAxes,
                    ha="right",
                    va="top",
                    bbox=dict(facecolor="white", edgecolor="none", alpha=0.8, pad=1),
                )
                if run is runs[-1]:
                    shared.name_values(ax, of.values[c], 18)
            row[0].set_ylabel(shared.title_of(run), fontsize=8, fontweight="bold")
        for ax, c in zip(grid[0], chosen):
            color = style.ink(style.attribute_colors(len(of))[c])
            ax.set_title(of.title(c), color=color, fontweight="bold", fontsize=8)
    return figure


def main(argv=None):
    given = shared.arguments(
        __doc__, argv, shared.RUN, shared.RUNS, ("--points", dict(type=int, default=250))
    )
    runs = shared.compared(SYSTEMS, shared.run_or_demo(given.run), given.runs)
    return shared.write(draw(runs, points=given.points), "figure6", given.out)


if __name__ == "__main__":
    main()
