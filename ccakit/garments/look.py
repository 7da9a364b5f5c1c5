"""The look of a picture: pose, build, colours, cloth. Nothing here depends on a label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .dice import Dice
from .fabric import Colour, Fabric, hsv, make_fabric, mix, unlike

_SKINS = (
    (255, 226, 205),
    (245, 205, 175),
    (224, 176, 138),
    (190, 135, 95),
    (148, 97, 66),
    (98, 63, 45),
    (66, 43, 34),
)
_HAIRS = (
    (28, 22, 20),
    (60, 38, 26),
    (104, 66, 36),
    (168, 120, 62),
    (214, 180, 116),
    (150, 60, 34),
    (130, 130, 134),
)


@dataclass(frozen=True)
class Arm:
    """One arm, `side` +1 or -1: from shoulder (t = 0) by elbow (0.5) to wrist (1), and beyond (1.5)."""

    side: int
    shoulder: tuple[float, float]
    upper: tuple[float, float]
    lower: tuple[float, float]

    def at(self, t: float) -> tuple[float, float]:
        """Return the point at t; both bones are 22 units long, in the directions `upper` and `lower`."""
        a, b = 44 * min(t, 0.5), 44 * max(t - 0.5, 0.0)
        (x, y), (ux, uy), (lx, ly) = self.shoulder, self.upper, self.lower
        return x + ux * a + lx * b, y + uy * a + ly * b

    def along(self, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """Return places t (T,) and points (T, 2) from one t to another; the elbow is rounded."""
        inner = [t for t in (0.0, 0.2, 0.42, 0.58, 0.8, 1.0) if start + 0.02 < t < end - 0.02]
        t = [start, *inner, end]
        return np.array(t), np.array([self.at(each) for each in t])

    @staticmethod
    def width(t: np.ndarray) -> np.ndarray:
        """Return half the width of the arm at t."""
        return np.interp(t, (0, 0.25, 0.5, 1), (3.9, 4.0, 3.4, 2.5))


@dataclass(frozen=True)
class Look:
    """The look of a figure and its room.

    width: the build, about 1. stance: how far apart the feet are. ease, flare: how wide the clothes are cut.

    top, lower, coat, inner: cloth. trim: what collars and borders are made of. tights: None for bare legs.
    """

    width: float
    stance: float
    ease: float
    flare: float
    arms: tuple[Arm, Arm]
    skin: Colour
    hair: Colour
    wall: Colour
    floor: Colour
    top: Fabric
    lower: Fabric
    coat: Fabric
    inner: Fabric
    trim: Colour
    tights: Colour | None
    shoes: Colour


def _arm(dice: Dice, side: int, width: float) -> Arm:
    """Make an arm, at rest or on the hip; the hand stays within 33 units of the figure's middle."""
    upper = math.radians(dice.between(6, 34))
    reach = (16.6 - 22 * math.sin(upper)) / 36
    lower = dice.between(math.radians(-24), math.asin(reach))
    shoulder = (16.0 * width * side, 4.6)
    return Arm(
        side, shoulder, (side * math.sin(upper), math.cos(upper)), (side * math.sin(lower), math.cos(lower))
    )


def any_colour(dice: Dice) -> Colour:
    """Make a colour for cloth: any hue; strong greens and violets, which look like neon, are toned down."""
    hue, saturation, value = dice.roll(), dice.between(0.06, 0.8), dice.between(0.2, 0.97)
    loud = 0.2 < hue < 0.45 or 0.72 < hue < 0.92
    return hsv(hue, saturation * (0.62 if loud else 1.0), value)


def wall_colour(dice: Dice) -> Colour:
    """Make a colour for walls: not very saturated, from dark to light."""
    return hsv(dice.roll(), dice.between(0.02, 0.42), 0.98 - 0.68 * dice.roll() ** 1.5)


def make_look(dice: Dice) -> Look:
    """Make a look whose garments differ visibly from the wall, from the skin and from one another."""
    tone = dice.between(0, len(_SKINS) - 1.001)
    skin = mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1)
    wall = unlike(dice, (skin,), 38, lambda: wall_colour(dice))
    floor = unlike(dice, (skin,), 30, lambda: mix(wall, any_colour(dice), dice.between(0.1, 0.6)))

    def cloth(*others: Colour) -> Fabric:
        return make_fabric(dice, unlike(dice, (wall, skin, *others), 60, lambda: any_colour(dice)))

    top = cloth()
    lower = cloth(top.base)
    inner = cloth(top.base)
    trim = unlike(
        dice,
        (top.base, skin),
        75,
        lambda: dice.pick(
            (
                (246, 244, 238),
                (246, 244, 238),
                (30, 30, 36),
                any_colour(dice),
                mix(top.base, (255, 255, 255), 0.55),
            )
        ),
    )
    tights = None
    if dice.chance(0.4):
        tights = unlike(dice, (wall, floor, lower.base, top.base), 55, lambda: any_colour(dice))
    shoes = unlike(dice, (floor, skin), 45, lambda: any_colour(dice))
    width, hair = dice.between(0.92, 1.08), dice.pick(_HAIRS)
    arms = _arm(dice, 1, width), _arm(dice, -1, width)
    return Look(
        width,
        dice.between(0, 1),
        dice.between(0.3, 1),
        dice.roll(),
        arms,
        skin,
        hair,
        wall,
        floor,
        top,
        lower,
        top,
        inner,
        trim,
        tights,
        shoes,
    )
