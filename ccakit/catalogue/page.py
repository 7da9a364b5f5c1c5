"""The catalogue browser: a picture, weights of conditions, filters; results with heatmaps, and on from them.

    from ccakit.catalogue.page import CatalogueBrowser

    CatalogueBrowser(ccakit.open_catalogue("catalogue"))

It shows in a notebook; `ccakit app` shows the same as a web page.
"""

from __future__ import annotations

import html
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np

from ccakit.catalogue.browsing import HIDDEN, Browsing, Filter, Query
from ccakit.errors import DataError
from ccakit.hub.pretrained import words_of_name
from ccakit.show.switcher import MAX_BYTES, encode_png
from ccakit.show.widget import show_errors

if TYPE_CHECKING:
    from ccakit.catalogue.search import Catalogue

RESULTS = 12
MOST_SHOWN = 3  # of the user's columns, under a result
HEAVIEST, NO_HEAT = "of the heaviest condition", "no heatmap"
HINT = "Catalogue browser: run this cell in Jupyter to use it, or open it as a page: ccakit app."
EMPTY = encode_png(np.full((4, 4, 3), 242, np.uint8))
STYLE = """<style>
.cca-browser {max-width: 1160px; margin: 0 auto; font-size: 13px}
.cca-browser .cca-head .widget-html-content {font-size: 20px; font-weight: 600; line-height: 1.4}
.cca-browser .cca-small .widget-html-content {color: #5f6368; line-height: 1.35; overflow-wrap: anywhere}
.cca-browser .cca-title .widget-html-content {font-weight: 600; line-height: 1.5}
.cca-browser img {object-fit: contain; background: #f5f5f5; border-radius: 6px}
.cca-browser .cca-panel {border: 1px solid #e0e0e0; border-radius: 8px; padding: 10px 14px}
.cca-browser .cca-card {position: relative; border: 1px solid #e0e0e0; border-radius: 8px; padding: 6px;
  overflow: hidden; background: #fff}
.cca-browser .cca-card:hover {border-color: #1967d2; box-shadow: 0 1px 5px rgba(0, 0, 0, .18)}
.cca-browser .cca-card button {position: absolute; inset: 0; width: auto; height: auto; margin: 0;
  background: transparent; border: 0; box-shadow: none; font-size: 0; cursor: pointer; border-radius: 8px}
.cca-browser .cca-card button:focus-visible {outline: 3px solid #1967d2; outline-offset: -3px}
.cca-browser button:focus-visible {outline: 3px solid #1967d2}
.cca-browser .cca-weight .widget-label {font-weight: 500}
.cca-browser .cca-caption .widget-html-content {line-height: 1.35; font-size: 12px; overflow-wrap: anywhere}
</style>"""
WRAP = {"flex_flow": "row wrap", "align_items": "stretch"}


