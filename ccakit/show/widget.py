"""The condition switcher: a picture, encoded once, is seen under any condition (Figures 1 and 4)."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import ipywidgets as widgets
import traitlets

from ccakit.errors import DataError
from ccakit.evaluation.embedding import embed_images
from ccakit.show.switcher import MAX_BYTES, Candidates, Look, SwitcherEngine, read_upload, thumbnail

TOP = 5  # neighbours shown
MEAN = "mean"  # the choice of head that averages
HINT = "Condition switcher: run this cell in Jupyter to use it; the grid above shows the same."
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
    """Choose picture, condition, head and opacity; see the picture under its heatmap, and its neighbours.

    The gallery's thumbnails are buttons; users can upload a picture of their own. Conditions have numbers:
    the field `number` takes digits and arrow keys (notebooks keep these keys from buttons and lists, where
    Tab, Enter and Space work). Errors are shown under the gallery. `engine`, a `SwitcherEngine`, does the
    work.

    image: the number of the picture, 0 to n-1; n is an uploaded one. engine_arguments, engine_options: see
    `SwitcherEngine`. width: of the picture, in pixels. max_bytes: of an uploaded file.
    """

    image = traitlets.Int(0)

    def __init__(
        self, *engine_arguments, width: int = 360, max_bytes: int = MAX_BYTES, **engine_options
    ) -> None:
        self.engine = SwitcherEngine(*engine_arguments, **engine_options)
        self.attributes, self.max_bytes, self._look = self.engine.attributes, max_bytes, None
        self._prefix = f"cca-{id(self):x}"
        self._make_controls()
        self._make_views(width)
        super().__init__(self._layout())
        self.add_class("cca-switcher")
        self._watch()
        self._choose_thumb()
        self._look_again()

    @classmethod
    def of_run(cls, run, images: Sequence[int], **options) -> ConditionSwitcher:
        """Switch the conditions of a run: `images` are the gallery, all images of the split candidates."""
        split, numbers = run.split.merged(), run.split.path_numbers()
        candidates = Candidates(embed_images(run.model, run.inputs), run.picture, numbers)
        shown, ids = [run.picture(image) for image in images], [int(numbers[image]) for image in images]
        arguments = run.model, shown, run.saved.transform, run.attributes, split.regions, ids
        switcher = cls(*arguments, candidates=candidates, labels=split.label_matrix(), **options)
        switcher.remark.value = "<br>".join(html.escape(text) for text in run.remarks)
        return switcher

    # ---- parts

    def _make_controls(self) -> None:
        count = len(self.attributes)
        names = [(f"{c + 1} · {self.attributes.title(c)}", c) for c in range(count)]
        self.thumbs = [self._thumb(index) for index in range(len(self.engine.images))]
        limit = f"an image file of at most {self.max_bytes >> 20} MiB"
        self.upload = widgets.FileUpload(accept="image/*", description="your own picture", tooltip=limit)
        self.upload.layout.width = "170px"
        self.condition = widgets.ToggleButtons(options=names, value=0, style={"button_width": "150px"})
        keys = f"condition 1 to {count}: digits or arrow keys"
        self.number = widgets.BoundedIntText(1, 1, count, layout={"width": "64px"}, tooltip=keys)
        self.head = widgets.ToggleButtons(options=[(MEAN, MEAN)], style={"button_width": "auto"})
        self.opacity = widgets.FloatSlider(0.8, min=0, max=1, step=0.05, layout={"width": "240px"})
        text = "outline the region where it is known"
        self.outlined = widgets.Checkbox(True, description=text, indent=False, layout={"width": "260px"})

    def _make_views(self, width: int) -> None:
        self.css, self.message, self.note, self.near_title, self.remark = (widgets.HTML() for _ in range(5))
        self.picture = widgets.Image(format="png", layout={"width": f"{width}px"})
        self.picture.add_class("cca-picture")
        self.near_pictures = [widgets.Image(format="jpeg", layout={"width": "104px"}) for _ in range(TOP)]
        self.near_texts = [widgets.HTML(layout={"width": "104px"}) for _ in range(TOP)]
        for view in (self.message, self.remark, self.note, self.near_title, *self.near_texts):
            view.add_class("cca-text")
        for view in self.near_pictures:
            view.add_class("cca-near")

    def _layout(self) -> list[widgets.Widget]:
        wrap = {"flex_flow": "row wrap", "align_items": "flex-start"}
        self.gallery = widgets.HBox([*self.thumbs, self.upload], layout={**wrap, "align_items": "center"})
        pairs = zip(self.near_pictures, self.near_texts)
        near = [widgets.VBox(pair, layout={"margin": "0 6px 6px 0"}) for pair in pairs]
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
        return [self.css, self.gallery, self.message, self.remark, widgets.HBox([left, right], layout=wrap)]

    def _thumb(self, index: int) -> widgets.Button:
        tooltip = "your own picture" if index == self.engine.own else f"picture {index + 1}"
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
        self._show_thumbs()

    def _show_thumbs(self) -> None:
        """Write the style sheet, which holds the thumbnails' pictures."""
        rules = []
        for index in range(len(self.thumbs)):
            data = base64.b64encode(thumbnail(self.engine.images[index])).decode()
            picture = f"url(data:image/jpeg;base64,{data})"
            rules.append(f".{self._prefix}-{index} {{background-image: {picture}}}\n")
        self.css.value = STYLE % "".join(rules)

    # ---- events

    @traitlets.validate("image")
    def _known(self, proposal: dict) -> int:
        if not 0 <= proposal["value"] < len(self.engine.images):
            raise traitlets.TraitError(f"image {proposal['value']}: there are {len(self.engine.images)}")
        return proposal["value"]

    def _choose_thumb(self, change: dict | None = None) -> None:
        for index, thumb in enumerate(self.thumbs):
            if index == self.image:
                thumb.add_class("cca-chosen")
            else:
                thumb.remove_class("cca-chosen")

    def _look_again(self, change: dict | None = None) -> None:
        """Show a new picture or condition: one row of the last block, the picture, the neighbours."""
        with show_errors(self.message, "No picture."):
            self._look = self.engine.look(self.image, self.condition.value)
            self._offer_heads(self._look)
            self._show_picture(self._look)
            self._show_neighbours(self._look)

    def _redraw(self, change: dict | None = None) -> None:
        """Draw the same heat in another way."""
        if self._look is not None:
            with show_errors(self.message, "No picture."):
                self._show_picture(self._look)

    def _uploaded(self, change: dict | None = None) -> None:
        if not self.upload.value:
            return
        file = self.upload.value[0]
        self.upload.value = ()  # so that the same file can be chosen again
        with show_errors(self.message, "This picture cannot be shown."):
            own = self._add_upload(file["name"], bytes(file["content"]))
            if self.image == own:
                self._look_again()
            self.image = own

    def _add_upload(self, name: str, data: bytes) -> int:
        """Put an uploaded picture into the gallery; return its number. DataError if it cannot be used."""
        try:
            own = self.engine.add(read_upload(name, data, self.max_bytes))
        except DataError:
            raise
        except ValueError as error:  # the transform's
            raise DataError(name, str(error), "Take another one.") from None
        if own == len(self.thumbs):
            self.thumbs.append(self._thumb(own))
            self.gallery.children = [*self.thumbs, self.upload]
        self._show_thumbs()
        return own

    # ---- what is shown

    def _offer_heads(self, look: Look) -> None:
        """Offer the heads to choose from, once the first map is there; none if the system does not attend."""
        self.head_row.layout.display = "none" if look.maps is None or len(look.maps) == 1 else None
        if look.maps is not None and len(self.head.options) != 1 + len(look.maps):
            self.head.options = [(MEAN, MEAN), *((f"{h}", h) for h in range(len(look.maps)))]

    def _show_picture(self, look: Look) -> None:
        head = None if self.head.value == MEAN else self.head.value
        self.picture.value = self.engine.render(look, head, self.opacity.value, self.outlined.value)
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

    def _value(self, image_id: int, condition: int) -> str:
        """Name an image's value, as HTML; empty if it is not known."""
        return html.escape(self.engine.value(image_id, condition) or "")

    def _show_neighbours(self, look: Look) -> None:
        found = self.engine.nearest(look, TOP)
        self.near.layout.display = None if self.engine.candidates is not None else "none"
        title = html.escape(self.attributes.title(look.condition))
        self.near_title.value = f"Nearest in the space of <b>{title}</b>, with the cosine:"
        for picture, text, near in zip_longest(self.near_pictures, self.near_texts, found):
            picture.layout.visibility = None if near else "hidden"
            text.value = f"{near.cosine:.2f} {self._value(near.id, look.condition)}" if near else ""
            if near:
                picture.value = self.engine.thumbnail(near.row)

    # ---- without a widget

    def static(self, images: Sequence[int] | None = None, **options):
        """Draw all conditions of some pictures (by default the chosen one) as a matplotlib Figure.

        options: `head`, `opacity`, see `SwitcherEngine.static`.
        """
        return self.engine.static([self.image] if images is None else images, **options)

    def _repr_mimebundle_(self, **kwargs) -> dict | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            (bundle[0] if isinstance(bundle, tuple) else bundle)["text/plain"] = HINT
        return bundle


@contextmanager
def show_errors(message: widgets.HTML, problem: str) -> Iterator[None]:
    """Clear a widget, and show an error in it: an exception would go to a log that nobody reads."""
    message.value = ""
    try:
        yield
    except Exception as error:  # the reader must see any error, and nothing else would show it here
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        message.value = f"<b style='color:#b00020'>{problem}</b> {html.escape(reason)}"


def _labelled(text: str, *controls: widgets.Widget, align: str = "center") -> widgets.HBox:
    """Put a name at the left of controls; it is never cut off."""
    label = widgets.Label(text, layout={"width": "82px", "flex": "0 0 auto"})
    return widgets.HBox([label, *controls], layout={"align_items": align})


def show(switcher: ConditionSwitcher, images: Sequence[int] = (0, 1, 2), **options) -> None:
    """Display the static grid of some pictures, and under it the switcher, if there is a frontend for it."""
    from IPython.display import display

    count = len(switcher.engine.images)
    display(switcher.static([i for i in images if i < count], **options))
    display(switcher)
