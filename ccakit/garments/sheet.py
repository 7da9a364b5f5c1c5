"""A sheet with an example of every value."""

from __future__ import annotations

import cv2
import numpy as np

from .draw import draw_value
from .values import GARMENTS


def contact_sheet(size: int = 128, seed: int = 0) -> np.ndarray:
    """Draw all values on one picture, (height, width, 3) uint8: a row for each attribute, with titles."""
    gap, head = max(size // 16, 4), max(size // 5, 16)
    columns = max(GARMENTS.sizes)
    row = size + 2 * head + 2 * gap
    sheet = np.full((len(GARMENTS) * row, columns * (size + gap) + gap, 3), 255, np.uint8)
    for condition, values in enumerate(GARMENTS.values):
        top = condition * row + gap
        _write(sheet, GARMENTS.title(condition), gap, top + int(head * 0.85), head * 0.03)
        for label, value in enumerate(values):
            x, y = gap + label * (size + gap), top + 2 * head
            _write(sheet, value, x, y - head // 4, head * 0.016)
            sheet[y : y + size, x : x + size] = draw_value(condition, label, seed + label, size).image
    return sheet


def _write(sheet: np.ndarray, text: str, x: int, y: int, scale: float) -> None:
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1, cv2.LINE_AA)
