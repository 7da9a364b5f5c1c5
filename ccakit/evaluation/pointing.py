"""Attention maps to heatmaps over the picture (Figure 4), and how well they point at the attribute's region.

A map is (height, width): the softmax weights of Eq. 6 on the patches, as `model.attention` gives them a head.
Places are (x, y) in fractions of the picture's width and height; a box is (x0, y0, x1, y1) in the same. A view is
the box of the picture that the model was shown, where a transform crops: maps cover the view, not the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ccakit.attributes import Attributes

WHOLE = (0.0, 0.0, 1.0, 1.0)  # the view without a crop
PEAK_SCALE = 8  # a peak is looked for on a grid this much finer than the patches


def peak(maps: np.ndarray) -> tuple[float, float]:
    """The place (x, y) where the mean map of the heads is highest. maps: (H, h, w) or (h, w). See `peaks`."""
    x, y = peaks(_one_map(maps, None))
    return float(x), float(y)


def peaks(maps: np.ndarray) -> np.ndarray:
    """(..., 2): the place (x, y) of the maximum of each map (..., h, w).

    Looked for after cubic upsampling to a grid PEAK_SCALE times finer, i.e. where the heatmap is hottest, not
    at the middle of the strongest patch; places are those of the fine cells' middles. The first in reading
    order of several equal ones.
    """
    maps = to_numpy(maps)
    size = (PEAK_SCALE * maps.shape[-2], PEAK_SCALE * maps.shape[-1])
    flat = maps.reshape(-1, *maps.shape[-2:])
    step = max(1, (32 << 20) // (4 * size[0] * size[1]))  # 32 MB at a time
    at = [
        upsample(flat[i : i + step], size).reshape(-1, size[0] * size[1]).argmax(1)
        for i in range(0, len(flat), step)
    ]
    row, column = np.divmod(np.concatenate([*at, np.empty(0, int)]), size[1])
    place = np.stack([(column + 0.5) / size[1], (row + 0.5) / size[0]], axis=-1)
    return place.reshape(*maps.shape[:-2], 2)


def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., h, w) -> float32 (..., height, width), cubic: as torch's bicubic with align_corners=False."""
    rows, columns = _cubic(maps.shape[-2], size[0]), _cubic(maps.shape[-1], size[1])
    return rows @ maps.astype(np.float32, copy=False) @ columns.T


@lru_cache(maxsize=32)
def _cubic(n: int, size: int, a: float = -0.75) -> np.ndarray:
    """(size, n): the weights of n samples in each of `size` places (Keys 1981); ends are repeated."""
    place = (np.arange(size) + 0.5) * n / size - 0.5
    weights = np.zeros((size, n), np.float32)
    for step in range(-1, 3):
        sample = np.floor(place) + step
        t = np.abs(place - sample)
        near, far = ((a + 2) * t - (a + 3)) * t * t + 1, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        index = np.clip(sample, 0, n - 1).astype(int)
        np.add.at(weights, (np.arange(size), index), np.where(t <= 1, near, far))
    return weights


def boxes_of(regions: np.ndarray | None, image: int, condition: int) -> np.ndarray:
    """(m, 4) boxes of an image and condition, from (M, 6) rows image, condition, x0, y0, x1, y1; m may be 0."""
    regions = np.reshape([] if regions is None else regions, (-1, 6))
    return regions[(regions[:, 0] == image) & (regions[:, 1] == condition), 2:]


