"""The condition switcher in a real browser: JupyterLab runs notebook 07 in headless Chromium; a reader plays.

The notebook is a copy; data/ and runs/ are the project's. Screenshots are left in runs/screenshots.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from in_browser import CUT, RUNNING, SHOTS, WAIT, decoded_bytes, jupyterlab, run_all_cells

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    with jupyterlab(tmp_path_factory.mktemp("lab"), "07_attention_heatmaps.ipynb") as address:
        yield address


class Switcher:
    """The switcher as a reader sees it."""

    def __init__(self, page) -> None:
        self.page, self.root = page, page.locator(".cca-switcher").first
        self.picture = self.root.locator("img.cca-picture")

    def png(self) -> bytes:
        return decoded_bytes(self.picture)

    def near(self) -> list[bytes]:
        return [decoded_bytes(image) for image in self.root.locator("img.cca-near").all()]

    def text(self) -> str:
        return self.root.inner_text()

    def says(self, *words: str) -> None:
        self.until(lambda: all(word in self.text() for word in words), f"it should say {words}")

    def until(self, holds, what: str) -> None:
        end = time.monotonic() + WAIT
        while not holds():
            assert time.monotonic() < end, f"{what} within {WAIT} s; it shows: {self.text()}"
            self.page.wait_for_timeout(50)

    @contextmanager
    def changes(self, what: str) -> Iterator[None]:
        """Another picture is there after the block."""
        before, started = self.png(), time.monotonic()
        yield
        self.until(lambda: self.png() != before, f"{what} should change the picture")
        print(f"{what}: another picture after {time.monotonic() - started:.2f} s")

    @contextmanager
    def returns_to(self, picture: bytes, what: str) -> Iterator[None]:
        yield
        self.until(lambda: self.png() == picture, f"{what} should bring the picture back")

    def button(self, text: str):
        return self.root.locator("button", has_text=text).first

    def head(self, text: str):
        return (
            self.root.get_by_role("button", name=text, exact=True)
            .and_(self.page.locator(".widget-toggle-button"))
            .first
        )

    def upload(self, path: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.button("your own picture").click()
        chooser.value.set_files(path)

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.root.scroll_into_view_if_needed()
        self.root.screenshot(path=SHOTS / f"{name}.png")


@pytest.fixture(scope="module")
def switcher(browser, lab) -> Iterator[Switcher]:
    """The switcher in notebook 07, all of whose cells have run."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(1000 * WAIT)
    page.goto(lab)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.get_by_text("(ipykernel) | Idle").first.wait_for()
    run_all_cells(page)
    shown = Switcher(page)
    try:
        shown.picture.wait_for(state="attached")
        page.wait_for_function(f"() => !{RUNNING}")
    finally:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / "notebook.png")
    shown.root.scroll_into_view_if_needed()
    yield shown
    page.close()


def _decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_it_is_whole_and_nothing_is_cut_off(switcher):
    switcher.shot("switcher")
    assert switcher.root.locator(".cca-thumb").count() == 12
    assert switcher.root.evaluate(CUT) == []
    assert len(set(switcher.near())) == 5 and _decoded(switcher.png()).shape == (256, 256, 3)
    assert switcher.page.locator(".jp-Notebook .jp-RenderedText[data-mime-type*=stderr]").count() == 0


def test_the_condition_changes_the_picture_and_its_neighbours(switcher):
    picture, near = switcher.png(), switcher.near()
    with switcher.changes("a condition"):
        switcher.button("sleeve length").click()
    switcher.until(lambda: switcher.near() != near, "neighbours of another space")
    switcher.says("Nearest in the space of sleeve length")
    switcher.shot("condition")
    with switcher.returns_to(picture, "the condition"):
        switcher.button("skirt length").click()
    switcher.until(lambda: switcher.near() == near, "the neighbours that were there before")


def test_the_keyboard_will_do(switcher):
    picture, number = switcher.png(), switcher.root.locator("input[type=number]")
    number.focus()
    with switcher.changes("the arrow key"):
        number.press("ArrowUp")
    switcher.says("space of sleeve length")
    with switcher.changes("a number"):
        number.press("Control+a")
        number.press("5")
        number.press("Enter")
    switcher.says("space of collar design")
    with switcher.changes("Space on a button"):
        switcher.button("neckline design").press("Space")
    with switcher.returns_to(picture, "Enter on a button"):
        switcher.button("skirt length").press("Enter")


def test_head_opacity_and_outline_change_the_picture(switcher):
    picture = switcher.png()
    with switcher.changes("a head"):
        switcher.head("1").click()
    switcher.shot("head")
    with switcher.returns_to(picture, "the mean of the heads"):
        switcher.head("mean").click()
    slider = switcher.root.locator(".noUi-handle")
    with switcher.changes("the opacity"):
        slider.press("ArrowLeft")
    with switcher.returns_to(picture, "the opacity"):
        slider.press("ArrowRight")


def test_the_gallery_can_be_clicked(switcher):
    picture, near = switcher.png(), switcher.near()
    with switcher.changes("a thumbnail"):
        switcher.root.locator(".cca-thumb").nth(3).click()
    switcher.until(lambda: switcher.near() != near, "another picture's neighbours")
    switcher.shot("gallery")
    with switcher.returns_to(picture, "the first thumbnail"):
        switcher.root.locator(".cca-thumb").first.click()


def test_a_picture_of_ones_own_and_files_that_are_none(switcher, tmp_path):
    own = np.full((200, 150, 3), (200, 220, 240), np.uint8)
    cv2.circle(own, (75, 60), 30, (40, 60, 200), -1)
    cv2.rectangle(own, (45, 95), (105, 190), (160, 90, 30), -1)
    cv2.imwrite(str(tmp_path / "mine.png"), own)
    (tmp_path / "text.png").write_text("this is not a picture\n")
    (tmp_path / "large.png").write_bytes(bytes(9 << 20))
    before, near = switcher.png(), switcher.near()
    with switcher.changes("an upload"):
        switcher.upload(tmp_path / "mine.png")
    switcher.until(lambda: switcher.near() != near, "neighbours of the upload")
    assert _decoded(switcher.png()).shape == own.shape and switcher.root.locator(".cca-thumb").count() == 13
    switcher.shot("upload")
    mine = switcher.png()
    for name, reason in (
        ("text.png", "is broken, or no image"),
        ("large.png", "more than the limit of 8 MiB"),
    ):
        switcher.upload(tmp_path / name)
        switcher.says(f"{name}: ", reason)
        switcher.shot(f"not_{name.removesuffix('.png')}")
        assert switcher.png() == mine
    with switcher.changes("a condition of the upload"):
        switcher.button("neckline design").click()
    switcher.until(lambda: "cannot be shown" not in switcher.text(), "no more reason")
    switcher.button("skirt length").click()
    with switcher.returns_to(before, "the first thumbnail"):
        switcher.root.locator(".cca-thumb").first.click()


def test_a_narrow_window_cuts_nothing_off(switcher):
    switcher.page.set_viewport_size({"width": 820, "height": 1000})
    switcher.page.wait_for_timeout(1000)
    switcher.shot("narrow")
    assert switcher.root.evaluate(CUT) == []
    assert switcher.root.evaluate("(root) => root.scrollWidth <= root.clientWidth + 1")
