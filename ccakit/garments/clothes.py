"""Clothes that have a length: skirts, trousers, coats, sleeves. The region of each is where it ends."""

from __future__ import annotations

import numpy as np

from .body import at_row, leg_path, shoulder, side
from .canvas import Canvas, curve, ellipse, mirrored, points, tube
from .dice import Dice
from .fabric import Colour, Fabric, mix
from .look import Arm, Look

SKIRT_ROWS = (None, 54.5, 67, 79, 90.5, 100.5)  # where a skirt of each value ends
PANT_ROWS = (None, 53.5, 65.5, 77, 87.5, 97.5)
COAT_ROWS = (None, 26.5, 37.5, 47, 57, 68.5, 80, 93)
SLEEVE_ENDS = (None, 0.0, 0.15, 0.31, 0.49, 0.67, 0.84, 1.03, 1.36)  # t along the arm
WAIST = 27.0
EDGE = 0.6


def hem_row(dice: Dice, row: float) -> float:
    """Move the row of a value a little up or down."""
    return row + dice.between(-1.3, 1.3) if row < 95 else row


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Return the corners (4, 2) of a box."""
    return np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), dtype=float)


def skirt_sides(look: Look, row: float) -> np.ndarray:
    """Return the right side (4, 2) of a skirt from waist to hem; look.flare: from a pencil to a bell."""
    spread = 1.5 + look.flare * 11
    hem = side(look, 42) + spread * min((row - 40) / 40, 1.25)
    return points(
        (side(look, WAIST, 0.8), WAIST),
        (side(look, 40, 1.5), 40),
        ((side(look, 42, 1.5) + hem) / 2, (41 + row) / 2),
        (hem, row),
    )


def skirt(canvas: Canvas, look: Look, dice: Dice, row: float, cloth: Fabric, band: bool) -> np.ndarray:
    """Draw a skirt that ends at this row; return the corners of its region."""
    right = skirt_sides(look, row)
    hem = right[-1, 0]
    canvas.fill(
        points(right, curve((hem, row), (0, row + 2.4), (-hem, row), n=7), mirrored(right)), cloth, EDGE
    )
    pleats = dice.whole(2, 5)
    for i in range(pleats):  # folds run from the hips to the hem and widen
        at = (i + dice.between(0.25, 0.75)) / pleats * 1.8 - 0.9
        wide = dice.between(0.03, 0.10)
        canvas.tint(
            points((at * 12, 34), ((at - wide) * hem, row + 1), ((at + wide) * hem, row + 1)),
            dice.whole(104, 116),
        )
    canvas.tint(
        points(right, (hem * 0.72, row + 1), (right[1, 0] * 0.8, 40), (right[0, 0] * 0.8, WAIST)), 110
    )
    trim_hem(canvas, dice, points(curve((hem, row), (0, row + 2.4), (-hem, row), n=7)), cloth)
    if band:
        w = side(look, WAIST, 1)
        canvas.fill(box(-w, WAIST - 1, w, WAIST + 2), mix(cloth.base, (20, 15, 20), 0.35))
    return box(-hem - 2, row - 8, hem + 2, row + 8)


def trim_hem(canvas: Canvas, dice: Dice, line: np.ndarray, cloth: Fabric) -> None:
    """Draw a border along a hem, on some clothes."""
    if dice.chance(0.35):
        canvas.line(line - (0, 2.2), mix(cloth.base, (250, 250, 250), 0.55), 0.8)


def trousers(canvas: Canvas, look: Look, dice: Dice, row: float, cloth: Fabric) -> np.ndarray:
    """Draw trousers that end at this row; return the corners of their region."""
    wide = 1.2 + 2.4 * look.flare
    w = side(look, 40, 1.2)
    canvas.fill(
        points(
            (side(look, WAIST, 0.8), WAIST),
            (w, 40),
            (w + 0.5, 49),
            (0, 49),
            (-w - 0.5, 49),
            (-w, 40),
            (-side(look, WAIST, 0.8), WAIST),
        ),
        cloth,
    )
    outer = 0.0
    for s in (1, -1):
        path = leg_path(look, s)
        x, knee = at_row(path, row), at_row(path, 66)
        half = float(np.interp(row, (42, 68, 100), (8.6, 5.8, 3.9 + 0.8 * wide))) * look.width + wide * 0.7
        legs = [(s * 8.3 * look.width, 43)] + ([(knee, 66)] if row > 70 else []) + [(x, row)]
        halves = [8.6 * look.width] + ([5.8 * look.width + wide * 0.8] if row > 70 else []) + [half]
        canvas.fill_tube(tube(points(*legs), halves), cloth, EDGE, (0.6, 0.93, 110))
        canvas.line(((x - half, row), (x + half, row)), mix(cloth.base, (0, 0, 0), 0.45), EDGE)
        trim_hem(canvas, dice, points((x - half, row), (x + half, row)), cloth)
        outer = max(outer, abs(x) + half)
    canvas.crease(points((0, 40), (0, 49)), 88, 0.7)
    canvas.fill(box(-w * 0.78, WAIST - 0.5, w * 0.78, WAIST + 2), mix(cloth.base, (10, 10, 10), 0.4))
    return box(-outer - 1.5, row - 8, outer + 1.5, row + 8)


def coat(
    canvas: Canvas, look: Look, row: float, cloth: Fabric, gap: float, ease: float, sleeveless: bool
) -> np.ndarray:
    """Draw the two fronts of a coat, `gap` apart at the hem (0: closed); return the corners of its region."""
    tip = 13.4 * look.width if sleeveless else 17.2 * look.width
    hem = (
        (side(look, 40, ease) + look.flare * 6 * max(row - 40, 0) / 50) if row > 30 else side(look, row, ease)
    )
    outer = [
        (tip, shoulder(look, tip)),
        (side(look, 13, ease), 13),
        (side(look, WAIST, ease + 0.6), min(WAIST, row)),
    ]
    outer += [(side(look, 40, ease), 40)] * (row > 42) + [(hem, row)]
    for s in (1, -1):
        inner = [(s * gap, row), (s * gap, 27 if row > 27 else row - 1), (s * 8.4, -2.6)]
        front = points(np.array(outer) * (s, 1), inner)
        canvas.fill(front, cloth, EDGE)
        canvas.tint(
            points(np.array(outer)[1:] * (s, 1), (s * hem * 0.74, row), (s * side(look, 20) * 0.8, 20)), 111
        )
    if gap < 1:
        canvas.line(((0, 24), (0, row)), mix(cloth.base, (0, 0, 0), 0.5), EDGE)
    for y in range(25, int(min(row, 52)) - 2, 6):
        canvas.fill(box(gap + 1.6, y, gap + 3.0, y + 1.4), mix(cloth.base, (255, 250, 230), 0.6))
    if row > 44:  # pockets
        for s in (1, -1):
            canvas.line(((s * 9, 36), (s * 13, 35)), mix(cloth.base, (0, 0, 0), 0.5), 0.9)
    return box(-hem - 2, row - 8, hem + 2, row + 8)


def sleeve(
    canvas: Canvas, look: Look, dice: Dice, limb: Arm, value: int, cloth: Fabric, ease: float, start: float
) -> np.ndarray:
    """Draw one sleeve over an arm, from t = start; return the corners of its region."""
    end = SLEEVE_ENDS[value] + (dice.between(-0.015, 0.015) if value > 2 else 0.0)
    if value == 1:  # the arm hole: nothing to draw but its edge, which the bodice has
        x, y = limb.shoulder
        return box(x - 6.5, y - 7, x + 6.5, y + 10)
    if value == 2:
        end = max(end, start + 0.14)
    t, path = limb.along(start, end)
    bell = ease * (np.interp(t, (0, 0.3), (0.1, 0.7)) + 1.6 * look.flare * np.maximum(t - 0.2, 0))
    half = limb.width(t) + 0.5 + (bell if value > 2 else 2.0 * (t > start))
    outline = tube(path, half)
    dark = mix(cloth.base, (0, 0, 0), 0.45)
    if start <= 0:
        canvas.fill(ellipse(*path[0], half[0], half[0], 14), cloth, EDGE)
    canvas.fill_tube(outline, cloth, EDGE, (0.6, 0.93, 110))
    cuff = np.stack((outline[len(t) - 1], outline[len(t)]))
    canvas.line(cuff, dark, EDGE * 1.4)
    if value > 2 and dice.chance(0.4):
        canvas.line(cuff * 0.86 + path[-2] * 0.14, mix(cloth.base, (250, 250, 250), 0.5), 0.7)
    (x0, y0), (x1, y1), wide = limb.at(end - 0.15), limb.at(end + 0.15), float(half[-1]) + 2
    return box(min(x0, x1) - wide, min(y0, y1) - wide, max(x0, x1) + wide, max(y0, y1) + wide)


def bodice(
    canvas: Canvas, look: Look, opening: np.ndarray, row: float, cloth: Fabric, sleeveless: bool
) -> None:
    """Draw the body of a top or dress down to a row. opening: (N, 2), its upper edge from right to left."""
    tip = 13.2 if sleeveless else 17.2
    armhole = curve(
        (tip * look.width, shoulder(look, tip)), (12.6 * look.width, 9), (14.8 * look.width, 13), n=5
    )
    if not sleeveless:
        armhole = points((tip * look.width, 3.4), (side(look, 13, 0.6), 13))
    right = points(
        armhole,
        (side(look, WAIST, 0.9), min(WAIST, row)),
        *([(side(look, row, 1.2), row)] if row > 28 else []),
    )
    first, last = opening[0], opening[-1]
    sides = [
        part[part[:, 1] >= edge[1]] if edge[1] > 6 else part
        for part, edge in ((right, first), (mirrored(right), last))
    ]
    canvas.fill(points(sides[0], sides[1], opening[::-1]), cloth)
    edge = mix(cloth.base, (0, 0, 0), 0.45)
    canvas.line(sides[0], edge, EDGE), canvas.line(sides[1], edge, EDGE)
    canvas.tint(points(right[-3:], (right[-1, 0] * 0.72, right[-1, 1]), (right[-3, 0] * 0.76, 14)), 111)
    for s in (1, -1):
        canvas.crease(curve((s * 13, 12), (s * 10, 17), (s * 6, 18), n=5), 110, 0.8)
        canvas.crease(points((s * 10.5, 27), (s * 7, 23)), 112, 0.8)


def trim_colour(cloth: Fabric, trim: Colour) -> Colour:
    """Return the trim, or a lighter tone of the cloth if the trim is too much like the cloth."""
    return (
        trim
        if sum(abs(a - b) for a, b in zip(trim, cloth.base)) > 120
        else mix(cloth.base, (255, 255, 255), 0.6)
    )