def region_mask(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (height, width): pixels whose middle lies in one of the boxes (M, 4), fractions."""
    y, x = (np.arange(size[0]) + 0.5) / size[0], (np.arange(size[1]) + 0.5) / size[1]
    mask = np.zeros(size, bool)
    for x0, y0, x1, y1 in np.reshape(boxes, (-1, 4)):
        mask |= ((y0 <= y) & (y <= y1))[:, None] & ((x0 <= x) & (x <= x1))
    return mask


def region_area(boxes: np.ndarray) -> float:
    """Area of the union of the boxes (M, 4), as a fraction of the picture's. Exact.

    >>> round(region_area([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]]), 6)
    0.375
    """
    boxes = np.reshape(boxes, (-1, 4))
    x, y = np.unique(boxes[:, [0, 2]]), np.unique(boxes[:, [1, 3]])  # all edges: between two, cells in or out
    covered = np.zeros((max(len(y) - 1, 0), max(len(x) - 1, 0)), bool)
    for x0, y0, x1, y1 in boxes:
        covered |= ((y0 <= y[:-1]) & (y[1:] <= y1))[:, None] & ((x0 <= x[:-1]) & (x[1:] <= x1))
    return float(np.diff(y) @ covered @ np.diff(x)) if covered.size else 0.0


@dataclass(frozen=True)
class PointingResult:
    """Pointing scores, one value for each of the P scored pairs (image, condition).

    The mean over pairs is the score: `means()` over all, `means(c)` in one attribute.

    - game: 1 if the map's peak lies in the attribute's region (Zhang et al., IJCV 2018, without its margin)
    - chance: the region's area, i.e. the hit rate of a place chosen uniformly at random
    - other: share of the other conditions' maps of the same image whose peak lies in this region; a model
      that looks at one place whatever the condition has other = game (NaN if there is but one condition)
    - fixed: 1 if the peak of the condition's mean map over all images lies in the region: what one learned
      place an attribute, blind to the image, would score
    """

    names: tuple[str, ...]
    images: np.ndarray
    conditions: np.ndarray
    game: np.ndarray
    chance: np.ndarray
    other: np.ndarray
    fixed: np.ndarray

    def means(self, condition: int | None = None) -> dict[str, float]:
        """The four scores, 0..1, over all pairs or one attribute's; NaN where there is no pair."""
        pairs = slice(None) if condition is None else self.conditions == condition
        values = {key: getattr(self, key)[pairs] for key in ("game", "chance", "other", "fixed")}
        return {
            f"pointing_{key}": float(value.mean()) if len(value) else float("nan")
            for key, value in values.items()
        }

    def interval(self, repeats: int = 1000, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
        """Percentile bootstrap interval of pointing_game over all pairs. Images are drawn, with all their
        pairs: the pairs of one image are not independent."""
        _, image = np.unique(self.images, return_inverse=True)
        hits, pairs = np.bincount(image, self.game), np.bincount(image)
        draws = np.random.default_rng(seed).integers(0, len(pairs), (repeats, len(pairs)))
        low, high = np.quantile(hits[draws].sum(1) / pairs[draws].sum(1), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def to_dict(self, repeats: int = 1000, seed: int = 0) -> dict:
        """For JSON, in percent: overall scores, pointing_game's 95% interval, scores an attribute."""

        def percent(scores: dict[str, float]) -> dict[str, float | None]:
            return {key: None if np.isnan(value) else 100 * value for key, value in scores.items()}

        present, counts = np.unique(self.conditions, return_counts=True)
        return {
            **percent(self.means()),
            "pairs": len(self.conditions),
            "interval": [100 * end for end in self.interval(repeats, seed)],
            "per_attribute": {
                self.names[c]: {**percent(self.means(c)), "pairs": int(count)}
                for c, count in zip(present, counts)
            },
        }


def pointing_scores(
    maps: np.ndarray,
    regions: np.ndarray,
    labels: np.ndarray,
    attributes: Attributes,
    image_ids: Sequence[int] | np.ndarray | None = None,
    views: np.ndarray | Sequence[float] = WHOLE,
) -> PointingResult:
    """Do the maps point at the attributes' regions? Scored: every labelled (image, condition) with a region.

    An attribute that cannot be seen has no region, and is not scored. Several boxes count as their union.

    maps: (N, K, h, w), means over heads, for K conditions. regions: (M, 6) rows image, condition, x0, y0, x1,
    y1. labels: (R, 3) rows image, condition, label. image_ids: (N,), the image each row of `maps` is of;
    0..N-1 if None; regions and labels of other images are left out. views: (N, 4), or one for all; regions
    are cut to the view, and chance is their share of it. ValueError if the shapes disagree, or no pair is left.
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
    pairs = [pair for pair in sorted(boxes) if pair in labelled and pair[0] in row_of]
    if not pairs:
        raise ValueError("no labelled image and condition has a region")
    image, condition = np.array(pairs).T
    row = np.array([row_of[i] for i in image.tolist()])
    views = np.broadcast_to(views, (len(maps), 4))[row]
    seen = [_in_view(np.array(boxes[pair]), view) for pair, view in zip(pairs, views)]
    return _score(maps, seen, image, row, condition, attributes.names)


def _score(
    maps: np.ndarray,
    boxes: list[np.ndarray],
    image: np.ndarray,
    row: np.ndarray,
    condition: np.ndarray,
    names: tuple[str, ...],
) -> PointingResult:
    places = peaks(maps)[row]  # (N, K, 2) -> (P, K, 2): all conditions' peaks, on each pair's image
    fixed = peaks(maps.mean(axis=0))[condition]  # (K, 2) -> (P, 2)
    places = np.concatenate([places, fixed[:, None]], axis=1)  # (P, K+1, 2)
    inside = np.array([_inside(p, b) for p, b in zip(places, boxes)])
    game = np.take_along_axis(inside, condition[:, None], axis=1)[:, 0].astype(float)
    others = len(names) - 1
    other = (inside[:, :-1].sum(axis=1) - game) / others if others else np.full(len(game), np.nan)
    chance = np.array([region_area(b) for b in boxes])
    return PointingResult(names, image, condition, game, chance, other, inside[:, -1].astype(float))


def _in_view(boxes: np.ndarray, view: np.ndarray) -> np.ndarray:
    """(m, 4) boxes in fractions of the picture -> in fractions of the view, cut to it (maybe to nothing)."""
    corners = (boxes.reshape(-1, 2, 2) - view[:2]) / (view[2:] - view[:2])
    return np.clip(corners, 0, 1).reshape(-1, 4)


def _inside(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n, 2) places, (m, 4) boxes -> (n,) bool: in one of the boxes, edges included."""
    places = places[:, None]  # (n, 2) -> (n, 1, 2), against (m, 2) corners
    return ((boxes[:, :2] <= places) & (places <= boxes[:, 2:])).all(-1).any(-1)


def to_numpy(maps: np.ndarray) -> np.ndarray:
    """An array, of an array or a torch tensor on any device (without importing torch)."""
    return np.asarray(maps.detach().float().cpu() if hasattr(maps, "detach") else maps)


def _one_map(maps: np.ndarray, head: int | None) -> np.ndarray:
    maps = to_numpy(maps)
    if maps.ndim not in (2, 3):
        raise ValueError(f"maps of one image are (H, h, w) or (h, w), not {maps.shape}")
    maps = maps.reshape(-1, *maps.shape[-2:])  # (h, w) -> (1, h, w)
    if head is not None and not 0 <= head < len(maps):
        raise ValueError(f"no head {head}: there are {len(maps)}")
    return maps.mean(axis=0) if head is None else maps[head]
