"""Figure A3: each attribute's space alone, by t-SNE; and, as a figure of its own, how entangled they are.

The points are test images that have a label of the attribute, coloured by it. A t-SNE cannot show whether a space
tells of another attribute, too, so the entanglement matrix, which the paper has not, is written beside it.
"""

from __future__ import annotations

import shared
from matplotlib.figure import Figure

from ccakit.evaluation import entanglement
from ccakit.show import plots, style


def draw(run=None, points: int = 250, seed: int = 0) -> Figure:
    """A panel an attribute, four in a row, its values named below if they are at most 12."""
    run = run or shared.run_or_demo()
    attributes, k = run.split.attributes, len(run.split.attributes)
    images, labels, colors = (
        shared.some_images(run, points, seed),
        run.split.label_matrix(),
        style.attribute_colors(k),
    )
    spaces = shared.in_spaces(run, images)
    with plots.plt.rc_context(shared.lettering()):
        figure = style.new_figure(shared.TEXT, 2.3 * -(-k // 4))
        grid = figure.subplots(-(-k // 4), 4, squeeze=False)
        for ax in grid.ravel()[k:]:
            ax.set_axis_off()
        for c, ax in enumerate(grid.ravel()[:k]):
            values, rows = attributes.values[c], images[c]
            shared.scatter_values(ax, style.tsne(spaces[c], seed), labels[rows, c], values, 4)
            ax.set_title(attributes.title(c), color=style.ink(colors[c]), fontweight="bold")
            style.bare_axes(ax, colors[c])
            shared.name_values(ax, values)
    return figure


def matrix(run) -> Figure:
    """The entanglement matrix of the run's spaces, at the text's width."""
    return plots.entanglement_matrix(entanglement.measure_run(run), shared.title_of(run))


def main(argv=None):
    given = shared.arguments(__doc__, argv, shared.RUN, ("--points", dict(type=int, default=250)))
    run = shared.run_or_demo(given.run)
    return [
        *shared.write(draw(run, given.points), "figureA3", given.out),
        *shared.write(matrix(run), "figureA3_matrix", given.out),
    ]


if __name__ == "__main__":
    main()
