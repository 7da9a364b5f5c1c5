"""Colours that differ visibly, and the cloth that is made of them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .dice import Dice

Colour = tuple[int, int, int]  # RGB, 0..255
PATTERNS = ("plain", "stripe", "pin", "hoop", "check", "dot", "twill", "knit")
_ROUND = ((np.arange(256) - 128) ** 2 >> 7).astype(np.uint8)
_ZIGZAG = np.abs(np.arange(256) - 128).astype(np.uint8)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(r * 255 + 0.5), int(g * 255 + 0.5), int(b * 255 + 0.5)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return the colour that lies between a and b, at the fraction `share` of the way."""
    rest = 1 - share
    return (
        int(a[0] * rest + b[0] * share + 0.5),
        int(a[1] * rest + b[1] * share + 0.5),
        int(a[2] * rest + b[2] * share + 0.5),
    )


def apart(a: Colour, b: Colour) -> float:
    """Measure how different two colours look, 0 to about 400; brightness counts most."""
    r, g, b = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return abs(0.36 * r + 0.72 * g + 0.12 * b) + 0.44 * (max(r, g, b) - min(r, g, b))


def unlike(dice: Dice, others: Sequence[Colour], least: float, make) -> Colour:
    """Return a colour of `make()` that differs by `least` from the others, or the best of twelve."""
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
    """Cloth: its colour, a second colour, their pattern, and its period in units of the figure."""

    base: Colour
    accent: Colour
    pattern: str
    period: float
    duty: int
    phase: int

    def weave(self, matrix: np.ndarray, side: int) -> np.ndarray:
        """Return pixels (side, side, 3) of the cloth, as the camera's matrix (2, 3) places it."""
        (a, b), (c, d) = matrix[:, :2].tolist()
        scale = 256 / (
            self.period * (a * d - b * c)
        )  # a period is 256 steps, so that uint8 wraps around with it
        u = _ramp(d * scale, -b * scale, matrix[:, 2], side) + np.uint8(self.phase)
        v = _ramp(-c * scale, a * scale, matrix[:, 2], side)
        tones = np.zeros((256, 1, 3), np.uint8)
        half = mix(self.base, self.accent, 0.5) if self.pattern == "check" else self.accent
        tones[0], tones[1], tones[2] = self.base, half, self.accent
        return cv2.LUT(cv2.merge((self._tone(u, v).view(np.uint8),) * 3), tones)

    def _tone(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the tone (0, 1, 2) of each pixel; u, v: its place across and along the cloth, uint8."""
        if self.pattern in ("stripe", "pin"):
            return u < self.duty
        if self.pattern == "hoop":
            return v < self.duty
        if self.pattern == "check":
            return (u < self.duty).view(np.uint8) + (v < self.duty).view(np.uint8)
        if self.pattern == "dot":  # a square lattice turned by 45 degrees
            return _ROUND[u + v] + _ROUND[u - v] < self.duty
        if self.pattern == "knit":
            return u + _ZIGZAG[v] > 127
        return u + v < self.duty


def _ramp(across: float, down: float, origin: np.ndarray, side: int) -> np.ndarray:
    """Return the plane across*(x - x0) + down*(y - y0), modulo 256, as (side, side) uint8."""
    x0, y0 = origin.tolist()
    steps = np.arange(side)
    xs = np.floor((steps - x0) * across).astype(np.int64).astype(np.uint8)
    ys = np.floor((steps - y0) * down).astype(np.int64).astype(np.uint8)
    return np.add.outer(ys, xs)


def make_fabric(dice: Dice, base: Colour) -> Fabric:
    """Make cloth of this colour: half of all cloth is plain, the rest has a pattern in a similar tone."""
    pattern = dice.pick(PATTERNS, (4.5, 0.8, 0.8, 1, 0.9, 1, 0.7, 0.8))
    light = 0.3 * base[0] + 0.6 * base[1] + 0.1 * base[2]
    toward = (255, 255, 255) if light < 60 or (light < 170 and dice.chance(0.5)) else (10, 12, 30)
    quiet = pattern in ("knit", "twill")
    accent = mix(base, toward, dice.between(0.10, 0.2) if quiet else dice.between(0.18, 0.42))
    period = {"stripe": 5.5, "pin": 3.2, "hoop": 5.0, "check": 6.5, "dot": 5.6, "twill": 2.4, "knit": 2.8}
    duty = {"pin": 70, "dot": dice.whole(36, 60), "twill": 128}.get(pattern, dice.whole(80, 140))
    return Fabric(
        base, accent, pattern, period.get(pattern, 5.0) * dice.between(0.85, 1.3), duty, dice.whole(0, 255)
    )
