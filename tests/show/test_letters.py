"""Text in figures: names of users are drawn as they are written, in fonts that have their letters."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from PIL import Image

from ccakit.attributes import Attributes
from ccakit.audit.plot import plot
from ccakit.data.text import CONTROL
from ccakit.show import letters, plots, style

WORDS = ("$0-$25", "$$", r"a\$b$c$", "$x_1^2$", r"$\frac$", "100 $")  # formulas, and what is no formula
PRICES = Attributes(("price_$in$", "tone"), (WORDS, ("dark", "$$")))


def literal(figure):
    """Draw the figure; all its text that users may have written, and no more, is literal."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    texts = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    powers = [text for text in texts if "mathdefault" in text.get_text()]
    assert all(text.get_parse_math() == (text in powers) for text in texts)
    return {text.get_text() for text in texts if text not in powers}, powers


def test_names_are_no_formulas_in_figures():
    pictures = np.zeros((6, 8, 8, 3), np.uint8)
    labels = np.stack([np.arange(6), np.arange(6) % 2], axis=1)
    grid = plots.heatmap_grid(pictures, np.ones((6, 2, 2, 2)), PRICES, labels=labels)
    rows = np.array([(0, 0, 0), (1, 1, 1)])
    ranking = plots.ranking_grid(pictures.__getitem__, rows, [rows[:1], rows[1:]], PRICES)
    spaces = plots.tsne_spaces(np.ones((6, 2, 4)), labels, PRICES)
    assert literal(grid)[0] >= {"price $in$", *WORDS}
    assert literal(ranking)[0] >= {"price\n$in$", "✓ $0-$25", "✓ $$"}
    assert literal(spaces)[0] >= {"price $in$", *WORDS}


def test_names_that_begin_with_a_line_or_hold_tabs_are_shown_too():
    """Matplotlib leaves names with "_" out of a legend, and draws a box for a tab or the end of a line."""
    odd = Attributes(("a\tb\r\nc", "tone"), (("_low_", "_nolegend_", "x\ty"), ("袖" * 30, "light", "_")))
    labels = np.stack([np.arange(9) % 3, np.arange(9) % 3], axis=1)
    figure = plots.tsne_spaces(np.random.default_rng(0).normal(size=(9, 2, 4)), labels, odd)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert texts >= {"_low_", "_nolegend_", "x y", "袖" * 23 + "…", "light", "_", "a b c"}
    assert not any(CONTROL.search(text.replace("\n", "")) for text in texts)


def test_names_are_no_formulas_in_the_audits_plot():
    numbers = {name: {"images": [1000] * n} for name, n in zip(PRICES.names, PRICES.sizes)}
    result = {
        "attributes": dict(zip(PRICES.names, PRICES.values)),
        "splits": {"train": {"attributes": numbers}},
    }
    names, powers = literal(plot(result))
    assert names == {"price $in$"} and powers  # the axis' powers of ten stay formulas


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_as_wide_as_its_letters(word):
    """Ticks that are made while the figure is drawn, too, and subfigures."""
    figure = style.new_figure(3, 3)
    for part in figure.subfigures(2, 1):
        part.subplots().barh([word, "b"], [1, 2])
    figure.draw_without_rendering()
    tick = figure.axes[1].get_yticklabels()[0]
    same = figure.text(0, 0, word, parse_math=False, fontsize=tick.get_fontsize())
    assert tick.get_text() == word
    assert tick.get_window_extent().width == pytest.approx(same.get_window_extent().width)
    formulas = style.new_figure(3, 3, formulas=True)
    formulas.text(0, 0, "$x_1$")
    formulas.draw_without_rendering()
    assert formulas.texts[0].get_parse_math()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("袖子长度和款式", "袖子长度\n和款式"),
        ("긴 소매 셔츠", "긴 소매\n셔츠"),
        ("coat 外套 x", "coat 外套\nx"),
        ("a longer name", "a longer\nname"),
        ("sleeveless", "sleeveless"),
    ],
)
def test_wide_letters_count_twice_in_a_line(text, lines):
    assert style.wrapped(text, 8) == lines


@pytest.fixture
def box_font(tmp_path, monkeypatch):
    """A font of black boxes for a Chinese and a Korean sign, which nobody has but this test."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for move, corners in ((pen.moveTo, [(0, 0)]), (pen.lineTo, [(0, 900), (900, 900), (900, 0)])):
        for corner in corners:
            move(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "box"])
    font.setupCharacterMap({ord("衣"): "box", ord("옷"): "box"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "box": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "box": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=0)
    font.setupNameTable({"familyName": "Test Boxes", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "boxes.ttf")
    monkeypatch.setattr(fontManager, "ttflist", [e for e in fontManager.ttflist if "DejaVu" in e.name])
    monkeypatch.setattr(letters, "findSystemFonts", lambda: [str(tmp_path / "boxes.ttf")])
    forget()
    yield
    forget()


def forget():
    letters.installed_fonts.cache_clear()
    letters.fonts_with.cache_clear()
    fontManager._findfont_cached.cache_clear()


@pytest.mark.parametrize("word", ["衣", "옷", "coat 衣 (옷)"])
def test_letters_are_taken_from_a_font_that_was_just_installed(word, box_font, caplog, tmp_path):
    figure = style.new_figure(2, 1)
    figure.text(0.5, 0.5, word, fontsize=40, ha="center", va="center")
    figure.text(0.5, 0.1, "coat")
    figure.draw_without_rendering()
    path = style.save(figure, tmp_path / "word.png", dpi=100)  # drawn twice: fonts do not pile up
    assert figure.texts[0].get_fontfamily() == ["sans-serif", "Test Boxes"]
    assert figure.texts[1].get_fontfamily() == ["sans-serif"]
    assert (np.asarray(Image.open(path))[..., 0] < 50).sum() > 40 * 40  # the box of 40 points
    assert not caplog.text


@pytest.mark.parametrize(
    ("word", "fonts"),
    [
        ("袖の長さ", "Noto Sans CJK"),
        ("आस्तीन เสื้อ", "Noto Sans Devanagari and Noto Sans Thai"),
        ("👗", "a font that has them"),
    ],
)
def test_where_no_font_has_the_letters_a_line_says_what_to_install(word, fonts, box_font, caplog, recwarn):
    figure = style.new_figure(2, 1)
    figure.suptitle(f"sleeve {word}", fontweight="bold")
    for _ in range(2):  # said once
        figure.savefig(io.BytesIO(), format="pdf")
    (record,) = caplog.records
    assert f"Install {fonts}, or" in record.getMessage() and word[0] in record.getMessage()
    assert not [each for each in recwarn if "Glyph" in str(each.message)]
