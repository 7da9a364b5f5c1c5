"""Text in figures is drawn as it is written: a "$" in a name begins no formula, and letters have fonts."""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from functools import cache, lru_cache

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, ScalarFormatter

from ccakit.data.text import CONTROL

log = logging.getLogger("ccakit")
CJK = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"}
REMEDY = (
    "figures: no installed font has %s: boxes are drawn. Install %s, or a font like it (Debian: fonts-noto)"
)


class LetterFigure(Figure):
    """A figure that draws its text letter by letter; with `formulas`, text between "$" as mathematics."""

    def __init__(self, *given, formulas: bool = False, **options) -> None:
        super().__init__(*given, **options)
        self.formulas = formulas

    def draw(self, renderer) -> None:
        """Make all text ready, wherever it came from, and draw the figure."""
        texts = self.findobj(Text)
        powers = {text for axis in self.findobj(Axis) for text in number_texts(axis)}
        for text in texts:
            lines = text.get_text().replace("\r\n", "\n").split("\n")
            text.set_text("\n".join(CONTROL.sub(" ", line) for line in lines))  # not as boxes
            text.set_parse_math(self.formulas or text in powers)
        give_fonts(texts)
        with _quiet_about_fonts():
            super().draw(renderer)


@contextmanager
def _quiet_about_fonts() -> Iterator[None]:
    """Keep back matplotlib's line for each letter and weight: `fonts_with` says in one what is missing."""
    manager = logging.getLogger("matplotlib.font_manager")
    level = manager.level
    manager.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            yield
    finally:
        manager.setLevel(level)


def number_texts(axis: Axis) -> set[Text]:
    """Find the texts of an axis that matplotlib writes itself, as formulas where they are powers of ten."""
    if not isinstance(axis.get_major_formatter(), (LogFormatter, ScalarFormatter)):
        return set()
    return {*axis.findobj(Text)} - {axis.label}


def give_fonts(texts: Iterable[Text]) -> None:
    """Let texts with letters that their font lacks take these from other installed fonts."""
    found = {text: letters for text in texts if (letters := missing_letters(text))}
    if found:
        more = fonts_with(frozenset().union(*found.values()))
        for text in found:
            text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *more])))


def missing_letters(text: Text) -> set[str]:
    """Find the letters of a text that its own font lacks; spaces and signs of control are no letters."""
    signs = {sign for sign in text.get_text() if unicodedata.category(sign)[0] not in "ZC"}
    if not signs or max(signs) < "\x7f":
        return set()
    font = get_font(findfont(text.get_fontproperties()))
    return lacking(signs, font)


def lacking(letters: Set[str], font: FT2Font) -> set[str]:
    """Find the letters that a font lacks."""
    return {letter for letter in letters if not font.get_char_index(ord(letter))}


@lru_cache(maxsize=256)
def fonts_with(letters: frozenset[str]) -> tuple[str, ...]:
    """Choose the fewest installed fonts that have these letters; warn, once, of letters that none has."""
    has = {name: letters - lacking(letters, font) for name, font in installed_fonts().items()}
    chosen, missing = [], set(letters)
    while missing:
        best = max(has, key=lambda name: (len(has[name] & missing), "Sans" in name, -len(name), name))
        if not has[best] & missing:
            log.warning(REMEDY, " ".join(sorted(missing)[:20]), " and ".join(fonts_for(missing)))
            break
        chosen.append(best)
        missing -= has[best]
    return tuple(chosen)


@cache
def installed_fonts() -> dict[str, FT2Font]:
    """Open the installed fonts, by name; those, too, that were installed since matplotlib made its list.

    Left out are matplotlib's own, which has a box for every letter, and fonts of bitmaps.
    """
    listed = {entry.fname for entry in fontManager.ttflist}
    for path in set(findSystemFonts()) - listed:
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):
            log.debug("the font %s cannot be read", path)
    names = {}  # the first of each file: more faces of it have the same letters
    for entry in fontManager.ttflist:
        names.setdefault(entry.fname, entry.name)
    fonts = {}
    for file, name in names.items():
        try:
            font = get_font(file)
        except (OSError, RuntimeError):  # it was removed since
            continue
        if not font.num_fixed_sizes and not name.startswith("Last Resort"):
            fonts[name] = font
    return fonts


def fonts_for(letters: Iterable[str]) -> list[str]:
    """Name fonts to install, by the first words of the letters' names in Unicode, which are their scripts."""
    words = {unicodedata.name(each, "?").split()[0].split("-")[0] for each in letters if each.isalpha()}
    names = {"Noto Sans CJK" if word in CJK else f"Noto Sans {word.title()}" for word in words}
    return sorted(names) or ["a font that has them"]
