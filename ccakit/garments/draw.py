"""Draw from a seed the picture of a dressed figure, its labels, and the region of each attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from . import body, clothes, covers, necks, scene
from .camera import Framing, make_framing
from .canvas import Canvas
from .dice import Dice, streams
from .fabric import unlike
from .look import Look, any_colour, make_look
from .plan import OFF_SHOULDER, ONE_SHOULDER, SLEEVELESS, STRAPLESS, ZONES, Plan, make_plan
from .values import COAT, COLLAR, LAPEL, NECK, NECKLINE, PANT, SHARES, SKIRT, SLEEVE

STREAMS = 5  # of chance, for the plan, the look, the camera, the scene and the drawing: none disturbs another
LONG = {SKIRT: 4, PANT: 5, COAT: 7}  # what is worn where the frame, or a counter, cuts the end away


@dataclass(frozen=True)
class Garment:
    """A drawn picture and its labels.

    image: (size, size, 3) uint8 RGB. framing: the camera. labels: (8,) int64, -1 if the outfit does not have
    the attribute, or if the picture was not taken for it. regions: boxes (condition, x0, y0, x1, y1),
    fractions of width and height; one or several for a visible attribute, none for one that is Invisible or
    unlabelled.
    """

    image: np.ndarray
    labels: np.ndarray
    regions: tuple[tuple[int, float, float, float, float], ...]
    framing: Framing


@dataclass
class _Drawing:
    """A garment that is being drawn."""

    plan: Plan
    look: Look
    framing: Framing
    canvas: Canvas
    dice: Dice
    worn: dict[int, int]
    regions: list = field(default_factory=list)

    def mark(self, condition: int, corners: np.ndarray) -> None:
        """Keep the region of an attribute that is labelled and visible."""
        if self.plan.sees(condition):
            found = self.framing.box(corners)
            if found:
                self.regions.append((condition, *found))

    def row(self, condition: int, rows: tuple) -> float:
        return clothes.hem_row(self.dice, rows[self.worn[condition]])


def draw_garment(seed: int, size: int = 128) -> Garment:
    """Draw the garment of a seed. The same seed at another size gives the same picture, finer or coarser."""
    dice = streams(STREAMS, 0, seed)
    return _draw(make_plan(dice[0]), dice, size)


def draw_value(condition: int, label: int, seed: int, size: int) -> Garment:
    """Draw a garment that shows a value (label 0: that hides it), large in the picture."""
    zone = ZONES[condition]
    framings = {"neck": ("upper", "close"), "sleeve": ("upper",), "hem": ("full", "lower", "legs")}[zone]
    covers = () if label else (zone,)

    def shows(plan: Plan) -> bool:
        return plan.labels[condition] == label and plan.covers == covers and plan.framing in framings

    plan, dice = find_plan(seed, shows)
    return _draw(plan, dice, size)


def draw_labelled(condition: int, seed: int, size: int = 128) -> Garment:
    """Draw a garment that is labelled for this attribute; its values have the shares of FashionAI."""
    plan, dice = find_plan(seed, lambda p: p.labels[condition] >= 0)
    return _draw(plan, dice, size)


def find_plan(seed: int, accept: Callable[[Plan], bool]) -> tuple[Plan, list[Dice]]:
    """Find the first accepted plan among the endless plans of a seed; return it with its random streams."""
    for attempt in count():
        dice = streams(STREAMS, 1, seed, attempt)
        plan = make_plan(dice[0])
        if accept(plan):
            return plan, dice


def _draw(plan: Plan, streams: list[Dice], size: int) -> Garment:
    _, for_look, for_camera, behind, dice = streams
    look, framing = make_look(for_look), make_framing(for_camera, plan.framing)
    canvas = Canvas(size, framing, look.wall)
    drawing = _Drawing(plan, look, framing, canvas, dice, _worn(dice, plan))
    scene.scenery(canvas, look, behind)
    body.back_hair(canvas, look, dice)
    _dress(drawing)
    _hide(drawing)
    image = canvas.finish(scene.light(behind, size), scene.tones(behind))
    return Garment(image, np.array(plan.labels, np.int64), tuple(drawing.regions), framing)


def _worn(dice: Dice, plan: Plan) -> dict[int, int]:
    """Choose the value to draw of each attribute that the outfit has: its label, or one that fits."""
    worn = {c: plan.labels[c] for c in plan.wears}
    for c in plan.wears:
        roll = dice.pick(range(1, len(SHARES[c])))
        if worn[c] <= 0:
            worn[c] = LONG.get(c, roll if c == SLEEVE else 0)
    if SLEEVE in worn and plan.labels[SLEEVE] < 0 and worn.get(NECKLINE) in (STRAPLESS, OFF_SHOULDER):
        worn[SLEEVE] = SLEEVELESS
    return worn


def _dress(d: _Drawing) -> None:
    """Draw all that is worn, from the inside out."""
    look, worn, coated = d.look, d.worn, COAT in d.worn
    body.legs(d.canvas, look, d.dice)
    body.torso(d.canvas, look)
    tucked = coated or d.dice.chance(0.55)
    if not d.plan.dress and tucked:
        _upper(d, 30)
    _lower(d)
    if d.plan.dress or not tucked:
        _upper(d, WAIST_DRESS if d.plan.dress else d.dice.between(33, 41))
    if coated:
        gap = d.dice.between(3.5, 5.5) if NECK in worn or d.dice.chance(0.4) else 0.0
        corners = clothes.coat(
            d.canvas,
            look,
            d.row(COAT, clothes.COAT_ROWS),
            look.coat,
            gap,
            1.6 + look.ease,
            worn[SLEEVE] == SLEEVELESS,
        )
        d.mark(COAT, corners)
    _arms(d)
    _neck(d, gap if coated else 0.0)
    body.head(d.canvas, look, d.dice)


WAIST_DRESS = 28.0


def _lower(d: _Drawing) -> None:
    """Draw skirt or trousers; under a long coat, a dress that is shorter than the coat."""
    short = d.worn.get(COAT, 1) <= 3
    cloth = d.look.top if d.plan.dress else d.look.lower
    if not short:  # a plain dress, shorter than the coat, so that the open coat shows one
        clothes.skirt(d.canvas, replace(d.look, flare=0.0), d.dice, 50.0, d.look.inner, False)
    if SKIRT in d.worn and short:
        d.mark(
            SKIRT,
            clothes.skirt(
                d.canvas, d.look, d.dice, d.row(SKIRT, clothes.SKIRT_ROWS), cloth, not d.plan.dress
            ),
        )
    if PANT in d.worn and short:
        d.mark(PANT, clothes.trousers(d.canvas, d.look, d.dice, d.row(PANT, clothes.PANT_ROWS), cloth))


def _upper(d: _Drawing, row: float) -> None:
    """Draw the upper body of a dress, a top, or what is under a coat."""
    edge, bare = necks.opening(d.look, d.worn.get(NECKLINE, 0)), d.worn[SLEEVE] == SLEEVELESS
    cloth = d.look.inner if COAT in d.worn else d.look.top
    clothes.bodice(d.canvas, d.look, edge, row, cloth, bare and COAT not in d.worn)
    if d.worn.get(NECK):
        d.mark(NECK, necks.high_neck(d.canvas, d.look, d.dice, d.worn[NECK], cloth, COAT in d.worn))


def _arms(d: _Drawing) -> None:
    look, value, neck = d.look, d.worn[SLEEVE], d.worn.get(NECKLINE)
    cloth = look.coat if COAT in d.worn else look.top
    start = {STRAPLESS: 0.25, OFF_SHOULDER: 0.16}.get(neck, 0.0)
    for limb in look.arms:
        body.arm(d.canvas, look, limb)
        if neck == ONE_SHOULDER and limb.side < 0:
            continue
        corners = clothes.sleeve(
            d.canvas, look, d.dice, limb, value, cloth, look.ease + (0.6 if COAT in d.worn else 0), start
        )
        d.mark(SLEEVE, corners)


def _neck(d: _Drawing, gap: float) -> None:
    look, worn, canvas = d.look, d.worn, d.canvas
    if worn.get(NECKLINE):
        d.mark(NECKLINE, necks.neckline(canvas, look, worn[NECKLINE], look.top, look.trim))
    if worn.get(COLLAR):
        d.mark(COLLAR, necks.collar(canvas, look, d.dice, worn[COLLAR], look.top, look.trim))
    if "neck" in d.plan.covers and d.plan.sees(LAPEL):  # the lapels are seen, the neck under them is not
        necks.scarf(
            canvas, d.dice, unlike(d.dice, (look.coat.base, look.skin), 60, lambda: any_colour(d.dice)), True
        )
    if worn.get(LAPEL):
        d.mark(LAPEL, necks.lapel(canvas, look, d.dice, worn[LAPEL], look.coat, look.trim, gap))


def _hide(d: _Drawing) -> None:
    """Draw something in front of each zone that must be hidden."""
    look, dice = d.look, d.dice
    colour = unlike(dice, (look.top.base, look.skin, look.wall), 55, lambda: any_colour(dice))
    if "sleeve" in d.plan.covers:
        covers.hide_sleeves(d.canvas, look, dice, colour)
    if "neck" in d.plan.covers and not d.plan.sees(LAPEL):
        covers.hide_neck(d.canvas, look, dice, colour)
    if "hem" in d.plan.covers:
        low = d.plan.framing != "lower" or d.plan.sees(
            COAT
        )  # a short coat that is seen ends above what hides
        top = dice.between(65, 69) if low else dice.between(46, 52)
        covers.hide_hem(d.canvas, look, dice, colour, top)
