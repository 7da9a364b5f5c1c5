"""Figure A2: the three nearest candidates of a query, for each attribute: right ones, and mistakes.

The paper shows successes. Here each attribute has two queries, both drawn by seed: left of those whose three
nearest are all right, right of those with a mistake among them; and how many queries have a mistake is said
beside.
"""

from __future__ import annotations

import numpy as np
import shared
from matplotlib.figure import Figure

from ccakit.evaluation.embedding import embed_rows
from ccakit.show import plots, style

TOP = 3


def ranked(run, condition: int, top: int = TOP) -> tuple[np.ndarray, np.ndarray]:
    """Find an attribute's queries (Q, 3) and the `top` nearest candidates of each, (Q, top, 3).

    A query's own image is none of its candidates.
    """
    queries, candidates = (rows[rows[:, 1] == condition] for rows in run.split.sides())
    embeddings = embed_rows(run.model, run.inputs, np.concatenate([queries, candidates]))
    similarity = embeddings[: len(queries)] @ embeddings[len(queries) :].T  # (Q, C)
    similarity[queries[:, :1] == candidates[None, :, 0]] = -np.inf
    return queries, candidates[np.argsort(-similarity, axis=1, kind="stable")[:, :top]]


def draw(run=None, seed: int = 0, attributes=()) -> Figure:
    """Draw a row an attribute (of all, or of those named): its name, a success, a failure."""
    run = run or shared.run_or_demo()
    known, rng = run.attributes, np.random.default_rng(seed)
    chosen = [known.condition(name) for name in attributes or known.names]
    k = len(chosen)
    with shared.lettering():
        figure = style.new_figure(shared.TEXT, 0.98 * k + 0.35)
        parts = figure.subfigures(1, 2, width_ratios=[1.16, 1], wspace=0.015)
        grids = [part.subplots(k, TOP + 1, squeeze=False) for part in parts]
        for row, c in enumerate(chosen):
            queries, found = ranked(run, c)
            mistakes = (found[:, :, 2] != queries[:, None, 2]).any(axis=1)
            seen = np.array([known.values[c][label] != "Invisible" for label in queries[:, 2]], bool)
            for grid, some in zip(grids, (seen & ~mistakes, seen & mistakes)):
                _row(grid[row], run, c, *_drawn(np.flatnonzero(some), queries, found, rng))
            _level([*grids[0][row], *grids[1][row]])
            first = grids[0][row, 0]
            plots.label_row(first, known, c, width=9, y=0.68, fontsize=7, labelpad=3)
            text = f"mistakes:\n{100 * mistakes.mean() if len(mistakes) else np.nan:.0f}%"
            first.text(-0.1, 0.2, text, transform=first.transAxes, ha="right", va="center")
        for part, grid, title in zip(parts, grids, ("all three right", "a mistake among the three")):
            part.suptitle(title, fontsize=8, fontweight="bold")
            for ax, name in zip(grid[0], ["query", *(f"rank {i + 1}" for i in range(TOP))]):
                ax.set_title(name, pad=2, fontsize=6.5)
    return figure


def _drawn(some, queries, found, rng):
    """Draw one of `some` queries with its candidates, if there are any."""
    if not len(some):
        return None, ()
    one = some[rng.integers(len(some))]
    return queries[one], found[one]


def _row(axes, run, condition: int, query, found) -> None:
    """Show a query and its candidates: a green frame and a tick, or an orange frame and a cross."""
    if query is None:
        for ax in axes[1:]:
            ax.set_axis_off()
        axes[0].set(xticks=[], yticks=[])
        axes[0].spines[:].set_visible(False)
        axes[0].text(0.5, 0.5, "none", ha="center", va="center", color="0.4")
        return
    value = run.split.attributes.value
    _show(axes[0], run.picture(int(query[0])), value(condition, int(query[2])))
    for ax, (image, _, label) in zip(axes[1:], found):
        mark, frame = ("✓", style.RIGHT) if label == query[2] else ("✗", style.WRONG)
        _show(ax, run.picture(int(image)), f"{mark} {value(condition, int(label))}", frame)


def _show(ax, picture, text: str, frame: str | None = None) -> None:
    style.show_picture(ax, picture, frame=frame)
    for spine in ax.spines.values():
        spine.set_linewidth(1.8)
    ax.set_xlabel(style.wrapped(text, 13), fontsize=shared.SMALL, labelpad=1.5)


def _level(axes) -> None:
    """Write the same number of lines under each picture, so that both halves' rows are level."""
    lines = max(ax.get_xlabel().count("\n") for ax in axes)
    for ax in axes:
        ax.set_xlabel(ax.get_xlabel() + "\n" * (lines - ax.get_xlabel().count("\n")))


def main(argv=None):
    given = shared.arguments(__doc__, argv, shared.RUN, ("--seed", dict(type=int, default=0)))
    run = shared.run_or_demo(given.run)
    return shared.write(draw(run, given.seed), "figureA2", given.out, run)


if __name__ == "__main__":
    main()
