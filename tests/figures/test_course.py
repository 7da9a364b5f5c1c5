"""The drawings of the notebooks: what is drawn is what was given. The notebooks themselves test the rest."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sheets
from course import basics, benchmark, disentanglement, efficiency, heatmaps, retrieval, start, vit
from matplotlib.text import Text

from ccakit.attributes import Attributes
from ccakit.show import style
from ccakit.show.heat import heatmap, overlay

TWO = Attributes(("sleeve_length", "neck"), (("short", "long"), ("round", "V", "boat")))


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def test_names_of_points_do_not_overlap():
    figure, ax = plt.subplots()
    plt.close(figure)
    points = {"one": (10, 1), "two": (11, 1.01), "three": (10.5, 1.02), "far": (900, 1), "high": (10, 5)}
    for x, y in points.values():
        ax.plot(x, y, "o")
    ax.set(xscale="log", xlim=(5, 2000))
    efficiency.name_points(ax, points)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert {text.get_text() for text in ax.texts} == set(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_names_that_would_overlap_move_up():
    assert benchmark.raised([1, 1.1, 5, 1.05], gap=0.5).tolist() == [1, 2, 5, 1.5]
    heights = benchmark.named_heights(np.array([1e4, 1.1e4, 1e6]), np.array([50.0, 50.1, 60.0]))
    assert heights.tolist() == [50, 50.45, 60]  # by 4.5% of the range; the third is far to the right


def test_a_number_table_shows_its_numbers():
    table = pd.DataFrame([[0.004, -0.004], [-1, 0.5]], index=["a", "b"], columns=["c", "d"])
    _, ax = basics.panels(3, 2)
    benchmark.number_table(ax, table, "RdBu_r", -1, 1, digits=2)
    assert [text.get_text() for text in ax.texts] == ["0.00", "0.00", "−1.00", "0.50"]
    assert np.allclose(benchmark.numbers_in(ax), table.to_numpy().ravel(), atol=0.005)


def test_a_table_of_texts_as_markdown():
    table = pd.DataFrame({"one": ["x"], "two": ["y"]}, index=pd.Index(["row"], name="name"))
    lines = ["| name | one | two |", "| --- | --- | --- |", "| row | x | y |"]
    assert benchmark.markdown_table(table) == "\n".join(lines)


def test_rows_of_pictures_are_judged_by_frame_and_mark():
    picture = np.zeros((8, 6, 3), np.uint8)
    cells = [(picture, "query", "#112233"), retrieval.judged(picture, "short", True)]
    cells += [retrieval.judged(picture, "long", False), retrieval.judged(picture, "long", None)]
    figure = retrieval.picture_rows([("sleeve", "#332288", cells), ("neck", "#332288", cells[:2])], across=2)
    assert basics.marks(figure) == ["✓", "✗", "✓"]
    assert cells[1][2] == style.RIGHT and cells[2][2] == style.WRONG and cells[3][2] is None


def test_confusion_is_drawn_in_shares_of_rows():
    tables = [np.array([[3.0, 1], [0, 0]]), np.eye(3)]
    figure = retrieval.confusion_tables(tables, TWO)
    shown = figure.axes[0].images[0].get_array()
    assert np.allclose(shown[0], [0.75, 0.25]) and np.isnan(np.asarray(shown.filled(np.nan))[1]).all()


def test_a_sheet_of_pictures_is_drawn_pixel_for_pixel():
    assert (basics.exact_picture(np.zeros((110, 220, 3), np.uint8)).get_size_inches() == [2, 1]).all()


def test_map_steps_draws_the_weights_on_their_own_scale():
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    maps = np.full((2, 8, 8), 0.001)
    maps[:, 1, 2], maps[:, 3, 3] = 0.8, 0.05
    original, weights, heat, bar = heatmaps.map_steps(picture, maps).axes
    np.testing.assert_array_equal(shown(original), picture)
    np.testing.assert_array_equal(shown(weights), maps[0])
    small, large = (float(weights.images[0].norm(weight)) for weight in (0.05, 0.8))
    assert large == 1 and weights.images[0].norm(0.001) == 0 and small > 0.2  # 0.06 on a linear scale
    np.testing.assert_array_equal(shown(heat), overlay(picture, heatmap(maps, (40, 30))))
    assert bar.get_ylim() == (0.001, 0.8)


def test_a_collapsed_space_is_told_in_the_courses_drawings():
    rows = np.array([(7, 0, 0), (8, 0, 1), (9, 0, 1)])
    options = {"one": dict(seed=0, init="random")}
    (ax, *_) = disentanglement.value_scatters(np.ones((3, 8)), rows, TWO.values[0], options).axes
    assert ax.texts[0].get_text() == "collapsed"
    spaces = [np.ones((3, 8)), np.eye(3, 8) * [[1], [1], [np.nan]]]
    images = [rows[:, 0]] * 2
    one, two = disentanglement.condition_scatters({"a": spaces, "b": spaces[1:] * 2}, images, TWO).axes
    assert one.texts[0].get_text() == "1 of 2 spaces collapsed\nNaN: images 9 (1 in all)"
    assert two.texts[0].get_text() == "NaN: images 9 (1 in all)"


def test_names_are_no_formulas():
    figure = start.map_bars({"$0-$25": 50.0, "$$": 20.0}, {"$0-$25": 5.0, "$$": 5.0})
    figure.draw_without_rendering()
    assert [label.get_parse_math() for label in figure.axes[0].get_yticklabels()] == [False, False]
    sheet = sheets.Sheet("$$", [sheets.Block("$a$", ["data set", "$0-$25"], [["$$", "**$1$**"]], ["$_$"])])
    drawn = sheets.draw_sheet(sheet)
    drawn.draw_without_rendering()
    assert not any(text.get_parse_math() for text in drawn.findobj(Text) if "$" in text.get_text())


def test_the_curve_has_a_point_a_run_and_both_costs():
    def row(block, score):
        return {"block": block, "map_weighted": score, "spaces_time": 0.1 * block, "spaces_operations": 0.05}

    figure = vit.cost_and_score([row(8, 80), row(4, 60), row(8, 82)], lite=90)
    left, right = figure.axes
    points = [line.get_xydata().tolist() for line in left.lines]
    assert points[:2] == [[[4, 60]], [[8, 80], [8, 82]]]
    assert points[2] == [[4, 60], [8, 81]]  # the means
    assert list(left.lines[3].get_ydata()) == [90, 90]
    assert np.allclose(right.lines[0].get_ydata(), [0.4, 0.8])


def test_bars_of_systems_stand_by_block():
    figure = vit.system_bars({"one": {8: 70, 12: 60}, "two": {12: 50}})
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[0] == 70 and np.isnan(heights[1]) and heights[2:] == [60, 50]
