"""Figures in notebooks: each is one PNG, sharp and small."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from ccakit.show.style import STYLE

DPI, PAGE = 110, 960  # pixels an inch; the width of a notebook's page, in pixels


def small_png(figure: Figure, colors: int = 256) -> bytes:
    """Return the figure as a PNG at 110 dpi, in at most `colors` colours.

    A figure of the paper's text width (6.5 inches) or wider is drawn as wide as the page, so that its small
    type can be read.
    """
    width = figure.get_figwidth()
    dpi = max(DPI, PAGE / width) if width > 6.5 else DPI
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(colors, Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


def in_notebook(colors: int = 256) -> None:
    """Show this notebook's figures as `small_png` draws them, with letters and borders of `style.STYLE`."""
    from IPython import get_ipython

    shell = get_ipython()
    shell.run_line_magic("matplotlib", "inline")
    plt.rcParams.update({**STYLE, "axes.titlesize": 9})
    shell.display_formatter.formatters["image/png"].for_type(Figure, lambda figure: small_png(figure, colors))
