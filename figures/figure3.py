"""Figure 3: the model, with the place of each equation of sections 3.1 and 3.2.

Our own drawing of what ccakit computes: the FC of the condition token replaces the last block's W_q, [CLS]
keeps its residual, and only the [CLS] row is computed; docs/deviations.md says why. Both condition tokens are
shown; a model has one.
"""

from __future__ import annotations

import shared
from matplotlib.figure import Figure

from ccakit.show import style


def draw() -> Figure:
    """Draw the model at the text's width; blue is computed once an image, orange again for each condition."""
    canvas = shared.Canvas(shared.TEXT, 3.42, 6.5, formulas=True)
    _embedding(canvas)
    _blocks(canvas)
    _token(canvas)
    _last(canvas)
    for x, color, text in (
        (0.2, shared.SHARED, "once an image"),
        (1.3, shared.SWITCHED, "again for each condition"),
    ):
        canvas.box(x, 0.12, 0.2, 0.12, "", color)
        canvas.text(x + 0.16, 0.12, text, ha="left")
    canvas.text(
        6.92,
        0.12,
        "all rows of $Q_c$ are equal, [CLS] alone is read: one row a condition is computed",
        ha="right",
    )
    return canvas.figure


def _equation(canvas, x: float, y: float, number: str, **options) -> None:
    canvas.text(x, y, f"Eq. {number}", color=style.PALETTE[4], fontweight="bold", **options)


def _stack(
    canvas, x: float, y: float, names, width: float = 0.72, gap: float = 0.3, color=shared.SHARED
) -> list:
    """Draw boxes above each other with arrows between; return their heights."""
    heights = [y + gap * i for i in range(len(names))]
    for height, name in zip(heights, names):
        if name == "+":
            canvas.circle(x, height, 0.07, "+", "white")
        else:
            canvas.box(x, height, width, 0.2, name, color)
    edge = {True: 0.07, False: 0.1}
    for i, (low, high) in enumerate(zip(heights, heights[1:])):
        canvas.arrow((x, low + edge[names[i] == "+"]), (x, high - edge[names[i + 1] == "+"]))
    return heights


def _skip(canvas, x: float, low: float, high: float, aside: float) -> None:
    """Draw a residual path around boxes, into the circle at `high`."""
    side = -0.07 if aside < 0 else 0.07
    canvas.arrow((x, low), (x + aside, low), (x + aside, high), (x + side, high))


def _embedding(canvas) -> None:
    canvas.person(0.62, 0.93, 0.5)
    steps = ["patch embedding", r"prepend $x_\mathrm{[CLS]}$", r"+ $x_\mathrm{[POS]}$"]
    heights = _stack(canvas, 0.62, 1.5, steps, 0.96)
    canvas.arrow((0.62, 1.18), (0.62, 1.4))
    for i in range(5):
        canvas.box(0.3 + 0.16 * i, 2.5, 0.13, 0.13, "", style.PALETTE[4] if i == 0 else style.PALETTE[5])
    canvas.arrow((0.62, heights[-1] + 0.1), (0.62, 2.42))
    canvas.text(0.62, 2.68, "$x_0$: [CLS], N patches")
    _equation(canvas, 0.62, 2.85, "1")
    canvas.arrow((1.01, 2.5), (1.22, 2.5), (1.22, 0.5), (1.87, 0.5), (1.87, 0.86))


def _blocks(canvas) -> None:
    """Draw the transformer blocks before the last."""
    canvas.area(1.9, 1.86, 1.12, 2.4, "blocks 1 … L−1")
    heights = _stack(canvas, 1.87, 0.96, ["LN", "MSA", "+", "LN", "FFN", "+"], 0.5, 0.35)
    _skip(canvas, 1.87, 0.76, heights[2], -0.4)
    _skip(canvas, 1.87, heights[2] + 0.14, heights[5], -0.4)
    _equation(canvas, 2.14, heights[1], "5", ha="left", fontsize=6)
    _equation(canvas, 1.87, 3.31, "1")
    canvas.arrow(
        (1.87, heights[5] + 0.07), (1.87, 2.94), (2.56, 2.94), (2.56, 0.5), (3.28, 0.5), (3.28, 0.86)
    )
    canvas.text(2.92, 0.41, "$x_{L-1}$")


