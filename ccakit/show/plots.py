"""The figures: heatmaps (Figure 4), spaces (Figure 5), rankings (Figure A2), training curves.

Each function returns a matplotlib Figure that belongs to no window and is never shown by itself: the last line of
a notebook cell shows it, `save` writes it. An attribute has one colour, by its condition, in every figure.
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
from ccakit.show.heat import heatmap, outline, overlay, view_of
from ccakit.show.style import (
    PALETTE,
    RIGHT,
    STYLE,
    WRONG,
    attribute_colors,
    bare_axes,
    ink,
    new_figure,
    show_picture,
    tsne,
    value_colors,
)


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
    """The paper's Figure 4: a row an image, the picture first, then its map under each condition.

    images: n uint8 RGB pictures. maps: (n, K, h, w), or (n, K, H, h, w) to be averaged over heads. regions:
    (M, 6) rows image, condition, x0, y0, x1, y1, outlined in red; image_ids: the image in `regions` that each
    picture is (0..n-1 if None). labels: (n, K), -1 where there is none: the value is named under the map, and
    maps without a label are faded and say `unlabelled`. transform: the model's, if it crops: maps are laid where
    they belong (`view_of`).
    """
    maps = pointing.to_numpy(maps)
    image_ids = range(len(images)) if image_ids is None else image_ids
    with plt.rc_context(STYLE):
        figure = new_figure(1.1 * (len(attributes) + 1), 1.35 * len(images) + 0.3)
        grid = figure.subplots(len(images), len(attributes) + 1, squeeze=False)
        for row, (axes, image, image_id) in enumerate(zip(grid, images, image_ids)):
            show_picture(axes[0], image)
            view = view_of(transform, image.shape[:2])
            for condition, ax in enumerate(axes[1:]):
                heat = heatmap(maps[row, condition], image.shape[:2], view=view)
                shown = overlay(image, heat, opacity)
                shown = outline(shown, pointing.boxes_of(regions, image_id, condition))
                label = None if labels is None else int(labels[row, condition])
                faded = label is not None and label < 0
                text = unlabelled if faded else "" if label is None else attributes.value(condition, label)
                show_picture(ax, (0.3 * shown + 0.7 * 255).astype(np.uint8) if faded else shown, text)
        for condition, ax in enumerate(grid[0, 1:]):
            ax.set_title(
                "\n".join(textwrap.wrap(attributes.title(condition), 12)),
                fontweight="bold",
                color=ink(attribute_colors(len(attributes))[condition]),
            )
    return figure


def ranking_grid(
    queries: Sequence[np.ndarray],
    candidates: Sequence[Sequence[np.ndarray]],
    conditions: Sequence[int],
    query_labels: Sequence[int],
    candidate_labels: Sequence[Sequence[int]],
    attributes: Attributes,
) -> Figure:
    """The paper's Figure A2: a row a query, the picture first, then its best-ranked candidates in order.

    queries: n uint8 RGB pictures; candidates: n lists of t pictures; conditions: the n attributes asked for; the
    labels under that condition: (n,) and (n, t). A right candidate (of the query's label) has a green frame and
    a tick, a wrong one an orange frame and a cross.
    """
    ranks = max(len(row) for row in candidates)
    colors = attribute_colors(len(attributes))
    with plt.rc_context(STYLE):
        figure = new_figure(1.25 * (ranks + 1) + 0.5, 1.5 * len(queries) + 0.2)
        grid = figure.subplots(len(queries), ranks + 1, squeeze=False)
        for axes, image, condition, label, found, its_labels in zip(
            grid, queries, conditions, query_labels, candidates, candidate_labels
        ):
            show_picture(axes[0], image, attributes.value(condition, label))
            axes[0].set_ylabel(
                attributes.title(condition).replace(" ", "\n"),
                fontweight="bold",
                color=ink(colors[condition]),
                rotation=0,
                ha="right",
                va="center",
            )
            for ax in axes[1 + len(found) :]:
                ax.set_axis_off()
            for ax, candidate, value in zip(axes[1:], found, its_labels):
                mark, frame = ("✓", RIGHT) if value == label else ("✗", WRONG)
                show_picture(ax, candidate, f"{mark} {attributes.value(condition, value)}", frame)
        for ax, title in zip(grid[0], ["query", *(f"rank {k}" for k in range(1, ranks + 1))]):
            ax.set_title(title)
    return figure


def tsne_spaces(
    embeddings: np.ndarray, label_matrix: np.ndarray, attributes: Attributes, seed: int = 0, points: int = 150
) -> Figure:
    """The paper's Figure 5: all K spaces together in the middle, by attribute; each alone at the sides, by value.

    embeddings: (N, K, E); label_matrix: (N, K), -1 where there is none. Of each attribute at most `points`
    labelled images are drawn (t-SNE's time grows with them; 150 take about 7 s for K = 8); the
    middle shows the same ones. Distances between clusters of a t-SNE mean little, as always.
    """
    embeddings, k = pointing.to_numpy(embeddings), len(attributes)
    rng = np.random.default_rng(seed)
    chosen = [np.flatnonzero(label_matrix[:, c] >= 0) for c in range(k)]
    chosen = [rng.permutation(rows)[:points] for rows in chosen]
    colors, side = attribute_colors(k), -(-k // 2)
    with plt.rc_context(STYLE):
        figure = new_figure(10, max(4.6, 1.75 * side))
        grid = figure.add_gridspec(side, 3, width_ratios=[1, 2.0, 1])
        for c, rows in enumerate(chosen):
            left = c < side
            ax = figure.add_subplot(grid[c % side, 0 if left else 2])
            _values(ax, embeddings[rows, c], label_matrix[rows, c], attributes, c, seed, left)
        middle = figure.add_subplot(grid[:, 1])
        joint = tsne(np.concatenate([embeddings[rows, c] for c, rows in enumerate(chosen)]), seed)
        condition = np.repeat(np.arange(k), [len(rows) for rows in chosen])
        for c in range(k):
            middle.scatter(
                *joint[condition == c].T, s=7, color=colors[c], linewidth=0, label=attributes.title(c)
            )
        middle.set_title("all spaces together, by attribute", fontsize=9)
        bare_axes(middle).set_box_aspect(1)
        middle.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=3,
            frameon=False,
            markerscale=3,
            handletextpad=0.1,
        )
    return figure


def _values(
    ax: Axes,
    embeddings: np.ndarray,
    labels: np.ndarray,
    attributes: Attributes,
    condition: int,
    seed: int,
    left: bool,
) -> None:
    """One space, coloured by the attribute's values, named beside it (left or right) if they are at most 12."""
    color = attribute_colors(len(attributes))[condition]
    values, places = attributes.values[condition], tsne(embeddings, seed)
    for label, value_color in enumerate(value_colors(len(values))):
        if (labels == label).any():
            name = textwrap.shorten(values[label], 24, placeholder="…")
            ax.scatter(*places[labels == label].T, s=7, color=value_color, linewidth=0, label=name)
    ax.set_title(attributes.title(condition), color=ink(color), fontweight="bold")
    bare_axes(ax, color)
    if len(values) <= 12 and len(labels):
        ax.legend(
            loc="center right" if left else "center left",
            bbox_to_anchor=(-0.02 if left else 1.02, 0.5),
            frameon=False,
            markerscale=2,
            handletextpad=0.1,
            borderpad=0,
            labelspacing=0.25,
        )
    else:
        ax.set_xlabel(f"{len(np.unique(labels))} values")


def name_points(ax: Axes, points: dict[str, tuple[float, float]], size: float = 7) -> None:
    """Each point's name at its right, on a logarithmic x axis; where names would overlap, the upper ones move up."""
    low, high = ax.get_ylim()
    heights: list[tuple[float, float]] = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        height = max(
            [y, *(other + 0.055 * (high - low) for at, other in heights if abs(np.log(at / x)) < 0.6)]
        )
        heights.append((x, height))
        ax.annotate(name, (x, y), (1.1 * x, height), fontsize=size, va="center")
    ax.set_ylim(low, max(high, *(height + 0.03 * (high - low) for _, height in heights)))


def entanglement_matrix(result, title: str = "") -> Figure:
    """How well each attribute is read from each space: rows the spaces, columns the attributes, 0 chance, 1 own space.

    result: an `Entanglement`. Under each entry, in brackets where it is known: what label i alone explains of it. A
    dash stands for what cannot be normalised. `title` names the system; the scores are written under it.
    """
    k, unit = len(result.names), {"map": "mAP", "knn": "k-NN", "linear": "linear probe"}[result.probe]
    names = [textwrap.fill(name.replace("_", " "), 8, break_long_words=False) for name in result.names]
    slanted = max(len(line) for name in names for line in name.split("\n")) > 9
    with plt.rc_context(STYLE):
        figure = new_figure(0.5 * k + 1.75, 0.42 * k + 1.45)
        ax = figure.subplots()
        colors = plt.get_cmap("Blues").with_extremes(bad="0.88")
        image = ax.imshow(np.ma.masked_invalid(result.normalised), cmap=colors, vmin=0, vmax=1, aspect="auto")
        for i, j in np.ndindex(k, k):
            _entry(ax, i, j, result.normalised[i, j], result.explained_normalised[i, j] if i != j else np.nan)
        ax.set_xticks(range(k), names, rotation=35 if slanted else 0, ha="right" if slanted else "center")
        ax.set_yticks(range(k), [name.replace("_", " ") for name in result.names])
        ax.set(xlabel="attribute read", ylabel="space of")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for own in range(k):
            ax.add_patch(
                plt.Rectangle((own - 0.48, own - 0.48), 0.96, 0.96, fill=False, color=PALETTE[3], lw=1.5)
            )
        scores = f"score {result.score:.2f}" if result.score == result.score else "score unknown"
        if result.compared.any():
            scores += (
                f"; pairs with both labels ({result.compared.sum()} of {k * (k - 1)}): "
                f"{result.score_compared:.2f}, beyond labels {result.score_beyond_labels:.2f}"
            )
        head = [
            f"{title}, {unit}" if title else unit,
            *textwrap.wrap(scores, int(14 * figure.get_figwidth())),
        ]
        figure.suptitle("\n".join(head), x=0.02, ha="left", fontsize=8)
        bar = figure.colorbar(image, ax=ax, ticks=[0, 0.5, 1], fraction=0.06, pad=0.02)
        bar.ax.set_yticklabels(["chance", "", "own\nspace"])
        bar.outline.set_visible(False)
    return figure


def _entry(ax: Axes, row: int, column: int, value: float, explained: float) -> None:
    """A number in a cell of a heatmap of 0..1, and under it a small one in brackets, if it is known."""
    ink, below = "white" if value > 0.7 else "black", not np.isnan(explained)
    text = "–" if np.isnan(value) else f"{value:.2f}"
    ax.text(
        column,
        row,
        text.replace("-0.00", "0.00").replace("-", "−"),
        color=ink,
        ha="center",
        va="bottom" if below else "center",
        fontsize=7,
    )
    if below:
        text = f"({explained:.2f})".replace("-0.00", "0.00").replace("-", "−")
        ax.text(column, row + 0.08, text, color=ink, ha="center", va="top", fontsize=5.5)


def training_curve(rows: Sequence[dict]) -> Figure:
    """The loss at each logged step and, below, weighted mAP on valid where it was measured.

    rows: dicts with `step` and, each where known, `loss` and `valid_map_weighted` (percent), numbers or text: the
    rows of a run's log.csv as csv.DictReader gives them. The best mAP is marked.
    """

    def known(key: str) -> np.ndarray:
        pairs = [(row["step"], row[key]) for row in rows if row.get(key) not in (None, "")]
        return np.array(pairs, float).reshape(-1, 2)

    loss, score = known("loss"), known("valid_map_weighted")
    with plt.rc_context(STYLE):
        figure = new_figure(5, 3.4)
        top, bottom = figure.subplots(2, 1, sharex=True)
        top.plot(*loss.T, color=PALETTE[0], linewidth=1.2)
        top.set(ylabel="triplet loss (Eq. 9)", ylim=(0, None))
        bottom.plot(*score.T, color=PALETTE[6], linewidth=1.2, marker="o", markersize=3)
        bottom.set(xlabel="step", ylabel="map_weighted, valid (%)")
        if len(score):
            step, best = score[score[:, 1].argmax()]
            bottom.plot(step, best, "o", markersize=7, markerfacecolor="none", color=PALETTE[4])
            bottom.annotate(
                f"best {best:.2f}",
                (step, best),
                xytext=(0, -12),
                textcoords="offset points",
                ha="right" if step > np.median(score[:, 0]) else "left",
                color=PALETTE[4],
            )
        for ax in (top, bottom):
            ax.grid(axis="y", color="0.9", linewidth=0.6)
    return figure
