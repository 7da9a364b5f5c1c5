"""Covers: what stands in front of an attribute that is in the frame and yet Invisible."""

from __future__ import annotations

from .canvas import Canvas, curve, ellipse, points
from .clothes import box
from .dice import Dice
from .fabric import Colour, hsv, mix
from .look import Look
from .necks import scarf

_LEAF = (0.28, 0.33, 0.38)


def hide_neck(canvas: Canvas, look: Look, dice: Dice, colour: Colour) -> None:
    """Cover rows -8 to 20 with a scarf, long hair, flowers or a sign."""
    way = dice.pick(("scarf", "hair", "flowers", "sign"))
    if way == "scarf":
        scarf(canvas, dice, colour, False)
    elif way == "hair":
        low = dice.between(26, 32)
        for s in (1, -1):
            lock = points(
                (0, -28),
                curve((s * 9, -28), (s * 18, -6), (s * 15, low), n=7),
                (s * 8, low + 3),
                (s * -1.5, low - 2),
            )
            canvas.fill(lock, look.hair, 0.6)
            for k in (0.3, 0.55, 0.8):
                canvas.line(
                    curve((s * 9 * k, -12), (s * 18 * k, 4), (s * 14 * k, low - 3), n=6),
                    mix(look.hair, (255, 230, 200), 0.25),
                    0.6,
                )
        canvas.fill(ellipse(0, -21, 6.4, 9.6), look.skin)
    elif way == "flowers":
        canvas.fill(points((-7, 14), (7, 14), (2.6, 36), (-2.6, 36)), mix(colour, (255, 255, 255), 0.6), 0.6)
        for i in range(26):
            x, y = ((i * 7) % 27 - 13) * 1.25 + dice.between(-1, 1), (i % 5) * 6.4 - 8 + dice.between(-1, 1)
            tone = (
                hsv(dice.pick(_LEAF), 0.6, 0.55)
                if i % 3 == 0
                else mix(colour, (255, 255, 255), dice.between(0, 0.5))
            )
            canvas.fill(ellipse(x, y, 4.8, 4.4, 10), tone, 0.5)
        for i in range(9):
            canvas.fill(ellipse((i % 3 - 1) * 8, (i // 3) * 8 - 3, 1.6, 1.6, 8), (250, 220, 90))
    else:
        _sign(canvas, dice, colour)


def _sign(canvas: Canvas, dice: Dice, colour: Colour) -> None:
    """Draw a sign that hangs from the neck."""
    wide, tall, tilt = dice.between(13, 14.5), dice.between(16.5, 18), dice.between(-1.5, 1.5)
    pale, top, low = mix(colour, (255, 255, 255), 0.6), 9.5 - tall, 9.5 + tall
    for s in (1, -1):
        canvas.line(((s * wide * 0.8, top), (s * 5, -14)), mix(colour, (0, 0, 0), 0.5), 0.9)
    sign = points((-wide, top + tilt), (wide, top - tilt), (wide, low - tilt), (-wide, low + tilt))
    canvas.fill(sign, colour, 0.9)
    canvas.line((sign - (0, 9.5)) * (0.86, 0.88) + (0, 9.5), pale, 0.8, True)
    canvas.fill(box(-wide * 0.55, 5, wide * 0.55, 8), pale)
    canvas.fill(box(-wide * 0.35, 12, wide * 0.35, 14), pale)


def hide_sleeves(canvas: Canvas, look: Look, dice: Dice, colour: Colour) -> None:
    """Draw a cape over both arms, open in front."""
    low = dice.between(52, 58)
    half = points(
        (7, -4), (18.5, 1.5), (36, low - 6), curve((36, low - 6), (24, low + 5), (11, low), n=5), (10, 14)
    )
    for s in (1, -1):
        canvas.fill(half * (s, 1), colour, 0.9)
        canvas.line(((s * 16, 6), (s * 22, low)), mix(colour, (0, 0, 0), 0.35), 0.8)
        canvas.line(((s * 19, 6), (s * 29, low - 3)), mix(colour, (0, 0, 0), 0.35), 0.8)


def hide_hem(canvas: Canvas, look: Look, dice: Dice, colour: Colour, top: float) -> None:
    """Draw a counter, a hedge or boxes in front of everything from a row down."""
    way, dark, light = (
        dice.pick(("counter", "hedge", "boxes")),
        mix(colour, (0, 0, 0), 0.3),
        mix(colour, (255, 255, 255), 0.35),
    )
    if way == "hedge":
        green = hsv(dice.pick(_LEAF), dice.between(0.3, 0.6), dice.between(0.3, 0.6))
        canvas.fill(box(-160, top + 5, 160, 260), green)
        for i in range(-12, 13):
            canvas.fill(
                ellipse(i * 9 + dice.between(-2, 2), top + 6, 8, dice.between(5, 7.5), 12),
                mix(green, (255, 255, 255), dice.between(0, 0.18)),
            )
        for _ in range(30):
            canvas.fill(
                ellipse(dice.between(-90, 90), dice.between(top + 12, 110), 3.2, 2.0, 8),
                mix(green, (0, 0, 0), 0.25),
            )
    elif way == "counter":
        canvas.fill(box(-160, top, 160, 260), colour)
        canvas.fill(box(-160, top, 160, top + 4), light, 0.5)
        for x in range(-96, 97, 24):
            canvas.line(box(x + 3, top + 10, x + 21, 98), dark, 0.9, True)
    else:
        for i, x in enumerate(range(-154, 154, 28)):
            tone = (colour, light, dark)[i % 3]
            canvas.fill(box(x, top + (i % 2) * 2, x + 28, 130), tone, 0.8)
            canvas.fill(box(x + 11, top + (i % 2) * 2, x + 17, 130), mix(tone, (255, 255, 255), 0.3))
        canvas.fill(box(-160, 101, 160, 260), look.floor)