def _last(canvas) -> None:
    """Draw block L: keys and values of the image, query of the condition, the [CLS] row, and Eq. 7."""
    x, switched = 3.72, shared.SWITCHED
    canvas.area(3.78, 1.86, 2.0, 2.4, "block L: conditional cross attention")
    canvas.box(3.28, 0.96, 0.5, 0.2, "LN")
    canvas.box(3.28, 1.36, 0.5, 0.2, "$W_k$")
    canvas.box(4.16, 1.36, 0.5, 0.2, "$W_v$")
    canvas.arrow((3.28, 1.06), (3.28, 1.26))
    canvas.arrow((3.28, 1.15), (4.16, 1.15), (4.16, 1.26))
    canvas.box(x, 1.86, 1.42, 0.32, r"softmax$(Q_c K_i^\top / \sqrt{d}\,)\;V_i$", switched)
    for at, name in ((3.28, "$K_i$"), (4.16, "$V_i$")):
        canvas.arrow((at, 1.46), (at, 1.7))
        canvas.text(at + 0.05, 1.57, name, ha="left")
    _equation(canvas, x + 0.12, 2.13, "6", ha="left")
    for y, low in ((2.23, 2.02), (2.81, 2.66)):
        canvas.arrow((x, low), (x, y - 0.07))
        canvas.circle(x, y, 0.07, "+", "white")
    canvas.box(x, 2.55, 0.72, 0.2, "LN, FFN", switched)
    canvas.arrow((x, 2.3), (x, 2.45))
    _skip(canvas, x, 2.37, 2.81, -0.5)
    canvas.arrow((3.28, 0.76), (2.9, 0.76), (2.9, 2.23), (x - 0.07, 2.23))
    canvas.text(2.94, 2.3, r"$x_\mathrm{[CLS]}$", ha="left")
    canvas.arrow((x + 0.07, 2.81), (4.98, 2.81))
    for at, name in ((5.16, "LN"), (5.66, "FC"), (6.16, "ℓ2")):
        canvas.box(at, 2.81, 0.36, 0.22, name, switched)
        canvas.arrow((at + 0.18, 2.81), (at + 0.32, 2.81))
    canvas.text(6.53, 2.815, "$f^\\mathrm{final}$", ha="left", fontsize=8)
    _equation(canvas, 5.66, 3.03, "7")


def _token(canvas) -> None:
    """Draw both kinds of condition token, from the condition at the bottom to Q_c."""
    switched = shared.SWITCHED
    canvas.area(5.92, 1.36, 1.96, 1.4, "condition token: Type-1 or Type-2")
    canvas.circle(5.92, 0.42, 0.11, "$c$")
    columns = (
        (5.4, [(0.98, "onehot$(c)$"), (1.44, "FC")], "2"),
        (6.44, [(0.92, r"$M_\theta[c, :]$"), (1.18, "ReLU"), (1.44, "FC")], "3"),
    )
    for x, boxes, equation in columns:
        canvas.arrow((5.92 + (0.11 if x > 5.92 else -0.11), 0.42), (x, 0.42), (x, boxes[0][0] - 0.09))
        for (low, _), (high, _) in zip(boxes, boxes[1:]):
            canvas.arrow((x, low + 0.09), (x, high - 0.09))
        for y, name in boxes:
            canvas.box(x, y, 0.62, 0.18, name, switched)
        inward = 0.05 if x < 5.92 else -0.05
        _equation(canvas, x + inward, 1.63, equation, fontsize=6, ha="left" if inward > 0 else "right")
        canvas.text(x + 4 * inward, 0.5, f"Type-{1 if x < 5.92 else 2}", fontsize=6)
    canvas.box(5.4, 1.86, 0.8, 0.22, "$[q_c; q_c; …; q_c]$", switched)
    _equation(canvas, 5.92, 1.95, "4", fontsize=6, ha="left", va="bottom")
    canvas.arrow((5.4, 1.53), (5.4, 1.75))
    canvas.arrow((6.44, 1.53), (6.44, 1.86), (5.8, 1.86))
    canvas.text(6.0, 1.79, "$q_c$", va="top")
    canvas.arrow((5.0, 1.86), (4.43, 1.86))
    canvas.text(4.87, 1.93, "$Q_c$", va="bottom")


def main(argv=None):
    given = shared.arguments(__doc__, argv)
    return shared.write(draw(), "figure3", given.out)


if __name__ == "__main__":
    main()
