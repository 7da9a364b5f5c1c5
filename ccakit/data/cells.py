"""What the cells of a table say: gaps and values, and values that look like a gap or like each other.

A gap is an empty cell, or a word that stands for one, in exact case. Words are compared in Unicode's form
NFC, so that "ü" is one letter, whether it was written as one sign or as two. Nothing else is made alike:
"Blau" and "blau" stay two values, and a line says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ccakit.data.text import count

# pandas' words for a gap (pandas.read_csv, na_values), without "None", which is a value in many tables
GAPS = ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A")
GAPS += ("NA", "NULL", "NaN", "n/a", "nan", "null")
DOUBTFUL = ("none", "-", "--", "–", "—", "?", "unknown", "undefined", "missing", "nil", "NaT", "n.a.", ".")
DOUBTFUL += ("#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")  # Excel's errors
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}([,'’][0-9]{3})+(\.[0-9]+)?")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?")
SHOWN = 5  # groups of values that are alike, in a line


def words_of(cell: Any, several: str | None) -> list[str]:
    """List the words in a cell, of which some may stand for a gap; one without a visible sign has none.

    >>> words_of(" red | blue|", "|"), words_of("a | b", None), words_of(None, None), words_of(3.0, None)
    (['red', 'blue'], ['a | b'], [], ['3'])
    """
    if cell is None or cell != cell:  # None, or not a number
        return []
    if isinstance(cell, (list, tuple)):
        return [word for each in cell for word in words_of(each, None)]
    text = str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
    text = unicodedata.normalize("NFC", text)
    cells = text.split(several) if several else [text]
    return [each.strip() for each in cells if visible(each)]


def visible(text: str) -> str:
    """Leave out what nobody sees: spaces, and signs without width.

    >>> visible(" a\\u200b b\\u3000"), visible("\\ufeff")
    ('ab', '')
    """
    return "".join(sign for sign in text if not sign.isspace() and unicodedata.category(sign) != "Cf")


def reduced(value: str) -> str | Decimal:
    """Reduce a value to what is left when case, space, width and number format do not count.

    >>> reduced("Light Blue") == reduced("lightblue"), reduced("1") == reduced("01,0")
    (True, True)
    >>> reduced("1,000") == reduced("1000.0") == reduced("1'000"), reduced("−1") == reduced("-1")
    (True, True)
    >>> reduced("a") == reduced("b")
    False
    """
    text = visible(unicodedata.normalize("NFKC", value).casefold()).replace("−", "-")
    number = re.sub("[,'’]", "" if THOUSANDS.fullmatch(text) else ".", text)
    return Decimal(number) if NUMBER.fullmatch(number) else text


def gap_note(attribute: str, gaps: Mapping[str, int]) -> str:
    """Say how many cells were taken for gaps, and by which words; "" is an empty cell.

    >>> gap_note("heel", {"NA": 1, "": 3})
    "heel: 4 cells taken for gaps: 3 empty, 1 'NA' (--gaps names the words)"
    """
    words = [f"{n} {repr(word) if word else 'empty'}" for word, n in sorted(gaps.items())]
    cells = count(sum(gaps.values()), "cell")
    return f"{attribute}: {cells} taken for gaps: {', '.join(words)} (--gaps names the words)"


def doubtful_notes(attribute: str, images: Mapping[str, int]) -> list[str]:
    """Warn of values, {value: its images}, that may stand for a gap, or that differ hardly at all."""
    suspects = {reduced(word) for word in (*GAPS, *DOUBTFUL)}
    alike = defaultdict(list)
    for value, n in images.items():
        alike[reduced(value)].append(f"{value!r} ({count(n, 'image')})")
    listed = [each for key, values in alike.items() if key in suspects for each in values]
    notes = []
    if listed:
        notes.append(
            f"{attribute}: {', '.join(listed)} kept as values: if they are gaps, name them in --gaps"
        )
    groups = [" and ".join(values) for values in alike.values() if len(values) > 1]
    if groups:
        more = f"; and {len(groups) - SHOWN} more such" if len(groups) > SHOWN else ""
        problem = "differ only in case, space or number format: if they are one value, write it in one way"
        notes.append(f"{attribute}: {'; '.join(groups[:SHOWN])}{more} {problem}")
    return notes
