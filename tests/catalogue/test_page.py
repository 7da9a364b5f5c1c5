"""The catalogue browser without a browser: searches, filters, heat, going on and back, errors in place."""

from __future__ import annotations

import re
from datetime import datetime

import cv2
import numpy as np
import pytest
from catalogue_shop import COUNT

import ccakit
from ccakit.catalogue.browsing import Filter
from ccakit.catalogue.page import EMPTY, NO_HEAT, CatalogueBrowser
from ccakit.cli import main
from ccakit.show.heat import heatmap, overlay, view_of
from ccakit.show.switcher import encode_png, reduced


@pytest.fixture(scope="module")
def catalogue(filled):
    return ccakit.open_catalogue(filled / "catalogue", run=filled / "run", images=filled / "photos")


@pytest.fixture
def browser(catalogue):
    return CatalogueBrowser(catalogue, start="pic 00.png", results=6)


def shown(browser):
    """The pictures and captions of the cards that can be seen."""
    cards = [card for card in browser.cards if card.box.layout.display != "none"]
    return [(card.picture.value, card.caption.value) for card in cards]


def upload(browser, name, data):
    file = {"name": name, "type": "", "size": len(data), "content": data, "last_modified": datetime.now()}
    browser.upload.set_trait("value", (file,))


def test_it_shows_what_a_search_finds(browser, catalogue):
    found = catalogue.search(id="pic 00.png", conditions=catalogue.conditions[0], k=6)
    assert browser.found == found["id"].tolist() and not browser.message.value
    assert len(shown(browser)) == 6 and "pic 00.png" not in browser.found
    for (_, caption), (_, row) in zip(shown(browser), found.iterrows()):
        assert f"<b>{row['cosine']:.3f}</b>" in caption and f"price: {row['price']:g}" in caption


def test_sliders_weigh_conditions(browser, catalogue):
    browser.weights[0].value, browser.weights[1].value = 0.5, 2
    weights = dict(zip(catalogue.conditions, (0.5, 2)))
    found = catalogue.search(id="pic 00.png", conditions=weights, k=6)
    assert browser.found == found["id"].tolist()
    assert "tone × 2" in browser.status.value
    before = browser.found
    for slider in browser.weights:
        slider.value = 0
    assert "move a slider" in browser.message.value and browser.found == before


def test_filters_are_those_of_the_columns(browser, catalogue):
    filters = {each.column: each for each, _ in browser.filters}
    assert filters["brand"].values == ("acme", "x")
    assert (filters["price"].low, filters["price"].high) == (10.5, 9.5 + COUNT)
    controls = {each.column: control for each, control in browser.filters}
    controls["brand"].value = "acme"
    controls["price"].value = (12.0, 20.0)
    rows = [catalogue.item(id) for id in browser.found]
    assert rows and all(row["brand"] == "acme" and 12 <= row["price"] <= 20 for row in rows)
    browser.where.value = "`Unit Weight` > 900"
    assert browser.found == [] and browser.status.value.startswith("No item") and shown(browser) == []
    browser.where.value = ""
    assert browser.found == [row["id"] for row in rows]


@pytest.mark.parametrize("text", ["price <", "nothing = 1", "price < 50) OR (true", "'"])
def test_what_is_no_sql_is_said_in_place_and_results_stay(browser, text):
    before = shown(browser)
    browser.where.value = text
    assert "SQL" in browser.message.value and "Traceback" not in browser.message.value
    assert "the columns are: id, path, price" in browser.message.value
    assert shown(browser) == before
    browser.where.value = ""
    assert not browser.message.value


def test_a_result_is_gone_on_from_and_back(browser):
    first, found = browser.query.id, list(browser.found)
    assert browser.back.disabled
    browser.cards[2].button.click()
    assert browser.query.id == found[2] and first in browser.found + [first] and not browser.back.disabled
    browser.back.click()
    assert browser.query.id == first and browser.found == found and browser.back.disabled
    browser.another.click()
    assert not browser.message.value and not browser.back.disabled


