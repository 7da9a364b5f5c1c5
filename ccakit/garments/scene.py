"""Walls, floors, furniture and light: they differ between pictures, and say nothing about a label."""

from __future__ import annotations

import numpy as np

from .canvas import NEUTRAL, Canvas, ellipse
from .dice import Dice
from .fabric import mix
from .look import Look


def rect(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))


def scenery(canvas: Canvas, look: Look, dice: Dice) -> None:
    """Draw wall, floor and furniture behind the figure."""
    wall, near = look.wall, mix(look.wall, look.floor, 0.35)
    way = dice.pick(("plain", "panels", "window", "stripes", "arch", "shelf"), (2, 1, 1, 1, 1, 1))
    if way == "panels":
        wide = dice.between(0.16, 0.34)
        for i in range(8):
            canvas.fill_frame(rect(i * wide + 0.02, 0.06, (i + 1) * wide - 0.02, 0.7), near)
    elif way == "window":
        x, y, w, h = (
            dice.between(0, 0.7),
            dice.between(0.02, 0.2),
            dice.between(0.2, 0.4),
            dice.between(0.3, 0.5),
        )
        canvas.fill_frame(rect(x, y, x + w, y + h), mix(wall, (255, 255, 255), 0.5))
        canvas.fill_frame(rect(x + w * 0.47, y, x + w * 0.53, y + h), near)
        canvas.fill_frame(rect(x, y + h * 0.47, x + w, y + h * 0.53), near)
    elif way == "stripes":
        wide = dice.between(0.05, 0.13)
        for i in range(int(0.5 / wide) + 1):
            canvas.fill_frame(rect(i * 2 * wide, 0, (i * 2 + 1) * wide, 1), mix(wall, near, 0.6))
    elif way == "arch":
        x, r = dice.between(0.1, 0.9), dice.between(0.2, 0.4)
        canvas.fill_frame(ellipse(x, 0.5, r, r), near)
        canvas.fill_frame(rect(x - r, 0.5, x + r, 1), near)
    elif way == "shelf":
        for y in (0.22, 0.46, 0.7):
            canvas.fill_frame(rect(0, y, 1, y + 0.025), near)
            for _ in range(3):
                x, h = dice.roll(), dice.between(0.06, 0.17)
                canvas.fill_frame(
                    rect(x, y - h, x + dice.between(0.03, 0.1), y), mix(near, look.floor, dice.roll())
                )
    floor_row = dice.between(84, 97)
    canvas.fill(((-200, floor_row), (200, floor_row), (200, 300), (-200, 300)), look.floor)
    if dice.chance(0.6):
        canvas.line(((-200, floor_row), (200, floor_row)), mix(look.floor, (0, 0, 0), 0.3), 1.2)
    _things(canvas, look, dice)
    canvas.tint(ellipse(0, 101, dice.between(18, 26), 3.2), 96)


def _things(canvas: Canvas, look: Look, dice: Dice) -> None:
    """Draw furniture, plants and hanging cloth, in colours like those of the clothes."""
    for _ in range(dice.whole(0, 3)):
        colour = mix(
            dice.pick((look.top.base, look.lower.base, look.skin, look.trim)),
            look.wall,
            dice.between(0.25, 0.75),
        )
        s, x, low = dice.sign(), dice.between(26, 58), dice.between(92, 103)
        w, h = dice.between(4, 13), dice.between(14, 64)
        way = dice.pick(("box", "plant", "lamp", "cloth"))
        if way == "box":
            canvas.fill(rect(s * x - w, low - h, s * x + w, low), colour, 0.5)
        elif way == "plant":
            canvas.fill(rect(s * x - 4, low - 12, s * x + 4, low), mix(colour, (90, 50, 30), 0.4), 0.5)
            for k in (-1, 0, 1):
                canvas.fill(
                    ellipse(s * x + k * 5, low - 22 - h * 0.3 + abs(k) * 5, 4, 13, 12),
                    mix(colour, (60, 120, 60), 0.6),
                )
        elif way == "lamp":
            canvas.line(((s * x, low), (s * x, low - h - 30)), mix(colour, (0, 0, 0), 0.4), 1.2)
            canvas.fill(
                (
                    (s * x - 8, low - h - 26),
                    (s * x + 8, low - h - 26),
                    (s * x + 4, low - h - 40),
                    (s * x - 4, low - h - 40),
                ),
                colour,
            )
        else:
            y = dice.between(-20, 50)
            canvas.fill(
                ((s * x - w, y), (s * x + w, y), (s * x + w * 1.2, y + h), (s * x - w * 1.2, y + h)),
                colour,
                0.5,
            )


def light(dice: Dice, size: int) -> np.ndarray:
    """Make the light, (size, size) uint8: a slope in any direction, up to a third; 128 changes nothing."""
    across, down, level = dice.between(-38, 38), dice.between(-30, 30), NEUTRAL + dice.between(-16, 14)
    steps = (np.arange(size) * 2 + 1) * (1 << 15) // size  # (size,) 0..65535, the same slope at any size
    xs = steps * int(across * 16) - (int(across * 16) << 15)
    ys = steps * int(down * 16) - (int(down * 16) << 15) + (int(level * 16) << 16)
    return (np.add.outer(ys, xs) >> 20).astype(np.uint8)


def tones(dice: Dice) -> np.ndarray:
    """Make a lookup table, (256,) uint8, of the contrast and brightness of the photograph."""
    contrast, lift = dice.between(0.86, 1.06), dice.between(-10, 10)
    return np.clip(np.rint((np.arange(256) - 128) * contrast + 128 + lift), 0, 255).astype(np.uint8)
