"""Figure 5: all spaces of one network together, and each attribute around it; with and without the condition.

t-SNE of test images. In the middle every point is an image in the space of one attribute, coloured by the
attribute; around it each space alone, coloured by the attribute's values (named in Figure A3). Left the
conditional model, right the triplet network, which ignores the condition: it has one space, so that an image
has one place under all attributes. Under the title is the mAP, as distances between the clusters of a t-SNE
mean little.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shared
from matplotlib.figure import Figure

from ccakit.show import style


def draw(runs, points: int = 150, seed: int = 0) -> Figure:
    """Draw one run (at a column's width) or two side by side (at the text's) of the same data."""
    images = shared.some_images(runs[0], points, seed)
    with shared.lettering():
        figure = style.new_figure(shared.COLUMN if len(runs) == 1 else shared.TEXT, 4.6)
        parts = figure.subfigures(1, len(runs), wspace=0.03, squeeze=False)[0]
        for part, run in zip(parts, runs):
            _ring(part, run, images, seed)
    return figure


def _ring(part, run, images, seed: int) -> None:
    """Draw one run: half of the attributes above, the rest below, all together between."""
    attributes, k = run.attributes, len(run.attributes)
    columns = -(-k // 2)
    grid = part.add_gridspec(3, columns, height_ratios=[1, 3, 1])
    spaces = shared.in_spaces(run, images)
    for c, (space, rows) in enumerate(zip(spaces, images)):
        ax = part.add_subplot(grid[0 if c < columns else 2, c % columns])
        shared.draw_space(ax, space, rows, run, c, 2.5, seed)
        style.title_attribute(ax, attributes, c, width=10, pad=2, fontsize=shared.SMALL + 0.5)
        ax.set_box_aspect(1)
    middle = part.add_subplot(grid[1, :])
    joint = np.concatenate(style.tsne(middle, spaces, images, seed))
    colors = np.repeat(style.attribute_colors(k), [len(rows) for rows in images])
    order = np.random.default_rng(seed).permutation(len(joint))  # no attribute lies on top of all others
    middle.scatter(*joint[order].T, s=4, c=colors[order], linewidth=0)
    style.bare_axes(middle).set_box_aspect(1)
    kind = "without condition" if run.system == "triplet" else "conditional"
    score = shared.scores(run)["map_weighted"]
    middle.set_title(f"{kind}: {run.title}, mAP {score:.1f}", fontsize=7.5, fontweight="bold")


def main(argv=None):
    other = ("--other", dict(type=Path, help="the run to the right; a triplet network by default"))
    alone = ("--alone", dict(action="store_true", help="draw the one run only"))
    given = shared.arguments(__doc__, argv, shared.RUN, other, alone, shared.POINTS)
    base = shared.run_or_demo(given.run)
    if given.other:
        runs = [base, shared.run_on(given.other, base)]
    else:
        runs = [base] if given.alone else shared.compared([base.system, "triplet"], base)
    return shared.write(draw(runs, given.points), "figure5", given.out, *runs)


if __name__ == "__main__":
    main()
