"""The figures, by what they hold: pixels, colours, texts; and that they can be written."""

from __future__ import annotations

import csv
import io

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from ccakit.attributes import Attributes
from ccakit.loss import spread
from ccakit.show import notebook, plots, style
from ccakit.show.heat import heatmap, outline, overlay

THREE = Attributes(
    ("sleeve_length", "tone", "neck"), (("short", "long"), ("dark", "mid", "light"), ("round", "V"))
)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 30, 3), np.uint8) for _ in range(6)]


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def test_an_attribute_has_one_colour_and_no_two_share_it():
    for n in (1, 4, 8, 9, 12):
        assert len(set(style.attribute_colors(n))) == n
        assert len(set(style.value_colors(n))) == n
    assert style.attribute_colors(4) == style.attribute_colors(9)[:4]


def test_titles_can_be_read_on_white():
    for color in style.PALETTE:
        ink = np.array(style.ink(color))
        linear = np.where(ink <= 0.04045, ink / 12.92, ((ink + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5
        hue = ink * (np.max(to_rgb(color)) / ink.max())
        np.testing.assert_allclose(hue, to_rgb(color), atol=1e-6)  # darker, of the same hue


def test_figures_do_not_pile_up_in_pyplot(pictures):
    plt.close("all")
    plots.training_curve([{"step": 0, "loss": 0.2}])
    assert plt.get_fignums() == []


def test_the_colours_of_values_are_seaborns():
    import seaborn

    for n in (1, 3, 10, 11, 23):
        assert (
            style.value_colors(n) == seaborn.color_palette("colorblind" if n <= 10 else "viridis", n).as_hex()
        )


def test_small_png_is_the_figure_in_few_colours():
    figure = plots.training_curve(
        [{"step": 0, "loss": 0.2}, {"step": 9, "loss": 0.1, "valid_map_weighted": 50}]
    )
    full = io.BytesIO()
    figure.savefig(full, dpi=110, bbox_inches="tight")
    small = notebook.small_png(figure)
    assert len(small) < 0.6 * len(full.getvalue())
    a, b = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (small, full.getvalue())
    )
    assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 2
    assert len(np.unique(a.reshape(-1, 3), axis=0)) <= 256
    for color in (style.PALETTE[0], style.PALETTE[4]):  # the loss, and the best
        distance = np.abs(a - np.round(255 * np.array(to_rgb(color)))[::-1]).max(axis=-1)
        assert distance.min() < 8


def test_small_png_draws_a_wide_figure_as_wide_as_the_page():
    png = notebook.small_png(style.new_figure(7, 1))
    assert Image.open(io.BytesIO(png)).width == pytest.approx(notebook.PAGE, rel=0.03)  # with a margin
    wider = notebook.small_png(style.new_figure(10, 1))
    assert Image.open(io.BytesIO(wider)).width == pytest.approx(10 * notebook.DPI, rel=0.03)


def test_a_notebook_shows_figures_small(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    monkeypatch.setattr(shell, "run_line_magic", lambda *given: None)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    with plt.rc_context():  # which takes back what it sets
        notebook.in_notebook(colors=64)
    figure = plots.training_curve([{"step": 0, "loss": 0.2}])
    data, _ = shell.display_formatter.format(figure)
    assert data["image/png"] == notebook.small_png(figure, 64)
    InteractiveShell.clear_instance()


def test_heatmap_grid_draws_what_attention_gives(pictures, tmp_path):
    rng = np.random.default_rng(1)
    maps = rng.random((2, 3, 4, 7, 7))
    regions = np.array([(8, 1, 0.1, 0.1, 0.6, 0.5), (8, 1, 0.5, 0.6, 0.9, 0.9), (9, 1, 0, 0, 1, 1)])
    labels = np.array([[1, 2, -1], [0, -1, 1]])
    figure = plots.heatmap_grid(
        pictures[:2], maps, THREE, regions, labels, image_ids=[8, 7], opacity=0.5, unlabelled="not worn"
    )
    grid = np.array(figure.axes).reshape(2, 4)
    for row, picture in enumerate(pictures[:2]):
        np.testing.assert_array_equal(shown(grid[row, 0]), picture)
        for condition in range(3):
            heat = heatmap(maps[row, condition].mean(0), (40, 30))
            expected = overlay(picture, heat, 0.5)
            if (row, condition) == (0, 1):
                expected = outline(expected, regions[:2, 2:], width=1)
            ax, label = grid[row, condition + 1], labels[row, condition]
            if label < 0:
                assert ax.get_xlabel() == "not worn" and shown(ax).min() > 170  # faded
            else:
                np.testing.assert_array_equal(shown(ax), expected)
                assert ax.get_xlabel() == THREE.values[condition][label]
    assert [ax.get_title() for ax in grid[0]] == ["", "sleeve\nlength", "tone", "neck"]
    path = style.save(figure, tmp_path / "new" / "grid.png")
    assert cv2.imread(str(path)).std() > 10


def test_ranking_grid_marks_right_and_wrong(pictures):
    found = [np.array([(2, 1, 2), (3, 1, 0), (4, 1, 2)]), np.array([(3, 0, 1), (4, 0, 0)])]
    figure = plots.ranking_grid(pictures.__getitem__, np.array([(0, 1, 2), (1, 0, 0)]), found, THREE)
    grid = np.array(figure.axes).reshape(2, 4)
    assert [ax.get_xlabel() for ax in grid.ravel()] == [
        "light",
        "✓ light",
        "✗ dark",
        "✓ light",
        "short",
        "✗ long",
        "✓ short",
        "",
    ]
    for ax, color in zip(grid.ravel()[[1, 2, 3, 5, 6]], ["RIGHT", "WRONG", "RIGHT", "WRONG", "RIGHT"]):
        assert to_hex(ax.spines["top"].get_edgecolor()).upper() == getattr(style, color)
    assert grid[0, 0].get_ylabel() == "tone" and grid[1, 0].get_ylabel() == "sleeve\nlength"
    np.testing.assert_array_equal(shown(grid[1, 2]), pictures[4])
    assert not grid[1, 3].axison


def clusters(rng, n=90):
    labels = np.stack([rng.integers(-1, len(values), n) for values in THREE.values], axis=1)
    centres = [4 * rng.standard_normal((len(values) + 1, 16)) for values in THREE.values]
    spaces = [centres[c][labels[:, c]] + 0.3 * rng.standard_normal((n, 16)) for c in range(3)]
    return np.stack(spaces, axis=1).astype(np.float32), labels


def test_tsne_spaces_shows_every_space_and_keeps_clusters_apart():
    embeddings, labels = clusters(np.random.default_rng(2))
    figure = plots.tsne_spaces(embeddings, labels, THREE, seed=0, points=40)
    *sides, middle = figure.axes
    assert [ax.get_title() for ax in sides] == ["sleeve length", "tone", "neck"]
    assert [len(c.get_offsets()) for c in middle.collections] == [40, 40, 40]
    for color, group in zip(style.PALETTE, middle.collections):
        assert to_hex(group.get_facecolor()[0]).upper() == color.upper()
    for ax, values in zip(sides, THREE.values):
        groups = [np.asarray(c.get_offsets()) for c in ax.collections]
        assert sum(map(len, groups)) == 40
        assert [text.get_text() for text in ax.get_legend().get_texts()] == list(values)
        points, value = np.concatenate(groups), np.repeat(np.arange(len(groups)), [len(g) for g in groups])
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(40)
        assert (value[distance.argmin(1)] == value).mean() > 0.95  # the nearest point has the same value


def test_tsne_spaces_is_the_same_for_the_same_seed_and_takes_few_points():
    embeddings, labels = clusters(np.random.default_rng(3), 30)
    labels[3:, 1] = labels[:, 2] = -1  # three points, and none
    one, two = (plots.tsne_spaces(embeddings, labels, THREE, seed=5) for _ in range(2))
    for a, b in zip(one.axes, two.axes):
        for c, d in zip(a.collections, b.collections):
            np.testing.assert_array_equal(c.get_offsets(), d.get_offsets())
    assert sum(len(c.get_offsets()) for c in one.axes[1].collections) <= 3


def notes(ax):
    return [text.get_text() for text in ax.texts]


def test_a_collapsed_space_is_one_point_and_says_so(caplog):
    embeddings, labels = clusters(np.random.default_rng(4))
    embeddings[:, 1] = 1 + 1e-4 * np.random.default_rng(5).standard_normal((len(labels), 16))
    sleeve, tone, neck, middle = plots.tsne_spaces(embeddings, labels, THREE, points=20).axes
    places = np.concatenate([c.get_offsets() for c in tone.collections])
    assert len(places) == 20 and len(np.unique(places, axis=0)) == 1
    assert [notes(ax) for ax in (sleeve, tone, neck)] == [[], ["collapsed"], []]
    assert [len(np.unique(c.get_offsets(), axis=0)) for c in middle.collections] == [20, 1, 20]
    assert notes(middle) == ["1 of 3 spaces collapsed"]
    assert "t-SNE of tone: collapsed" in caplog.text


def test_a_space_is_collapsed_by_its_spread_whatever_its_scale():
    rng = np.random.default_rng(0)
    directions = 1 + 1e-3 * rng.standard_normal((40, 16))
    for points in (directions, 1e5 * directions, 1e-5 * directions, np.zeros((2, 16))):
        assert style.collapsed(points.astype(np.float32))
    unit = np.ones(16) / 4 + 0.005 * rng.standard_normal((40, 16))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert spread(torch.tensor(unit)[:, None]) > 1e-4 and not style.collapsed(unit)
    assert not style.collapsed(np.ones((1, 16))) and not style.collapsed(np.ones((0, 16)))


def test_all_spaces_collapsed_are_one_point_together():
    _, labels = clusters(np.random.default_rng(4))
    *sides, middle = plots.tsne_spaces(np.ones((len(labels), 3, 16)), labels, THREE, points=20).axes
    assert [notes(ax) for ax in sides] == [["collapsed"]] * 3
    assert notes(middle) == ["3 of 3 spaces collapsed"]
    assert len(np.unique(np.concatenate([c.get_offsets() for c in middle.collections]), axis=0)) == 1


def test_embeddings_that_are_not_finite_are_named_and_not_drawn(caplog):
    embeddings, labels = clusters(np.random.default_rng(6), 20)
    labels[:5] = 1
    embeddings[0, 1, 3], embeddings[1, 1], embeddings[2:5, 2, 0] = np.nan, np.inf, -np.inf
    ids = 100 + np.arange(len(labels))
    sleeve, tone, neck, middle = plots.tsne_spaces(embeddings, labels, THREE, image_ids=ids).axes
    assert notes(sleeve) == [] and notes(tone) == ["NaN: images 100, 101 (2 in all)"]
    assert notes(neck) == ["NaN: images 102, 103, 104 (3 in all)"]
    assert notes(middle) == ["NaN: images 100, 101, 102, … (5 in all)"]
    assert "t-SNE of tone: NaN: images 100, 101" in caplog.text
    embeddings[:, 0] = np.nan  # a space without any
    sleeve, *_ = plots.tsne_spaces(embeddings, labels, THREE).axes
    assert notes(sleeve)[0].startswith("NaN: images 0, 1, 2, …")


def test_training_curve_reads_a_log_file():
    text = "step,loss,valid_map_weighted\n10,0.2,\n20,0.1,31.5\n30,0.05,40.25\n40,0.04,39\n"
    top, bottom = plots.training_curve(list(csv.DictReader(io.StringIO(text)))).axes
    np.testing.assert_array_equal(top.lines[0].get_xydata(), [(10, 0.2), (20, 0.1), (30, 0.05), (40, 0.04)])
    np.testing.assert_array_equal(bottom.lines[0].get_xydata(), [(20, 31.5), (30, 40.25), (40, 39)])
    assert bottom.texts[0].get_text() == "best 40.25"
    plots.training_curve([{"step": 1, "loss": 0.5, "valid_map_weighted": None}])