class CatalogueBrowser(widgets.VBox):
    """Search a catalogue by a picture, see why each result was found, and go on from one.

    Each condition has a slider for its weight; filters are made of the catalogue's columns, and a line takes
    any filter in SQL. All is reached by Tab; arrow keys move sliders; Enter or Space on a result goes on
    from it. Errors are shown in place, and what was there before stays.

    catalogue: what `ccakit.open_catalogue` gives. start: the id of the first item; one of the items by
    default. results: how many. max_bytes: of an uploaded file.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        start: str | None = None,
        results: int = RESULTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.browsing, self.max_bytes = Browsing(catalogue), max_bytes
        self.query: Query | None = None
        self.found: list[str] = []  # ids of the results
        self._before: list[Query] = []
        self._make_views(results)
        self._make_controls()
        super().__init__(self._layout())
        self.add_class("cca-browser")
        self._watch()
        with show_errors(self.message, "Nothing to show."):
            self.go_to(self.browsing.an_item(0) if start is None else self.browsing.by_id(start))

    # ---- parts

    def _make_controls(self) -> None:
        titles = self.browsing.titles
        self.weights = [self._slider(title, float(number == 0)) for number, title in enumerate(titles)]
        limit = f"an image file of at most {self.max_bytes >> 20} MiB"
        self.upload = widgets.FileUpload(accept="image/*", description="your own picture", tooltip=limit)
        self.another = widgets.Button(
            description="another item", tooltip="search by an item of the catalogue"
        )
        self.back = widgets.Button(description="back", tooltip="the picture before", disabled=True)
        for control in (self.upload, self.another, self.back):
            control.layout.width = "auto"
        options = [HEAVIEST, NO_HEAT, *titles]
        self.heat = widgets.Dropdown(options=options, description="heatmap", layout={"width": "auto"})
        self.filters = [(each, _filter_widget(each)) for each in self.browsing.filters()]
        self.where = widgets.Text(
            placeholder="price < 50 AND brand = 'x'",
            description="SQL",
            continuous_update=False,
            layout={"width": "auto", "min_width": "220px"},
            tooltip="a filter on the columns, as in SQL; Enter applies it",
        )

    def _slider(self, title: str, value: float) -> widgets.FloatSlider:
        slider = widgets.FloatSlider(
            value,
            min=0,
            max=3,
            step=0.5,
            description=title,
            readout_format=".1f",
            continuous_update=False,
            style={"description_width": "130px"},
            layout={"width": "330px", "margin": "1px 12px 1px 0"},
            tooltip=f"weight of {title}: 0 to 3",
        )
        slider.add_class("cca-weight")
        return slider

    def _make_views(self, results: int) -> None:
        self.css, self.head, self.message, self.name, self.status = (widgets.HTML() for _ in range(5))
        self.css.value = STYLE
        total = len(self.browsing.catalogue)
        self.head.value = f"Catalogue of {total:,} {'item' if total == 1 else 'items'}"
        self.head.add_class("cca-head")
        self.name.add_class("cca-small")
        self.status.add_class("cca-title")
        self.picture = widgets.Image(value=EMPTY, layout={"width": "300px", "height": "300px"})
        self.picture.add_class("cca-query")
        self.cards = [_Card(self._follow, number) for number in range(results)]

    def _layout(self) -> list[widgets.Widget]:
        buttons = widgets.HBox([self.upload, self.another, self.back], layout={"flex_flow": "row wrap"})
        query = widgets.VBox(
            [self.picture, self.name, buttons], layout={"width": "316px", "margin": "0 14px 0 0"}
        )
        weights = widgets.HBox(self.weights, layout={**WRAP, "align_items": "center"})
        chosen = [control for _, control in self.filters]
        filters = widgets.HBox([*chosen, self.where], layout={**WRAP, "align_items": "center"})
        panel = widgets.VBox(
            [_title("Look alike in"), weights, self.heat, _title("Only items with"), filters],
            layout={"flex": "1 1 420px", "min_width": "320px"},
        )
        panel.add_class("cca-panel")
        top = widgets.HBox([query, panel], layout={**WRAP, "align_items": "flex-start"})
        self.grid = widgets.HBox([card.box for card in self.cards], layout=WRAP)
        return [self.css, self.head, top, self.message, self.status, self.grid]

    def _watch(self) -> None:
        for control in (*self.weights, self.where, *(control for _, control in self.filters)):
            control.observe(self._search, names="value")
        self.heat.observe(self._draw, names="value")
        self.upload.observe(self._uploaded, names="value")
        self.another.on_click(lambda _: self._go(lambda: self.browsing.an_item(random.getrandbits(32))))
        self.back.on_click(self._go_back)

    # ---- events

    def go_to(self, query: Query) -> None:
        """Search by another picture; the one before can be gone back to."""
        if self.query is not None:
            self._before.append(self.query)
        self._set(query)

    def _set(self, query: Query) -> None:
        self.query = query
        self.back.disabled = not self._before
        self._search()

    def _go(self, query: Callable[[], Query]) -> None:
        with show_errors(self.message, "Cannot search by this picture."):
            self.go_to(query())

    def _follow(self, number: int) -> None:
        if number < len(self.found):
            self._go(lambda: self.browsing.by_id(self.found[number]))

    def _go_back(self, _: object = None) -> None:
        if self._before:
            self._set(self._before.pop())

    def _uploaded(self, change: dict | None = None) -> None:
        if not self.upload.value:
            return
        file = self.upload.value[0]
        self.upload.value = ()  # so that the same file can be chosen again
        self._go(lambda: self.browsing.by_upload(file["name"], bytes(file["content"]), self.max_bytes))

    # ---- what is shown

    def chosen(self) -> dict[int, float]:
        """Return the weight of each condition that has one."""
        return {number: slider.value for number, slider in enumerate(self.weights) if slider.value > 0}

    def condition_of_heat(self) -> int | None:
        """Return the condition whose heat is drawn; None for no heat."""
        if self.heat.value == NO_HEAT:
            return None
        if self.heat.value != HEAVIEST:
            return self.browsing.titles.index(self.heat.value)
        weights = self.chosen()
        return max(weights, key=weights.__getitem__) if weights else None

    def filter_text(self) -> str:
        """Write the chosen filters in SQL."""
        parts = [each.sql(control.value) for each, control in self.filters]
        typed = self.where.value.strip()
        return " AND ".join([*filter(None, parts), *([f"({typed}\n)"] if typed else [])])

    def _search(self, change: dict | None = None) -> None:
        """Search again, and show the results; after an error, those before stay."""
        if self.query is None:
            return
        with show_errors(self.message, "No search."):
            self._check_typed()
            weights = self.chosen()
            self._rows = self.browsing.search(self.query, weights, self.filter_text(), len(self.cards))
            self.found = list(self._rows["id"])
            named = [f"{self.browsing.titles[c]} × {weight:g}" for c, weight in weights.items()]
            if len(named) == 1:
                named = [self.browsing.titles[next(iter(weights))]]
            count = f"The {len(self.found)} nearest" if self.found else "No item"
            self.status.value = html.escape(f"{count} by {', '.join(named)}")
            self._draw()

    def _check_typed(self) -> None:
        """Check the typed condition alone, so that an error is about what was typed."""
        try:
            self.browsing.catalogue.check_where(self.where.value)
        except ValueError as error:
            raise ValueError(str(error).replace("--where", "SQL", 1)) from None

    def _draw(self, change: dict | None = None) -> None:
        """Draw the query and the results, with the heat that is chosen."""
        if self.query is None:
            return
        with show_errors(self.message, "No pictures."):
            keys = [self.query.key, *(f"id {id}" for id in self.found)]
            condition = self.condition_of_heat()
            query, *results = self.browsing.see(keys)
            self.picture.value = self._png(query, condition)
            self.name.value = self._named(condition)
            for number, card in enumerate(self.cards):
                if number < len(results):
                    row = self._rows.iloc[number]
                    caption = self._caption(row, results[number])
                    card.show(self._png(results[number], condition), caption, self.found[number])
                else:
                    card.hide()

    def _png(self, picture: Any, condition: int | None) -> bytes:
        if isinstance(picture, DataError):
            return EMPTY
        return encode_png(self.browsing.draw(picture, condition))

    def _named(self, condition: int | None) -> str:
        text = html.escape(self.query.name)
        if condition is None:
            return text
        return f"{text}<br>heat: {html.escape(self.browsing.titles[condition])}"

    def _caption(self, row: Any, picture: Any) -> str:
        """Write what is known of a result as HTML: cosine, labels, and the first of the user's columns."""
        names = self.browsing.catalogue.conditions
        lines = [f"<b>{row['cosine']:.3f}</b>"]
        for condition in self.chosen():
            if label := row[f"label_{names[condition]}"]:
                lines.append(html.escape(f"{self.browsing.titles[condition]}: {label}"))
        words = [words_of_name(name) for name in names]
        others = [
            name
            for name in self.browsing.catalogue.columns
            if words_of_name(name) not in words and not name.endswith(HIDDEN) and row[name] == row[name]
        ]
        for name in others[:MOST_SHOWN]:
            cell = row[name]
            if cell is not None:
                text = f"{cell:g}" if isinstance(cell, float) else str(cell)
                lines.append(html.escape(f"{name}: {text[:60]}"))
        if isinstance(picture, DataError):
            lines.append(f"<span style='color:#b00020'>{html.escape(picture.problem[:80])}</span>")
        return "<br>".join(lines)

    def _repr_mimebundle_(self, **kwargs) -> dict | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            (bundle[0] if isinstance(bundle, tuple) else bundle)["text/plain"] = HINT
        return bundle


