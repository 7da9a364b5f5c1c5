"""The values of drawn garments: FashionAI's eight attributes, their 54 values, and how often each occurs."""

from __future__ import annotations

import numpy as np

from ccakit.attributes import Attributes

VERSION = 1  # raise it with every change that moves a pixel or a label

_HIDDEN = "Invisible"
GARMENTS = Attributes(
    (
        "skirt_length",
        "sleeve_length",
        "coat_length",
        "pant_length",
        "collar_design",
        "lapel_design",
        "neckline_design",
        "neck_design",
    ),
    (
        (_HIDDEN, "Short", "Knee", "Midi", "Ankle", "Floor Length"),
        (
            _HIDDEN,
            "Sleeveless",
            "Cup Sleeves",
            "Short",
            "Elbow",
            "3/4",
            "Wrist Length",
            "Long",
            "Extra Long Sleeves",
        ),
        (_HIDDEN, "High Waist", "Regular", "Long", "Micro", "Knee", "Midi", "Ankle&Floor Length"),
        (_HIDDEN, "Short Pant", "Mid", "3/4 Length", "Cropped Pant", "Full Length"),
        (_HIDDEN, "Shirt Collar", "Peter Pan", "Puritan Collar", "Rib Collar"),
        (_HIDDEN, "Notched", "Collarless", "Shawl Collar", "Plus Size Shawl"),
        (
            _HIDDEN,
            "Strapless",
            "Deep V",
            "Straight",
            "V",
            "Square",
            "Off Shoulder",
            "Round",
            "Sweetheart",
            "One Shoulder",
        ),
        (_HIDDEN, "Turtle Neck", "Ruffle Semi-High Collar", "Low Turtle Neck", "Draped Collar"),
    ),
)

SKIRT, SLEEVE, COAT, PANT, COLLAR, LAPEL, NECKLINE, NECK = range(8)
NECKWEAR = (COLLAR, LAPEL, NECKLINE, NECK)

COUNTS = (  # labels in FashionAI's training split (ASEN's label_train.txt), Invisible first
    (2469, 3566, 2742, 3010, 2629, 3012),
    (359, 2705, 3079, 3437, 2952, 3215, 2717, 3296, 2786),
    (1467, 2420, 2760, 2499, 2660, 3455, 2378, 2924),
    (2981, 3648, 2747, 3085, 2288, 2450),
    (4464, 3094, 2151, 1582, 2670),
    (2397, 3183, 3112, 1425, 2665),
    (4560, 2399, 2369, 1538, 3229, 2299, 3024, 3070, 2415, 1867),
    (2448, 2021, 2102, 2746, 1769),
)

SHARES = tuple(np.array(counts) / sum(counts) for counts in COUNTS)  # per condition, sums to 1
