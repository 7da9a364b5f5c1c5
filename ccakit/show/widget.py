"""The condition switcher: one picture, encoded once, seen under any condition (the paper's Figures 1 and 4)."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets as widgets
import numpy as np
import traitlets
from torch import Tensor

from ccakit.attributes import Attributes
from ccakit.errors import DataError
from ccakit.show.switcher import (
    MAX_BYTES,
    Candidates,
    Look,
    SwitcherEngine,
    encode_jpeg,
    read_upload,
    reduced,
)

__all__ = ["Candidates", "ConditionSwitcher", "show"]

TOP = 5  # neighbours shown
MEAN = "mean"  # the choice of head that averages
HINT = "Condition switcher: run this cell in Jupyter to use it; the grid above stands for it."
STYLE = """<style>
.cca-switcher {max-width: 980px}
.cca-switcher .cca-thumb {width: 60px; height: 60px; padding: 0; margin: 2px; background-size: contain;
  background-repeat: no-repeat; background-position: center; background-color: #f2f2f2; color: transparent}
.cca-switcher .cca-chosen {outline: 3px solid #1967d2; outline-offset: -1px}
.cca-switcher .cca-wrap .widget-toggle-buttons {flex-wrap: wrap}
.cca-switcher img.cca-picture, .cca-switcher img.cca-near {object-fit: contain; max-width: 100%%}
.cca-switcher .cca-text .widget-html-content {line-height: 1.35; overflow-wrap: anywhere}
.cca-switcher button:focus-visible {outline: 3px solid #1967d2}
%s</style>"""


class ConditionSwitcher(widgets.VBox):
    """Choose a picture, a condition, a head, an opacity: the picture under its heatmap, and its nearest neighbours.

    The gallery's thumbnails are buttons; a picture of one's own can be uploaded. Conditions have numbers: the field
    `number` takes digits and arrow keys (notebooks keep these keys from buttons and lists, where Tab, Enter and Space
    work). What goes wrong is said in place, under the gallery. The work is done by `engine`, a `SwitcherEngine`,
    whose docstring describes the arguments.

    image: the number of the picture, 0 to n-1, an uploaded one being n. width: of the picture, in pixels. max_bytes:
    of an uploaded file.
    """

    image = traitlets.Int(0)

    def __init__(
        self,
        model,
        images: Sequence[np.ndarray],
        transform: Callable[[np.ndarray], Tensor],
        attributes: Attributes,
        regions: np.ndarray | None = None,
        image_ids: Sequence[int] | None = None,
        *,
        candidates: Candidates | None = None,
        labels: np.ndarray | None = None,
        width: int = 360,
        keep: int = 8,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.engine = SwitcherEngine(
            model, images, transform, attributes, regions, image_ids, candidates, labels, keep
        )
        self.attributes, self.max_bytes, self._look = attributes, max_bytes, None
        self._prefix = f"cca-{id(self):x}"
        self._make_controls()
        self._make_views(width)
        super().__init__(self._layout())
        self.add_class("cca-switcher")
        self._watch()
        self._choose_thumb()
        self._look_again()

    # ---- parts

    def _make_controls(self) -> None:
        count = len(self.attributes)
        names = [(f"{c + 1} · {self.attributes.title(c)}", c) for c in range(count)]
        self.thumbs = [self._thumb(i) for i in range(len(self.engine.images))]
        self.upload = widgets.FileUpload(
            accept="image/*",
            description="your own picture",
            tooltip=f"an image file of at most {self.max_bytes >> 20} MiB",
        )
        self.upload.layout.width = "170px"
        self.condition = widgets.ToggleButtons(options=names, value=0, style={"button_width": "150px"})
        self.number = widgets.BoundedIntText(
            1, 1, count, layout={"width": "64px"}, tooltip=f"condition 1 to {count}: digits or arrow keys"
        )
        self.head = widgets.ToggleButtons(options=[(MEAN, MEAN)], style={"button_width": "auto"})
        self.opacity = widgets.FloatSlider(0.8, min=0, max=1, step=0.05, layout={"width": "240px"})
        self.outlined = widgets.Checkbox(
            True, description="outline the region where it is known", indent=False, layout={"width": "260px"}
        )

    def _make_views(self, width: int) -> None:
        self.css, self.message, self.note = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.picture = widgets.Image(format="png", layout={"width": f"{width}px"})
        self.picture.add_class("cca-picture")
        self.near_title = widgets.HTML()
        self.near_pictures = [widgets.Image(format="jpeg", layout={"width": "104px"}) for _ in range(TOP)]
        self.near_texts = [widgets.HTML(layout={"width": "104px"}) for _ in range(TOP)]
        for part in (self.message, self.note, self.near_title, *self.near_texts):
            part.add_class("cca-text")
        for part in self.near_pictures:
            part.add_class("cca-near")

    def _layout(self) -> list[widgets.Widget]:
        wrap = {"flex_flow": "row wrap", "align_items": "flex-start"}
        self.gallery = widgets.HBox([*self.thumbs, self.upload], layout={**wrap, "align_items": "center"})
        near = [
            widgets.VBox(pair, layout={"margin": "0 6px 6px 0"})
            for pair in zip(self.near_pictures, self.near_texts)
        ]
        self.near = widgets.VBox([self.near_title, widgets.HBox(near, layout=wrap)])
        self.head_row = _labelled("head", self.head)
        rows = [
            _labelled("condition", self.condition, align="flex-start"),
            _labelled("number", self.number, widgets.Label("digits, or arrow keys ↑ ↓")),
            self.head_row,
            _labelled("opacity", self.opacity),
            _labelled("", self.outlined),
        ]
        for row in rows:
            row.add_class("cca-wrap")
        right = widgets.VBox([*rows, self.near], layout={"flex": "1 1 420px", "min_width": "300px"})
        left = widgets.VBox([self.picture, self.note], layout={"margin": "0 16px 0 0"})
        return [self.css, self.gallery, self.message, widgets.HBox([left, right], layout=wrap)]

    def _thumb(self, index: int) -> widgets.Button:
        own = index == self.engine.own
        tooltip = "your own picture" if own else f"picture {index + 1}"
        button = widgets.Button(description=f"{index + 1}", tooltip=tooltip)
        button.add_class("cca-thumb")
        button.add_class(f"{self._prefix}-{index}")
        button.on_click(lambda _: setattr(self, "image", index))
        return button

    def _watch(self) -> None:
        widgets.link((self.condition, "value"), (self.number, "value"), (lambda c: c + 1, lambda n: n - 1))
        self.condition.observe(self._look_again, names="value")
        for control in (self.head, self.opacity, self.outlined):
            control.observe(self._redraw, names="value")
        self.observe(self._choose_thumb, names="image")
        self.observe(self._look_again, names="image")
        self.upload.observe(self._uploaded, names="value")
        self.css.value = STYLE % "".join(map(self._thumb_css, range(len(self.thumbs))))

    def _thumb_css(self, index: int) -> str:
        data = base64.b64encode(encode_jpeg(reduced(self.engine.images[index], 128))).decode()
        return f".{self._prefix}-{index} {{background-image: url(data:image/jpeg;base64,{data})}}\n"

    # ---- events

    @traitlets.validate("image")
    def _known(self, proposal: dict) -> int:
        if not 0 <= proposal["value"] < len(self.engine.images):
            raise traitlets.TraitError(f"image {proposal['value']}: there are {len(self.engine.images)}")
        return proposal["value"]

    def _choose_thumb(self, change: dict | None = None) -> None:
        for index, thumb in enumerate(self.thumbs):
            (thumb.add_class if index == self.image else thumb.remove_class)("cca-chosen")

    def _look_again(self, change: dict | None = None) -> None:
        """The picture or the condition changed: one row of the last block, the picture, the neighbours."""
        with _in_place(self.message, "No picture."):
            self._look = self.engine.look(self.image, self.condition.value)
            self._offer_heads(self._look)
            self._show_picture(self._look)
            self._show_neighbours(self._look)

    def _redraw(self, change: dict | None = None) -> None:
        """Only how the heat is drawn changed."""
        if self._look is not None:
            with _in_place(self.message, "No picture."):
                self._show_picture(self._look)

    def _uploaded(self, change: dict | None = None) -> None:
        if not self.upload.value:
            return
        file, own = self.upload.value[0], None
        with _in_place(self.message, "This picture cannot be shown."):
            own = self._take(file["name"], bytes(file["content"]))
        self.upload.value = ()  # so that the same file can be chosen again
        if own is not None and self.image == own:
            self._look_again()
        elif own is not None:
            self.image = own

    def _take(self, name: str, data: bytes) -> int:
        """Put an uploaded picture into the gallery; its number. DataError where it is none that can be used."""
        try:
            own = self.engine.add(read_upload(name, data, self.max_bytes))
        except DataError:
            raise
        except ValueError as error:  # the transform's
            raise DataError(name, str(error), "Take another one.") from None
        if own == len(self.thumbs):
            self.thumbs.append(self._thumb(own))
            self.gallery.children = [*self.thumbs, self.upload]
        self.css.value = STYLE % "".join(map(self._thumb_css, range(len(self.thumbs))))
        return own

    # ---- what is shown

    def _offer_heads(self, look: Look) -> None:
        """The heads to choose from, once the first map is there; none where the system does not attend."""
        self.head_row.layout.display = "none" if look.maps is None or len(look.maps) == 1 else None
        if look.maps is not None and len(self.head.options) != 1 + len(look.maps):
            self.head.options = [(MEAN, MEAN), *((f"{h}", h) for h in range(len(look.maps)))]

    def _show_picture(self, look: Look) -> None:
        settings = (
            None if self.head.value == MEAN else self.head.value,
            self.opacity.value,
            self.outlined.value,
        )
        self.picture.value = self.engine.render(look, *settings)
        self.note.value = " ".join(self._notes(look))

    def _notes(self, look: Look) -> list[str]:
        value = self._value(self.engine.image_ids[look.image], look.condition)
        title = f"<b>{html.escape(self.attributes.title(look.condition))}</b>"
        notes = [f"{title}: {value}." if value else f"{title}."]
        if look.maps is None:
            notes.append(f"No heatmap: {type(self.engine.model).__name__} does not attend.")
        if self.outlined.value and len(self.engine.boxes(look)):
            notes.append("<span style='color:#b00020'>Red: its region.</span>")
        return notes

    def _value(self, image_id: int | None, condition: int) -> str:
        """An image's label in words, as HTML; empty for images that are in no data set."""
        if image_id is None or self.engine.labels is None:
            return ""
        return html.escape(self.engine.value(image_id, condition) or "no label")

    def _show_neighbours(self, look: Look) -> None:
        found = self.engine.nearest(look, TOP)
        self.near.layout.display = None if self.engine.candidates is not None else "none"
        title = html.escape(self.attributes.title(look.condition))
        self.near_title.value = f"Nearest in the space of <b>{title}</b>, with the cosine:"
        for rank, (picture, text) in enumerate(zip(self.near_pictures, self.near_texts)):
            near = found[rank] if rank < len(found) else None
            picture.layout.visibility = "hidden" if near is None else None
            if near is not None:
                picture.value = self.engine.thumbnail(near.row)
            text.value = "" if near is None else f"{near.cosine:.2f} {self._value(near.id, look.condition)}"

    # ---- without a widget

    def static(self, images: Sequence[int] | None = None, **options):
        """A matplotlib Figure of all conditions, for where widgets are not shown; by default of the present picture.
        options: `head`, `opacity`, see `SwitcherEngine.static`."""
        return self.engine.static([self.image] if images is None else images, **options)

    def _repr_mimebundle_(self, **kwargs) -> dict | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            (bundle[0] if isinstance(bundle, tuple) else bundle)["text/plain"] = HINT
        return bundle


@contextmanager
def _in_place(message: widgets.HTML, what: str) -> Iterator[None]:
    """Say an error in a widget, or clear it: as an exception it would go to a log that nobody reads."""
    try:
        yield
        message.value = ""
    except Exception as error:  # whatever it is, the reader must see it: here nothing else would show it
        reason = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        message.value = f"<b style='color:#b00020'>{what}</b> {html.escape(reason)}"


def _labelled(text: str, *controls: widgets.Widget, align: str = "center") -> widgets.HBox:
    """Controls with a name at the left, never cut off."""
    label = widgets.Label(text, layout={"width": "82px", "flex": "0 0 auto"})
    return widgets.HBox([label, *controls], layout={"align_items": align})


def show(switcher: ConditionSwitcher, images: Sequence[int] = (0, 1, 2), **options) -> None:
    """Display the static grid of some pictures, and under it the switcher, where there is a frontend for it."""
    from IPython.display import display

    count = len(switcher.engine.images)
    display(switcher.static([i for i in images if i < count], **options))
    display(switcher)