def test_heat_is_that_of_the_model(browser, catalogue, filled):
    model, file = catalogue.model, filled / "photos" / browser.found[0]
    picture = reduced(cv2.imread(str(file))[..., ::-1].copy(), 360)
    maps = model.heatmap(file, 0).numpy()
    heat = heatmap(maps, picture.shape[:2], view=view_of(model.transform, picture.shape[:2]))
    hot = shown(browser)[0][0]
    drawn = cv2.imdecode(np.frombuffer(hot, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    assert np.abs(drawn - overlay(picture, heat)).mean() < 1
    browser.heat.value = NO_HEAT
    assert shown(browser)[0][0] == encode_png(picture)
    browser.heat.value = browser.browsing.titles[1]
    assert shown(browser)[0][0] not in (hot, encode_png(picture)) and "heat: tone" in browser.name.value


def test_a_picture_of_ones_own(browser, catalogue, filled):
    data = (filled / "photos/pic 05.png").read_bytes()
    upload(browser, "mine <b>.png", data)
    assert browser.query.id is None and not browser.message.value
    assert browser.found[0] == "pic 05.png"  # the same picture, which is now not left out
    assert "mine &lt;b&gt;.png" in browser.name.value
    assert browser.upload.value == ()
    found = list(browser.found)
    browser.weights[1].value = 1
    browser.weights[1].value = 0
    assert browser.found == found


@pytest.mark.parametrize(
    "data,reason",
    [(b"text", "no image"), (b"", "is empty"), (bytes(9 << 20), "more than the limit of 8 MiB")],
)
def test_files_that_are_no_pictures_are_refused_in_place(browser, data, reason):
    before = browser.query, shown(browser)
    upload(browser, "mine.png", data)
    assert "mine.png" in browser.message.value and reason in browser.message.value
    assert (browser.query, shown(browser)) == before and browser.back.disabled


def test_pictures_that_are_gone_or_lie_outside_are_not_shown(shop, monkeypatch):
    catalogue = ccakit.open_catalogue(shop / "catalogue")
    (shop / "photos/pic 07.png").unlink()
    (shop / "photos/pic 08.png").unlink()
    (shop / "photos/pic 08.png").symlink_to(shop / "shop.csv")
    browser = CatalogueBrowser(catalogue, start="pic 00.png", results=COUNT)
    cards = dict(zip(browser.found, shown(browser)))
    for id, problem in (("pic 07.png", "is missing"), ("pic 08.png", "lies outside")):
        picture, caption = cards[id]
        assert picture == EMPTY and problem in caption
    assert sum(picture == EMPTY for picture, _ in cards.values()) == 2 and not browser.message.value


def test_what_a_table_says_is_not_taken_for_html(browser, catalogue, monkeypatch):
    row = browser._rows.iloc[0].copy()
    row["brand"] = "<script>alert(1)</script>"
    caption = browser._caption(row, None)
    assert "<script>" not in caption and "&lt;script&gt;" in caption
    assert set(re.findall(r"<(\w+)", caption)) <= {"b", "br"}


def test_a_filter_quotes_its_value():
    assert Filter("brand", ("D'Oak", "x")).sql("D'Oak") == "`brand` = 'D''Oak'"
    assert Filter("price", low=1, high=9).sql((1, 9)) == ""
    assert Filter("price", low=1, high=9).sql((2, 5)) == "`price` >= 2 AND `price` <= 5"


@pytest.mark.parametrize(
    "flags,problem",
    [
        (["--catalogue", "nowhere"], "nowhere: is not a catalogue"),
        (["--token", ""], "--token is empty"),
        (["--address", "203.0.113.1"], "cannot be listened on"),
        (["--run", "nowhere"], "nowhere"),
    ],
)
def test_the_app_says_what_is_wrong_before_it_serves(filled, capsys, flags, problem):
    pytest.importorskip("voila")
    argv = ["app", "--catalogue", str(filled / "catalogue"), "--run", str(filled / "run"), *flags]
    assert main(argv) == 1
    assert problem in capsys.readouterr().err.splitlines()[-1]
