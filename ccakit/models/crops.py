"""ASEN++'s crops: where a map is attended, and that part cut out."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

THRESHOLD = 0.1


def attended_boxes(maps: Tensor, side: int, threshold: float = THRESHOLD) -> Tensor:
    """The square around the places where a map is above `threshold` of its range: (..., h, w) -> (..., 3).

    x, y and side of the square, fractions of the picture's side, found on `side` x `side` pixels as the authors'
    code does: the map enlarged, stretched to 0-255, cut at the threshold, its bounding box made square on the longer
    side around its centre and moved inside.
    """
    shape = maps.shape[:-2]
    large = F.interpolate(maps.reshape(-1, 1, *maps.shape[-2:]).float(), (side, side), mode="bilinear")[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    bytes_ = ((large - low) / (high - low).clamp(min=1e-12) * 255).floor()
    inside = bytes_ > math.floor(255 * threshold)
    x, width = _extent(inside.any(1))
    y, height = _extent(inside.any(2))
    d = torch.maximum(width, height)
    corners = [_corner(start, length, d, side) for start, length in ((x, width), (y, height))]
    boxes = torch.stack([*corners, d], dim=-1) / side
    if len(shape) < 2:
        return boxes.view(*shape, 3)
    return boxes.unflatten(0, (-1, *shape[1:]))  # -1: for any batch size, also where this is traced


def _extent(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First place and length of the run that holds all true places; the whole where there is none."""
    size = inside.shape[1]
    first = inside.int().argmax(1)
    last = size - 1 - inside.flip(1).int().argmax(1)
    none = ~inside.any(1)
    return first.masked_fill(none, 0), (last - first + 1).masked_fill(none, size)


def _corner(start: Tensor, length: Tensor, d: Tensor, side: int) -> Tensor:
    centre = start + length // 2
    moved = (centre - d // 2).clamp(min=0)
    return torch.where(centre + d // 2 > side, side - d, moved)


def cut_picture(picture: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The square of each picture, enlarged or reduced to `side` as Pillow does, by its antialiased bilinear filter.

    Nothing outside the square is seen. picture (B, C, h, w), boxes (B, 3) as `attended_boxes` gives them ->
    (B, C, side, side).
    """
    x, y, d = boxes.unbind(-1)
    lines, columns = (_filter(start, d, side, size) for start, size in zip((y, x), picture.shape[2:]))
    return torch.einsum("bih,bchw,bjw->bcij", lines.to(picture.dtype), picture, columns.to(picture.dtype))


def _filter(start: Tensor, d: Tensor, side: int, size: int) -> Tensor:
    """How much each of `size` pixels counts in each of `side` new ones, over `d` from `start`: (B, side, size)."""
    start, d = start[:, None, None] * size, d[:, None, None] * size
    old = torch.arange(size, device=d.device) + 0.5  # the pixels' centres
    new = start + d * ((torch.arange(side, device=d.device) + 0.5) / side)[:, None]  # (B, side, 1)
    weight = (1 - (old - new).abs() / (d / side).clamp(min=1)).clamp(
        min=0
    )  # a triangle, wider where it reduces
    weight = weight * ((old > start) & (old < start + d))
    return weight / weight.sum(-1, keepdim=True)


def cut_out(picture: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The square of each map, enlarged or reduced to `side` by bilinear sampling.

    picture (B, C, h, w), boxes (B, 3) as `attended_boxes` gives them -> (B, C, side, side).
    """
    x, y, d = boxes.unbind(-1)
    # in grid_sample's coordinates, -1 to 1 over the picture, the square's centre is 2x + d - 1
    at = (2 * torch.arange(side, device=picture.device) + 1) / side - 1  # centres of the new pixels
    columns, lines = (d[:, None] * at + (2 * start + d - 1)[:, None] for start in (x, y))  # (B, side)
    grid = torch.stack(
        torch.broadcast_tensors(columns[:, None, :], lines[:, :, None]), dim=-1
    )  # (B, side, side, 2)
    return F.grid_sample(picture, grid.to(picture.dtype), padding_mode="border", align_corners=False)
