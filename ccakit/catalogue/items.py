"""What a catalogue is made of: the pictures of a folder, or those that a table names, with its columns."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ccakit.catalogue.columns import check_column_names, find_text_like_numbers, make_columns
from ccakit.data.cells import words_of
from ccakit.data.table_files import column_names, read_table
from ccakit.data.text import CONTROL, NOT_TEXT, check_name
from ccakit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif")


@dataclass
class Items:
    """The items that shall be in a catalogue: n pictures, and what a table says of them.

    root: the folder of the pictures. ids, paths: of each; a path is relative to root. columns: the table's
    others, (n rows), None where there is no table. table, lines: where an item is named, for messages.
    refused: files that cannot be items, and why. findings: what may be wrong with the columns.
    """

    root: Path
    ids: list[str]
    paths: list[str]
    columns: pa.Table | None = None
    table: Path | None = None
    lines: list[int] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def file(self, item: int) -> Path:
        """Name the file of an item's picture."""
        return self.root / self.paths[item]

    def row_hashes(self) -> list[str]:
        """Digest each item's path and cells, by which a changed row is found; empty without a table."""
        if self.columns is None:
            return [""] * len(self)
        rows = zip(self.paths, *(column.to_pylist() for column in self.columns.columns))
        names = repr(self.columns.column_names)
        return [hashlib.blake2b(f"{names}{row}".encode(), digest_size=8).hexdigest() for row in rows]


def items_of_folder(root: Path) -> Items:
    """List the pictures below a folder, by their endings, in order of their paths; an id is the path."""
    if not root.is_dir():
        raise DataError(root, "is not a folder", "Give the folder of the pictures.")
    paths, links = [], {}
    for folder, below, files in os.walk(root):
        below.sort()
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        followed = "is a link to a folder, which is not followed"
        links |= {
            ascii(str(here / name))[1:-1]: followed for name in below if os.path.islink(Path(folder, name))
        }
        paths += [str(here / name) for name in files if name.lower().endswith(ENDINGS)]
    if not paths:
        endings = ", ".join(ending[1:] for ending in ENDINGS)
        raise DataError(root, "holds no picture", f"Give the folder of the pictures ({endings}).")
    good = sorted(path for path in paths if not NOT_TEXT.search(path))
    refused = {ascii(path): "has a name that is not text" for path in paths if NOT_TEXT.search(path)}
    return Items(root, good, good, refused=refused | links)


def items_of_table(
    path: Path,
    root: Path,
    image: str | None = None,
    id_column: str | None = None,
    delimiter: str | None = None,
) -> Items:
    """Read the items of a CSV or Parquet table: a row each.

    image: the column of paths, relative to root; the first by default. id_column: the column of ids; by
    default the path is the id. DataError with the line for: a column that is not there, has a reserved name,
    or a name that the engine does not take; a path that is empty or leads out of the folder; an id twice.
    """
    if not root.is_dir():
        raise DataError(root, "is not a folder", "Give the folder that the images' paths start from.")
    header, rows = read_table(path, delimiter)
    header = column_names(header)
    if not all(header) or len({name.casefold() for name in header}) != len(header):
        problem = "has columns without a name, or two of one name, capitals apart"
        raise DataError(path, problem, "Name each column.", 1)
    [image] = column_names([image or header[0]])
    [id_column] = column_names([id_column or image])
    for name in (image, id_column):
        if name not in header:
            raise DataError(path, f"has no column {name!r}", f"It has: {', '.join(header)}.", 1)
    others = [name for name in header if name not in (image, id_column)]
    check_column_names(path, others)
    at = {name: header.index(name) for name in header}
    items, cells, seen = Items(root, [], [], table=path), {name: [] for name in others}, {}
    for line, row in rows:
        name, item = (_word(row[at[column]]) for column in (image, id_column))
        check_name(path, name, line)
        name = PurePosixPath(name).as_posix()
        item = name if id_column == image else item
        if not item or CONTROL.search(item) or item in seen:
            twice = f"the item {item[:80]!r} is in line {seen.get(item)}, too"
            problem = twice if item in seen else f"{item[:80]!r} is not an id"
            remedy = "An item has one row and one picture: give each an id of its own, and --id its column."
            raise DataError(path, problem, remedy, line)
        seen[item] = line
        items.ids.append(item)
        items.paths.append(name)
        items.lines.append(line)
        for column in others:
            cells[column].append(row[at[column]])
    if not items.ids:
        raise DataError(path, "has no row", "Give a table with a row for each picture.")
    items.columns = make_columns(path, cells, items.lines)
    found = (find_text_like_numbers(name, column, items.lines) for name, column in cells.items())
    items.findings = [text for text in found if text]
    return items


def _word(cell: Any) -> str:
    return " ".join(words_of(cell, None)) if not isinstance(cell, str) else cell.strip()
