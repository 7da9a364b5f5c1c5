"""Plain-text lists: lines and numbers read with their line numbers, and files written whole or not at all.

Line ends: LF and CRLF, and CRs doubled before an LF ("\\r\\r\\n", left by careless conversions), are one end.
A lone CR anywhere else is an end of its own, as it is to Python's text files and to most editors.
Spaces and tabs around a line are padding. Blank lines are skipped among numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from ccakit.errors import DataError

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
KINDS: dict[type, tuple[str, str]] = {
    int: ("[^0-9]", "a whole number, 0 or more"),
    float: ("[^0-9eE.+-]", "a number"),
}


@dataclass(frozen=True)
class Text:
    """A file's lines, without their ends, and what was odd about them (for people)."""

    path: Path
    lines: list[str]
    notes: list[str]


def count(n: int, thing: str, plural: str = "") -> str:
    """A number and its noun: 1 line, 2 lines."""
    return f"{n} {thing}" if n == 1 else f"{n} {plural or thing + 's'}"


def read_utf8(path: Path, remedy: str) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark; DataError if there is none."""
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise DataError(path, reason, remedy) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(split_lines(data[: error.start].decode("utf-8", "replace")))
        raise DataError(path, f"is not UTF-8 ({error.reason})", "Save the file as UTF-8.", line) from None
    if not text.strip():
        raise DataError(path, "is empty", remedy)
    return text


def split_lines(text: str) -> list[str]:
    """The lines of a text, by the rule at the top of this file; a last line without an end counts."""
    text = text.replace("\r\n", "\n")
    return re.split(r"\r*\n|\r", text) if "\r" in text else text.split("\n")


def read_text(path: Path) -> Text:
    """The lines of a list; an end at the end of the file does not begin another line."""
    text = read_utf8(path, "Take the file again from where the lists came from, or leave the split out.")
    lines = split_lines(text)
    lines = lines[:-1] if lines[-1] == "" else lines
    crlf = text.count("\r\n")
    lone, padded = text.count("\r") - crlf, sum(line.endswith("\t") for line in lines)
    odd = {"with CRLF at the end": crlf, "with a lone CR": lone, "padded with tabs": padded}
    notes = [f"{Path(path).name}: {count(n, 'line')} {what}" for what, n in odd.items() if n]
    return Text(Path(path), lines, notes)


def read_filenames(path: Path) -> Text:
    """A list of image paths, one a line, relative to the list's folder. DataError: see `check_filenames`."""
    text = read_text(path)
    names = [line.strip(" \t") for line in text.lines]
    while names and not names[-1]:
        names.pop()
    check_filenames(path, names)
    return Text(text.path, names, text.notes)


def check_filenames(path: Path, names: list[str]) -> None:
    """DataError for a name that is empty, absolute, has a control character, or leaves the folder by '..'."""
    if not all(names):
        remedy = "An image's number is its line's: put the image's path back."
        raise DataError(path, "the line is empty", remedy, names.index("") + 1)
    everything = "".join(f"\n{name}" for name in names)
    suspect = any(sign in everything for sign in ("..", "\n/", "\n\\", ":"))  # a quick look at all of them
    if not suspect and not CONTROL.search("".join(names)):
        return
    for line, name in enumerate(names, 1):
        if CONTROL.search(name):
            remedy = "Write one image path a line."
            raise DataError(path, f"{name[:80]!r} holds a control character", remedy, line)
        if leaves(name):
            remedy = "Put the image inside the folder and write its path relative to it."
            raise DataError(path, f"{name[:200]!r} points outside the folder of the list", remedy, line)


def leaves(name: str) -> bool:
    """Whether a path is absolute, or goes above its start by '..' (either kind of slash)."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or re.match(r"[A-Za-z]:$", parts[0]):
        return True
    return min(accumulate({"..": -1, ".": 0, "": 0}.get(part, 1) for part in parts)) < 0


def read_numbers(path: Path, kind: type = int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """All numbers of a file: (T,) values, (T,) the line of each, notes. DataError for a cell that is none."""
    text = read_text(path)
    rows = [line.split() for line in text.lines]
    cells = list(chain.from_iterable(rows))
    lines = np.repeat(np.arange(1, len(rows) + 1), [len(row) for row in rows])
    illegal, what = re.compile(KINDS[kind][0]), KINDS[kind][1]
    dtype = np.int64 if kind is int else np.float64
    try:
        joined = "".join(cells)
        if illegal.search(joined) if kind is float else not (joined.isascii() and joined.isdigit()):
            raise ValueError
        return np.fromiter(map(kind, cells), dtype, len(cells)), lines, text.notes
    except (ValueError, OverflowError):
        bad = next(i for i, cell in enumerate(cells) if illegal.search(cell) or not _fits(cell, kind))
        problem = f"{cells[bad][:40]!r} is not {what}"
        raise DataError(path, problem, "Write numbers only.", lines[bad]) from None


def _fits(cell: str, kind: Callable[[str], float]) -> bool:
    try:
        return abs(kind(cell)) < 2**63 if kind is int else kind(cell) is not None
    except ValueError:
        return False
