"""Colours, text and empty figures that all pictures share; t-SNE."""

from __future__ import annotations

import logging
import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.data.text import CONTROL
from ccakit.disk import atomic_write
from ccakit.errors import DataError
from ccakit.show.letters import LetterFigure

# Paul Tol's "muted" scheme, distinct under any common colour blindness; ordered so that neighbours differ
# most
PALETTE = ("#332288", "#CC6677", "#44AA99", "#DDCC77", "#882255", "#88CCEE", "#117733", "#AA4499", "#999933")
# seaborn's "colorblind" set, which takes a second to import
VALUES = "#0173b2 #de8f05 #029e73 #d55e00 #cc78bc #ca9161 #fbafe4 #949494 #ece133 #56b4e9".split()
log = logging.getLogger("ccakit")
COLLAPSED = 1e-4
RIGHT, WRONG = "#009E73", "#D55E00"  # Okabe and Ito's green and vermilion
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def attribute_colors(n: int) -> list[str]:
    """Choose a colour for each of n conditions: the first n of PALETTE; above nine, n evenly spaced hues."""
    if n <= len(PALETTE):
        return list(PALETTE[:n])
    from seaborn import husl_palette  # here, as it imports scipy.stats and pandas

    return husl_palette(n).as_hex()


def ink(color: str) -> tuple[float, ...]:
    """Darken a colour until it can be read as text on white (contrast 4.5, as WCAG asks for)."""
    rgb = np.array(to_rgb(color))
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if linear @ [0.2126, 0.7152, 0.0722] <= 0.183:  # luminance
            return tuple(rgb)
        rgb *= 0.97


def value_colors(n: int) -> list[str]:
    """Choose a colour for each of n values: the first n of VALUES; above ten, viridis."""
    if n <= len(VALUES):
        return VALUES[:n]
    return [to_hex(color) for color in plt.get_cmap("viridis")(np.linspace(0, 1, n + 2)[1:-1])]


def remark(figure: Figure, remarks: Sequence[str]) -> Figure:
    """Write under a figure what is to be known of it, such as `Run.remarks`; return the figure."""
    if remarks:
        text = textwrap.fill("; ".join(remarks), int(16 * figure.get_figwidth()))
        figure.supxlabel(text, fontsize=7, color=WRONG, fontweight="bold", parse_math=False)
    return figure


def save(figure: Figure, path: str | Path, dpi: int = 120) -> Path:
    """Write the figure as PNG, PDF or SVG, by the file's ending; make its folder; return the path."""
    path = Path(path)
    check_picture(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=dpi, format=path.suffix[1:].lower())
    return path


def check_picture(path: Path) -> None:
    """Raise DataError where a file's ending names no kind of picture: matplotlib would write another file."""
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise DataError(path, "has no picture's ending", "Let its name end in .png, .pdf or .svg.")


def new_figure(
    width: float, height: float, formulas: bool = False, layout: str | None = "constrained"
) -> Figure:
    """Make an empty figure, in inches; closed for pyplot, so that a notebook shows it once.

    Its text is drawn as it is written, unless `formulas` says that "$" begins mathematics.
    """
    options = dict(FigureClass=LetterFigure, formulas=formulas, layout=layout)
    figure = plt.figure(figsize=(width, height), **options)
    if layout == "constrained":
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    plt.close(figure)
    return figure


def show_picture(axes: Axes, image: np.ndarray, text: str = "", frame: str | None = None) -> None:
    """Show a picture without ticks, with a text under it and, if `frame` is a colour, a coloured frame."""
    axes.imshow(image, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(wrapped(text, 15, break_long_words=True), labelpad=2, fontsize=7)
    for spine in axes.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3)


def wrapped(text: str, width: int, break_long_words: bool = False) -> str:
    """Break the text into lines of at most `width` letters; longer words stay whole by default.

    A wide letter (Chinese, Japanese, Korean) counts as two, and a line may end behind any of them.
    """
    text = CONTROL.sub(" ", text.replace("\r\n", " "))
    ends = "".join(x + "\v" * (unicodedata.east_asian_width(x) in "WF") for x in text)
    lines = textwrap.fill(ends, width, break_long_words=break_long_words, replace_whitespace=False)
    return lines.replace("\v", "")


