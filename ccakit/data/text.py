"""Plain-text lists: read lines, paths and numbers, with the line of each for messages.

LF and CRLF end a line, and so do several CRs before an LF ("\\r\\r\\n", left by careless conversions). A lone
CR anywhere else ends a line, too, as in Python's text files and in most editors. Spaces and tabs around a
line are padding. Blank lines between numbers are skipped.
"""

from __future__ import annotations

import ntpath
import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ccakit.disk import read_text
from ccakit.errors import DataError

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NOT_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # also halves of surrogate pairs, no part of UTF-8
SUSPECT = re.compile(rf"^$|^[/\\]|[:]|\.\.|{NOT_TEXT.pattern}")  # a quick test: all other paths are fine
NUMBERS = {
    int: (re.compile(r"0*[0-9]{1,18}"), "a whole number, 0 or more"),
    float: (re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"), "a number"),
}


@dataclass(frozen=True)
class Lines:
    """The lines of a file, without their ends, and what was odd about them, in words for people."""

    lines: list[str]
    notes: list[str]


def count(n: int, thing: str, plural: str = "") -> str:
    """Write a number and its noun: 1 line, 2 lines."""
    return f"{n} {thing}" if n == 1 else f"{n} {plural or thing + 's'}"


def read_content(path: Path, remedy: str) -> str:
    """Read a UTF-8 file that must not be empty; DataError with the remedy."""
    text = read_text(path, remedy)
    if not text.strip():
        raise DataError(path, "is empty", remedy)
    return text


def split_lines(text: str) -> list[str]:
    """Split a text into lines, by the rule at the top of this file; a last line without an end counts."""
    text = text.replace("\r\n", "\n")
    return re.split(r"\r*\n|\r", text) if "\r" in text else text.split("\n")


def read_lines(path: Path) -> Lines:
    """Read the lines of a list; a line end at the end of the file does not begin another line."""
    remedy = "Take the file again from where the lists came from, or leave the split out."
    text = read_content(path, remedy)
    lines = split_lines(text)
    lines = lines[:-1] if lines[-1] == "" else lines
    crlf = text.count("\r\n")
    lone, padded = text.count("\r") - crlf, sum(line.endswith("\t") for line in lines)
    odd = {"with CRLF at the end": crlf, "with a lone CR": lone, "padded with tabs": padded}
    notes = [f"{Path(path).name}: {count(n, 'line')} {words}" for words, n in odd.items() if n]
    return Lines(lines, notes)


def read_filenames(path: Path) -> Lines:
    """Read a list of image paths, one a line, relative to its folder; DataError as `check_filenames`."""
    text = read_lines(path)
    names = [line.strip(" \t") for line in text.lines]
    while names and not names[-1]:
        names.pop()
    check_filenames(path, names)
    return Lines(names, text.notes)


def check_filenames(path: Path, names: list[str]) -> None:
    """Raise DataError for a name that is empty, absolute, not printable, or leaves the folder by '..'."""
    for line, name in enumerate(names, 1):
        if not SUSPECT.search(name):
            continue
        if not name:
            remedy = "The number of its line is the number of an image: put the image's path back."
            raise DataError(path, "the line is empty", remedy, line)
        if NOT_TEXT.search(name):
            problem = f"{name[:80]!r} holds a control character, or half a character"
            raise DataError(path, problem, "Write one image path a line, in UTF-8.", line)
        if leaves(name):
            remedy = "Write the path relative to the folder that holds the image, without '..' before it."
            problem = f"{name[:200]!r} is an absolute path, or points outside the folder of the list"
            raise DataError(path, problem, remedy, line)


def check_name(path: Path, name: str, line: int) -> None:
    """Raise DataError with the line of `path` if an image's name is empty, too long, or leaves the folder."""
    if not name:
        raise DataError(path, "the image's path is empty", "Write the path, or take the row out.", line)
    sizes = [len(part.encode("utf-8", "replace")) for part in name.split("/")]
    if sum(sizes) > 1000 or max(sizes) > 255:
        raise DataError(path, f"{name[:80]!r}... is too long for a file's name", "Shorten it.", line)
    try:
        check_filenames(path, [name])
    except DataError as error:
        raise DataError(path, error.problem, error.remedy, line) from None


def leaves(name: str) -> bool:
    """Say whether a path is absolute, or goes above its start by '..', with either kind of slash."""
    drive, rest = ntpath.splitdrive(name)
    return bool(drive) or ntpath.normpath(rest).split("\\")[0] in ("", "..")


def read_numbers(path: Path, kind: type = int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read all numbers of a file: (T,) values, (T,) the line of each, notes; DataError for other text.

    kind: int (whole numbers, 0 or more, as int64) or float (as float64).
    """
    text = read_lines(path)
    plain = "\n".join(text.lines)
    if kind is int and set(plain) <= set("0123456789 \t\n") and max(map(len, plain.split())) <= 18:
        return np.fromstring(plain, np.int64, sep=" "), _lines_of_numbers(plain), text.notes
    rows = [line.split() for line in text.lines]
    lines = np.repeat(np.arange(1, len(rows) + 1), [len(row) for row in rows])
    cells = list(chain.from_iterable(rows))
    form, words = NUMBERS[kind]
    if not all(map(form.fullmatch, cells)):
        bad = next(i for i, cell in enumerate(cells) if not form.fullmatch(cell))
        raise DataError(path, f"{cells[bad][:40]!r} is not {words}", "Write numbers only.", lines[bad])
    values = np.fromiter(map(kind, cells), np.int64 if kind is int else np.float64, len(cells))
    return values, lines, text.notes


def _lines_of_numbers(plain: str) -> np.ndarray:
    """Find the line, from 1, of each number in a text of digits, spaces, tabs and line feeds."""
    letters = np.frombuffer(plain.encode(), np.uint8)
    digits = letters >= ord("0")
    begins = digits & ~np.roll(digits, 1)
    begins[:1] = digits[:1]
    return np.cumsum(letters == ord("\n"))[begins] + 1
