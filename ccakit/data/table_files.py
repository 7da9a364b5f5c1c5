"""Tables of people: a CSV or Parquet file as column names and rows, with the line of each for messages."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ccakit.data.text import count, read_content
from ccakit.errors import DataError

EXCEL = re.compile(r'\s*"?sep=([^\r\n"])"?[ \t]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
Rows = Iterator[tuple[int, list[Any]]]  # line (Parquet: row) and cells


def read_table(path: Path, delimiter: str | None = None) -> tuple[list[str], Rows]:
    """Read the column names and rows of a table: Parquet by its ending .parquet or .pq, else CSV."""
    parquet = path.suffix.lower() in (".parquet", ".pq")
    return read_parquet(path) if parquet else read_csv(path, delimiter)


def read_csv(path: Path, delimiter: str | None) -> tuple[list[str], Rows]:
    """Read the column names and rows of a CSV.

    DataError if it is not UTF-8, is empty, or a row does not fit.
    """
    text, delimiter, skipped = _csv_text(path, delimiter)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = _csv_rows(path, reader, skipped)
    header = next(rows, (1, []))[1]
    return header, _regular(path, rows, len(header))


def csv_delimiter(path: Path, delimiter: str | None = None) -> str:
    """Find the sign between the cells of a CSV: the one given, Excel's sep=, or by the first line."""
    return _csv_text(path, delimiter)[1]


def _csv_text(path: Path, delimiter: str | None) -> tuple[str, str, int]:
    """Read a CSV's text from its line of column names on, its delimiter, and how many lines came before."""
    remedy = "Give a table with a line of column names and rows."
    text = read_content(path, remedy)
    said, skipped = EXCEL.match(text), 0
    if said:  # Excel's own line, which names the delimiter and is not a row
        delimiter, skipped = delimiter or said[1], 1 + text[: said.start(1)].count("\n")
        text = text[said.end() :]
        if not text.strip():
            raise DataError(path, "has no line after sep=", remedy)
    first = re.sub(r'"[^"]*"', "", text.lstrip().splitlines()[0])
    return text, delimiter or max(",;\t", key=first.count), skipped


def _csv_rows(path: Path, reader: Any, skipped: int) -> Rows:
    """Yield the rows that are not blank, each with the line in which it begins, after some skipped lines."""
    while True:
        line = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            remedy = "Close every quote, and save the table as plain CSV."
            raise DataError(path, f"is no CSV here ({error})", remedy, line) from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _regular(path: Path, rows: Rows, width: int) -> Rows:
    for line, cells in rows:
        if len(cells) != width:
            problem = f"has {count(len(cells), 'cell')}, where the first line has {width}"
            raise DataError(path, problem, "Quote cells that hold the delimiter, or give --delimiter.", line)
        yield line, cells


def read_parquet(path: Path) -> tuple[list[str], Rows]:
    """Read the column names and rows of a Parquet file.

    A list in a cell is several values. It needs pyarrow.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        remedy = "pip install pyarrow, or save the table as CSV."
        raise DataError(path, "cannot be read without pyarrow", remedy) from None

    @contextmanager
    def readable() -> Iterator[None]:
        try:
            yield
        except (
            ArrowException,
            OSError,
            ValueError,
        ) as error:  # a damaged page shows only when its rows are read
            problem = f"cannot be read as Parquet ({str(error).splitlines()[0]})"
            raise DataError(path, problem, "Save it again, or as CSV.") from None

    def rows() -> Rows:
        with readable():
            cells = (row.values() for batch in file.iter_batches() for row in batch.to_pylist())
            yield from enumerate(map(list, cells), 1)

    with readable():
        file = parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
    return names, rows()


def column_names(names: Iterable[str]) -> list[str]:
    """Write names of columns as they are compared: in Unicode's form NFC, without spaces around them."""
    return [unicodedata.normalize("NFC", name.strip()) for name in names]
