"""Attention maps to heatmaps over the picture (Figure 4), and how well they point at the attribute's region.

A map is (height, width): the softmax weights of Eq. 6 on the patches, as `model.attention` gives them a head.
Points are (x, y) in fractions of the picture's width and height; a box is (x0, y0, x1, y1) in the same. A
view is the box of the picture that the model was shown, if a transform crops: maps cover the view, not the
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ccakit.attributes import Attributes
from ccakit.metrics import bootstrap_means, interval_95

FULL_VIEW = (0.0, 0.0, 1.0, 1.0)  # the view without a crop
PEAK_SCALE = 8  # the peak is looked for on a grid this much finer than the patches


def peak(maps: np.ndarray) -> tuple[float, float]:
    """Find the point (x, y) where the heads' mean map is highest. maps: (H, h, w) or (h, w). See `peaks`."""
    x, y = peaks(one_map(maps))
    return float(x), float(y)


def peaks(maps: np.ndarray) -> np.ndarray:
    """Find the point (x, y) of the maximum of each map (..., h, w): (..., 2).

    Maps are first upsampled (cubic) to a grid PEAK_SCALE times finer: the peak is where the heatmap is
    hottest, not the middle of the strongest patch. Points are the middles of the fine cells; of equal ones,
    the first in reading order.
    """
    maps = to_numpy(maps)
    height, width = (PEAK_SCALE * side for side in maps.shape[-2:])
    flat = maps.reshape(-1, *maps.shape[-2:])
    cells = np.array([upsample(each, (height, width)).argmax() for each in flat], int)
    rows, columns = np.divmod(cells, width)
    points = np.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=-1)
    return points.reshape(*maps.shape[:-2], 2)


