"""Figure 2: where CSN, ASEN, CAMNet and CCA let the condition in.

Block diagrams of our own: blue boxes are computed once an image, orange boxes again for each condition. Below
each are the parameters of our implementation on the paper's trunk, for FashionAI's eight attributes.
"""

from __future__ import annotations

import shared
from matplotlib.figure import Figure

from ccakit.models.registry import model_info

# title, what differs, and from the image up: (box, whether it is computed again for each condition)
SYSTEMS = {
    "csn": (
        "CSN",
        "a mask of D channels\na condition",
        [("CNN", 0), ("average pool, FC", 0), ("⊙ mask", 1), ("ℓ2", 1)],
    ),
    "asen": (
        "ASEN",
        "two attentions on the\nmap, both conditioned",
        [("CNN", 0), ("spatial attention", 1), ("channel attention", 1), ("FC, ℓ2", 1)],
    ),
    "camnet": (
        "CAMNet",
        "a mask of the whole\nmap a condition",
        [("CNN", 0), ("⊙ mask on the map", 1), ("spatial attention", 1), ("pool, FC, ℓ2", 1)],
    ),
    "cca-type2": (
        "CCA",
        "the attention's query\nis the condition",
        [("ViT blocks 1 … L−1", 0), ("keys, values", 0), ("cross attention", 1), ("FFN, [CLS], FC, ℓ2", 1)],
    ),
}
# the boxes into which the condition goes
ENTERS = {"csn": [2], "asen": [1, 2], "camnet": [1], "cca-type2": [2]}
CIRCLES = {"csn": "$M_{c}$", "asen": "one-\nhot $c$", "camnet": "$M_{c}$", "cca-type2": "$q_c$"}


def draw() -> Figure:
    """Draw four panels, from the image at the bottom to the embedding at the top; at the text's width."""
    canvas, width = shared.Canvas(shared.TEXT, 3.95, formulas=True), shared.TEXT / len(SYSTEMS)
    for index, name in enumerate(SYSTEMS):
        _panel(canvas, (index + 0.5) * width, name)
        if index:
            canvas.arrow((index * width, 0.5), (index * width, 3.85), color="0.85", head=False)
    for x, color, text in (
        (2.2, shared.SHARED, "once an image"),
        (3.4, shared.SWITCHED, "again for each condition c"),
    ):
        canvas.box(x, 0.12, 0.2, 0.12, "", color)
        canvas.text(x + 0.16, 0.12, text, ha="left")
    return canvas.figure


def _panel(canvas, x: float, name: str) -> None:
    """Draw one system: a chain of boxes, and the condition's circle with an arrow to each box it enters."""
    title, about, steps = SYSTEMS[name]
    canvas.text(x, 3.82, title, fontweight="bold", fontsize=9)
    canvas.text(x, 3.54, about, fontsize=6.5)
    left, y, step = x - 0.2, 0.86, 0.48
    canvas.person(left, y, 0.38)
    heights = [y + 0.55 + step * i for i in range(len(steps))]
    for height, (text, conditional) in zip(heights, steps):
        canvas.arrow((left, height - step + (0.19 if height == heights[0] else 0.13)), (left, height - 0.13))
        canvas.box(
            left, height, 1.1, 0.26, text, shared.SWITCHED if conditional else shared.SHARED, fontsize=6.5
        )
    canvas.arrow((left, heights[-1] + 0.13), (left, heights[-1] + 0.31))
    canvas.text(left, heights[-1] + 0.37, "embedding given c", fontsize=6.5)
    enters = [heights[i] for i in ENTERS[name]]
    middle = sum(enters) / len(enters)
    canvas.circle(x + 0.69, middle, 0.15, CIRCLES[name], fontsize=5.8)
    for height in enters:
        if height == middle:
            canvas.arrow((x + 0.54, height), (left + 0.55, height))
        else:
            canvas.arrow(
                (x + 0.69, middle + (0.15 if height > middle else -0.15)),
                (x + 0.69, height),
                (left + 0.55, height),
            )
    info = model_info(name)
    trunk = "R50+ViT-B/16" if info.system.reads == "tokens" else "R50 to stage 3"
    canvas.text(x, 0.42, f"{trunk}: {info.parameters() / 1e6:.1f}M parameters", fontsize=6.2)


def main(argv=None):
    given = shared.arguments(__doc__, argv)
    return shared.write(draw(), "figure2", given.out)


if __name__ == "__main__":
    main()
