"""A table of images whose cells of attributes have gaps: read it, fill gaps, write it as it was, and more.

A CSV keeps its delimiter, its cells as they are written, and its byte-order mark; a Parquet file its types.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ccakit.attributes import Attributes
from ccakit.data.cells import GAPS, words_of
from ccakit.data.table_files import column_names, csv_delimiter, read_table
from ccakit.data.text import check_name
from ccakit.disk import atomic_write, leads_out
from ccakit.errors import DataError

PARQUET = (".parquet", ".pq")


@dataclass
class GapTable:
    """The rows of a table, its images, and the values in the columns of attributes.

    header, rows, lines: as `read_table` gives them. images: the n different paths, relative to `root`;
    image_of_row: which of them each row names. columns: {condition: column}. words: {condition: the values of
    each row, none for a gap}. cells: {condition: {value: a cell that holds it}}, for Parquet's types.
    """

    path: Path
    root: Path
    header: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    image_of_row: list[int] = field(default_factory=list)
    columns: dict[int, int] = field(default_factory=dict)
    words: dict[int, list[list[str]]] = field(default_factory=dict)
    cells: dict[int, dict[str, Any]] = field(default_factory=dict)

    def fill(self, row: int, condition: int, value: str) -> None:
        """Write a value into a cell, in the form that other cells of its column have."""
        self.rows[row][self.columns[condition]] = self.cells[condition].get(value, value)

    def add_column(self, name: str, cells: Sequence[Any]) -> None:
        """Add a column at the end, with a cell for each row."""
        self.header.append(name)
        for row, cell in zip(self.rows, cells):
            row.append(cell)


def read_gap_table(
    path: Path,
    root: Path,
    attributes: Attributes,
    *,
    image: str | None = None,
    several: str | None = None,
    gaps: Sequence[str] = GAPS,
    delimiter: str | None = None,
) -> GapTable:
    """Read a table whose columns of attributes are named as the model's: "neck design" or "neck_design".

    root: the folder of the images. image: the column of their paths, the first by default. several: the sign
    between several values in a cell. DataError names the line of a path that is none, or leads out of `root`.
    """
    header, rows = read_table(path, delimiter)
    names = column_names(header)
    if len(set(names)) != len(names) or not all(names):
        raise DataError(path, "has columns without a name, or two of one name", "Name each column.", 1)
    at = names.index(_known_column(path, names, image)) if image is not None else 0
    table = GapTable(path, root, header, columns=_attribute_columns(path, names, attributes))
    table.words = {condition: [] for condition in table.columns}
    table.cells = {condition: {} for condition in table.columns}
    numbers: dict[str, int] = {}
    for line, cells in rows:
        name = _image(table, line, cells[at], names[at])
        table.image_of_row.append(numbers.setdefault(name, len(numbers)))
        table.rows.append(cells)
        table.lines.append(line)
        for condition, column in table.columns.items():
            words = [word for word in words_of(cells[column], several) if word not in gaps]
            table.words[condition].append(words)
            for word in words:
                table.cells[condition].setdefault(word, _cell_of(word, words, cells[column]))
    if not table.rows:
        raise DataError(path, "has no row", "Give a table with a line of column names and rows.")
    table.images = list(numbers)
    return table


def _cell_of(word: str, words: list[str], cell: Any) -> Any:
    """Write a value as a cell does that holds it: a number as a number, in a list as a list."""
    if isinstance(cell, (list, tuple)):
        return [word]
    return word if isinstance(cell, str) or len(words) > 1 else cell


def _known_column(path: Path, names: list[str], wanted: str) -> str:
    [wanted] = column_names([wanted])
    if wanted not in names:
        raise DataError(path, f"has no column {wanted!r}", f"It has: {', '.join(names)}.", 1)
    return wanted


def _attribute_columns(path: Path, names: list[str], attributes: Attributes) -> dict[int, int]:
    """Find the column of each attribute; case, spaces and underscores do not count."""
    plain = [_plain(name) for name in names]
    found = {}
    for condition, name in enumerate(attributes.names):
        columns = [column for column, other in enumerate(plain) if other == _plain(name)]
        if len(columns) > 1:
            listed = " and ".join(repr(names[column]) for column in columns)
            raise DataError(path, f"has two columns of one attribute, {listed}", "Rename one of them.", 1)
        if columns:
            found[condition] = columns[0]
    if not found:
        remedy = f"Name its columns as the model's attributes: {', '.join(attributes.names)}."
        raise DataError(path, f"has no column of an attribute: it has {', '.join(names)}", remedy, 1)
    return found


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")


def _image(table: GapTable, line: int, cell: Any, column: str) -> str:
    name = "" if cell is None else str(cell).strip()
    if not name:
        problem, remedy = f"has no image in the column {column!r}", "Write its path there."
        raise DataError(table.path, problem, remedy, line)
    check_name(table.path, name, line)
    if leads_out(table.root, name):
        problem = f"{name!r} leads out of the folder {table.root}"
        raise DataError(table.path, problem, "Copy the image into the folder.", line)
    return PurePosixPath(name).as_posix()


def check_same_kind(path: Path, out: Path) -> None:
    """Raise DataError where a Parquet file would be written as CSV, or the reverse."""
    if (path.suffix.lower() in PARQUET) != (out.suffix.lower() in PARQUET):
        raise DataError(out, f"is of another kind than {path}", "Let both names end alike.")


def write_gap_table(table: GapTable, out: Path, delimiter: str | None = None) -> None:
    """Write the table, atomically, in the form in which it was read."""
    if out.suffix.lower() in PARQUET:
        return _write_parquet(table, out)
    text = io.StringIO(newline="")
    sign = csv_delimiter(table.path, delimiter)
    csv.writer(text, delimiter=sign, lineterminator="\n").writerows([table.header, *table.rows])
    mark = codecs.BOM_UTF8 if table.path.read_bytes().startswith(codecs.BOM_UTF8) else b""
    with atomic_write(out, durable=True) as partial:
        partial.write_bytes(mark + text.getvalue().encode())


def _write_parquet(table: GapTable, out: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = parquet.read_schema(table.path)
    columns = list(zip(*table.rows))
    old = [pyarrow.array(column, field.type) for column, field in zip(columns, schema)]
    new = [pyarrow.array(column) for column in columns[len(schema) :]]
    fields = [*schema, *(pyarrow.field(n, a.type) for n, a in zip(table.header[len(schema) :], new))]
    made = pyarrow.Table.from_arrays(old + new, schema=pyarrow.schema(fields, schema.metadata))
    with atomic_write(out, durable=True) as partial:
        parquet.write_table(made, partial)
