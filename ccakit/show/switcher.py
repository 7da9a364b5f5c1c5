"""The condition switcher without its widget: pictures are encoded once, then seen under any condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccakit.attributes import Attributes
from ccakit.data.images import MAX_PIXELS, SMALLER, decode_image, read_image
from ccakit.errors import DataError
from ccakit.evaluation import pointing
from ccakit.models.cca import CCA
from ccakit.show.heat import faded, heatmap, outline, overlay, view_of

if TYPE_CHECKING:
    from ccakit.data.images import Picture

SIDE = 480  # pixels: the longer side of a displayed picture; larger ones are reduced
THUMB = 128  # pixels: the longer side of a thumbnail
MAX_BYTES = 8 << 20  # of an uploaded file: Jupyter's server closes the connection at 10 MiB
UNLABELLED = "no label"
UPLOADED = -1  # the image id of the user's own picture, which is in no data set
KINDS = "Take a JPEG, PNG, WebP, GIF, BMP or TIFF."
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # 256 x 256: 7 ms and 68 kB; level 6: 39 ms and 57 kB


@dataclass
class Candidates:
    """The pictures among which neighbours are searched, embedded once.

    embeddings: (n, K, E), of length 1, as `embed_images` gives them; a row of NaN is never a neighbour.
    pictures: the n uint8 RGB pictures, or a function that gives a row's. ids: each row's image, as the
    switcher's `image_ids` and `labels` number them (0..n-1 if None): a picture is not its own neighbour.
    """

    embeddings: np.ndarray
    pictures: Sequence[np.ndarray] | Callable[[int], np.ndarray]
    ids: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.embeddings) != 3:
            raise ValueError(f"embeddings {np.shape(self.embeddings)} are not (n, K, E)")
        self.ids = np.arange(len(self.embeddings)) if self.ids is None else np.asarray(self.ids)
        if self.ids.shape != (len(self.embeddings),):
            raise ValueError(f"{len(self.embeddings)} embeddings, but ids {self.ids.shape}")

    def picture(self, row: int) -> np.ndarray:
        """Get the picture of a row."""
        return self.pictures(row) if callable(self.pictures) else self.pictures[row]


class Neighbour(NamedTuple):
    """A candidate that was found: its row, its image's id, and the cosine."""

    row: int
    id: int
    cosine: float


class Look(NamedTuple):
    """A picture under a condition: maps (H, h, w), None if the system does not attend; embedding (E,)."""

    image: int
    condition: int
    maps: np.ndarray | None
    embedding: np.ndarray


class Encoded(NamedTuple):
    """A displayed picture, the transform's view of it, and its tokens; for CCA, [CLS] alone, and K and V."""

    shown: np.ndarray
    view: Sequence[float]
    tokens: Tensor
    keys_values: tuple[Tensor, Tensor] | None


