"""What is worn around the neck: necklines, collars, high necks, lapels. Each returns its region.

A neckline is the upper edge of the bodice, from +x to -x. The other three are pieces that lie on the bodice
or on the coat.
"""

from __future__ import annotations

import numpy as np

from .body import shoulder
from .canvas import Canvas, curve, mirrored, points, tube
from .clothes import EDGE, box, trim_colour
from .dice import Dice
from .fabric import Colour, Fabric, mix
from .look import Look


def opening(look: Look, value: int) -> np.ndarray:
    """Return the edge (N, 2) of the neckline of this value; 0 is a plain, close neckline."""
    w = look.width

    def on(x: float) -> tuple[float, float]:
        return x * w, shoulder(look, x * w)

    if value == 1:  # strapless: straight over the bust, shoulders bare
        return points(curve((15 * w, 10.5), (0, 12.5), (-15 * w, 10.5), n=7))
    if value == 6:  # off the shoulder: a sagging edge below bare shoulders
        return points(curve((16.8 * w, 8), (0, 14), (-16.8 * w, 8), n=9))
    if value == 9:  # one shoulder
        return points(on(12.5), on(6.5), curve((6.5 * w, -1), (-4, 10), (-14.9 * w, 12.5), n=7))
    half = {
        2: lambda: points(on(8.5), (0, 29)),
        3: lambda: points(on(14.2), (13.2 * w, 4.2), (0, 4.6)),
        4: lambda: points(on(8), (0, 15.5)),
        5: lambda: points(on(9.5), (9.5 * w, 11.5), (0, 11.5)),
        7: lambda: points(on(9), curve((9 * w, shoulder(look, 9)), (8.6 * w, 10.5), (0, 10.5), n=8)),
        8: lambda: points(on(10.5), (11 * w, 9), curve((11 * w, 9), (9.5, 3.2), (2.2, 4.6), (0, 14.5), n=9)),
    }.get(value, lambda: points(on(6.4), curve((6.4 * w, shoulder(look, 6.4)), (5, 3.2), (0, 3.2), n=6)))()
    return points(half, mirrored(half[half[:, 0] > 0.01]))


def neckline(canvas: Canvas, look: Look, value: int, cloth: Fabric, trim: Colour) -> np.ndarray:
    """Draw the edge (and the flounce of an off-shoulder); return the corners of the region."""
    edge = opening(look, value)
    if value == 6:
        w = look.width
        low = curve((22.5 * w, 14), (0, 22), (-22.5 * w, 14), n=9)
        band = points(curve((21.4 * w, 6.4), (0, 14.6), (-21.4 * w, 6.4), n=9), low[::-1])
        canvas.fill(band, cloth, EDGE)
        for i in range(1, 8):
            canvas.crease((band[i], low[i]), 104, 0.7)
        return box(-22.5 * w, 3, 22.5 * w, 20)
    canvas.line(edge, mix(cloth.base, (0, 0, 0), 0.55), 0.9)
    canvas.line(edge + (0, 1.2), mix(cloth.base, trim_colour(cloth, trim), 0.6), 0.7)
    low, wide = edge[:, 1].max(), max(edge[:, 0].max(), 8.5)
    left = edge[:, 0].min()
    return box(min(left, -8.5) - 1.5, edge[:, 1].min() - (6 if value == 1 else 1.5), wide + 1.5, low + 2.5)


