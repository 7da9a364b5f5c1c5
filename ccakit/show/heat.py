"""A map laid over its picture, and a region's outline."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ccakit.evaluation.pointing import FULL_VIEW, one_map, region_mask, upsample

RED = (230, 20, 30)  # the region's outline, red as in Figure 4


def heatmap(
    maps: np.ndarray, size: tuple[int, int], head: int | None = None, view: Sequence[float] = FULL_VIEW
) -> np.ndarray:
    """Make a map for display: one head's or the mean of all, upsampled (cubic) to `size`, scaled to 0..1.

    maps: (H, h, w) or (h, w), array or tensor. size: (height, width) of the picture. Out: float32 (height,
    width), 0 at the lowest point, 1 at the highest (so colours say where, not how much); 0 outside the view,
    and everywhere if the map is flat. ValueError for a wrong shape or head.
    """
    x0, y0, x1, y1 = np.round(np.multiply(view, [size[1], size[0]] * 2)).astype(int).tolist()  # pixels
    seen = upsample(one_map(maps, head), (y1 - y0, x1 - x0))
    heat, low, high = np.zeros(size, np.float32), seen.min(), seen.max()
    if high - low > 1e-6 * abs(high):  # not flat, up to rounding
        heat[y0:y1, x0:x1] = (seen - low) / (high - low)
    return heat


def view_of(transform: object, size: tuple[int, int]) -> Sequence[float]:
    """Find the view of a picture of `size` (height, width) that a transform gives the model.

    The transform's method `view(height, width)` says it; without one, the view is the full picture.
    """
    return transform.view(*size) if hasattr(transform, "view") else FULL_VIEW


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float = 0.8) -> np.ndarray:
    """Lay the heat over the picture, in colours of evenly rising lightness (matplotlib's inferno).

    The heat covers a pixel by `opacity` times its value, so the picture stays clear where the map is cold.
    image: uint8 RGB (height, width, 3); heat: (height, width), 0..1. Out: uint8 RGB. ValueError if the shapes
    disagree.
    """
    from matplotlib import colormaps

    if image.shape != (*heat.shape, 3) or image.dtype != np.uint8:
        raise ValueError(f"image {image.dtype} {image.shape} and heat {heat.shape} do not match")
    heat = np.clip(heat, 0, 1)
    color = colormaps["inferno"](np.round(255 * heat).astype(np.uint8), bytes=True)[..., :3]
    cover = opacity * heat[..., None]
    return np.round((1 - cover) * image + cover * color).astype(np.uint8)


def outline(
    image: np.ndarray, boxes: np.ndarray, color: tuple[int, int, int] = RED, width: int | None = None
) -> np.ndarray:
    """Copy the picture and draw the border of the boxes' union, inside it.

    image: uint8 RGB; boxes: (M, 4), fractions; width: of the line in pixels, 1/75 of the shorter side if
    None.
    """
    width = max(1, round(min(image.shape[:2]) / 75)) if width is None else width
    mask = region_mask(boxes, image.shape[:2])
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    border = dict(borderType=cv2.BORDER_CONSTANT, borderValue=0)  # the picture's edge is a border, too
    inner = cv2.erode(mask.astype(np.uint8), cross, iterations=width, **border)
    image = image.copy()
    image[mask & (inner == 0)] = color
    return image


def faded(image: np.ndarray) -> np.ndarray:
    """Mix the picture with white, as pictures without a label are shown. uint8 RGB."""
    return (0.3 * image + 0.7 * 255).astype(np.uint8)