def upsample(attn_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map (h, w) to float32 (height, width), cubic: as torch's bicubic with align_corners=False."""
    return cv2.resize(attn_map.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)


def boxes_of(regions: np.ndarray | None, image: int, condition: int) -> np.ndarray:
    """Find the boxes (m, 4) of an image and condition in (M, 6) rows image, condition, x0, y0, x1, y1."""
    regions = np.reshape([] if regions is None else regions, (-1, 6))
    return regions[(regions[:, 0] == image) & (regions[:, 1] == condition), 2:]


def region_mask(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mark the pixels whose middle lies in one of the boxes (M, 4), fractions: bool (height, width)."""
    y, x = (np.arange(size[0]) + 0.5) / size[0], (np.arange(size[1]) + 0.5) / size[1]
    mask = np.zeros(size, bool)
    for x0, y0, x1, y1 in np.reshape(boxes, (-1, 4)):
        mask |= ((y0 <= y) & (y <= y1))[:, None] & ((x0 <= x) & (x <= x1))
    return mask


def region_area(boxes: np.ndarray) -> float:
    """Compute the exact area of the union of the boxes (M, 4), as a fraction of the picture's.

    >>> round(region_area([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]]), 6)
    0.375
    """
    boxes = np.reshape(boxes, (-1, 4))
    x, y = np.unique(boxes[:, [0, 2]]), np.unique(boxes[:, [1, 3]])  # between two edges, a cell is in or out
    covered = np.zeros((max(len(y) - 1, 0), max(len(x) - 1, 0)), bool)
    for x0, y0, x1, y1 in boxes:
        covered |= ((y0 <= y[:-1]) & (y[1:] <= y1))[:, None] & ((x0 <= x[:-1]) & (x[1:] <= x1))
    return float(np.diff(y) @ covered @ np.diff(x)) if covered.size else 0.0


@dataclass(frozen=True)
class PointingResult:
    """Pointing scores, one value for each of the P scored pairs (image, condition).

    The mean over pairs is the score: `means()` over all, `means(c)` in one attribute.

    - game: 1 if the map's peak lies in the attribute's region (Zhang et al., IJCV 2018, without its margin)
    - chance: the region's area, i.e. the hit rate of a point chosen uniformly at random
    - other: share of the other conditions' maps of the same image whose peak lies in this region; a model
      that ignores the condition has other = game (NaN if there is only one condition)
    - fixed: 1 if the peak of the condition's mean map over all images lies in the region: the score of a
      model that learned one point for each attribute and does not look at the image
    """

    names: tuple[str, ...]
    images: np.ndarray
    conditions: np.ndarray
    game: np.ndarray
    chance: np.ndarray
    other: np.ndarray
    fixed: np.ndarray

    def means(self, condition: int | None = None) -> dict[str, float]:
        """Average the four scores, 0..1, over all pairs or one attribute's; NaN if there is no pair."""
        pairs = slice(None) if condition is None else self.conditions == condition
        scores = {}
        for key in ("game", "chance", "other", "fixed"):
            values = getattr(self, key)[pairs]
            scores[f"pointing_{key}"] = float(values.mean()) if len(values) else np.nan
        return scores

    def interval(self, repeats: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Compute the 95% bootstrap interval of pointing_game over all pairs.

        Images are drawn, each with all its pairs: the pairs of one image depend on each other.
        """
        low, high = interval_95(bootstrap_means(self.game, self.images, repeats, seed))
        return float(low), float(high)


def pointing_scores(
    maps: np.ndarray,
    regions: np.ndarray,
    labels: np.ndarray,
    attributes: Attributes,
    image_ids: Sequence[int] | np.ndarray | None = None,
    views: np.ndarray | Sequence[float] = FULL_VIEW,
) -> PointingResult:
    """Score how well maps point at regions, for every labelled (image, condition) that has one.

    An attribute that cannot be seen has no region, and is not scored. Several boxes count as their union.

    maps: (N, K, h, w), means over heads, for K conditions. regions: (M, 6) rows image, condition, x0, y0, x1,
    y1. labels: (R, 3) rows image, condition, label. image_ids: (N,) the image of each row of `maps`, 0..N-1
    if None; regions and labels of other images are left out. views: (N, 4), or one for all; regions are cut
    to the view, and chance is their share of it. ValueError if the shapes disagree, or no pair is left.
    """
    maps, regions, labels = to_numpy(maps), np.asarray(regions, float), np.asarray(labels)
    image_ids = np.arange(len(maps)) if image_ids is None else np.asarray(image_ids)
    if maps.ndim != 4 or maps.shape[:2] != (len(image_ids), len(attributes)):
        raise ValueError(f"maps {maps.shape}, but {len(image_ids)} images and {len(attributes)} attributes")
    row_of = {image: row for row, image in enumerate(image_ids.tolist())}
    boxes: dict[tuple[int, int], list] = {}
    for image, condition, *box in regions.tolist():
        boxes.setdefault((int(image), int(condition)), []).append(box)
    labelled = set(map(tuple, labels[:, :2].tolist()))
    views = np.broadcast_to(views, (len(maps), 4))
    points, mean_points = peaks(maps), peaks(maps.mean(axis=0))  # (N, K, 2), (K, 2)
    scores = []
    for image, condition in sorted(boxes):
        if (image, condition) not in labelled or image not in row_of:
            continue
        row = row_of[image]
        region = _in_view(np.array(boxes[image, condition]), views[row])
        hits = _inside(points[row], region)  # (K,): of all conditions' maps of the image
        other = np.delete(hits, condition).mean() if len(hits) > 1 else np.nan
        fixed = _inside(mean_points[[condition]], region)[0]
        scores.append((image, condition, hits[condition], region_area(region), other, fixed))
    if not scores:
        raise ValueError("no labelled image and condition has a region")
    images, conditions, *values = np.array(scores, float).T
    return PointingResult(attributes.names, images.astype(int), conditions.astype(int), *values)


def _in_view(boxes: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Convert boxes (m, 4) from fractions of the picture to fractions of the view, cut to it."""
    corners = (boxes.reshape(-1, 2, 2) - view[:2]) / (view[2:] - view[:2])
    return np.clip(corners, 0, 1).reshape(-1, 4)


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Tell which points (n, 2) lie in one of the boxes (m, 4), edges included: (n,) bool."""
    points = points[:, None]  # (n, 2) -> (n, 1, 2), against (m, 2) corners
    return ((boxes[:, :2] <= points) & (points <= boxes[:, 2:])).all(-1).any(-1)


def to_numpy(maps: np.ndarray) -> np.ndarray:
    """Convert an array or a torch tensor on any device to an array (without importing torch)."""
    return np.asarray(maps.detach().float().cpu() if hasattr(maps, "detach") else maps)


def one_map(maps: np.ndarray, head: int | None = None) -> np.ndarray:
    """Take one head's map (h, w), or the mean of all, of (H, h, w) or (h, w); ValueError if there is none."""
    maps = to_numpy(maps)
    if maps.ndim not in (2, 3):
        raise ValueError(f"maps of one image are (H, h, w) or (h, w), not {maps.shape}")
    maps = maps.reshape(-1, *maps.shape[-2:])  # (h, w) -> (1, h, w)
    if head is not None and not 0 <= head < len(maps):
        raise ValueError(f"no head {head}: there are {len(maps)}")
    return maps.mean(axis=0) if head is None else maps[head]
