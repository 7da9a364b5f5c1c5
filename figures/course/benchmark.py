"""The drawings of notebook 05, the benchmark; they are not figures of the paper.

`lines` are {data set: {(mode, system): line of standings}}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.benchmark.standings import changed
from ccakit.models.registry import model_info

from .basics import BLUE, DARK_RED, GREEN, GREY, PAGE, RED, SKY, finish, legend_below, panels, titled

MODE_COLORS = {"spaces": BLUE, "triplets": RED}
MAP_COLOR, TOKENS_COLOR = GREEN, DARK_RED  # systems that read a CNN's map, or a transformer's tokens


def slanted(ax: Axes, names: Sequence[str], angle: float = 40) -> None:
    """Write names under an axes, one a column."""
    ax.set_xticks(range(len(names)), names, rotation=angle, ha="right", fontsize=8)


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
    ax.set_yticks(range(len(varied)), [f"{line['model']}  {changed(line)}" for line in varied])
    ax.set_xlabel("weighted mAP, points above the benchmark's settings")
    ax.grid(axis="y", color="0.92")
    legend_below(figure, ax, {f"mode {mode}": color for mode, color in MODE_COLORS.items()})
    return figure


def trainings(maps: Mapping[str, Mapping[str, Mapping[str, float]]], ordered: Sequence[str]) -> Figure:
    """Draw what a training does to each system: a panel a data set, a line a system.

    maps: {data set: {training: {system: weighted mAP}}}. ordered: the systems, from the top.
    """
    figure, axes = panels(PAGE, 1.1 + 0.25 * len(ordered), columns=len(maps), sharey=True)
    rows = np.arange(len(ordered))
    for ax, (name, both) in zip(np.ravel(axes), maps.items()):
        values = np.array([[own.get(model, np.nan) for model in ordered] for own in both.values()])
        ax.hlines(rows, *values, color="0.8", linewidth=2, zorder=0)
        for scores, color in zip(values, (RED, BLUE)):
            ax.plot(scores, rows, "o", color=color, markersize=6)
        ax.set_title(name)
        finish(ax, xlabel="weighted mAP", xlim=(0, 100))
    ax.set_yticks(rows, ordered)
    ax.invert_yaxis()
    legend_below(figure, ax, dict(zip(both, (RED, BLUE))), marker="o")
    return figure
