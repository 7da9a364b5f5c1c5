"""The camera: the place of the figure in the frame.

The figure has its own coordinates: x from its middle line, y down from the shoulder line, in hundredths of
the distance from shoulders to floor. The camera turns them into fractions of the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .dice import Dice

WINDOWS = {
    # what must be inside the frame: x0, y0, x1, y1 of the figure (of the arms, the one at +x, which the
    # mirror may put on either side); then how much larger the frame may be
    "full": (-19, -11, 34, 103, 1.0, 1.16),
    "upper": (-15, -11, 34, 64, 1.0, 1.2),
    "close": (-19, -12, 19, 28, 1.05, 1.5),
    "lower": (-21, 23, 21, 103, 1.0, 1.06),
    "legs": (-20, 44, 20, 103, 1.03, 1.35),
}
LIMITS = {
    "lower": (17, 999),
    "legs": (17, 999),
    "upper": (-999, 72),
}  # rows that must stay outside: above the first, below the second


@dataclass(frozen=True)
class Framing:
    """cx, cy: where the middle of the shoulder line lies, in fractions of the frame; scale: frames a unit."""

    name: str
    cx: float
    cy: float
    scale: float
    angle: float = 0.0
    mirror: bool = False

    def matrix(self, size: float = 1.0) -> np.ndarray:
        """Return the affine map (2, 3) from the figure to pixels of a frame of this size."""
        cos, sin = math.cos(self.angle) * self.scale * size, math.sin(self.angle) * self.scale * size
        flip = -1 if self.mirror else 1
        return np.array([[flip * cos, -sin, self.cx * size], [flip * sin, cos, self.cy * size]])

    def box(self, points: np.ndarray) -> tuple[float, float, float, float] | None:
        """Return the box around points (N, 2), in fractions of the frame; None if most of it is outside."""
        m = self.matrix()
        placed = points @ m[:, :2].T + m[:, 2]
        (x0, y0), (x1, y1) = placed.min(0).tolist(), placed.max(0).tolist()
        cx0, cy0, cx1, cy1 = max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
        if cx1 <= cx0 or cy1 <= cy0 or (cx1 - cx0) * (cy1 - cy0) < 0.4 * (x1 - x0) * (y1 - y0):
            return None
        return round(cx0, 4), round(cy0, 4), round(cx1, 4), round(cy1, 4)


def make_framing(dice: Dice, name: str) -> Framing:
    """Make a camera that shows the window of the framing, with a random scale, shift, tilt and mirror."""
    x0, y0, x1, y1, tight, loose = WINDOWS[name]
    mirror, angle = dice.chance(0.5), math.radians(dice.between(-3, 3))
    side = max(x1 - x0, y1 - y0) * dice.between(tight, loose)
    first, last = LIMITS.get(name, (-999, 999))
    left = dice.between(x1 - side, x0)
    top = dice.between(max(y1 - side, first), min(y0, last - side))
    middle = (left + side / 2, top + side / 2)  # the tilt turns the figure about the frame's middle
    turned = Framing(name, 0.0, 0.0, 1 / side, angle).matrix() @ np.array([-middle[0], -middle[1], 1.0])
    cx, cy = float(turned[0]) + 0.5, float(turned[1]) + 0.5
    return Framing(name, 1 - cx if mirror else cx, cy, 1 / side, -angle if mirror else angle, mirror)
