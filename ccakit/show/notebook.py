"""Figures as small PNGs in notebooks."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ccakit.show.heat import RED
from ccakit.show.style import PALETTE, RIGHT, WRONG, ink, value_colors


def small_png(figure: Figure, dpi: int = 100, most: int = 60_000) -> bytes:
    """The figure as PNG of 256 colours, or of fewer where it else takes more than `most` bytes.

    Black, white and those of the colours that mean something (of attributes, values, right and wrong, regions) which
    the figure has stay as they are; the others, at least 12, are the picture's own.
    """
    from PIL import Image
    from scipy.spatial import cKDTree
    from sklearn.cluster import MiniBatchKMeans

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight")
    image = Image.open(drawn).convert("RGB")
    named = [*PALETTE, *map(ink, PALETTE), *value_colors(10), RIGHT, WRONG, "black", "white"]
    kept = np.vstack([(255 * np.array([to_rgb(color) for color in named])).round(), RED])
    pixels = np.asarray(image).reshape(-1, 3)
    seen, place, count = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    kept = kept[
        (kept[:, None] == seen).all(axis=2).any(axis=1)
    ]  # one that it lacks would take its neighbours' place
    tried = []
    for colors in (256, 128, 80, 48, 24, 12):
        means = MiniBatchKMeans(
            min(colors, 256 - len(kept), len(seen)), batch_size=4096, n_init=1, random_state=0
        )
        own = means.fit(
            seen, sample_weight=np.sqrt(count)
        ).cluster_centers_.round()  # sqrt: small bright spots count
        palette = np.vstack([kept, own])
        nearest = cKDTree(palette).query(seen)[1].astype(np.uint8)  # Pillow's own search is not exact
        few, small = Image.fromarray(nearest[place].reshape(image.size[::-1])), io.BytesIO()
        few.putpalette(palette.astype(np.uint8).ravel().tolist())
        few.save(small, "PNG", optimize=True)
        tried.append(small.getvalue())
        if len(tried[-1]) <= most:
            return tried[-1]
    return min(tried, key=len)


def in_notebook(dpi: int = 100, most: int = 60_000) -> None:
    """Show this notebook's figures as `small_png`; a figure may have a `shown_dpi` and `shown_most` of its own."""
    from IPython import get_ipython

    shell = get_ipython()
    shell.run_line_magic("matplotlib", "inline")

    def shown(figure: Figure) -> bytes:
        return small_png(figure, getattr(figure, "shown_dpi", dpi), getattr(figure, "shown_most", most))

    shell.display_formatter.formatters["image/png"].for_type(Figure, shown)
