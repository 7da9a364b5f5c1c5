"""The plan of a picture, before anything is drawn: outfit, labels, covers, and framing.

The order of the random draws keeps labels independent of nuisances:

1. the outfit's kind and the picture's purpose (full figure, upper half, close-up, lower half), which together
   say which attributes the picture is *asked* about; this does not depend on any value;
2. the labels of the asked attributes, by FashionAI's shares, independently of one another;
3. the framing, from which asked attributes are visible and which are Invisible, never from their values.

So the labels of every attribute have FashionAI's shares, and place and scale say nothing about a visible
value. What the picture is not asked about stays unlabelled (-1), even if it could be called Invisible: if the
sleeves of each close-up were called Invisible, that would be their most frequent value, and in FashionAI it
is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from .dice import Dice
from .values import COAT, COLLAR, LAPEL, NECK, NECKLINE, NECKWEAR, PANT, SHARES, SKIRT, SLEEVE

ZONES = {SKIRT: "hem", COAT: "hem", PANT: "hem", SLEEVE: "sleeve", **dict.fromkeys(NECKWEAR, "neck")}
SHOWN = {  # the zones that a purpose asks about
    "full": ("neck", "sleeve", "hem"),
    "upper": ("neck", "sleeve"),
    "close": ("neck",),
    "lower": ("hem",),
    "legs": ("hem",),
}
STRAPLESS, OFF_SHOULDER, ONE_SHOULDER = 1, 6, 9
SLEEVELESS, CUP, SHORT = 1, 2, 3


@dataclass(frozen=True)
class Plan:
    """What a picture will show.

    wears: the attributes that the outfit has. labels: a value for each attribute, -1 if it is not asked
    about. covers: the zones that something in front covers; any other hidden zone is outside the frame.
    """

    wears: tuple[int, ...]
    labels: tuple[int, ...]
    framing: str
    covers: tuple[str, ...]
    dress: bool

    def sees(self, condition: int) -> bool:
        return self.labels[condition] > 0


def _outfit(dice: Dice) -> tuple[tuple[int, ...], bool]:
    """Choose the attributes that the outfit has, and whether it is a dress."""
    if dice.chance(0.4):
        lower = dice.pick((SKIRT, PANT))
        return (SLEEVE, COAT, LAPEL, lower) + ((NECK,) if dice.chance(0.5) else ()), False
    lower = dice.pick((SKIRT, PANT), (0.58, 0.42))
    neckwear = dice.pick((COLLAR, NECKLINE, NECK), (0.40, 0.43, 0.17))
    return (SLEEVE, lower, neckwear), lower == SKIRT and dice.chance(0.6)


def _labels(dice: Dice, asked: list[int]) -> dict[int, int]:
    """Choose a label for each asked attribute. Lapels and the neck under them are hidden together."""
    labels, hide_neckwear = {}, dice.roll()
    for c in asked:
        hidden = (hide_neckwear if c in NECKWEAR else dice.roll()) < SHARES[c][0]
        value = dice.pick(range(1, len(SHARES[c])), SHARES[c][1:].tolist())
        labels[c] = 0 if hidden else value
    if COAT in labels and labels[COAT] not in (1, 2, 3):  # a longer coat leaves no say on what is under it
        labels.pop(SKIRT, None), labels.pop(PANT, None)
    bare = {STRAPLESS: (CUP, SHORT), OFF_SHOULDER: (SLEEVELESS, CUP)}.get(labels.get(NECKLINE), ())
    if labels.get(SLEEVE) in bare:  # not to be told apart at a bare shoulder
        del labels[SLEEVE]
    return labels


def _frame(dice: Dice, purpose: str, labels: dict[int, int]) -> tuple[str, bool]:
    """Choose the framing, and whether the sleeves lose their label because the neck is cropped away."""
    seen = {ZONES[c] for c, label in labels.items() if label}
    hidden = {ZONES[c] for c, label in labels.items() if not label} - seen
    crop, drop = dice.roll(), dice.roll()
    if purpose == "full" and "hem" in hidden and crop < 0.6:
        purpose = "upper"
    if purpose == "full" and "neck" in hidden and "hem" in seen and crop < 0.35:
        return "lower", True
    if purpose == "upper" and "sleeve" in hidden and "neck" in seen and drop < 0.7:
        return "close", False
    return purpose, False


def make_plan(dice: Dice) -> Plan:
    """Make the plan of a picture; the same dice give the same plan."""
    wears, dress = _outfit(dice)
    purpose = dice.pick(("full", "upper", "close", "lower"), (0.84, 0.08, 0.05, 0.03))
    labels = _labels(dice, [c for c in wears if ZONES[c] in SHOWN[purpose]])
    framing, drop_sleeves = _frame(dice, purpose, labels)
    if drop_sleeves:
        labels.pop(SLEEVE, None)
    if framing == "lower" and not labels.get(COAT) and (labels.get(SKIRT) or labels.get(PANT)):
        framing = "legs"
    hidden = {ZONES[c] for c, label in labels.items() if not label}
    covers = tuple(zone for zone in ("neck", "sleeve", "hem") if zone in hidden and zone in SHOWN[framing])
    return Plan(wears, tuple(labels.get(c, -1) for c in range(len(SHARES))), framing, covers, dress)
