"""A map laid over its picture, and a region's outline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ccakit.evaluation.pointing import FULL_VIEW, one_map, region_mask, upsample

RED = (230, 20, 30)  # the region's outline, red as in Figure 4


def heatmap(
    maps: np.ndarray, size: tuple[int, int], head: int | None = None, view: Sequence[float] = FULL_VIEW
) -> np.ndarray:
    """A map for display: one head, or the mean of all; upsampled (cubic) to `size`; scaled to 0..1.

    maps: (H, h, w) or (h, w), array or tensor. size: (height, width) of the picture. Out: float32 (height,
    width), lowest place 0, highest 1 (so colours tell where, not how much); 0 outside the view, and everywhere
    if the map is flat. ValueError for a wrong shape or head.
    """
    x0, y0, x1, y1 = np.round(np.multiply(view, [size[1], size[0]] * 2)).astype(int)  # pixels
    seen = upsample(one_map(maps, head), (y1 - y0, x1 - x0))
    heat, low, high = np.zeros(size, np.float32), seen.min(), seen.max()
    if high - low > 1e-6 * abs(high):  # else flat, but for rounding
        heat[y0:y1, x0:x1] = (seen - low) / (high - low)
    return heat


def view_of(transform: object, size: tuple[int, int]) -> Sequence[float]:
    """The view that a transform gives the model of a picture of `size` (height, width): what its method
    `view(height, width)` says; the whole picture if it has none."""
    return transform.view(*size) if hasattr(transform, "view") else FULL_VIEW


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float = 0.8) -> np.ndarray:
    """The heat laid over the picture, in colours of evenly rising lightness (matplotlib's inferno).

    A place is covered by `opacity` times its heat, so that the picture stays clear where the map is cold.
    image: uint8 RGB (height, width, 3); heat: (height, width), 0..1. Out: uint8 RGB. ValueError if the shapes
    disagree.
    """
    if image.shape != (*heat.shape, 3) or image.dtype != np.uint8:
        raise ValueError(f"image {image.dtype} {image.shape} and heat {heat.shape} do not match")
    heat = np.clip(heat, 0, 1)
    color = _colors()[np.round(255 * heat).astype(np.uint8)]  # (height, width) -> (height, width, 3)
    cover = opacity * heat[..., None]
    return np.round((1 - cover) * image + cover * color).astype(np.uint8)


def outline(
    image: np.ndarray, boxes: np.ndarray, color: tuple[int, int, int] = RED, width: int | None = None
) -> np.ndarray:
    """A copy of the picture with the border of the boxes' union drawn inside it.

    image: uint8 RGB; boxes: (M, 4), fractions; width: of the line in pixels, 1/75 of the shorter side if None.
    """
    width = max(1, round(min(image.shape[:2]) / 75)) if width is None else width
    mask = region_mask(boxes, image.shape[:2])
    inner = mask.copy()
    for _ in range(width):
        padded = np.pad(inner, 1)
        inner &= padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    image = image.copy()
    image[mask & ~inner] = color
    return image


@lru_cache(maxsize=1)
def _colors() -> np.ndarray:
    """(256, 3) uint8: the colours of heat 0..1."""
    from matplotlib import colormaps

    return np.round(255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)