class SwitcherEngine:
    """Pictures, a model, and the encoded form of the last `keep` pictures.

    A picture is encoded once. For CCA, K and V of the last block are kept, so another condition costs one row
    of it. The heat is drawn by the functions with which `plots.heatmap_grid` draws it.

    model: see `ccakit.models.base.ConditionalModel`; it is put into eval mode. images: pictures of any
    kind (see `read_image`). transform: from uint8 RGB (height, width, 3) to the model's input (3, h, w).
    regions: (M, 6) rows image, condition, x0, y0, x1, y1. image_ids: each picture's image, as `regions` and
    `labels` number them (0..n-1 if None). candidates: the pictures among which neighbours are searched.
    labels: (N, K) by image, -1 for none.
    """

    def __init__(
        self,
        model,
        images: Sequence[Picture],
        transform: Callable[[np.ndarray], Tensor],
        attributes: Attributes,
        regions: np.ndarray | None = None,
        image_ids: Sequence[int] | None = None,
        candidates: Candidates | None = None,
        labels: np.ndarray | None = None,
        keep: int = 8,
    ) -> None:
        self.model, self.images = model.eval(), [read_image(image) for image in images]
        self.transform = transform
        self.attributes, self.regions, self.labels = attributes, regions, labels
        self.image_ids = list(range(len(self.images)) if image_ids is None else image_ids)
        if len(self.image_ids) != len(self.images) or not self.images:
            counts = f"{len(self.images)} images, {len(self.image_ids)} image_ids"
            raise ValueError(f"{counts}: one of each at least")
        if candidates is not None and candidates.embeddings.shape[1] != len(attributes):
            raise ValueError(f"embeddings {candidates.embeddings.shape}, but {len(attributes)} attributes")
        self.candidates, self.own = candidates, None
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.encoded = lru_cache(keep)(self._encode)  # a picture's encoded form, by its number
        self.thumbnail = lru_cache(1024)(lambda row: thumbnail(candidates.picture(row)))

    # ---- looking

    @torch.inference_mode()
    def look(self, image: int, condition: int) -> Look:
        """See picture `image` under `condition`; it is encoded unless it is one of the last `keep`."""
        seen, chosen = self.encoded(image), torch.tensor([condition], device=self.device)
        if seen.keys_values is None:
            maps, embedding = self._maps(seen.tokens, chosen), self.model.embed(seen.tokens, chosen)
        else:
            with _one_thread():
                maps, embedding = self._one_row(seen, chosen)
        maps = None if maps is None else maps[0].float().cpu().numpy()
        return Look(image, condition, maps, embedding[0].float().cpu().numpy())

    def _one_row(self, seen: Encoded, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Compute CCA's `attention` and `embed` from the kept K and V."""
        model, (k, v) = self.model, seen.keys_values
        q = model.q_cond(condition)[:, None]  # (1, H*d) -> (1, 1, H*d)
        maps = model.patch_map(model.block.weights(q, k)[:, :, 0])
        row = model.block.rows(seen.tokens if model.residual else None, q, k, v, condition[:, None])  # Eq. 6
        return maps, model.head(model.norm(row), condition[:, None])[:, 0]  # Eq. 7

    def _maps(self, tokens: Tensor, condition: Tensor) -> Tensor | None:
        try:
            return self.model.attention(tokens, condition)
        except NotImplementedError:  # the system does not attend
            return None

    @torch.inference_mode()
    def _encode(self, image: int) -> Encoded:
        picture, keys_values = self.images[image], None
        tokens = self.model.encode(self.transform(picture)[None].to(self.device))
        if isinstance(self.model, CCA):
            tokens, keys_values = tokens[:, :1].clone(), self.model.block.keys_values(tokens)
        view = view_of(self.transform, picture.shape[:2])
        return Encoded(reduced(picture, SIDE), view, tokens, keys_values)

    # ---- pictures

    def draw(
        self, look: Look, head: int | None = None, opacity: float = 0.8, outlined: bool = True
    ) -> np.ndarray:
        """Draw the picture under the heat of one head, or of the mean of all if None: uint8 RGB.

        There is no heat if the system does not attend. The picture is faded, as in `plots.heatmap_grid`, if
        it is known to have no label. outlined: draw the attribute's region in red, if it is known.
        """
        shown, view, *_ = self.encoded(look.image)
        if look.maps is not None:
            shown = overlay(shown, heatmap(look.maps, shown.shape[:2], head, view), opacity)
        if outlined:
            shown = outline(shown, self.boxes(look))
        value = self.value(self.image_ids[look.image], look.condition)
        return faded(shown) if value == UNLABELLED else shown

    def render(self, look: Look, *options) -> bytes:
        """Draw as `draw` does, as a PNG file's bytes."""
        return encode_png(self.draw(look, *options))

    def boxes(self, look: Look) -> np.ndarray:
        """Find where the attribute is in the picture: boxes (m, 4), none if this is not known."""
        return pointing.boxes_of(self.regions, self.image_ids[look.image], look.condition)

    def value(self, image_id: int, condition: int) -> str | None:
        """Name an image's value under a condition, UNLABELLED if it has none; None if that is not known."""
        if image_id == UPLOADED or self.labels is None:
            return None
        label = int(self.labels[image_id, condition])
        return UNLABELLED if label < 0 else self.attributes.value(condition, label)

    def add(self, picture: Picture) -> int:
        """Add the user's own picture, or replace the one before; return its number.

        ValueError if the transform cannot take it; then nothing is changed.
        """
        picture = read_image(picture)
        self.transform(picture)
        if self.own is None:
            self.own = len(self.images)
            self.images.append(picture)
            self.image_ids.append(UPLOADED)
        else:
            self.images[self.own] = picture
            self.encoded.cache_clear()
        return self.own

    # ---- neighbours

    def nearest(self, look: Look, top: int = 5) -> list[Neighbour]:
        """Find the `top` candidates with the largest cosine in the look's space, best first.

        Equal ones are in the order of their rows. The picture itself is left out.
        """
        if self.candidates is None:
            return []
        cosine = np.einsum("ne,e->n", self.candidates.embeddings[:, look.condition], look.embedding)
        own = self.candidates.ids == self.image_ids[look.image]
        rows = np.flatnonzero(~np.isnan(cosine) & ~own)
        rows = rows[np.argsort(-cosine[rows], kind="stable")][:top]
        return [Neighbour(int(row), int(self.candidates.ids[row]), float(cosine[row])) for row in rows]

    # ---- without a widget

    def static(self, images: Sequence[int] = (0,), head: int | None = None, opacity: float = 0.8):
        """Draw the same as a matplotlib Figure: a row a picture under all conditions, as in Figure 4.

        If the system does not attend: the first picture's neighbours in each space.
        """
        from ccakit.show import plots  # imports pyplot, which takes its time

        looks = [[self.look(image, c) for c in range(len(self.attributes))] for image in images]
        if looks[0][0].maps is None:
            return self._static_neighbours(looks[0])
        maps = np.stack([[look.maps for look in row] for row in looks])  # (n, K, H, h, w)
        maps = maps if head is None else maps[:, :, head]
        shown = [self.encoded(image).shown for image in images]
        ids = [self.image_ids[image] for image in images]
        labels = None if self.labels is None or UPLOADED in ids else self.labels[ids]
        return plots.heatmap_grid(
            shown, maps, self.attributes, self.regions, labels, ids, opacity, transform=self.transform
        )

    def _static_neighbours(self, looks: list[Look], top: int = 3):
        """Draw a column of the `top` nearest for each condition; the picture itself stands at the left."""
        from ccakit.show.style import new_figure, title_attribute

        figure = new_figure(1.1 * (len(looks) + 1), 1.2 * top + 0.5)
        grid = figure.subplots(top, len(looks) + 1, squeeze=False)
        for ax in grid.flat:
            ax.set_axis_off()
        grid[0, 0].imshow(self.encoded(looks[0].image).shown)
        grid[0, 0].set_title("picture", fontsize=8)
        for column, look in zip(grid.T[1:], looks):
            title_attribute(column[0], self.attributes, look.condition, width=1, fontsize=8)
            for ax, near in zip(column, self.nearest(look, top)):
                ax.imshow(self.candidates.picture(near.row))
        return figure


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: products this small gain nothing from two.

    Where other programs keep the cores busy, two threads wait for each other (95 ms a switch were measured
    for 11).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_upload(
    name: str, data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an uploaded file's bytes, as `read_image` reads a file: (H, W, 3) uint8 RGB.

    DataError names the file and says what is wrong: it is too large, empty, cut short, or no image.
    """
    if len(data) > max_bytes:
        size = f"has {len(data) / 2**20:.1f} MiB, more than the limit of {max_bytes / 2**20:.0f} MiB"
        raise DataError(name, size, SMALLER)
    try:
        return decode_image(name, data, max_pixels=max_pixels)
    except DataError as error:
        raise DataError(name, error.problem, SMALLER if error.remedy == SMALLER else KINDS) from None


def encode_png(picture: np.ndarray) -> bytes:
    """Encode uint8 RGB as a PNG file's bytes, quickly rather than small."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), PNG)[1].tobytes()


def thumbnail(picture: np.ndarray) -> bytes:
    """Reduce uint8 RGB to a thumbnail, as a JPEG file's bytes."""
    bgr = cv2.cvtColor(reduced(picture, THUMB), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def reduced(picture: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture until its longer side is at most `side`."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    return np.array(image)
