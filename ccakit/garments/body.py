"""The figure under the clothes: head to feet. Shoulders are at row 0, hips at 40, the floor at 100."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, curve, ellipse, mirrored, points, tube
from .dice import Dice
from .fabric import Colour, mix
from .look import Arm, Look

_ROWS, _SIDES = (-2, 0, 4, 13, 27, 40, 50), (6, 13, 17, 14.6, 12.2, 16.4, 17)


def side(look: Look, row: float, ease: float = 0.0) -> float:
    """Return half the width of the torso at a row; ease: how much wider the clothes are."""
    return float(np.interp(row, _ROWS, _SIDES)) * look.width + ease


def shoulder(look: Look, x: float) -> float:
    """Return the row of the shoulder line at x."""
    return -2.2 + max(abs(x) / look.width - 5, 0) * 0.36


def torso(canvas: Canvas, look: Look) -> None:
    """Draw neck, shoulders and trunk in skin, with the collar bones and a shadow under the chin."""
    w = look.width
    half = points(
        (4.6, -13),
        (4.6, -5),
        curve((4.6, -5), (5, -1.5), (12 * w, 0.4), n=4),
        (17 * w, 3.4),
        (14.6 * w, 13),
        (12.2 * w, 27),
        (16.4 * w, 42),
    )
    canvas.fill(points(half, mirrored(half)), look.skin)
    canvas.tint(points((-4.6, -12), (4.6, -12), (4.6, -9), curve((4.6, -8), (0, -4.5), (-4.6, -8), n=6)), 104)
    for s in (1, -1):
        canvas.crease(curve((s * 2, 1.5), (s * 6, 0.6), (s * 11, 1.6), n=5), 112, 0.7)


def leg_path(look: Look, s: int) -> np.ndarray:
    """Return hip, knee, ankle and sole of one leg, (4, 2)."""
    spread = 4.5 + 6 * look.stance
    return points(
        (s * 8 * look.width, 42), (s * (7 + spread) / 2 * 1.12, 68), (s * spread, 93), (s * spread, 98)
    )


def at_row(path: np.ndarray, row: float) -> float:
    """Return the x of a leg at a row."""
    return float(np.interp(row, path[:, 1], path[:, 0]))


def legs(canvas: Canvas, look: Look, dice: Dice) -> None:
    """Draw legs, bare or in tights, and shoes or boots."""
    boots, colour = dice.chance(0.22), look.tights or look.skin
    top = dice.between(80, 86)
    for s in (1, -1):
        path = leg_path(look, s)
        w = look.width
        canvas.fill_tube(tube(path, (8.2 * w, 5.2 * w, 3.1, 3.0)), colour, 0.3, (0.62, 0.9, 112))
        canvas.crease(curve((path[1, 0] - 2, 68.5), (path[1, 0], 70), (path[1, 0] + 2, 68.5), n=4), 100, 0.8)
        x, tip = path[3, 0], path[3, 0] + s * 3.2
        if boots:
            canvas.fill(
                points(
                    (at_row(path, top) - 4.2, top),
                    (at_row(path, top) + 4.2, top),
                    (x + 3.6, 97),
                    (x - 3.6, 97),
                ),
                look.shoes,
                0.5,
            )
        canvas.fill(
            points((x - 3.2, 95.5), (x + 3.2, 95.5), (tip + 3.6, 99), (tip + 3.4, 101.4), (x - 3.4, 101.4))
            if s > 0
            else points(
                (x + 3.2, 95.5), (x - 3.2, 95.5), (tip - 3.6, 99), (tip - 3.4, 101.4), (x + 3.4, 101.4)
            ),
            look.shoes,
            0.4,
        )


def arm(canvas: Canvas, look: Look, limb: Arm) -> None:
    """Draw one bare arm with its hand."""
    t, path = limb.along(0.0, 1.0)
    outline = tube(path, limb.width(t))
    canvas.fill(ellipse(*path[0], 4.0, 4.0, 14), look.skin)
    canvas.fill_tube(outline, look.skin, 0.4, (0.6, 0.9, 112))
    hand(canvas, look.skin, limb)


def hand(canvas: Canvas, skin: Colour, limb: Arm) -> None:
    """Draw a hand like a mitten; it is wider than the wrist, so that sleeve ends can be seen on it."""
    (wx, wy), (ex, ey) = limb.at(1.0), limb.at(1.5)
    dx, dy = (ex - wx) / 22, (ey - wy) / 22
    palm = points((wx, wy), (wx + 4 * dx, wy + 4 * dy), (wx + 8.5 * dx, wy + 8.5 * dy))
    thumb = points(
        (wx + dx, wy + dy), (wx + 4 * dx - limb.side * 3.4 * dy, wy + 4 * dy + limb.side * 3.4 * dx * 0.4)
    )
    canvas.fill(tube(thumb, (1.3, 0.9)), skin, 0.4)
    canvas.fill(tube(palm, (2.4, 3.2, 1.7)), skin, 0.4)


def head(canvas: Canvas, look: Look, dice: Dice) -> None:
    """Draw face and hair, after the clothes, so that the chin lies over a high collar."""
    style, part = dice.pick(("short", "bun", "bob", "bald")), dice.between(-3, 3)
    if style == "bun":
        canvas.fill(ellipse(0, -34.5, 4.6, 4.2, 14), look.hair)
    if style == "bob":
        canvas.fill(
            points(ellipse(0, -24, 10.4, 10.6)[10:], (10.6, -14), (6, -12.4), (-6, -12.4), (-10.6, -14)),
            look.hair,
        )
    canvas.fill(ellipse(0, -21, 7.6, 10.2), look.skin)
    for s in (1, -1):
        canvas.fill(ellipse(s * 2.9, -21, 0.9, 0.8, 8), (40, 30, 30))
        canvas.line(((s * 1.8, -23.4), (s * 4.2, -23.8)), mix(look.hair, look.skin, 0.3), 0.6)
    canvas.line(curve((-1.8, -15.4), (0, -14.4), (1.8, -15.4), n=5), mix(look.skin, (150, 30, 40), 0.6), 0.8)
    if style != "bald":
        cap = points(
            ellipse(0, -22.5, 8.6, 10.8)[10:],
            (8.6, -21),
            curve((8, -25), (part, -31), (-8, -25), n=7),
            (-8.6, -21),
        )
        canvas.fill(cap, look.hair)


def back_hair(canvas: Canvas, look: Look, dice: Dice) -> None:
    """Draw long hair down the back of some figures."""
    if dice.chance(0.25):
        low = dice.between(-4, 8)
        canvas.fill(points(ellipse(0, -24, 10.4, 10.6)[10:], (10.5, low), (-10.5, low)), look.hair)
