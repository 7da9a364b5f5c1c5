"""The canvas: polygons in the figure's coordinates, in one colour or a fabric, shaded and anti-aliased.

Everything is drawn hard-edged at twice the size and averaged 2x2, in integer arithmetic throughout, so that
the same drawing gives the same pixels on every machine. Shade has a plane of its own (128 leaves a colour as
it is, less makes it darker, more makes it lighter), so that folds and shadows lie over patterns, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from .camera import Framing
from .fabric import Colour, Fabric

SHIFT, NEUTRAL, OVER = 4, 128, 2  # bits of sub-pixel, the shade of no shade, samples a pixel side


def points(*parts) -> np.ndarray:
    """Join pairs and arrays of points, in order, to one array (N, 2)."""
    rows: list = []
    for part in parts:
        rows.append(part) if isinstance(part, tuple) else rows.extend(np.asarray(part).tolist())
    return np.array(rows, dtype=float)


def mirrored(shape) -> np.ndarray:
    """Mirror points to the figure's other side, in reverse order: `points(a, mirrored(a))` is one outline."""
    return np.asarray(shape, dtype=float)[::-1] * (-1, 1)


_BASES: dict[tuple[int, int], np.ndarray] = {}


def curve(*controls, n: int = 8) -> np.ndarray:
    """Return n points (n, 2) of the Bezier curve with 3 or 4 control points."""
    key = len(controls), n
    if key not in _BASES:
        t = np.linspace(0, 1, n)[:, None]
        s = 1 - t
        terms = (s * s, 2 * s * t, t * t) if key[0] == 3 else (s**3, 3 * s * s * t, 3 * s * t * t, t**3)
        _BASES[key] = np.concatenate(terms, 1)
    return _BASES[key] @ np.asarray(controls, dtype=float)


def ellipse(x: float, y: float, rx: float, ry: float, n: int = 20) -> np.ndarray:
    """Return n points (n, 2) around an ellipse."""
    if (0, n) not in _BASES:
        turn = np.arange(n) * (2 * np.pi / n)
        _BASES[0, n] = np.stack((np.cos(turn), np.sin(turn)), 1)
    return _BASES[0, n] * (rx, ry) + (x, y)


def tube(path: np.ndarray, widths) -> np.ndarray:
    """Return the outline (2N, 2) of a limb: half-widths (N,) to both sides of a path (N, 2)."""
    path, widths = path.tolist(), list(widths)
    left, right, last = [], [], len(path) - 1
    for i, ((x, y), width) in enumerate(zip(path, widths)):
        (x0, y0), (x1, y1) = path[max(i - 1, 0)], path[min(i + 1, last)]
        length = math.hypot(x1 - x0, y1 - y0) / width
        nx, ny = (y1 - y0) / length, (x0 - x1) / length
        left.append((x + nx, y + ny)), right.append((x - nx, y - ny))
    return np.array(left + right[::-1])


