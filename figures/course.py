"""The drawings of the notebooks that are no figure of the paper: plots, tables on colours, rows of pictures.

A notebook computes what is drawn, calls a function of this module, and checks the figure that it returns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.evaluation import pointing
from ccakit.models.registry import model_info
from ccakit.show import style
from ccakit.show.heat import heatmap, overlay

PAGE = 8.7  # inches: at 110 dpi as wide as a notebook's page
BLUE, RED, GREEN, DARK_RED, SKY = (style.PALETTE[i] for i in (0, 1, 2, 4, 5))
MODE_COLORS = {"spaces": BLUE, "triplets": RED}
MAP_COLOR, TOKENS_COLOR = GREEN, DARK_RED  # systems that read a CNN's map, or a transformer's tokens
GREY = "0.5"


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, Axes]:
    """Return an empty figure (inches) and its axes, which have no upper and no right border."""
    figure = style.new_figure(width, height)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.04)
    axes = figure.subplots(rows, columns, **options)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def finish(ax: Axes, xticks: Sequence | None = None, yticks: Sequence | None = None, **settings) -> None:
    """Set labels, scales and limits; put ticks at these values and nowhere else; name what has a label."""
    ax.set(**settings)
    if xticks is not None:
        ax.set_xticks(xticks, [str(tick) for tick in xticks])
        ax.xaxis.minorticks_off()
    if yticks is not None:
        ax.set_yticks(yticks, [str(tick) for tick in yticks])
        ax.yaxis.minorticks_off()
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=8)


def slanted(ax: Axes, names: Sequence[str], angle: float = 40) -> None:
    """Write names under an axes, one a column."""
    ax.set_xticks(range(len(names)), names, rotation=angle, ha="right", fontsize=8)


def titled(name: str) -> str:
    """Return an attribute's name as it is written: without underscores."""
    return name.replace("_", " ")


def two_lines(attributes: Attributes, condition: int) -> str:
    """Return an attribute's title, a word a line."""
    return attributes.title(condition).replace(" ", "\n")


def legend_below(figure: Figure, ax: Axes, colors: Mapping[str, str], marker: str = ".") -> None:
    """Explain colours under a figure."""
    handles = [ax.plot([], [], marker, color=color, label=name)[0] for name, color in colors.items()]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        markerscale=1.5,
    )


def raised(heights: Sequence[float], gap: float) -> np.ndarray:
    """Return the heights, moved up where they are closer than `gap` to the next lower one."""
    heights = np.array(heights, float)
    order = np.argsort(heights, kind="stable")
    for lower, upper in zip(order[:-1], order[1:]):
        heights[upper] = max(heights[upper], heights[lower] + gap)
    return heights


