"""The catalogue browser in Chromium, as the page of `ccakit app` and in notebook 11: a reader plays.

Screenshots are left in runs/screenshots.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from in_browser import (
    CUT,
    RUNNING,
    SHOTS,
    WAIT,
    decoded_bytes,
    free_port,
    jupyterlab,
    run_all_cells,
    served,
)

pytestmark = pytest.mark.slow


class Page:
    """The browser as a reader sees it."""

    def __init__(self, page, name: str) -> None:
        self.page, self.name, self.root = page, name, page.locator(".cca-browser").first
        self.root.locator("img.cca-result").first.wait_for()
        self.until(lambda: len(self.results()) >= 3, "results")

    def results(self) -> list[bytes]:
        images = self.root.locator("img.cca-result").all()
        return [decoded_bytes(image) for image in images if image.is_visible()]

    def query(self) -> bytes:
        return decoded_bytes(self.root.locator("img.cca-query"))

    def text(self) -> str:
        return self.root.inner_text()

    def until(self, holds, what: str) -> None:
        end = time.monotonic() + WAIT
        while not holds():
            assert time.monotonic() < end, f"{what} within {WAIT} s; it shows: {self.text()}"
            self.page.wait_for_timeout(100)

    def slider(self, number: int):
        return self.root.locator(".cca-weight .noUi-handle").nth(number)

    def upload(self, path: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.root.locator("button", has_text="your own picture").click()
        chooser.value.set_files(path)

    def shot(self, step: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.root.screenshot(path=SHOTS / f"catalogue_{self.name}_{step}.png")


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[str]:
    """The address of the page of a small catalogue of drawn garments."""
    pytest.importorskip("voila")
    import ccakit
    from ccakit.catalogue.index import fill
    from ccakit.catalogue.items import items_of_table

    home = tmp_path_factory.mktemp("app")
    run = ccakit.open_demo("smoke")
    names = run.split.filenames[:120]
    rows = [
        f"{name},{10 + 7 * number % 90},{'Alder' if number % 3 else 'Birch'}"
        for number, name in enumerate(names)
    ]
    (home / "shop.csv").write_text("\n".join(["photo,price,brand", *rows]) + "\n", encoding="utf-8")
    fill(
        str(home / "catalogue"),
        ccakit.load(run.folder),
        str(run.folder),
        items_of_table(home / "shop.csv", run.split.root),
    )
    port = free_port()
    command = [sys.executable, "-m", "ccakit", "app", "--catalogue", str(home / "catalogue")]
    command += ["--port", str(port), "--token", "let-me-in"]
    with served(command, port, home):
        yield f"http://127.0.0.1:{port}/?token=let-me-in"


@pytest.fixture(scope="module", params=["app", "notebook"])
def shown(request, browser, tmp_path_factory) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1300, "height": 1200})
    page.set_default_timeout(1000 * WAIT)
    if request.param == "app":
        page.goto(request.getfixturevalue("app"))
        yield Page(page, "app")
    else:
        with jupyterlab(tmp_path_factory.mktemp("lab"), "11_your_own_catalogue.ipynb") as address:
            page.goto(address)
            page.locator(".jp-Notebook .jp-Cell").first.wait_for()
            page.get_by_text("(ipykernel) | Idle").first.wait_for()
            run_all_cells(page)
            page.locator(".cca-browser").first.wait_for(state="attached")
            page.wait_for_function(f"() => !{RUNNING}")
            page.locator(".cca-browser").first.scroll_into_view_if_needed()
            yield Page(page, "notebook")
    page.close()


def test_a_reader_searches_filters_and_goes_on(shown, tmp_path):
    """The steps build on each other, as a reader's do."""
    first, query = shown.results(), shown.query()
    assert shown.root.evaluate(CUT) == [] and len(set(first)) > 3
    shown.shot("1_first")

    shown.slider(6).focus()
    shown.slider(6).press("ArrowRight")
    shown.slider(6).press("ArrowRight")
    shown.until(lambda: "neckline design" in shown.root.locator(".cca-title").last.inner_text(), "the weight")
    shown.until(lambda: shown.results() != first, "results by two conditions")
    shown.shot("2_slider")

    shown.root.locator("select").nth(1).select_option("Birch")
    shown.until(lambda: shown.text().count("brand: Birch") == len(shown.results()) > 0, "only Birch")
    shown.shot("3_filter")

    line = shown.root.locator("input[type=text]").last
    line.fill("prize < 50")
    line.press("Enter")
    shown.until(lambda: "No field named prize" in shown.text(), "the error in its place")
    shown.shot("4_error")
    line.fill("")
    line.press("Enter")
    shown.until(lambda: "No field named" not in shown.text(), "no error")

    card = shown.root.locator(".cca-card button").first
    card.focus()
    card.press("Enter")
    shown.until(lambda: shown.query() != query, "the first result as the query")
    shown.shot("5_followed")
    shown.root.locator("button", has_text="back").click()
    shown.until(lambda: shown.query() == query, "the query before")

    own = np.full((300, 220, 3), (235, 235, 240), np.uint8)
    cv2.ellipse(own, (110, 170), (60, 110), 0, 0, 360, (150, 90, 40), -1)
    cv2.imwrite(str(tmp_path / "mine.png"), own)
    (tmp_path / "text.png").write_text("this is not a picture\n")
    shown.upload(tmp_path / "mine.png")
    shown.until(lambda: "mine.png" in shown.text(), "the upload's name")
    shown.shot("6_upload")
    mine = shown.query()
    shown.upload(tmp_path / "text.png")
    shown.until(lambda: "text.png: " in shown.text() and "no image" in shown.text(), "why it is refused")
    assert shown.query() == mine


def test_a_narrow_window_cuts_nothing_off(shown):
    shown.page.set_viewport_size({"width": 760, "height": 1200})
    shown.page.wait_for_timeout(1000)
    shown.shot("7_narrow")
    assert shown.root.evaluate(CUT) == []
    assert shown.root.evaluate("(root) => root.scrollWidth <= root.clientWidth + 1")


def test_the_app_shows_nothing_without_its_token_and_no_files(app, browser):
    page = browser.new_context().new_page()
    page.set_default_timeout(1000 * WAIT)
    base = app.split("?")[0]
    page.goto(base)
    assert page.locator(".cca-browser").count() == 0 and "oken" in page.content()
    page.goto(app)  # with the token, whose cookie stays
    for path in (
        "voila/files/catalogue.ipynb",
        "voila/files/../../etc/passwd",
        "api/contents/",
        "catalogue.ipynb",
    ):
        response = page.request.get(base + path)
        assert "root:" not in response.text() and "ccakit.catalogue.app" not in response.text()
        assert response.status in (403, 404) or "cell_type" not in response.text()
    page.close()