def strip(outline: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the strip (2N, 2) along a tube's outline, between two fractions of its width."""
    near, far = outline[: len(outline) // 2], outline[: len(outline) // 2 - 1 : -1]
    across = far - near
    return np.concatenate((near + across * start, (near + across * end)[::-1]))


class Canvas:
    """A picture that is being drawn: `px` (S, S, 3) and `shade` (S, S), S = 2 * size."""

    def __init__(self, size: int, framing: Framing, ground: Colour) -> None:
        self.side = size * OVER
        self.matrix = framing.matrix(self.side)
        self.unit = framing.scale * self.side  # pixels a unit of the figure
        self.px = np.empty((self.side, self.side, 3), np.uint8)
        cv2.rectangle(self.px, (0, 0), (self.side, self.side), ground, -1)
        self.shade = np.full((self.side, self.side), NEUTRAL, np.uint8)
        self._fixed = self.matrix * (1 << SHIFT)
        self._woven: dict[Fabric, np.ndarray] = {}

    def place(self, shape) -> np.ndarray:
        """Turn points of the figure into fixed-point pixels, (N, 2) int32."""
        return cv2.transform(np.asarray(shape, dtype=float)[None], self._fixed)[0].astype(np.int32)

    def fill(self, shape, paint: Colour | Fabric, edge: float = 0.0, shade: int = NEUTRAL) -> None:
        """Fill a polygon with a colour or a fabric; edge: the width of its darker edge line."""
        placed = self.place(shape)
        self._fill(placed, paint, shade)
        if edge:
            self._line(placed, _darker(paint), edge, True)

    def fill_tube(
        self, outline: np.ndarray, paint: Colour | Fabric, edge: float, tint: tuple | None = None
    ) -> None:
        """Fill a limb, with lines along its sides, not its ends; tint: a strip's start, end and shade."""
        placed, colour, half = self.place(outline), _darker(paint), len(outline) // 2
        self._fill(placed, paint, NEUTRAL)
        if tint:
            self.tint(strip(outline, *tint[:2]), tint[2])
        self._line(placed[:half], colour, edge, False)
        self._line(placed[half:], colour, edge, False)

    def fill_frame(self, shape, paint: Colour) -> None:
        """Fill a polygon in fractions of the frame, for the background; the shade does not change."""
        placed = (np.asarray(shape, dtype=float) * (self.side << SHIFT)).astype(np.int32)
        cv2.fillPoly(self.px, [placed], paint, cv2.LINE_AA, SHIFT)

    def line(self, shape, colour: Colour, width: float, closed: bool = False) -> None:
        """Draw a line along the points; its width is in units of the figure, at least one drawn pixel."""
        self._line(self.place(shape), colour, width, closed)

    def tint(self, shape, shade: int) -> None:
        """Set the shade of a polygon."""
        cv2.fillPoly(self.shade, [self.place(shape)], shade, cv2.LINE_AA, SHIFT)

    def crease(self, shape, shade: int, width: float) -> None:
        """Set the shade along a line."""
        _polyline(self.shade, self.place(shape), shade, width * self.unit, False)

    def _line(self, placed: np.ndarray, colour: Colour, width: float, closed: bool) -> None:
        _polyline(self.px, placed, colour, width * self.unit, closed)

    def _fill(self, placed: np.ndarray, paint: Colour | Fabric, shade: int) -> None:
        if isinstance(paint, Fabric):
            if paint.pattern == "plain":
                cv2.fillPoly(self.px, [placed], paint.base, cv2.LINE_AA, SHIFT)
            else:
                self._weave(placed, paint)
        else:
            cv2.fillPoly(self.px, [placed], paint, cv2.LINE_AA, SHIFT)
        cv2.fillPoly(self.shade, [placed], shade, cv2.LINE_AA, SHIFT)

    def _weave(self, placed: np.ndarray, fabric: Fabric) -> None:
        if fabric not in self._woven:
            self._woven[fabric] = fabric.weave(self.matrix, self.side)
        mask = np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(mask, [placed], 255, cv2.LINE_AA, SHIFT)
        cv2.copyTo(self._woven[fabric], mask, self.px)

    def finish(self, light: np.ndarray, tones: np.ndarray) -> np.ndarray:
        """Return the picture (size, size, 3) under a light (size, size), with tones of a table (256,)."""
        shaded = cv2.multiply(self.px, cv2.merge((self.shade,) * 3), scale=1 / NEUTRAL)
        small = cv2.resize(shaded, light.shape, interpolation=cv2.INTER_AREA)
        return cv2.LUT(cv2.multiply(small, cv2.merge((light,) * 3), scale=1 / NEUTRAL), tones)


def _polyline(plane: np.ndarray, placed: np.ndarray, colour, width: float, closed: bool) -> None:
    """Draw thin lines smooth and thick lines not: OpenCV 4 and 5 draw these two kinds alike."""
    thick = int(width + 0.5)
    cv2.polylines(
        plane, [placed], closed, colour, max(thick, 1), cv2.LINE_8 if thick > 1 else cv2.LINE_AA, SHIFT
    )


def _darker(paint: Colour | Fabric) -> Colour:
    base: Sequence[int] = paint.base if isinstance(paint, Fabric) else paint
    return tuple(int(v) * 5 // 9 for v in base)