def markdown_table(table) -> str:
    """Return a pandas DataFrame of texts as Markdown, with its index as the first column."""
    rows = [[table.index.name, *table.columns], ["---"] * (1 + len(table.columns))]
    rows += [[name, *cells] for name, *cells in table.itertuples()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def name_points(ax: Axes, points: dict[str, tuple[float, float]], size: float = 7) -> None:
    """Write each point's name at its right, on a logarithmic x axis; move names up that would overlap."""
    low, high = ax.get_ylim()
    line = 0.055 * (high - low)
    written: list[tuple[float, float]] = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        below = [other + line for other_x, other in written if abs(np.log(other_x / x)) < 0.6]
        height = max([y, *below])
        written.append((x, height))
        ax.annotate(name, (x, y), (1.1 * x, height), fontsize=size, va="center")
    ax.set_ylim(low, max(high, *(height + 0.03 * (high - low) for _, height in written)))


# ---- numbers on colours


def number_table(ax: Axes, table, cmap: str, low: float, high: float, digits: int = 0) -> None:
    """Draw a table (a pandas DataFrame) of numbers on colours between `low` and `high`."""
    values = table.to_numpy(float)
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        text = f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
        color = "white" if dark else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    slanted(ax, table.columns)
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    ax.tick_params(length=0)


def numbers_in(ax: Axes) -> np.ndarray:
    """Return the numbers that are written in an axes, in the order of writing."""
    return np.array([float(text.get_text().replace("−", "-")) for text in ax.texts])


def attribute_tables(scores, lost) -> Figure:
    """Draw mAP by system and attribute (left), and what mode `triplets` loses of it (right)."""
    figure, (left, right) = panels(PAGE, 4.8, columns=2, sharey=True)
    number_table(left, scores, "viridis", 0, 100)
    number_table(right, lost, "RdBu_r", -70, 70)
    left.set_title("mAP (%), mode spaces")
    right.set_title("points lost in mode triplets")
    return figure


def correlation_table(matrix, papers: int) -> Figure:
    """Draw rank correlations of several orders; a line parts the first `papers` from the others."""
    figure, ax = panels(5.8, 4.8)
    number_table(ax, matrix, "RdBu_r", -1, 1, digits=2)
    ax.axhline(papers - 0.5, color="k", linewidth=1)
    ax.axvline(papers - 0.5, color="k", linewidth=1)
    ax.set_title("rank correlation")
    return figure


# ---- the benchmark: `lines` are {data set: {(mode, system): line of standings}}


def score_dots(
    lines: Mapping, systems: Sequence[str], chance: Mapping[str, float], titles: Mapping
) -> Figure:
    """Draw each system's runs as dots, their mean as a stroke, and a random ranking as a dotted line."""
    figure, axes = panels(PAGE, 4, columns=len(lines), sharey=True)
    for ax, name in zip(axes, lines):
        for (mode, model), line in lines[name].items():
            height = systems.index(model) + (0.16 if mode == "triplets" else -0.16)
            values = [row["map_weighted"] for row in line["rows"]]
            ax.plot(values, [height] * len(values), ".", color=MODE_COLORS[mode], markersize=5)
            ax.plot(line["mean"]["map_weighted"], height, "|", color=MODE_COLORS[mode], markersize=10)
        ax.axvline(chance[name], color=GREY, linestyle=":")
        ax.set(xlabel="weighted mAP, test (%)", title=titles[name], xlim=(0, 100))
        ax.grid(axis="y", color="0.92")
    axes[0].set_yticks(range(len(systems)), systems)
    axes[0].invert_yaxis()
    legend_below(figure, axes[0], {f"mode {mode}": color for mode, color in MODE_COLORS.items()})
    return figure


def share_bars(shares: Mapping[str, np.ndarray], attributes: Attributes) -> Figure:
    """Draw each attribute's share (0..1) in several countings, side by side."""
    figure, ax = panels(7.6, 2.6)
    count = len(attributes)
    for shift, color, (name, share) in zip((-0.27, 0, 0.27), ("0.7", BLUE, RED), shares.items()):
        ax.bar(np.arange(count) + shift, 100 * share, 0.25, label=name, color=color)
    slanted(ax, [attributes.title(c) for c in range(count)], 20)
    finish(ax, ylabel="share (%)")
    return figure


def reading_color(model: str) -> str:
    """Return the colour of what a system reads: a CNN's map or a transformer's tokens."""
    return MAP_COLOR if model_info(model).system.reads == "map" else TOKENS_COLOR


def falls(tables: Mapping, titles: Mapping[str, str]) -> Figure:
    """Draw each system's mAP in mode `spaces` and in mode `triplets`, joined by a line; CCA's in black.

    tables: {data set: DataFrame of systems by modes}.
    """
    figure, axes = panels(PAGE, 4.6, columns=len(tables))
    for ax, (name, table) in zip(axes, tables.items()):
        ends = table["triplets"].to_numpy()
        gap = 0.05 * (table.to_numpy().max() - ends.min())
        for model, end, height in zip(table.index, ends, raised(ends, gap)):
            color = "black" if model.startswith("cca") else reading_color(model)
            ax.plot([0, 1], [table.loc[model, "spaces"], end], "-o", color=color, markersize=3, linewidth=1)
            ax.plot([1, 1.07], [end, height], color=color, linewidth=0.5)
            ax.text(1.09, height, model, fontsize=8, va="center", color=color)
        ax.set_xticks([0, 1], [f"mode {mode}" for mode in MODE_COLORS])
        ax.set(xlim=(-0.1, 1.6), title=titles[name], ylabel="weighted mAP (%)")
    return figure


def parameters_and_scores(trained: Mapping, tables: Mapping, titles: Mapping[str, str]) -> Figure:
    """Draw each system's mAP in mode `spaces` over its trained parameters (log scale)."""
    figure, axes = panels(PAGE, 4.2, columns=len(tables))
    for ax, (name, table) in zip(axes, tables.items()):
        counts, scores = np.array(trained[name], float), table["spaces"].to_numpy()
        ax.scatter(counts, scores, s=18, c=[reading_color(model) for model in table.index])
        heights = named_heights(counts, scores)
        for model, count, score, height in zip(table.index, counts, scores, heights):
            left = count > 5e5
            place = count * (0.93 if left else 1.07), height
            side = "right" if left else "left"
            ax.annotate(model, (count, score), place, fontsize=7, va="center", ha=side)
        ax.set(
            xscale="log", xlim=(counts.min() / 1.3, counts.max() * 1.3), title=f"{titles[name]}, mode spaces"
        )
        ax.set(xlabel="trained parameters", ylabel="weighted mAP (%)")
        ax.set_ylim(top=heights.max() + 0.05 * np.ptp(scores))
    kinds = {"reads a CNN's map": MAP_COLOR, "reads a transformer's tokens": TOKENS_COLOR}
    legend_below(figure, axes[0], kinds, "o")
    return figure


def named_heights(counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the heights of names beside points: names that would overlap move up."""
    heights: dict[int, float] = {}
    for point in np.argsort(scores):
        near = [heights[other] for other in heights if abs(np.log(counts[other] / counts[point])) < 0.7]
        heights[point] = max([scores[point], *(height + 0.045 * np.ptp(scores) for height in near)])
    return np.array([heights[point] for point in range(len(scores))])


def against_the_paper(printed, table, deviations) -> Figure:
    """Draw our mAP of each system over the one that the paper's Table 2 prints; bars: deviations over seeds.

    printed: Series by system; table, deviations: DataFrames of systems by modes.
    """
    figure, axes = panels(PAGE, 3.8, columns=2)
    for ax, mode in zip(axes, MODE_COLORS):
        ours, bars = table[mode][printed.index], deviations[mode][printed.index]
        ax.errorbar(printed, ours, bars, fmt="o", color=MODE_COLORS[mode], markersize=4, linewidth=1)
        for model in printed.index:
            left, below = (
                model in ("tf-asen", "asen-pp", "cca-type2"),
                (model, mode) == ("tf-csn", "triplets"),
            )
            move = (-5, 2) if left else (5, 1) if model == "cca-type1" else (4, -16) if below else (6, -8)
            place, side = (printed[model], ours[model]), "right" if left else "left"
            ax.annotate(model, place, xytext=move, textcoords="offset points", fontsize=8, ha=side)
        ax.set(xlabel="printed in Table 2 (FashionAI, %)", ylabel="weighted mAP (%)")
        ax.set(title=f"drawn garments, mode {mode}", xlim=(printed.min() - 3, printed.max() + 6))
        ax.margins(y=0.12)
    return figure


def random_rows(random: Mapping) -> Figure:
    """Draw by how much each random row of the paper differs from its exact expectation."""
    figure, axes = panels(PAGE, 2.9, columns=len(random))
    for ax, (name, row) in zip(axes, random.items()):
        entries = {**row["per_attribute"], "overall": row["overall"]}
        heights = [entry["difference"] for entry in entries.values()]
        ax.bar(range(len(entries)), heights, color=[SKY] * (len(entries) - 1) + [BLUE])
        slanted(ax, [titled(entry) for entry in entries], 60)
        overall = row["overall"]
        ax.set_title(f"{name}: {overall['printed']:.2f} printed,\n{overall['expected']:.2f} expected")
        ax.axhline(0, color="k", linewidth=0.6)
        if max(map(abs, heights)) < 0.1:  # hundredths, where another table's differences are whole points
            ax.set(ylim=(-0.02, 0.02), yticks=[-0.02, -0.01, 0, 0.01, 0.02])
    axes[0].set_ylabel("random row: printed less\nexpected (points; scales differ)")
    return figure


def ablation_dots(varied: Sequence[Mapping], gains: Sequence[Sequence[float]]) -> Figure:
    """Draw each variant's runs as dots, their mean as a stroke, in points above the benchmark's settings."""
    figure, ax = panels(7.6, 4)
    for height, (line, values) in enumerate(zip(varied, gains)):
        color = MODE_COLORS[line["mode"]]
        ax.plot(values, [height] * len(values), ".", color=color)
        ax.plot(np.mean(values), height, "|", color=color, markersize=12)
    ax.axvline(0, color=GREY, linestyle=":")
    ax.set_yticks(range(len(varied)), [f"{line['model']}  {line['variant']}" for line in varied])
    ax.set_xlabel("weighted mAP, points above the benchmark's settings")
    ax.grid(axis="y", color="0.92")
    legend_below(figure, ax, {f"mode {mode}": color for mode, color in MODE_COLORS.items()})
    return figure


# ---- spaces


def bare_panels(width: float, height: float, rows: int, columns: int) -> tuple[Figure, Axes]:
    """Return a figure and its axes, framed and without ticks."""
    figure, axes = panels(width, height, rows, columns)
    for ax in np.ravel(axes):
        style.bare_axes(ax)
    return figure, axes


def value_scatters(layouts: Mapping[str, np.ndarray], labels: np.ndarray, values: Sequence[str]) -> Figure:
    """Draw several layouts (n, 2) of the same points, coloured by label, in rows of three."""
    figure, axes = bare_panels(PAGE, 2.7 * -(-len(layouts) // 3), -(-len(layouts) // 3), 3)
    colors = np.array(style.value_colors(len(values)))
    for ax, (title, places) in zip(np.ravel(axes), layouts.items()):
        ax.scatter(*places.T, s=8, c=colors[labels], linewidth=0)
        ax.set_title(title)
    return figure


def condition_scatters(
    layouts: Mapping[str, np.ndarray], condition: np.ndarray, attributes: Attributes
) -> Figure:
    """Draw layouts (n, 2) of the same points side by side, coloured by condition."""
    figure, axes = bare_panels(PAGE, 4.6, 1, len(layouts))
    colors = style.attribute_colors(len(attributes))
    for ax, (title, places) in zip(axes, layouts.items()):
        ax.scatter(*places.T, s=6, c=np.array(colors)[condition], linewidth=0)
        ax.set_title(title)
    titles = [attributes.title(c) for c in range(len(attributes))]
    handles = [axes[0].plot([], [], "o", color=color, label=title)[0] for title, color in zip(titles, colors)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def heat_matrices(matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Draw (K, K) matrices of 0..1 side by side, row names once; grey is unknown (NaN)."""
    figure, axes = panels(PAGE, 2.8, columns=len(matrices), sharey=True)
    blues = plt.get_cmap("Blues").with_extremes(bad="0.85")
    for ax, (title, matrix) in zip(axes, matrices.items()):
        ax.imshow(np.ma.masked_invalid(matrix), cmap=blues, vmin=0, vmax=1)
        ax.set_title(title)
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        ax.tick_params(length=0)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].set_ylabel("space of")
    return figure


def points_of(ax: Axes) -> np.ndarray:
    """Return the places (n, 2) of an axes' first scatter."""
    return np.asarray(ax.collections[0].get_offsets())


def count_points(ax: Axes) -> int:
    """Return how many points the scatters of an axes hold."""
    return sum(len(points.get_offsets()) for points in ax.collections)


def matrix_of(ax: Axes) -> np.ndarray:
    """Return the matrix that an axes shows, NaN where it is unknown."""
    return ax.images[0].get_array().filled(np.nan)


# ---- rankings


def judged(picture: np.ndarray, text: str, right: bool | None) -> tuple[np.ndarray, str, str | None]:
    """Return a cell of `picture_rows`: tick and green frame, cross and orange one, or neither (None)."""
    if right is None:
        return picture, text, None
    return picture, f"{'✓' if right else '✗'} {text}", style.RIGHT if right else style.WRONG


def picture_rows(rows: Sequence[tuple], across: int = 1) -> Figure:
    """Draw rows of pictures, `across` rows side by side.

    rows: (title, colour of the title, cells) each; a cell is (picture, text under it, colour of its frame or
    None).
    """
    longest, down = max(len(cells) for _, _, cells in rows), -(-len(rows) // across)
    side = 1.05
    figure = style.new_figure(across * (side * longest + 0.8), down * (side + 0.5))
    grids = [part.subplots(down, longest, squeeze=False) for part in np.ravel(figure.subfigures(1, across))]
    for grid in grids:
        for ax in grid.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    for number, (title, color, cells) in enumerate(rows):
        axes = grids[number // down][number % down]
        axes[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8, color=style.ink(color))
        for ax, (picture, text, frame) in zip(axes, cells):
            style.show_picture(ax, picture, text, frame)
    return figure


def marks(figure: Figure) -> list[str]:
    """Return the ticks and crosses under the pictures of a figure, in its order."""
    texts = [ax.get_xlabel() for ax in figure.axes]
    return [text[0] for text in texts if text.startswith(("✓", "✗"))]


def ranking_strips(rankings: Mapping[str, np.ndarray]) -> Figure:
    """Draw rankings (bool, best first) as strips: a dark line is a relevant candidate."""
    figure, axes = panels(PAGE, 2.4, rows=len(rankings))
    for ax, (title, relevant) in zip(axes, rankings.items()):
        extent = (0, len(relevant), 0, 1)
        ax.imshow(1.0 - relevant[None], aspect="auto", cmap="gray", interpolation="nearest", extent=extent)
        ax.set_title(title, fontsize=8, loc="left")
        ax.set(yticks=[], xticks=[0, len(relevant)] if ax is axes[-1] else [])
    return figure


def confusion_tables(tables: Sequence[np.ndarray], attributes: Attributes) -> Figure:
    """Draw tables (values, values) of counts, rows in shares of their sum; a row without a count is white."""
    figure, axes = panels(11.5, 4.3, 2, -(-len(tables) // 2))
    colors = style.attribute_colors(len(attributes))
    for condition, (ax, table) in enumerate(zip(axes.flat, tables)):
        sums = table.sum(axis=1, keepdims=True)
        ax.imshow(np.where(sums > 0, table / np.maximum(sums, 1), np.nan), cmap="Blues", vmin=0, vmax=1)
        ax.set_title(attributes.title(condition), color=style.ink(colors[condition]), fontweight="bold")
        names = [textwrap.shorten(value, 18, placeholder="…") for value in attributes.values[condition]]
        ax.set_yticks(range(len(names)), [f"{name}  {label}" for label, name in enumerate(names)])
        ax.set_xticks(range(len(names)), range(len(names)))
    return figure


# ---- attention


def hit_bars(scores: Mapping[str, Sequence[float]], titles: Sequence[str]) -> Figure:
    """Draw shares of hits (0..1) by attribute: the first score in colour, its controls in greys beside it."""
    figure, ax = panels(PAGE, 3)
    for offset, (name, values) in enumerate(scores.items()):
        color = BLUE if offset == 0 else str(0.3 + 0.17 * offset)
        ax.bar(np.arange(len(titles)) + 0.2 * offset, 100 * np.array(values), 0.2, color=color, label=name)
    ax.set_xticks(np.arange(len(titles)) + 0.3, [title.replace(" ", "\n") for title in titles], fontsize=8)
    ax.set_ylabel("hits (%)")
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def map_steps(image: np.ndarray, maps: np.ndarray) -> Figure:
    """Draw how a map becomes heat: the picture, the raw weights, and the heat over the picture.

    image: uint8 RGB. maps: (H, h, w) or (h, w), softmax weights. Few patches hold most of the weight, so
    colours follow the square root of the weights, from their own least to their own largest.
    """
    weights = pointing.one_map(maps)
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(6.4, 2.2)
        axes = figure.subplots(1, 3)
        style.show_picture(axes[0], image)
        drawn = axes[1].imshow(weights, cmap="inferno", norm=PowerNorm(0.5, weights.min(), weights.max()))
        style.bare_axes(axes[1])
        figure.colorbar(drawn, ax=axes[1], ticks=[weights.min(), weights.max()], format="%.2g", fraction=0.05)
        style.show_picture(axes[2], overlay(image, heatmap(weights, image.shape[:2])))
        height, width = weights.shape
        for ax, title in zip(axes, ("picture", f"weights, {height} x {width}", "heat over the picture")):
            ax.set_title(title)
    return figure


def condition_maps(maps: Sequence[np.ndarray], attributes: Attributes, cmap: str = "inferno") -> Figure:
    """Draw one map a condition, side by side, each on its own scale."""
    figure, axes = panels(PAGE, 1.6, columns=len(maps))
    colors = style.attribute_colors(len(attributes))
    for condition, (ax, shown) in enumerate(zip(axes, maps)):
        ax.imshow(shown, cmap=cmap)
        ax.set_title(two_lines(attributes, condition), color=style.ink(colors[condition]))
        ax.set_axis_off()
    return figure


def head_rows(figure: Figure, conditions: Sequence[int], attributes: Attributes) -> Figure:
    """Name the rows of a heatmap grid of heads by condition, in its colour; heads have none of their own."""
    columns = len(figure.axes) // len(conditions)
    colors = style.attribute_colors(len(attributes))
    for ax, condition in zip(figure.axes[::columns], conditions):
        color = style.ink(colors[condition])
        ax.set_ylabel(two_lines(attributes, condition), color=color, fontweight="bold", fontsize=9)
    for ax in figure.axes[:columns]:
        ax.title.set(color="black", fontweight="normal")
    return figure


# ---- efficiency


def system_kind(title: str) -> str:
    """Return what a system of the paper is, by its title in the tables."""
    if "CCA" in title:
        return "CCA"
    return "other transformers" if title.startswith("TF") else "CNNs"


def scores_over_parameters(
    points: Mapping, titles: Mapping[str, str], networks: Mapping[str, tuple]
) -> Figure:
    """Draw printed scores over parameters (log scale), a panel a data set.

    points: {data set: {system: (millions of parameters, score)}}. networks: {data set: (K, millions of K
    ViTs)}, a dotted line.
    """
    colors = {"CCA": BLUE, "other transformers": DARK_RED, "CNNs": GREEN}
    figure, axes = panels(PAGE, 3.9, columns=len(points))
    for ax, (dataset, systems) in zip(axes, points.items()):
        for name, (millions, score) in systems.items():
            ax.plot(millions, score, "o", color=colors[system_kind(name)], markersize=5)
        count, of_networks = networks[dataset]
        ax.axvline(of_networks, color=GREY, linestyle=":")
        ax.text(of_networks / 1.08, sum(ax.get_ylim()) / 2, f"{count} ViTs", ha="right", fontsize=8)
        name_points(ax, systems)
        ax.set(xscale="log", xlim=(6, 1200), xlabel="parameters (M)", title=titles[dataset])
    legend_below(figure, axes[0], colors, "o")
    return figure


def operation_bars(ax: Axes, gigaflops) -> None:
    """Draw a bar a way (rows of a DataFrame), made of its parts (columns)."""
    start = np.zeros(len(gigaflops))
    for part, color in zip(gigaflops.columns, (SKY, BLUE, RED)):
        ax.barh(gigaflops.index, gigaflops[part], left=start, color=color, label=part)
        start += gigaflops[part].to_numpy()
    ax.set(xlabel="GFLOP an image", xlim=(0, 1.1 * start.max()))
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize=8, loc="upper right")


def time_curves(ratios: Mapping, floors: Mapping, eight: Mapping[str, float]) -> Figure:
    """Draw measured time of all spaces, in units of a plain forward, over the number of conditions.

    ratios: {title: {conditions: ratios of all rounds}}; points are medians, bars quartiles. floors: {title:
    (numbers of conditions, ratios of operations)}. eight: {title: time of eight forwards}.
    """
    figure, axes = panels(4.35 * len(ratios), 3.1, columns=len(ratios), squeeze=False)
    for ax, (title, measured) in zip(axes[0], ratios.items()):
        low, middle, high = np.percentile(list(measured.values()), [25, 50, 75], axis=1)
        ax.plot(*floors[title], color="0.4", linestyle="--", label="floor")
        bars, label = [middle - low, high - middle], "spaces, measured (quartiles)"
        ax.errorbar(list(measured), middle, bars, color=BLUE, fmt="o-", markersize=4, capsize=2, label=label)
        ax.axhline(1, color="0.7", linewidth=0.8)
        text = f"8 forwards: {eight[title]:.1f}"
        ax.text(0.98, 0.96, text, transform=ax.transAxes, ha="right", va="top", fontsize=8, color=style.WRONG)
        ax.set(xscale="log", title=title, xlabel="conditions K", ylabel="time, of a plain forward")
        ax.set_ylim(min(0.85, low.min() - 0.02), max(1.25, high.max() + 0.1))
        ticks = [1, 2, 4, 8, 16, 32, 64]
        finish(ax, xticks=ticks)
    for ax in axes[0, 1:]:
        ax.get_legend().remove()
    axes[0, 0].get_legend().set_loc("upper left")
    return figure


# ---- triplets and training


def triplet_columns(columns: Sequence[Mapping]) -> Figure:
    """Draw triplets, one a column: anchor, positive, negative.

    A column holds its `title`, three `pictures` and three `values` written under them.
    """
    figure, axes = panels(PAGE, 4.8, 3, len(columns))
    for column, drawn in zip(axes.T, columns):
        for ax, picture, value in zip(column, drawn["pictures"], drawn["values"]):
            style.show_picture(ax, picture, value)
        column[0].set_title(drawn["title"], fontsize=8, fontweight="bold")
    for ax, side in zip(axes[:, 0], ("anchor", "positive", "negative")):
        ax.set_ylabel(side)
    return figure


def spread_and_loss(runs: Mapping[str, np.ndarray]) -> Figure:
    """Draw spread (left, log scale) and loss (right) of runs.

    runs: {setting: (seeds, steps, 2), loss and spread}.
    """
    figure, (left, right) = panels(PAGE, 3, columns=2)
    for (name, histories), color in zip(runs.items(), (RED, style.PALETTE[3], BLUE)):
        for seed, (losses, spreads) in enumerate(np.moveaxis(histories, 2, 1)):
            left.plot(spreads.clip(1e-4), color=color, linewidth=1.3, label=name if seed == 0 else None)
            right.plot(losses, color=color, linewidth=1)
    finish(left, yscale="log", xlabel="step", ylabel="spread (log)", ylim=(1e-4, 1.5))
    finish(right, xlabel="step", ylabel="loss (Eq. 9)", ylim=(0, 0.4))
    right.axhline(0.2, color=GREY, linestyle=":")
    return figure


# ---- data


def exact_picture(picture: np.ndarray) -> Figure:
    """Draw a picture without borders, pixel for pixel at 110 dpi."""
    height, width = picture.shape[:2]
    figure = plt.figure(figsize=(width / 110, height / 110))
    plt.close(figure)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.imshow(picture)
    axes.set_axis_off()
    return figure


def titled_pictures(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> Figure:
    """Draw rows of pictures, each with its title above it."""
    figure, axes = panels(PAGE, 2 * len(rows), len(rows), max(map(len, rows)), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, cells in zip(axes, rows):
        for ax, (picture, title) in zip(row, cells):
            ax.imshow(picture)
            ax.set_title(title, fontsize=8)
    return figure


def share_panels(
    shares: Sequence[np.ndarray], wanted: Sequence[np.ndarray], attributes: Attributes
) -> Figure:
    """Draw each attribute's shares (0..1) by label as bars, the wanted ones as black marks."""
    figure, axes = panels(PAGE, 3.3, 2, -(-len(shares) // 2))
    colors = style.attribute_colors(len(attributes))
    for condition, (ax, share, mark) in enumerate(zip(axes.flat, shares, wanted)):
        ax.bar(range(len(share)), 100 * share, color=colors[condition])
        ax.plot(range(len(mark)), 100 * mark, "k_", markersize=9)
        ax.set_title(attributes.title(condition))
    figure.supylabel("share of labels (%)", fontsize=8)
    figure.supxlabel("label (0: Invisible)", fontsize=8)
    return figure


def frequency_curves(counts: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """Draw how many candidates a value has, most frequent first: a panel a data set, a line an attribute."""
    figure, axes = panels(PAGE, 4.1, columns=len(counts), sharey=True)
    for ax, (name, attributes) in zip(axes, counts.items()):
        colors = style.attribute_colors(8) if len(attributes) == 8 else style.value_colors(len(attributes))
        for (attribute, numbers), color in zip(attributes.items(), colors):
            ordered = np.sort(numbers)[::-1]
            ax.plot(np.arange(1, len(ordered) + 1), ordered, color=color, label=titled(attribute))
        ax.set(title=name, xlabel="values, most frequent first", xscale="log")
        ax.set_yscale("symlog", linthresh=1)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=8)
    axes[0].set_ylabel("candidates")
    return figure


def patch_grids(pictures: Sequence[np.ndarray], grid: tuple[int, int]) -> Figure:
    """Draw pictures, cut by white lines into a grid (rows, columns) of patches."""
    figure, axes = panels(PAGE, 2.3, columns=len(pictures))
    for ax, picture in zip(axes, pictures):
        height, width = picture.shape[:2]
        ax.imshow(picture)
        ax.hlines(np.arange(1, grid[0]) * height / grid[0], 0, width - 1, color="w", linewidth=0.6)
        ax.vlines(np.arange(1, grid[1]) * width / grid[1], 0, height - 1, color="w", linewidth=0.6)
        ax.set_axis_off()
    return figure


def condition_tables(tables: Mapping[str, np.ndarray], attributes: Attributes) -> Figure:
    """Draw tables with a row a condition side by side, colours even around 0, each on its own scale."""
    figure, axes = panels(9.6, 2.6, columns=len(tables), sharey=True, width_ratios=[3, 3, 2])
    for ax, (title, table) in zip(axes, tables.items()):
        top = 1 if title.startswith("cosine") else abs(table).max()
        options = dict(aspect="auto", cmap="RdBu_r", interpolation="nearest")
        image = ax.imshow(table, vmin=-top, vmax=top, **options)
        ax.set(title=title, xticks=[])
        figure.colorbar(image, ax=ax, fraction=0.05)
    names = [attributes.title(c) for c in range(len(attributes))]
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    return figure


def similarity_tables(tables: Sequence[np.ndarray], names: Sequence[str], attributes: Attributes) -> Figure:
    """Draw a table of cosines for each condition, side by side."""
    figure, axes = panels(9.4, 1.7, columns=len(tables))
    colors = style.attribute_colors(len(attributes))
    ticks = range(len(names))
    for condition, (ax, table) in enumerate(zip(axes, tables)):
        image = ax.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
        ax.set_title(two_lines(attributes, condition), color=style.ink(colors[condition]))
        ax.set(xticks=ticks, xticklabels=names, yticks=ticks, yticklabels=[] if condition else names)
        ax.tick_params(length=0, labelsize=8)
    bar = figure.colorbar(image, ax=axes, ticks=[-1, 0, 1], fraction=0.02, pad=0.01)
    bar.set_label("cosine", fontsize=8)
    return figure


def map_bars(maps: Mapping[str, float], chance: Mapping[str, float]) -> Figure:
    """Draw mAP (%) by attribute as bars, a random ranking's as strokes."""
    figure, ax = panels(7.2, 2.8)
    ax.barh([titled(name) for name in maps], list(maps.values()), color=style.attribute_colors(len(maps)))
    ax.plot(list(chance.values()), range(len(chance)), "k|", markersize=14, label="random ranking")
    ax.set(xlim=(0, 100), xlabel="mAP (%)")
    ax.invert_yaxis()
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return figure