def collar(canvas: Canvas, look: Look, dice: Dice, value: int, cloth: Fabric, trim: Colour) -> np.ndarray:
    """Draw a collar on the bodice; return the corners of its region."""
    colour = trim_colour(cloth, trim)
    dark = mix(colour, (20, 15, 25), 0.6) if sum(colour) > 240 else mix(colour, (255, 255, 255), 0.5)
    size = dice.between(0.95, 1.1)
    if value == 4:  # rib: a band about the neck, in ribs
        top, low = curve((7.2, -4.2), (5, 3), (0, 3.2), n=7), curve((10.4, -2.6), (8.5, 8.2), (0, 8.4), n=7)
        rim, base = points(top, mirrored(top[:-1])), points(low, mirrored(low[:-1]))
        canvas.fill(points(rim, base[::-1]), colour, 0.7)
        for a, b in zip(_between(rim), _between(base)):
            canvas.line((a, b), dark, 0.75)
        return box(-11.5, -4.5, 11.5, 9.5)
    flap = {
        1: lambda: points((5.0, -6.4), (0.5, 2.2), (7.8 * size, 12.5 * size), (12.8, 0.6), (7.2, -5)),
        2: lambda: points(
            (5.6, -4.6),
            (0.5, 2.0),
            curve((0.5, 2), (1, 9.5 * size), (6, 8.6 * size), (9.5, 7.6), n=7),
            curve((9.5, 7.6), (13 * size, 5.5), (11, -0.4), n=6),
            (7, -4),
        ),
        3: lambda: points(
            (5.6, -4.6),
            (0.4, 2.0),
            (1.6, 17 * size),
            curve((1.6, 17 * size), (11, 17.4), (19.2, 11.5), n=6),
            (18.6, 6),
            (16, 1.6),
            (7, -4),
        ),
    }[value]()
    if value == 1:
        canvas.line(((0, 2), (0, 30)), mix(cloth.base, (0, 0, 0), 0.5), 0.6)
        for y in range(9, 30, 6):
            canvas.fill(box(-0.8, y, 0.8, y + 1.6), dark)
        canvas.fill(points((-5, -6.5), (5, -6.5), (0.8, 1.6), (-0.8, 1.6)), mix(colour, (0, 0, 0), 0.4))
    for s in (1, -1):
        shape = flap * (s, 1)
        canvas.tint(shape + (0.6, 1.6), 96)
        canvas.fill(shape, colour, 0.7)
    if value > 1 and dice.chance(0.4):
        canvas.fill(points((0, 2), (2.6, 0.4), (2.6, 4.2), (0, 2.6), (-2.6, 4.2), (-2.6, 0.4)), dark)
    return points(flap, flap * (-1, 1))


def _between(edge: np.ndarray, count: int = 12) -> np.ndarray:
    """Return evenly spaced points (count, 2) on an edge."""
    at = np.linspace(0.3, len(edge) - 1.3, count)
    return np.stack([np.interp(at, np.arange(len(edge)), edge[:, i]) for i in (0, 1)], 1)


def high_neck(canvas: Canvas, look: Look, dice: Dice, value: int, cloth: Fabric, coated: bool) -> np.ndarray:
    """Draw a turtle neck, a ruffle, a low turtle neck or a draped collar; return its region's corners."""
    dark, light = mix(cloth.base, (5, 0, 10), 0.5), mix(cloth.base, (255, 255, 255), 0.4)
    if value == 4:
        return _cowl(canvas, look, cloth, dark, 0.66 if coated else 1.0)
    top = {1: -12.6, 2: -8.2, 3: -4.6}[value] + dice.between(-0.3, 0.3)
    base = curve((8.6, -0.6), (0, 7.6), (-8.6, -0.6), n=7)
    canvas.fill(points((-6.4, top), (6.4, top), base), cloth, 0.7)
    canvas.tint(points((6.4, top), (3, top), (4, 2), (8.4, -0.4)), 108)
    if value == 1:  # folded over once: a line and a roll
        fold = curve((7.8, -5.6), (0, -3), (-7.8, -5.6), n=7)
        canvas.fill(
            points((-7, top), curve((-6, top), (0, top - 1), (6, top), n=4), (7, top), fold), cloth, 0.7
        )
        canvas.line(fold, dark, 1.1)
    elif value == 3:
        canvas.line(curve((6.4, top), (0, top + 1.6), (-6.4, top), n=6), dark, 0.9)
    else:
        _frill(canvas, cloth, dark, light, top, 1.0)
        _frill(canvas, cloth, dark, light, -0.4, 1.25)
    canvas.line(base, dark, 0.7)
    return box(-10.5, -13.2, 10.5, 6) if value < 3 else box(-10, -11, 10, 5.5)


def _frill(canvas: Canvas, cloth: Fabric, dark: Colour, light: Colour, row: float, wide: float) -> None:
    """Draw a ruffle around the neck at a row."""
    for i in range(-3, 4):
        x, drop = i * 2.75 * wide, -abs(i) * 0.45
        leaf = points(
            (x * 0.8, row - 2.4 + drop),
            (x + 2.1 * wide, row + 3.2 + drop),
            (x, row + 4.4 + drop),
            (x - 2.1 * wide, row + 3.2 + drop),
        )
        up = points(
            (x * 0.8, row + 1 + drop),
            (x + 1.9 * wide, row - 3.4 + drop),
            (x, row - 2.2 + drop),
            (x - 1.9 * wide, row - 3.4 + drop),
        )
        canvas.fill(up, light, 0.5)
        canvas.fill(leaf, light if i % 2 else cloth.base, 0.5)


