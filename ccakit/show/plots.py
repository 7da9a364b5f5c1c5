"""The figures: heatmaps (Figure 4), spaces (Figure 5), rankings (Figure A2), entanglement, training curves.

Each function returns a matplotlib Figure that belongs to no window and is not shown by itself: the last line
of a notebook cell shows it, `save` writes it. An attribute has one colour, by its condition, in every figure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.evaluation import pointing
from ccakit.show import style
from ccakit.show.heat import faded, heatmap, outline, overlay, view_of


def heatmap_grid(
    images: Sequence[np.ndarray],
    maps: np.ndarray,
    attributes: Attributes,
    regions: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    image_ids: Sequence[int] | None = None,
    opacity: float = 0.8,
    unlabelled: str = "no label",
    transform: Callable | None = None,
) -> Figure:
    """Draw the paper's Figure 4: a row an image, the picture first, then its map under each condition.

    images: n uint8 RGB pictures. maps: (n, K, h, w), or (n, K, H, h, w), which are averaged over heads.
    regions: (M, 6) rows image, condition, x0, y0, x1, y1, outlined in red; image_ids: the image of each
    picture, as `regions` numbers them (0..n-1 if None). labels: (n, K), -1 for none: the value's name stands
    under the map, and maps without a label are faded and say `unlabelled`. transform: the model's; if it
    crops, the map lies on the crop (`view_of`).
    """
    maps = pointing.to_numpy(maps)
    image_ids = range(len(images)) if image_ids is None else image_ids
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(1.1 * (len(attributes) + 1), 1.35 * len(images) + 0.3)
        grid = figure.subplots(len(images), len(attributes) + 1, squeeze=False)
        for row, (axes, image, image_id) in enumerate(zip(grid, images, image_ids)):
            style.show_picture(axes[0], image)
            view = view_of(transform, image.shape[:2])
            for condition, ax in enumerate(axes[1:]):
                heat = heatmap(maps[row, condition], image.shape[:2], view=view)
                boxes = pointing.boxes_of(regions, image_id, condition)
                shown = outline(overlay(image, heat, opacity), boxes)
                text = ""
                if labels is not None and labels[row, condition] < 0:
                    shown, text = faded(shown), unlabelled
                elif labels is not None:
                    text = attributes.value(condition, int(labels[row, condition]))
                style.show_picture(ax, shown, text)
        for condition, ax in enumerate(grid[0, 1:]):
            style.title_attribute(ax, attributes, condition, width=12)
    return figure


def ranking_grid(
    picture: Callable[[int], np.ndarray],
    queries: np.ndarray,
    found: Sequence[np.ndarray],
    attributes: Attributes,
) -> Figure:
    """Draw the paper's Figure A2: a row a query, its picture first, then its best candidates in order.

    picture: gives the uint8 RGB picture of an image. queries: (n, 3) rows of image, condition, label; found:
    the same rows of each query's candidates, best first, (t, 3) each. A right candidate (with the query's
    label) has a green frame and a tick, a wrong one an orange frame and a cross.
    """
    ranks = max(map(len, found))
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(1.25 * (ranks + 1) + 0.5, 1.5 * len(queries) + 0.2)
        grid = figure.subplots(len(queries), ranks + 1, squeeze=False)
        for axes, (query, condition, label), candidates in zip(grid, queries, found):
            style.show_picture(axes[0], picture(query), attributes.value(condition, label))
            label_row(axes[0], attributes, condition, width=1)
            for ax in axes[1 + len(candidates) :]:
                ax.set_axis_off()
            for ax, (candidate, _, value) in zip(axes[1:], candidates):
                mark, frame = ("✓", style.RIGHT) if value == label else ("✗", style.WRONG)
                text = f"{mark} {attributes.value(condition, value)}"
                style.show_picture(ax, picture(candidate), text, frame)
        for ax, title in zip(grid[0], ["query", *(f"rank {k}" for k in range(1, ranks + 1))]):
            ax.set_title(title)
    return figure


def label_row(ax: Axes, attributes: Attributes, condition: int, width: int, **options) -> None:
    """Write the attribute's name left of a row's first axes, in its colour, in lines of `width` letters."""
    color = style.ink(style.attribute_colors(len(attributes))[condition])
    name = style.wrapped(attributes.title(condition), width)
    options = {"fontweight": "bold", "rotation": 0, "ha": "right", "va": "center", **options}
    ax.set_ylabel(name, color=color, **options)


def tsne_spaces(
    embeddings: np.ndarray,
    label_matrix: np.ndarray,
    attributes: Attributes,
    seed: int = 0,
    points: int = 150,
    image_ids: Sequence[int] | None = None,
) -> Figure:
    """Draw the paper's Figure 5: all K spaces in the middle, by attribute; each at the sides, by value.

    embeddings: (N, K, E); label_matrix: (N, K), -1 for none. At most `points` labelled images are drawn of
    each attribute (t-SNE takes longer for more: about 7 s for 150 and K = 8); the middle shows the same
    images. As always, distances between clusters of a t-SNE mean little. image_ids: the image of each row
    (0..N-1 if None), by which the figure names those that have no embedding (NaN).
    """
    embeddings, k = pointing.to_numpy(embeddings), len(attributes)
    rng = np.random.default_rng(seed)
    labelled = [np.flatnonzero(label_matrix[:, c] >= 0) for c in range(k)]
    chosen = [rng.permutation(rows)[:points] for rows in labelled]
    image_ids = np.arange(len(embeddings)) if image_ids is None else np.asarray(image_ids)
    colors, rows_a_side = style.attribute_colors(k), -(-k // 2)
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(10, max(4.6, 1.75 * rows_a_side))
        grid = figure.add_gridspec(rows_a_side, 3, width_ratios=[1, 2.0, 1])
        for c, rows in enumerate(chosen):
            left = c < rows_a_side
            ax = figure.add_subplot(grid[c % rows_a_side, 0 if left else 2])
            style.title_attribute(ax, attributes, c)
            style.bare_axes(ax, colors[c])
            (points_2d,) = style.tsne(ax, [embeddings[rows, c]], [image_ids[rows]], seed)
            _scatter_values(ax, points_2d, label_matrix[rows, c], attributes.values[c], left)
        middle = figure.add_subplot(grid[:, 1])
        middle.set_title("all spaces together, by attribute", fontsize=9)
        spaces = [embeddings[rows, c] for c, rows in enumerate(chosen)]
        parts = style.tsne(middle, spaces, [image_ids[rows] for rows in chosen], seed)
        for c, part in enumerate(parts):
            middle.scatter(
                *part.T, s=7, color=colors[c], linewidth=0, label=style.wrapped(attributes.title(c), 28)
            )
        style.bare_axes(middle).set_box_aspect(1)
        below = dict(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3)
        middle.legend(**below, frameon=False, markerscale=3, handletextpad=0.1)
    return figure


def _scatter_values(
    ax: Axes, points: np.ndarray, labels: np.ndarray, values: Sequence[str], left: bool
) -> None:
    """Draw one space, coloured by value; at most 12 values are named beside it, at the left or the right."""
    dots, names = [], []  # matplotlib by itself names no dots whose name begins with "_"
    for label, color in enumerate(style.value_colors(len(values))):
        if (labels == label).any():
            name = " ".join(values[label].split())
            names.append(name if len(name) <= 24 else f"{name[:23]}…")
            dots.append(ax.scatter(*points[labels == label].T, s=7, color=color, linewidth=0))
    if len(values) > 12 or not len(labels):
        ax.set_xlabel(f"{len(np.unique(labels))} values")
        return
    side, x = ("center right", -0.02) if left else ("center left", 1.02)
    spacing = dict(markerscale=2, handletextpad=0.1, borderpad=0, labelspacing=0.25)
    ax.legend(dots, names, loc=side, bbox_to_anchor=(x, 0.5), frameon=False, **spacing)


def entanglement_matrix(result, title: str = "") -> Figure:
    """Draw how well each attribute (column) is read from each space (row): 0 as chance, 1 as its own space.

    result: an `Entanglement`. Below an entry, in brackets, if it is known: what label i alone explains. A
    dash stands for an entry that cannot be normalised. `title` names the system; the scores follow it.
    """
    k, names = len(result.names), [name.replace("_", " ") for name in result.names]
    columns = [style.wrapped(name, 8) for name in names]
    slanted = max(len(line) for name in columns for line in name.split("\n")) > 9
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(0.5 * k + 1.75, 0.42 * k + 1.45)
        ax = figure.subplots()
        colors = plt.get_cmap("Blues").with_extremes(bad="0.88")
        image = ax.imshow(np.ma.masked_invalid(result.normalised), cmap=colors, vmin=0, vmax=1, aspect="auto")
        for i, j in np.ndindex(k, k):
            explained = np.nan if i == j else result.explained_normalised[i, j]
            _write_entry(ax, i, j, result.normalised[i, j], explained)
        ax.set_xticks(range(k), columns, rotation=35 if slanted else 0, ha="right" if slanted else "center")
        ax.set_yticks(range(k), names)
        ax.set(xlabel="attribute read", ylabel="space of")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for own in range(k):
            corner = own - 0.48, own - 0.48
            ax.add_patch(plt.Rectangle(corner, 0.96, 0.96, fill=False, color=style.PALETTE[3], lw=1.5))
        lines = textwrap.wrap(_score_text(result), int(14 * figure.get_figwidth()))
        unit = {"map": "mAP", "knn": "k-NN", "linear": "linear probe"}[result.probe]
        lines.insert(0, f"{title}, {unit}" if title else unit)
        figure.suptitle("\n".join(lines), x=0.02, ha="left", fontsize=8)
        bar = figure.colorbar(image, ax=ax, ticks=[0, 0.5, 1], fraction=0.06, pad=0.02)
        bar.ax.set_yticklabels(["chance", "", "own\nspace"])
        bar.outline.set_visible(False)
    return figure


def _score_text(result) -> str:
    text = "score unknown" if np.isnan(result.score) else f"score {result.score:.2f}"
    if result.compared.any():
        pairs = f"{result.compared.sum()} of {len(result.names) * (len(result.names) - 1)}"
        scores = f"{result.score_compared:.2f}, beyond labels {result.score_beyond_labels:.2f}"
        text += f"; pairs with both labels ({pairs}): {scores}"
    return text


def _write_entry(ax: Axes, row: int, column: int, value: float, explained: float) -> None:
    """Write a number into a cell of a matrix of 0..1, and below it another in brackets, if it is known."""

    def decimals(number: float) -> str:
        return f"{number:.2f}".replace("-0.00", "0.00").replace("-", "−")

    look, known = dict(color="white" if value > 0.7 else "black", ha="center"), not np.isnan(explained)
    text = "–" if np.isnan(value) else decimals(value)
    ax.text(column, row, text, va="bottom" if known else "center", fontsize=7, **look)
    if known:
        ax.text(column, row + 0.08, f"({decimals(explained)})", va="top", fontsize=5.5, **look)


def training_curve(rows: Sequence[dict]) -> Figure:
    """Draw the loss at each logged step and, below, the weighted mAP on valid where it was measured.

    rows: dicts with `step` and, where known, `loss` and `valid_map_weighted` (percent), numbers or text: the
    rows of a run's log.csv as csv.DictReader gives them. The best mAP is marked.
    """

    def measured(key: str) -> np.ndarray:
        pairs = [(row["step"], row[key]) for row in rows if row.get(key) not in (None, "")]
        return np.array(pairs, float).reshape(-1, 2)

    loss, score = measured("loss"), measured("valid_map_weighted")
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(5, 3.4)
        top, bottom = figure.subplots(2, 1, sharex=True)
        top.plot(*loss.T, color=style.PALETTE[0], linewidth=1.2)
        top.set(ylabel="triplet loss (Eq. 9)", ylim=(0, None))
        bottom.plot(*score.T, color=style.PALETTE[6], linewidth=1.2, marker="o", markersize=3)
        bottom.set(xlabel="step", ylabel="map_weighted, valid (%)")
        if len(score):
            step, best = score[score[:, 1].argmax()]
            bottom.plot(step, best, "o", markersize=7, markerfacecolor="none", color=style.PALETTE[4])
            side = "right" if step > np.median(score[:, 0]) else "left"
            below = dict(xytext=(0, -12), textcoords="offset points", ha=side)
            bottom.annotate(f"best {best:.2f}", (step, best), color=style.PALETTE[4], **below)
        for ax in (top, bottom):
            ax.grid(axis="y", color="0.9", linewidth=0.6)
    return figure