def title_attribute(ax: Axes, attributes: Attributes, condition: int, width: int = 40, **options) -> None:
    """Title an axes with the attribute's name, in its colour, in lines of at most `width` letters."""
    color = ink(attribute_colors(len(attributes))[condition])
    title = wrapped(attributes.title(condition), width)
    ax.set_title(title, **{"color": color, "fontweight": "bold", **options})


def bare_axes(ax: Axes, color: str = "0.7") -> Axes:
    """Remove an axes' ticks and colour its frame."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=color)
    return ax


def collapsed(points: np.ndarray) -> bool:
    """Tell whether points (n, E), two at least, are one point: their spread is below 1e-4 of their length.

    Of unit vectors it is the spread of `ccakit.loss.spread`.
    """
    points = points.astype(np.float64)
    return len(points) > 1 and points.var(axis=0).sum() <= COLLAPSED * np.square(points).sum(axis=1).mean()


def tsne(
    ax: Axes,
    spaces: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    seed: int,
    perplexity: float | None = None,
    init: str = "pca",
) -> list[np.ndarray]:
    """Place the points of some spaces, (n, E) each, together in the plane of `ax` by t-SNE: (n, 2) each.

    A collapsed space becomes one point: t-SNE would make clusters of rounding errors. Points that are not
    finite stay NaN, which is drawn nowhere. `ax` and a warning say so, by the numbers in `images`, (n,) each.
    """
    finite = [np.isfinite(space).all(axis=1) for space in spaces]
    known = [space[rows] for space, rows in zip(spaces, finite)]
    flat = [collapsed(space) for space in known]
    drawn = [space[:1] if one else space for space, one in zip(known, flat)]
    points = np.concatenate(drawn)
    if collapsed(points):
        flat, layout = [True] * len(spaces), np.zeros((len(points), 2))
    else:
        layout = _layout(points, seed, perplexity, init)
    parts = np.split(layout, np.cumsum([len(space) for space in drawn])[:-1])
    placed = [np.full((len(space), 2), np.nan) for space in spaces]
    for place, rows, part in zip(placed, finite, parts):
        place[rows] = part  # one point for all, if it is collapsed
    _say(ax, flat, np.concatenate([names[~rows] for names, rows in zip(images, finite)]))
    return placed


def _say(ax: Axes, flat: Sequence[bool], unknown: np.ndarray) -> None:
    """Write on the drawing, and warn, how many spaces are collapsed, and which images have no embedding."""
    lines = []
    if any(flat):
        lines.append("collapsed" if len(flat) == 1 else f"{sum(flat)} of {len(flat)} spaces collapsed")
    if len(unknown):
        unknown = np.unique(unknown)
        first = ", ".join(map(str, unknown[:3])) + ", …" * (len(unknown) > 3)
        lines.append(f"NaN: images {first} ({len(unknown)} in all)")
    for line in lines:
        log.warning("t-SNE of %s: %s", ax.get_title().replace("\n", " ") or "a space", line)
    if lines:
        ax.text(0.02, 0.02, "\n".join(lines), transform=ax.transAxes, va="bottom", color=ink(WRONG))


def _layout(points: np.ndarray, seed: int, perplexity: float | None, init: str) -> np.ndarray:
    """Place points (n, E) in the plane: (n, 2).

    It runs on one thread: for so few points more threads cost more than they save, and where cores are shared
    many times as much (measured: 30 s instead of 0.7 s for 150 points).
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(points) < 5:  # too few for neighbourhoods: side by side
        return np.stack([np.arange(len(points)), np.zeros(len(points))], axis=1)
    most = (len(points) - 1) / 3
    perplexity = min(30, most) if perplexity is None else min(perplexity, 3 * most)
    with threadpool_limits(1):
        model = TSNE(init=init, perplexity=perplexity, max_iter=500, random_state=seed)
        return model.fit_transform(points)
