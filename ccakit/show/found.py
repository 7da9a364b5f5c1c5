"""What a search found, as a figure: the query and the results, and where the model looks in each of them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ccakit.attributes import Attributes
from ccakit.show import style
from ccakit.show.heat import heatmap, overlay, view_of
from ccakit.show.plots import label_row


def found_grid(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str],
    attributes: Attributes,
    conditions: Sequence[int],
    texts: Sequence[Sequence[str]],
    maps: np.ndarray | None = None,
    transform: object = None,
) -> Figure:
    """Draw pictures in a row and, below, each under the heat of each condition.

    pictures: n uint8 RGB, the query first. titles: above each. texts: (m, n), below each picture under each
    of the m conditions. maps: (n, m, h, w); None for a system that does not attend: then the pictures stand
    alone, with all texts below. transform: the model's, which says what part of a picture the map covers.
    """
    rows = 1 if maps is None else 1 + len(conditions)
    with plt.rc_context(style.STYLE):
        figure = style.new_figure(1.3 * len(pictures) + 0.7, 1.55 * rows + 0.3)
        grid = figure.subplots(rows, len(pictures), squeeze=False)
        for column, (picture, title) in enumerate(zip(pictures, titles)):
            below = "" if maps is not None else "\n".join(row[column] for row in texts)
            style.show_picture(grid[0, column], picture, below)
            grid[0, column].set_title(title)
            view = view_of(transform, picture.shape[:2])
            for row in range(rows - 1):
                heat = heatmap(maps[column, row], picture.shape[:2], view=view)
                style.show_picture(grid[row + 1, column], overlay(picture, heat), texts[row][column])
        for row, condition in enumerate(conditions[: rows - 1], 1):
            label_row(grid[row, 0], attributes, condition, width=1)
    return figure
