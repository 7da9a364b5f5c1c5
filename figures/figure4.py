"""Figure 4: where the model looks for each attribute.

A row a test image, a column an attribute: the attention of the last block's condition token over the picture,
the region of the annotated attribute outlined in red, as in the paper. Here the regions are exact where the
data are drawn, every attribute is shown of every image, and where an image has no label of one, the map is
faded.
"""

from __future__ import annotations

import numpy as np
import shared
from matplotlib.figure import Figure

from ccakit.show import pictures, style


def pick(split, count: int, seed: int = 0) -> np.ndarray:
    """Choose test images that together show every attribute about equally often, one after the other."""
    rows = split.regions if split.regions is not None and len(split.regions) else split.labels
    visible = np.zeros((len(split.filenames), len(split.attributes)))
    visible[rows[:, 0].astype(int), rows[:, 1].astype(int)] = 1
    chosen, dice = [], np.random.default_rng(seed).random(len(visible)) * 1e-3
    for _ in range(min(count, len(visible))):
        gain = visible @ 3.0 ** -visible[chosen].sum(axis=0) + dice
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
    return np.array(chosen)


def draw(run=None, images: int = 5, seed: int = 0) -> Figure:
    """Draw heatmaps of `images` test images of a run (by default the demo's), at the text's width."""
    run = run or shared.run_or_demo()
    chosen = pick(run.split, images, seed)
    figure = pictures.heatmaps(run, chosen)
    columns = len(run.attributes) + 1
    side = shared.TEXT / columns
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015)
    for ax in figure.axes:
        ax.title.set(fontsize=shared.SMALL + 1, text=ax.get_title().replace(" ", "\n"))
        label = ax.get_xlabel().replace("-\n", "-").replace("\n", " ")
        ax.set_xlabel(style.wrapped(label, 13), fontsize=shared.SMALL, labelpad=1.5)
    lines = [
        max(ax.get_xlabel().count("\n") + 1 for ax in figure.axes[row : row + columns])
        for row in range(0, len(figure.axes), columns)
    ]
    figure.set_size_inches(shared.TEXT, len(lines) * (side + 0.06) + 0.11 * sum(lines) + 0.26)
    figure.axes[0].set_title("test image", fontsize=shared.SMALL + 1)
    return figure


def main(argv=None):
    given = shared.arguments(__doc__, argv, shared.RUN, ("--images", dict(type=int, default=5)))
    run = shared.run_or_demo(given.run)
    return shared.write(draw(run, given.images), "figure4", given.out, run)


if __name__ == "__main__":
    main()
