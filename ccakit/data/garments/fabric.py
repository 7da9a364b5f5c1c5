"""Colours that can be told apart, and the cloth that is woven of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dice import Dice

Colour = tuple[int, int, int]  # RGB, 0..255
PATTERNS = ("plain", "stripe", "pin", "hoop", "check", "dot", "twill", "knit")
_CIRCLE = ((np.arange(256) - 128) ** 2 >> 6).astype(np.int32)
_ZIGZAG = np.abs(np.arange(256) - 128).astype(np.uint8)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(r * 255 + 0.5), int(g * 255 + 0.5), int(b * 255 + 0.5)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from a to b."""
    rest = 1 - share
    return (
        int(a[0] * rest + b[0] * share + 0.5),
        int(a[1] * rest + b[1] * share + 0.5),
        int(a[2] * rest + b[2] * share + 0.5),
    )


def apart(a: Colour, b: Colour) -> float:
    """How different two colours look: a luma difference counts most (0..~400)."""
    r, g, b = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return abs(0.36 * r + 0.72 * g + 0.12 * b) + 0.44 * (max(r, g, b) - min(r, g, b))


def unlike(dice: Dice, others: Sequence[Colour], least: float, make) -> Colour:
    """A colour of `make()` that is at least so far from the others; the best of twelve if none is."""
    best, best_gap = (0, 0, 0), -1.0
    for _ in range(12):
        colour = make()
        gap = min([apart(colour, other) for other in others])
        if gap > best_gap:
            best, best_gap = colour, gap
        if gap >= least:
            break
    return best


@dataclass(frozen=True)
class Fabric:
    """Cloth: `tones` (3, 3) the base colour and two more, a pattern, its period in units of the figure."""

    base: Colour
    accent: Colour
    pattern: str
    period: float
    duty: int
    phase: int

    def weave(self, matrix: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """(y1-y0, x1-x0, 3) pixels of the cloth, as the camera's matrix lays it."""
        (a, b), (c, d) = matrix[:, :2].tolist()
        scale = 256 / (self.period * (a * d - b * c))
        tx, ty = matrix[:, 2].tolist()
        u = _ramp(d * scale, -b * scale, tx, ty, x0, y0, x1, y1) + self.phase
        v = _ramp(-c * scale, a * scale, tx, ty, x0, y0, x1, y1) + self.phase
        return np.take(self._tones(), self._index(u, v), axis=0)

    def _index(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Which tone (0, 1, 2), from the place across (u) and along (v) the cloth, a period being 256."""
        if self.pattern in ("stripe", "pin"):
            return (u & 255 < self.duty).view(np.uint8)
        if self.pattern == "hoop":
            return (v & 255 < self.duty).view(np.uint8)
        if self.pattern == "check":
            return (u & 255 < self.duty).view(np.uint8) + (v & 255 < self.duty).view(np.uint8)
        if self.pattern == "dot":
            odd = (v >> 8 & 1) << 7
            return (_CIRCLE[u + odd & 255] + _CIRCLE[v & 255] < self.duty).view(np.uint8)
        if self.pattern == "knit":
            return ((u & 255) + _ZIGZAG[v & 255] & 128 > 0).view(np.uint8)
        return (u + v & 255 < self.duty).view(np.uint8)

    def _tones(self) -> np.ndarray:
        half = mix(self.base, self.accent, 0.5) if self.pattern == "check" else self.accent
        return np.array((self.base, half, self.accent), np.uint8)


def _ramp(across: float, down: float, tx: float, ty: float, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """(y1-y0, x1-x0) int32 plane across*(x-tx) + down*(y-ty)."""
    xs = np.rint((np.arange(x0, x1) - tx) * across).astype(np.int32)
    ys = np.rint((np.arange(y0, y1) - ty) * down).astype(np.int32)
    return np.add.outer(ys, xs)


def make_fabric(dice: Dice, base: Colour) -> Fabric:
    """Cloth of this colour: half of it plain, the rest in a quiet second tone of the same colour."""
    pattern = dice.pick(PATTERNS, (4, 0.8, 0.8, 1, 0.9, 1, 0.7, 0.8))
    light = 0.3 * base[0] + 0.6 * base[1] + 0.1 * base[2]
    toward = (255, 255, 255) if light < 60 or (light < 170 and dice.chance(0.5)) else (10, 12, 30)
    quiet = pattern in ("knit", "twill")
    accent = mix(base, toward, dice.between(0.10, 0.2) if quiet else dice.between(0.18, 0.42))
    period = {"stripe": 5.5, "pin": 3.2, "hoop": 5.0, "check": 6.5, "dot": 4.2, "twill": 2.4, "knit": 2.8}
    duty = {"pin": 70, "dot": dice.whole(50, 110), "twill": 128}.get(pattern, dice.whole(80, 140))
    return Fabric(
        base, accent, pattern, period.get(pattern, 5.0) * dice.between(0.85, 1.3), duty, dice.whole(0, 255)
    )
