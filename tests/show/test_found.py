"""The figure of a search: query and results in a row, and a row of heatmaps for each condition."""

from __future__ import annotations

import numpy as np
import pytest

from ccakit.attributes import Attributes
from ccakit.show.found import found_grid

TWO = Attributes(("sleeve_length", "tone"), (("short", "long"), ("dark", "light")))
PICTURES = [np.full((40, 30, 3), 60 * n, np.uint8) for n in range(4)]
TITLES = ["query", *(f"cosine 0.{n}" for n in range(3))]
TEXTS = [["", "short", "long", "long"], ["", "dark", "dark", "light"]]


@pytest.mark.parametrize("conditions", [(0,), (0, 1)])
def test_a_row_of_pictures_and_a_row_of_heat_for_each_condition(conditions):
    maps = np.random.default_rng(0).random((4, len(conditions), 5, 5)).astype(np.float32)
    figure = found_grid(PICTURES, TITLES, TWO, conditions, TEXTS[: len(conditions)], maps)
    grid = np.array(figure.axes).reshape(1 + len(conditions), 4)
    assert [ax.get_title() for ax in grid[0]] == TITLES
    assert np.array_equal(grid[0, 2].images[0].get_array(), PICTURES[2])
    for row, condition in enumerate(conditions, 1):
        assert grid[row, 0].get_ylabel().split() == TWO.title(condition).split()
        assert [ax.get_xlabel() for ax in grid[row]] == TEXTS[row - 1]
        assert not np.array_equal(grid[row, 2].images[0].get_array(), PICTURES[2])


def test_without_heatmaps_the_texts_stand_below_the_pictures():
    figure = found_grid(PICTURES, TITLES, TWO, (0, 1), TEXTS)
    assert len(figure.axes) == 4 and figure.axes[3].get_xlabel() == "long light"
