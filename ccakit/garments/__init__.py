"""The drawn default data: garments under FashionAI's eight attributes and 54 values. See `draw_garment`."""

from .draw import Garment, draw_garment, draw_value
from .sheet import contact_sheet
from .values import COUNTS, GARMENTS, SHARES, VERSION

__all__ = [
    "COUNTS",
    "GARMENTS",
    "SHARES",
    "VERSION",
    "Garment",
    "contact_sheet",
    "draw_garment",
    "draw_value",
]
