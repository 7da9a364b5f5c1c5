"""What the condition switcher shows, without a widget: pictures encoded once, then looked at under any condition."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from ccakit.attributes import Attributes
from ccakit.data.images import MAX_PIXELS, SMALLER, read_image
from ccakit.errors import DataError
from ccakit.evaluation import pointing
from ccakit.models.cca import CCA
from ccakit.show.heat import heatmap, outline, overlay, view_of

SIDE = 480  # the longer side of a picture as it is displayed; larger ones are reduced
THUMB = 128  # of thumbnails
MAX_BYTES = 8 << 20  # of an uploaded file: Jupyter's server closes the connection at 10 MiB
KINDS = "Take a JPEG, PNG, WebP, GIF, BMP or TIFF."
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # 256 x 256: 7 ms and 68 kB; level 6: 39 ms and 57 kB

Pictures = Sequence[np.ndarray] | Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Candidates:
    """Where neighbours are looked for: pictures, embedded once.

    embeddings: (n, K, E), of length 1, as `embed_images` gives them; NaN: never a neighbour. pictures: the n uint8
    RGB pictures, or what makes a row's. ids: the image that each row is, in the numbering of the switcher's
    `image_ids` and `labels` (0..n-1 if None): a picture is not its own neighbour.
    """

    embeddings: np.ndarray
    pictures: Pictures
    ids: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.embeddings) != 3:
            raise ValueError(f"embeddings {np.shape(self.embeddings)} are not (n, K, E)")
        ids = np.arange(len(self.embeddings)) if self.ids is None else np.asarray(self.ids)
        if ids.shape != (len(self.embeddings),):
            raise ValueError(f"{len(self.embeddings)} embeddings, but ids {ids.shape}")
        object.__setattr__(self, "ids", ids)

    def picture(self, row: int) -> np.ndarray:
        return self.pictures(row) if callable(self.pictures) else self.pictures[row]


class Neighbour(NamedTuple):
    """A candidate found: its row, the image that it is, and the cosine."""

    row: int
    id: int
    cosine: float


class Look(NamedTuple):
    """A picture under a condition: maps (H, h, w), None where the system does not attend; embedding (E,)."""

    image: int
    condition: int
    maps: np.ndarray | None
    embedding: np.ndarray


class _Seen(NamedTuple):
    """What is kept of a picture: how it is displayed, what the transform shows of it, its tokens or K and V."""

    shown: np.ndarray
    view: Sequence[float]
    tokens: Tensor  # of CCA, [CLS] alone
    keys_values: tuple[Tensor, Tensor] | None


class SwitcherEngine:
    """Pictures, a model, and what was computed of the last `keep` pictures.

    A picture is encoded once; of CCA's last block K and V are kept, so that another condition costs one row of it.
    The heat is drawn by the functions that `plots.heatmap_grid` draws with.

    model: see `ccakit.models.base.ConditionalModel`; put into eval mode. images: uint8 RGB (height, width, 3).
    transform: such an array -> the model's input (3, h, w). regions: (M, 6) rows image, condition, x0, y0, x1, y1.
    image_ids: the image in `regions` and `labels` that each picture is (0..n-1 if None). candidates: where neighbours
    are looked for. labels: (N, K) by image, -1 where there is none.
    """

    def __init__(
        self,
        model,
        images: Sequence[np.ndarray],
        transform: Callable[[np.ndarray], Tensor],
        attributes: Attributes,
        regions: np.ndarray | None = None,
        image_ids: Sequence[int] | None = None,
        candidates: Candidates | None = None,
        labels: np.ndarray | None = None,
        keep: int = 8,
    ) -> None:
        self.model, self.images, self.transform = model.eval(), list(images), transform
        self.attributes, self.regions, self.labels = attributes, regions, labels
        self.image_ids: list[int | None] = list(range(len(self.images)) if image_ids is None else image_ids)
        if len(self.image_ids) != len(self.images) or not self.images:
            raise ValueError(
                f"{len(self.images)} images and {len(self.image_ids)} image_ids: at least one of each"
            )
        if candidates is not None and candidates.embeddings.shape[1] != len(attributes):
            raise ValueError(f"embeddings {candidates.embeddings.shape}, but {len(attributes)} attributes")
        self.candidates, self.keep, self.own = candidates, keep, None
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._seen: OrderedDict[int, _Seen] = OrderedDict()
        self._pools = ThreadpoolController()
        self.thumbnail = lru_cache(1024)(self._thumbnail)

    # ---- looking

    @torch.inference_mode()
    def look(self, image: int, condition: int) -> Look:
        """Picture `image` under `condition`; encoded only if it is none of the last `keep` pictures."""
        seen, chosen = self._keep(image), torch.full((1,), condition, dtype=torch.long, device=self.device)
        if seen.keys_values is None:
            maps, embedding = self._maps(seen.tokens, chosen), self.model.embed(seen.tokens, chosen)
        else:
            with _one_thread():
                maps, embedding = self._one_row(seen, chosen)
        maps = None if maps is None else maps[0].float().cpu().numpy()
        return Look(image, condition, maps, embedding[0].float().cpu().numpy())

    def _one_row(self, seen: _Seen, condition: Tensor) -> tuple[Tensor, Tensor]:
        """CCA's `attention` and `embed` from the kept K and V."""
        model, (k, v) = self.model, seen.keys_values
        q = model.q_cond(condition)[:, None]  # (1, H*d) -> (1, 1, H*d)
        maps = model.patch_map(model.block.weights(q, k)[:, :, 0])
        row = model.block.rows(seen.tokens if model.residual else None, q, k, v)  # Eq. 6
        return maps, model.head(model.norm(row))[:, 0]  # Eq. 7

    def _maps(self, tokens: Tensor, condition: Tensor) -> Tensor | None:
        try:
            return self.model.attention(tokens, condition)
        except NotImplementedError:  # what systems say that do not attend
            return None

    def _keep(self, image: int) -> _Seen:
        if image not in self._seen:
            self._seen[image] = self._encode(self.images[image])
            if len(self._seen) > self.keep:
                self._seen.popitem(last=False)
        self._seen.move_to_end(image)
        return self._seen[image]

    @torch.inference_mode()
    def _encode(self, picture: np.ndarray) -> _Seen:
        tokens, keys_values = self.model.encode(self.transform(picture)[None].to(self.device)), None
        if isinstance(self.model, CCA):
            tokens, keys_values = tokens[:, :1].clone(), self.model.block.keys_values(tokens)
        view = view_of(self.transform, picture.shape[:2])
        return _Seen(reduced(picture, SIDE), view, tokens, keys_values)

    # ---- pictures

    def draw(
        self, look: Look, head: int | None = None, opacity: float = 0.8, outlined: bool = True
    ) -> np.ndarray:
        """uint8 RGB: the picture under the heat of one head, or of (None) the mean of all; without heat where the
        system does not attend; faded, as `plots.heatmap_grid` has it, where the picture is known to have no label.
        outlined: with the attribute's region in red, where it is known."""
        seen = self._keep(look.image)
        shown = seen.shown
        if look.maps is not None:
            with self._pools.limit(limits=1, user_api="blas"):  # as in _one_thread
                heat = heatmap(look.maps, shown.shape[:2], head, seen.view)
            shown = overlay(shown, heat, opacity)
        shown = outline(shown, self.boxes(look)) if outlined else shown
        return (0.3 * shown + 0.7 * 255).astype(np.uint8) if self.unlabelled(look) else shown

    def unlabelled(self, look: Look) -> bool:
        """Whether the picture is one of the data set, without a label under the condition."""
        image = self.image_ids[look.image]
        return image is not None and self.labels is not None and bool(self.labels[image, look.condition] < 0)

    def render(
        self, look: Look, head: int | None = None, opacity: float = 0.8, outlined: bool = True
    ) -> bytes:
        """`draw` as PNG."""
        return encode_png(self.draw(look, head, opacity, outlined))

    def boxes(self, look: Look) -> np.ndarray:
        """(m, 4): where the attribute is in the picture, as far as known."""
        image = self.image_ids[look.image]
        return np.empty((0, 4)) if image is None else pointing.boxes_of(self.regions, image, look.condition)

    def value(self, image_id: int | None, condition: int) -> str | None:
        """The name of an image's value under a condition; None where it is not known."""
        if image_id is None or self.labels is None or self.labels[image_id, condition] < 0:
            return None
        return self.attributes.value(condition, int(self.labels[image_id, condition]))

    def add(self, picture: np.ndarray) -> int:
        """Take in a picture of the user's own, in the place of the one before; returns its number.

        ValueError, and nothing is changed, where the transform cannot take it.
        """
        seen = self._encode(picture)
        if self.own is None:
            self.own = len(self.images)
            self.images.append(picture)
            self.image_ids.append(None)
        self.images[self.own] = picture
        self._seen[self.own] = seen
        return self.own

    # ---- neighbours

    def nearest(self, look: Look, top: int = 5) -> list[Neighbour]:
        """The `top` candidates of the largest cosine in the space of the look's condition, best first; equal ones in
        the order of their rows. The picture itself is left out."""
        if self.candidates is None:
            return []
        with self._pools.limit(limits=1, user_api="blas"):  # it reads memory: one thread does
            cosine = self.candidates.embeddings[:, look.condition] @ look.embedding  # (n, E) @ (E,) -> (n,)
        own = self.image_ids[look.image]
        barred = np.isnan(cosine) | (False if own is None else self.candidates.ids == own)
        cosine = np.where(barred, -np.inf, cosine)
        top = min(top, int((~barred).sum()))
        if not top:
            return []
        least = np.partition(cosine, -top)[-top]
        rows = np.flatnonzero(cosine >= least)
        rows = rows[np.argsort(-cosine[rows], kind="stable")][:top]
        return [Neighbour(int(row), int(self.candidates.ids[row]), float(cosine[row])) for row in rows]

    def _thumbnail(self, row: int) -> bytes:
        return encode_jpeg(reduced(self.candidates.picture(row), THUMB))

    # ---- without a widget

    def static(self, images: Sequence[int] = (0,), head: int | None = None, opacity: float = 0.8):
        """A matplotlib Figure of the same: a row a picture under all conditions, as in Figure 4. Where the system
        does not attend, the first picture's neighbours in each space."""
        from ccakit.show import plots  # brings seaborn, which takes its time

        looks = [
            [self.look(image, condition) for condition in range(len(self.attributes))] for image in images
        ]
        if looks[0][0].maps is None:
            return self._static_neighbours(looks[0])
        maps = np.stack([[look.maps for look in row] for row in looks])  # (n, K, H, h, w)
        maps = maps if head is None else maps[:, :, head]
        shown = [self._keep(image).shown for image in images]
        ids = [-1 if self.image_ids[image] is None else self.image_ids[image] for image in images]
        labels = None if self.labels is None or -1 in ids else self.labels[ids]
        return plots.heatmap_grid(
            shown, maps, self.attributes, self.regions, labels, ids, opacity, transform=self.transform
        )

    def _static_neighbours(self, looks: list[Look], top: int = 3):
        """A column a condition, the `top` nearest one below the other; the picture itself at the left."""
        from matplotlib.figure import Figure

        found = [[self.candidates.picture(near.row) for near in self.nearest(look, top)] for look in looks]
        figure = Figure(figsize=(1.1 * (len(looks) + 1), 1.2 * top + 0.5), layout="constrained")
        grid = figure.subplots(top, len(looks) + 1, squeeze=False)
        for ax in grid.flat:
            ax.set_axis_off()
        grid[0, 0].imshow(self._keep(looks[0].image).shown)
        grid[0, 0].set_title("picture", fontsize=8)
        for column, (look, pictures) in enumerate(zip(looks, found), start=1):
            grid[0, column].set_title(self.attributes.title(look.condition).replace(" ", "\n"), fontsize=8)
            for ax, picture in zip(grid[:, column], pictures):
                ax.imshow(picture)
        return figure


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: products this small gain nothing from two, and where other programs keep the cores busy,
    two wait for each other (95 ms a switch were measured for 11)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_upload(
    name: str, data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an uploaded file's bytes, as `read_image` reads a file. DataError names the file and
    says why not: too large, empty, cut short, or no image."""
    if len(data) > max_bytes:
        size = f"has {len(data) / 2**20:.1f} MiB, more than the limit of {max_bytes / 2**20:.0f} MiB"
        raise DataError(name, size, SMALLER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "upload"
        file.write_bytes(data)
        try:
            return read_image(file, max_pixels=max_pixels)
        except DataError as error:
            remedy = SMALLER if error.remedy == SMALLER else KINDS
            raise DataError(name, error.problem, remedy) from None


def encode_png(picture: np.ndarray) -> bytes:
    """uint8 RGB -> a PNG file's bytes, quickly rather than small."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), PNG)[1].tobytes()


def encode_jpeg(picture: np.ndarray) -> bytes:
    """uint8 RGB -> a JPEG file's bytes, for thumbnails."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def reduced(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture whose longer side is larger than `side`, shrunk to that; any other as it is."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
