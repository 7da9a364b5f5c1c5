"""ASEN++'s crops: where a map is attended, and that part cut out."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

THRESHOLD = 0.1


def attended_boxes(maps: Tensor, side: int, threshold: float = THRESHOLD) -> Tensor:
    """Find the square where a map is above `threshold` of its range: (..., h, w) -> (..., 3).

    Gives x, y and side of the square as fractions of the picture's side. They are found on `side` x `side`
    pixels as in the authors' code: the map is enlarged, stretched to 0-255, and cut at the threshold; the
    bounding box is made square on the longer side around its centre, and moved inside. Leading dimensions:
    one or more.
    """
    large = F.interpolate(maps.flatten(0, -3)[:, None].float(), (side, side), mode="bilinear")[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    levels = ((large - low) / (high - low).clamp(min=1e-12) * 255).floor()
    inside = levels > math.floor(255 * threshold)
    spans = torch.stack([inside.any(1), inside.any(2)], dim=-1)  # (M, side, 2): columns and lines
    first = spans.int().argmax(1)  # (M, 2); 0 where nothing is inside, and `last` is then the last place
    last = side - 1 - spans.flip(1).int().argmax(1)
    length = last - first + 1
    d = length.amax(1, keepdim=True)
    centre = first + length // 2
    corner = torch.where(centre + d // 2 > side, side - d, (centre - d // 2).clamp(min=0))
    boxes = torch.cat([corner, d], dim=-1) / side
    return boxes.unflatten(0, (-1, *maps.shape[1:-2]))  # -1: any batch size, also in an exported model


def crop_squares(pictures: Tensor, boxes: Tensor, side: int, antialias: bool) -> Tensor:
    """Cut a square out of each picture, or map, and resize it to `side` by a bilinear filter.

    antialias: as Pillow resizes pictures, where nothing outside the square is seen; without it, as
    `grid_sample` samples maps. pictures (B, C, h, w), boxes (B, 3) as `attended_boxes` gives them -> (B, C,
    side, side).
    """
    x, y, d = boxes.unbind(-1)
    height, width = pictures.shape[2:]
    lines = _resize_weights(y, d, side, height, antialias).to(pictures.dtype)
    columns = _resize_weights(x, d, side, width, antialias).to(pictures.dtype)
    return torch.einsum("bih,bchw,bjw->bcij", lines, pictures, columns)


def _resize_weights(start: Tensor, d: Tensor, side: int, size: int, antialias: bool) -> Tensor:
    """Compute the weight of each of `size` pixels in each of `side` new ones, which cover `d` from `start`.

    start, d: (B,), fractions of the picture's side. Gives (B, side, size).
    """
    start, d = start[:, None, None] * size, d[:, None, None] * size
    old = torch.arange(size, device=d.device) + 0.5  # the pixels' centres
    new = start + d * ((torch.arange(side, device=d.device) + 0.5) / side)[:, None]  # (B, side, 1)
    scale = (d / side).clamp(min=1) if antialias else 1  # above 1 where the picture is reduced
    weight = (1 - (old - new).abs() / scale).clamp(min=0)  # a triangle, wider where it reduces
    if antialias:
        weight = weight * ((old > start) & (old < start + d))
    return weight / weight.sum(-1, keepdim=True)
