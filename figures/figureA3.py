"""Figure A3: each attribute's space alone, by t-SNE; and, as a figure of its own, how entangled they are.

The points are test images that have a label of the attribute, coloured by it. A t-SNE cannot show whether a
space holds another attribute, too, so the entanglement matrix, which the paper does not have, is written
beside it.
"""

from __future__ import annotations

import shared
from matplotlib.figure import Figure

from ccakit.evaluation import entanglement
from ccakit.show import plots, style


def draw(run=None, points: int = 250, seed: int = 0) -> Figure:
    """Draw a panel an attribute, four in a row; its values are named below if they are at most 12."""
    run = run or shared.run_or_demo()
    attributes, rows = run.attributes, -(-len(run.attributes) // 4)
    images = shared.some_images(run, points, seed)
    spaces = shared.in_spaces(run, images)
    with shared.lettering():
        figure = style.new_figure(shared.TEXT, 2.3 * rows)
        axes = figure.subplots(rows, 4, squeeze=False).ravel()
        for ax in axes[len(attributes) :]:
            ax.set_axis_off()
        for c, (ax, space) in enumerate(zip(axes, spaces)):
            shared.draw_space(ax, space, images[c], run, c, 4, seed)
            style.title_attribute(ax, attributes, c)
            shared.name_values(ax, attributes.values[c])
    return figure


def matrix(run) -> Figure:
    """Draw the entanglement matrix of the run's spaces."""
    return plots.entanglement_matrix(entanglement.measure_run(run), run.title)


def main(argv=None):
    given = shared.arguments(__doc__, argv, shared.RUN, ("--points", dict(type=int, default=250)))
    run = shared.run_or_demo(given.run)
    return [
        *shared.write(draw(run, given.points), "figureA3", given.out, run),
        *shared.write(matrix(run), "figureA3_matrix", given.out, run),
    ]


if __name__ == "__main__":
    main()
