"""The condition switcher: one picture, encoded once, seen under any condition (the paper's Figures 1 and 4)."""

from __future__ import annotations

import html
from collections import OrderedDict
from collections.abc import Callable, Sequence

import cv2
import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor

from ccakit import attention
from ccakit.attributes import Attributes

MEAN = "mean of all"  # the choice of head that averages


class ConditionSwitcher(widgets.VBox):
    """Choose a picture, a condition, a head, an opacity: the picture under its heatmap, the region in red.

    Switching the condition costs one row of attention: the tokens of the last `keep` pictures are kept, and the
    trunk does not run again. The heat is drawn by the functions of `plots.heatmap_grid`. What goes wrong is said
    in place, under the controls.

    model: has `encode` and `attention` (ccakit.models.base); put into eval mode. images: uint8 RGB arrays
    (height, width, 3). transform: such an array -> the model's input (3, h, w). regions: (M, 6) rows image,
    condition, x0, y0, x1, y1; image_ids: the image in `regions` that each picture is (0..n-1 if None). width: of
    the display, in pixels.
    """

    def __init__(self, model, images: Sequence[np.ndarray], transform: Callable[[np.ndarray], Tensor],
                 attributes: Attributes, regions: np.ndarray | None = None,
                 image_ids: Sequence[int] | None = None, width: int = 360, keep: int = 8) -> None:
        self.model, self.images, self.transform = model.eval(), images, transform
        self.attributes, self.regions, self.keep = attributes, regions, keep
        self.image_ids = range(len(images)) if image_ids is None else image_ids
        self._tokens: OrderedDict[int, Tensor] = OrderedDict()
        names = [(attributes.title(c), c) for c in range(len(attributes))]
        self.image = widgets.IntSlider(0, 0, len(images) - 1, description="image")
        self.condition = widgets.ToggleButtons(options=names, value=0, description="condition")
        self.head = widgets.Dropdown(options=[(MEAN, None)], value=None, description="head")
        self.opacity = widgets.FloatSlider(0.8, min=0, max=1, step=0.05, description="opacity")
        self.picture = widgets.Image(format="png", width=width)
        self.message = widgets.HTML()
        controls = widgets.HBox([self.image, self.opacity, self.head])
        super().__init__([self.condition, controls, self.message, self.picture])
        for control in (self.image, self.condition, self.head, self.opacity):
            control.observe(self._update, names="value")
        self._update()

    def render(self, image: int, condition: int, head: int | None = None, opacity: float = 0.8) -> bytes:
        """PNG bytes: picture `image` under `condition`, of one head or (None) the mean of all. Changes nothing
        but the kept tokens."""
        picture = self.images[image]
        view = attention.view_of(self.transform, picture.shape[:2])
        heat = attention.heatmap(self.maps(image, condition), picture.shape[:2], head, view)
        boxes = attention.boxes_of(self.regions, self.image_ids[image], condition)
        shown = attention.outline(attention.overlay(picture, heat, opacity), boxes)
        return cv2.imencode(".png", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))[1].tobytes()

    @torch.inference_mode()
    def maps(self, image: int, condition: int) -> Tensor:
        """(H, h, w): the softmax weights on the patches, from the picture's kept tokens."""
        tokens = self._encode(image)
        chosen = torch.full((1,), condition, dtype=torch.long, device=tokens.device)
        return self.model.attention(tokens, chosen)[0].float().cpu()

    def _encode(self, image: int) -> Tensor:
        if image not in self._tokens:
            device = next((p.device for p in self.model.parameters()), None)
            self._tokens[image] = self.model.encode(self.transform(self.images[image])[None].to(device))
            if len(self._tokens) > self.keep:
                self._tokens.popitem(last=False)
        self._tokens.move_to_end(image)
        return self._tokens[image]

    def _update(self, change: dict | None = None) -> None:
        try:
            self._offer_heads()
            self.picture.value = self.render(
                self.image.value, self.condition.value, self.head.value, self.opacity.value)
            self.message.value = ""
        except Exception as error:  # whatever it is, the reader must see it: here nothing else would show it
            reason = html.escape(f"{type(error).__name__}: {error}")
            self.message.value = f"<b style='color:#b00020'>No heatmap.</b> {reason}"

    def _offer_heads(self) -> None:
        """The heads to choose from, asked of the model's maps once."""
        if len(self.head.options) == 1:
            heads = len(self.maps(self.image.value, self.condition.value))
            self.head.options = [(MEAN, None), *((str(h), h) for h in range(heads))]
