"""Figure 4: where the model looks for each attribute.

A row a test image, a column an attribute: the attention of the last block's condition token over the picture,
the region of the annotated attribute outlined in red, as in the paper. Here the regions are exact where the
data are drawn, every attribute is shown of every image, and where an image has no label of one, the map is
faded.

With --runs, every picture has a row for each of them, which is named; --image-size reads those on a frozen
vision transformer at another size than they were trained at, with the same weights:

    python figures/figure4.py --image-size 224 --runs lite=runs/demo "block 8=runs/vit/..."
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import shared
from matplotlib.figure import Figure

from ccakit.evaluation import pointing
from ccakit.evaluation.at_size import at_size, takes_sizes
from ccakit.evaluation.embedding import attention_maps
from ccakit.evaluation.run import Run
from ccakit.show import pictures, style
from ccakit.show.heat import faded, heatmap, outline, overlay, view_of


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


def draw_runs(runs: Mapping[str, Run], images: int = 3, seed: int = 0) -> Figure:
    """Draw heatmaps of `images` test images, a row for each run, whose name stands beside it.

    runs: by name, on the same data.
    """
    split, columns = next(iter(runs.values())).split, len(next(iter(runs.values())).attributes) + 1
    with plt.rc_context(style.STYLE):
        side = shared.TEXT / columns
        figure = style.new_figure(shared.TEXT, images * len(runs) * (side + 0.03) + 0.3)
        figure.get_layout_engine().set(w_pad=0.015, h_pad=0.012)
        grid = figure.subplots(images * len(runs), columns, squeeze=False)
        for number, (name, run) in enumerate(runs.items()):
            chosen = pick(split, images, seed)
            maps = attention_maps(run.model, run.inputs, chosen)
            for axes, image, of_image in zip(grid[number :: len(runs)], chosen, maps):
                _draw_row(axes, run, image, of_image)
                axes[0].set_ylabel(style.wrapped(name, 12), fontsize=shared.SMALL + 1)
        for condition, ax in enumerate(grid[0, 1:]):
            style.title_attribute(ax, split.attributes, condition, width=10, fontsize=shared.SMALL + 1)
    return figure


def _draw_row(axes, run: Run, image: int, maps: np.ndarray) -> None:
    """Draw a picture and its heatmaps; faded where it has no label."""
    picture, labels = run.picture(image), run.split.label_matrix()[image]
    style.show_picture(axes[0], picture)
    view = view_of(run.saved.transform, picture.shape[:2])
    for condition, ax in enumerate(axes[1:]):
        shown = overlay(picture, heatmap(maps[condition], picture.shape[:2], view=view))
        shown = outline(shown, pointing.boxes_of(run.split.regions, image, condition))
        style.show_picture(ax, faded(shown) if labels[condition] < 0 else shown)


def _opened(words: list[str], side: int | None) -> dict[str, Run]:
    """Open the runs that --runs names, at another size where they take one."""
    named = dict(word.rsplit("=", 1) for word in words)
    first = shared.run_or_demo(Path(next(iter(named.values()))))
    runs = {name: shared.run_on(Path(folder), first) for name, folder in named.items()}
    return {name: at_size(run, side) if side and takes_sizes(run) else run for name, run in runs.items()}


def main(argv=None):
    size = ("--image-size", dict(type=int, default=None, help="of pictures, for runs on a frozen ViT"))
    images = ("--images", dict(type=int, default=None, help="test images: 5, or 3 with --runs"))
    given = shared.arguments(__doc__, argv, shared.RUN, shared.RUNS, images, size)
    if given.runs:
        runs = _opened(given.runs, given.image_size)
        return shared.write(draw_runs(runs, given.images or 3), "figure4_runs", given.out, *runs.values())
    run = shared.run_or_demo(given.run)
    if given.image_size:
        run = at_size(run, given.image_size)
    return shared.write(draw(run, given.images or 5), "figure4", given.out, run)


if __name__ == "__main__":
    main()
