"""What the drawings of several notebooks share: sizes, colours, axes, marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.show import style

PAGE = 8.7  # inches: at 110 dpi as wide as a notebook's page
BLUE, RED, GREEN, DARK_RED, SKY = (style.PALETTE[i] for i in (0, 1, 2, 4, 5))
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


def marks(figure: Figure) -> list[str]:
    """Return the ticks and crosses under the pictures of a figure, in its order."""
    texts = [ax.get_xlabel() for ax in figure.axes]
    return [text[0] for text in texts if text.startswith(("✓", "✗"))]


def exact_picture(picture: np.ndarray) -> Figure:
    """Draw a picture without borders, pixel for pixel at 110 dpi."""
    height, width = picture.shape[:2]
    figure = style.new_figure(width / 110, height / 110, layout=None)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.imshow(picture)
    axes.set_axis_off()
    return figure
