"""The columns of a catalogue that its user gives: names, types, and how a new table fits an old one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from ccakit.catalogue.store import OWN, OWN_PREFIXES, change
from ccakit.data.cells import GAPS, words_of
from ccakit.data.text import CONTROL, NUMBERS
from ccakit.errors import DataError

CODE = re.compile(r"0\w|.{16}")  # what digits of a code or article look like: 007, or very many
LIKE_NUMBER = re.compile(r"[^\w\s]? ?[+-]?\d[\d.,' ]* ?[^\w\s]?")  # 12,5  $5  1,200.00  20 %


def check_column_names(path: Path, names: list[str]) -> None:
    """Raise DataError for a column's name that is reserved, or that the engine does not take."""
    for name in names:
        if name.casefold() in OWN or name.casefold().startswith(OWN_PREFIXES):
            reserved = f"{', '.join(OWN)}, and what begins with {', '.join(OWN_PREFIXES)}"
            remedy = f"Rename the column, or give it as --id or --image. Reserved are: {reserved}."
            raise DataError(path, f"the column {name!r} has a reserved name", remedy, 1)
        if "." in name or "`" in name or CONTROL.search(name):
            problem = f"the column {name!r} has a dot, a backtick or a control character in its name"
            raise DataError(path, problem, "Rename the column.", 1)


def make_columns(path: Path, cells: dict[str, list[Any]], lines: list[int]) -> pa.Table:
    """Make columns of cells: of text, numbers where each cell is one or a gap; others as Parquet has them."""
    made = {}
    for name, column in cells.items():
        try:
            made[name] = pa.array(_typed(column))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            problem = f"the column {name!r} holds cells of several kinds ({str(error).splitlines()[0]})"
            remedy = "Give all its cells one kind, numbers or text."
            raise DataError(path, problem, remedy, lines[0]) from None
        if pa.types.is_null(made[name].type):
            made[name] = made[name].cast(pa.string())
    return pa.table(made)


def _typed(cells: list[Any]) -> list[Any]:
    """Turn the text of a column into numbers where that loses nothing: "007" stays text, as do long numbers.

    >>> _typed(["1", "", "2.50"]), _typed(["007", "8"]), _typed([" red ", "NA"])
    ([1.0, None, 2.5], ['007', '8'], ['red', None])
    """
    if not all(cell is None or isinstance(cell, str) for cell in cells):
        return cells
    words = [" ".join(words_of(cell, None)) for cell in cells]
    words = [None if not word or word in GAPS else word for word in words]
    given = [word for word in words if word is not None]
    return [word and float(word) for word in words] if given and all(map(_is_number, given)) else words


def find_text_like_numbers(name: str, cells: list[Any], lines: list[int]) -> str | None:
    """Say of a column of text that half of its cells, or more, look like numbers, and which one is none.

    >>> find_text_like_numbers("price", ["10", "$5", ""], [2, 3, 4])
    "the column 'price' is text: '$5' in line 3 is not a number, although 2 of 2 cells look like one"
    >>> [find_text_like_numbers("code", cells, [2, 3]) for cells in (["10", "5"], ["007", "red"])]
    [None, None]
    """
    typed = _typed(cells)
    given = [(cell, line) for cell, line in zip(typed, lines) if cell is not None]
    if not given or not all(isinstance(cell, str) for cell, _ in given):
        return None
    like = sum(LIKE_NUMBER.fullmatch(cell) is not None and not CODE.match(cell) for cell, _ in given)
    other = next(((cell, line) for cell, line in given if not _is_number(cell)), None)
    if other is None or 2 * like < len(given):
        return None
    problem = f"the column {name!r} is text: {other[0][:40]!r} in line {other[1]} is not a number"
    return f"{problem}, although {like} of {len(given)} cells look like one"


def _is_number(word: str) -> bool:
    """Whether a word is a number that can be written again as it was, so that it is not a code or article."""
    digits = word.lstrip("+-")
    return not CODE.match(digits) and NUMBERS[float][0].fullmatch(word) is not None


def add_columns(uri: str, table: Any, columns: pa.Table) -> None:
    """Add the columns that a catalogue lacks; the items that it holds have nothing in them."""

    def add() -> None:
        new = [field for field in columns.schema if field.name not in table.schema.names]
        if new:
            table.add_columns(pa.schema(new))

    change(uri, add)


def find_numbers_stored_as_text(columns: pa.Table, schema: pa.Schema) -> list[str]:
    """Name the columns of numbers that are text in the catalogue, as an earlier table gave them so."""
    found = []
    for given in columns.schema:
        if pa.types.is_floating(given.type) and pa.types.is_string(schema.field(given.name).type):
            remedy = "for numbers, index into another folder"
            found.append(f"the column {given.name!r} is text in the catalogue, as it was at first; {remedy}")
    return found


def fit_columns(columns: pa.Table, schema: pa.Schema, path: Path, lines: list[int]) -> pa.Table:
    """Give a table's columns the types of the catalogue's; DataError names the line of a cell without one."""
    fitted = {}
    for name in columns.column_names:
        kind = schema.field(name).type
        try:
            fitted[name] = columns[name].cast(kind)
        except pa.ArrowException:
            cells = columns[name].to_pylist()
            row = next(row for row, cell in enumerate(cells) if not _fits(cell, kind))
            problem = f"{str(cells[row])[:40]!r} in the column {name!r}, which holds {kind} in the catalogue"
            remedy = "Write such a value, leave the cell empty, or rename the column."
            raise DataError(path, problem, remedy, lines[row]) from None
    return pa.table(fitted)


def _fits(cell: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([cell]).cast(kind)
    except pa.ArrowException:
        return False
    return True