def _cowl(canvas: Canvas, look: Look, cloth: Fabric, dark: Colour, wide: float) -> np.ndarray:
    """Draw folds of cloth that hang from the shoulders, one below the other."""
    w = look.width * wide
    for depth, out, tone in ((25, 14.5, 0.0), (19, 13, 0.18), (13, 11.5, 0.34)):
        swag = points(
            curve((out * w, shoulder(look, out * w) - 0.6), (7 * w, depth * 0.95), (0, depth * 0.8), n=7),
            curve((0, depth * 0.8), (-7 * w, depth * 0.95), (-out * w, shoulder(look, out * w) - 0.6), n=7)[
                1:
            ],
        )
        canvas.fill(
            points(swag, curve((-6.6, -3), (0, 2), (6.6, -3), n=5)), mix(cloth.base, (255, 255, 255), tone)
        )
        canvas.line(swag, dark, 1.0)
    hole = points(
        curve((7.4, -3.4), (5.5, 7.6), (0, 7.4), n=6), curve((0, 7.4), (-5.5, 7.6), (-7.4, -3.4), n=6)[1:]
    )
    canvas.fill(hole, look.skin, shade=112)
    canvas.line(hole, dark, 0.9)
    return box(-15 * w, -3, 15 * w, 22)


def lapel(
    canvas: Canvas, look: Look, dice: Dice, value: int, cloth: Fabric, trim: Colour, gap: float
) -> np.ndarray:
    """Draw the lapels of a coat, which meet, or end at the gap, at row 27; return their region's corners."""
    foot, size = (max(gap, 0.4), 27.0), dice.between(0.95, 1.08)
    face = mix(cloth.base, (255, 255, 255) if dice.chance(0.5) else (0, 0, 0), 0.2)
    dark = mix(cloth.base, (0, 0, 0), 0.6)
    neck_side = (7.4, -5.2)
    if value == 2:  # none: a bare edge, with or without piping
        edge, piping = (
            points((8.4, -2.6), foot, (foot[0], 33)),
            trim_colour(cloth, trim) if dice.chance(0.5) else dark,
        )
        for s in (1, -1):
            canvas.line(edge * (s, 1), piping, 1.2)
        return box(-9.5, -5, 9.5, 29)
    if value == 1:
        shape = points(neck_side, foot, (15.2 * size, 9.6), (9.4, 6.4), (14 * size, 2.8), (8.4, -4.6))
    elif value == 3:
        shape = points(neck_side, foot, curve(foot, (10.5 * size, 17), (13.4 * size, 5), (8.8, -4.4), n=11))
    else:
        shape = points(
            neck_side,
            foot,
            (foot[0] + 5, 38),
            curve((foot[0] + 5, 38), (20.5 * size, 31), (21.5 * size, 1), (8.8, -5), n=12),
        )
    for s in (1, -1):
        part = shape * (s, 1)
        canvas.tint(part + (0.5, 1.6), 92)
        canvas.fill(part, face, 0.9)
        if value == 1:
            canvas.line(points((9.4, 6.4), (4.6, 4.6)) * (s, 1), dark, 0.9)
        if value == 4:
            for k in (0.45, 0.72):
                canvas.crease(
                    curve((8, -4), (17 * k + 3, 8), (16 * k + 2, 24), (foot[0] + 4 * k, 35), n=8) * (s, 1),
                    100,
                    0.9,
                )
    return points(shape, shape * (-1, 1))


def scarf(canvas: Canvas, dice: Dice, colour: Colour, tucked: bool) -> None:
    """Draw a scarf around the neck; tucked: it fills only what a coat leaves open."""
    dark, light = mix(colour, (0, 0, 0), 0.4), mix(colour, (255, 255, 255), 0.3)
    if tucked:
        canvas.fill(points((-6.6, -13), (6.6, -13), (7, -5), (3.4, 17), (-3.4, 17), (-7, -5)), colour, 0.7)
        for y in (-9, -5, 0, 6):
            canvas.line(curve((-6, y - 2), (0, y + 3), (6, y - 2.4), n=6), dark, 0.8)
        return
    for s, low in ((1, dice.between(26, 36)), (-1, dice.between(20, 34))):
        tail = tube(points((s * 3.4, 4), (s * 5.5, low * 0.5), (s * 5, low)), (5.4, 5.4, 5.8))
        canvas.fill(tail, light if s > 0 else colour, 0.7)
        for k in (-2.4, 0, 2.4):
            canvas.line(((s * 5 + k, low), (s * 5 + k, low + 2.6)), dark, 0.7)
    loop = points(
        curve((15.5, -2), (14, 20), (0, 20), n=6),
        curve((0, 20), (-14, 20), (-15.5, -2), n=6),
        curve((-8, -12), (0, -9), (8, -12), n=5),
    )
    canvas.fill(loop, colour, 0.8)
    for k in (3, 8, 13):
        canvas.line(curve((-12.5, k - 8), (0, k + 5), (12.5, k - 9), n=8), dark, 0.8)