class _Card:
    """A result: its picture and caption, under a button that goes on from it."""

    def __init__(self, follow: Callable[[int], None], number: int) -> None:
        self.picture = widgets.Image(value=EMPTY, layout={"width": "166px", "height": "166px"})
        self.picture.add_class("cca-result")
        self.caption = widgets.HTML(layout={"width": "166px"})
        self.caption.add_class("cca-caption")
        self.button = widgets.Button(description=f"result {number + 1}")
        self.button.on_click(lambda _: follow(number))
        layout = {"margin": "0 10px 10px 0", "width": "180px"}
        self.box = widgets.VBox([self.picture, self.caption, self.button], layout=layout)
        self.box.add_class("cca-card")

    def show(self, png: bytes, caption: str, id: str) -> None:
        """Show a result."""
        self.picture.value, self.caption.value = png, caption
        self.button.description = self.button.tooltip = f"go on from {id}"
        self.box.layout.display = None

    def hide(self) -> None:
        """Show nothing."""
        self.box.layout.display = "none"


def _title(text: str) -> widgets.HTML:
    title = widgets.HTML(text)
    title.add_class("cca-title")
    return title


def _filter_widget(each: Filter) -> widgets.Widget:
    """Make the control of a filter: a list of values, or a slider with two ends."""
    style = {"description_width": "auto"}
    layout = {"width": "auto", "max_width": "360px", "margin": "2px 14px 2px 0"}
    title = each.column.replace("_", " ")
    if each.values:
        options = [("any", None), *((value, value) for value in each.values)]
        return widgets.Dropdown(options=options, index=0, description=title, style=style, layout=layout)
    kind = widgets.IntRangeSlider if each.is_integer else widgets.FloatRangeSlider
    low, high = (int(each.low), int(each.high)) if each.is_integer else (each.low, each.high)
    step = 1 if each.is_integer else (high - low) / 100
    options = {} if each.is_integer else {"readout_format": ".4g"}
    return kind(
        value=(low, high),
        min=low,
        max=high,
        step=step,
        description=title,
        continuous_update=False,
        style=style,
        layout={**layout, "width": "320px"},
        **options,
    )
