"""Any table of images -> ccakit's layout: a CSV or Parquet file, one column of images, one column an
attribute.

    python data_prep/table.py --table shoes.csv --images photos --out data/shoes

The first row of a CSV names the columns. The first column holds image paths, relative to --images, the others
are attributes, unless --image and --attributes say otherwise. A cell may be empty, or hold a word for a gap,
as NA (--gaps): the image has no label for it. With --several "|" a cell holds several values, as in red|blue.
An image in several rows has the values of all of them. Values are taken as they are written (Unicode: in form
NFC); of those that look like a gap, or like each other, a line warns. CSV: UTF-8, with or without a
byte-order mark; comma, semicolon or tab (found from the first line, from Excel's line sep=; or --delimiter);
fields in quotes may hold any of these. Parquet needs pyarrow (pip install pyarrow).

Where the data come from, and under which terms, is yours to say: --source and --licence are kept in
meta.json. Splits: the column --split-column with train, valid or test, or else seeded, in ASEN's proportions
(8:1:1; of valid and test one image in five is a query).

What is written: the images, copied (or hard-linked: --link) to OUT under their names, the lists, meta.json
and survival.json (the images that the table names: present, missing). The findings stand in meta.json, too.
Nothing outside --images is read. Counts to expect: an image a row of the table, printed beside what was
found. Run again, it copies only what is not there.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from common import (
    LISTS,
    DataError,
    Dataset,
    Source,
    beside,
    bring,
    content_groups,
    guarded,
    only_present,
    parser,
    seeded_splits,
    tell,
    write_prepared,
)

from ccakit.attributes import Attributes
from ccakit.data.cells import GAPS, doubtful_notes, gap_note, words_of
from ccakit.data.table_files import column_names, read_table
from ccakit.data.text import check_name

PARTS = {"train": 0, "valid": 1, "val": 1, "validation": 1, "test": 2}
RESERVED = {
    *LISTS,
    *(f"regions_{split}.txt" for split in ("train", "valid", "test")),
    "meta.json",
    "survival.json",
}
MANY = 0.5  # values an image, from which on a column looks like none of attributes
SAMPLE = 100  # rows that are looked at for another column of images


@dataclass(frozen=True)
class Columns:
    """The names of the columns.

    Attributes None: all others. several: the sign that separates values in a cell. gaps: the words that stand
    for an empty cell.
    """

    image: str | None = None
    attributes: Sequence[str] | None = None
    split: str | None = None
    several: str | None = None
    delimiter: str | None = None
    gaps: Sequence[str] = GAPS


class Table:
    """The content of a table.

    `names` (n), their `lines`, `values` of each (image, attribute), `parts` (n), and for each attribute the
    number of cells that are gaps, `gaps`, by word ("": empty).
    """

    def __init__(self, path: Path, header: list[str], columns: Columns) -> None:
        header = column_names(header)
        if not header or len(set(header)) != len(header) or not all(header):
            raise DataError(path, "has columns without a name, or two of one name", "Name each column.", 1)
        self.path, self.columns = path, columns
        [self.image] = column_names([columns.image or header[0]])
        self.split = column_names([columns.split] if columns.split else [])
        others = [name for name in header if name not in (self.image, *self.split)]
        self.attributes = (
            others if columns.attributes is None else column_names(dict.fromkeys(columns.attributes))
        )
        for name in [self.image, *self.attributes, *self.split]:
            if name not in header:
                raise DataError(path, f"has no column {name!r}", f"It has: {', '.join(header)}.", 1)
        if not self.attributes or self.image in self.attributes:
            raise DataError(path, "has no column of an attribute beside the image", "Name --attributes.", 1)
        self.at = {name: header.index(name) for name in header}
        self.names: dict[str, int] = {}
        self.lines: list[int] = []
        self.parts: list[int] = []
        self.values: dict[tuple[int, str], set[str]] = {}
        self.gaps: dict[str, Counter[str]] = {name: Counter() for name in self.attributes}
        self.sample: list[list[Any]] = []

    def add(self, line: int, cells: list[Any]) -> None:
        """Add one row of the table; DataError names its line."""
        if len(self.sample) < SAMPLE:
            self.sample.append(cells)
        image, part = self._image(line, cells[self.at[self.image]]), self._part(line, cells)
        if image == len(self.lines):
            self.lines.append(line)
            self.parts.append(part)
        elif self.parts[image] != part:
            problem = f"the image has another split in line {self.lines[image]}"
            raise DataError(self.path, problem, "An image belongs to one split.", line)
        for name in self.attributes:
            words = set(words_of(cells[self.at[name]], self.columns.several))
            gaps = words.intersection(self.columns.gaps)
            self.gaps[name].update(gaps if words else [""])
            if values := words - gaps:
                self.values.setdefault((image, name), set()).update(values)

    def check_column(self, images: Path) -> None:
        """Raise DataError if no cell of the images' column is a file, and cells of another column are."""
        there = {}
        for name, at in self.at.items():
            paths = [word for cells in self.sample for word in words_of(cells[at], None)]
            there[name] = sum(len(path) < 1000 and os.path.isfile(images / path) for path in paths)
        best = max(there, key=there.__getitem__)
        if there[best] and not there[self.image]:
            problem = (
                f"column {self.image!r} names no file in {images}, and column {best!r} names {there[best]}"
            )
            raise DataError(self.path, problem, f"Give --image {best!r}.", self.lines[0])

    def _image(self, line: int, cell: Any) -> int:
        name = "" if cell is None else str(cell).strip()
        if not name:
            problem = f"has no image in the column {self.image!r}"
            raise DataError(self.path, problem, "Write its path there, or take the row out.", line)
        check_name(self.path, name, line)
        name = PurePosixPath(name).as_posix()
        if name in RESERVED or ".." in name.split("/"):
            raise DataError(self.path, f"{name!r} cannot be an image's name", "Rename the image.", line)
        return self.names.setdefault(name, len(self.names))

    def _part(self, line: int, cells: list[Any]) -> int:
        if not self.split:
            return -1
        said = str(cells[self.at[self.split[0]]] or "").strip().lower()
        if said not in PARTS:
            raise DataError(self.path, f"{said[:40]!r} is not a split", "Write train, valid or test.", line)
        return PARTS[said]

    def labels(self) -> tuple[Attributes, np.ndarray, list[str]]:
        """Return the attributes that have values (sorted, numbers as numbers), rows (R, 3), and findings."""
        images: dict[str, Counter[str]] = {name: Counter() for name in self.attributes}
        for (_, name), values in self.values.items():
            images[name].update(values)
        notes = [gap_note(name, gaps) for name, gaps in self.gaps.items() if gaps]
        notes += [f"{name}: no value at all, left out" for name, values in images.items() if not values]
        found = {name: tuple(sorted(values, key=_order)) for name, values in images.items() if values}
        for name, values in found.items():
            notes += doubtful_notes(name, {value: images[name][value] for value in values})
        if not found:
            raise DataError(self.path, "has no value in any attribute's column", "Fill in some cells.")
        attributes = Attributes(tuple(found), tuple(found.values()))
        index = [{value: label for label, value in enumerate(values)} for values in attributes.values]
        rows = [
            (image, attributes.condition(name), index[attributes.condition(name)][value])
            for (image, name), values in self.values.items()
            for value in values
        ]
        return attributes, np.array(rows, np.int64), notes


def _order(value: str) -> tuple[bool, float, str]:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    return (False, number, value) if np.isfinite(number) else (True, 0.0, value)


def triplet_findings(attributes: Attributes, rows: np.ndarray) -> list[str]:
    """List the attributes that can form no triplet, or that do not look like attributes."""
    notes = []
    for condition, (name, size) in enumerate(zip(attributes.names, attributes.sizes)):
        images = np.bincount(rows[rows[:, 1] == condition, 2], minlength=size)
        if size == 1:
            notes.append(
                f"{name}: one value only ({attributes.values[condition][0]!r}), so no triplet can be formed"
            )
        elif images.max() < 2:
            notes.append(f"{name}: no value has two images, so no triplet can be formed")
        elif size > MANY * images.sum():
            notes.append(f"{name}: {size} values for {images.sum()} labels: is it an attribute?")
    return notes


def prepare(
    path: Path,
    images: Path,
    out: Path,
    columns: Columns | None = None,
    seed: int = 0,
    by_content: bool = False,
    link: bool = False,
    about: dict[str, Any] | None = None,
) -> tuple[Dataset, list[str]]:
    """Read the table, bring its images to `out`, write the lists; return data set and notes."""
    columns = columns or Columns()
    header, rows = read_table(path, columns.delimiter)
    table = Table(path, header, columns)
    for line, cells in rows:
        table.add(line, cells)
    attributes, labels, notes = table.labels()
    source = Source(images, path, table.lines)
    table.check_column(images)
    notes += bring(list(table.names), source, out, link)[1]
    names, labels, here = only_present(out, list(table.names), labels)
    notes += triplet_findings(attributes, labels)
    part = np.array(table.parts)[here] if columns.split else None
    how = f"the table's column {columns.split!r}, queries drawn by seed {seed}" if columns.split else ""
    groups = content_groups([out / name for name in names]) if by_content and part is None else None
    prepared = seeded_splits(out, attributes, names, labels, seed, part=part, how=how, groups=groups)
    about = {**(about or {}), "table": path.name, "seed": seed, "findings": notes}
    dataset = write_prepared(out, out.resolve().name, attributes, prepared, about, list(table.names))
    return dataset, notes + beside({"images": len(names)}, {"images": len(table.names)})


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__, "shoes", splits=False)
    made.add_argument("--table", type=Path, required=True, help="the CSV or Parquet file")
    made.add_argument(
        "--images", type=Path, required=True, help="folder that the image paths are relative to"
    )
    made.add_argument("--image", metavar="COLUMN", help="column of the images (the first)")
    made.add_argument("--attributes", metavar="A,B,C", help="columns of the attributes (all others)")
    made.add_argument("--split-column", metavar="COLUMN", help="column of train, valid, test (none: seeded)")
    made.add_argument("--several", metavar="SIGN", help="what separates several values in a cell, e.g. |")
    words = f"words for an empty cell, exactly as written (pandas' list without None: {','.join(GAPS)})"
    made.add_argument("--gaps", metavar="A,B,C", help=words)
    made.add_argument("--delimiter", metavar="SIGN", help="of a CSV: , ; or tab (found from the first line)")
    made.add_argument("--link", action="store_true", help="hard-link the images instead of copying them")
    made.add_argument("--source", default="", help="where the data come from, kept in meta.json")
    made.add_argument("--licence", default="", help="under which terms, kept in meta.json")
    return made


def main(given: list[str] | None = None) -> None:
    args = arguments().parse_args(given)

    def work() -> None:
        delimiter = {"tab": "\t", "\\t": "\t"}.get(args.delimiter, args.delimiter)
        if delimiter is not None and delimiter not in tuple(",;\t|:"):
            raise ValueError("--delimiter is one of , ; | : or the word tab")
        attributes = [name.strip() for name in args.attributes.split(",")] if args.attributes else None
        gaps = GAPS if args.gaps is None else words_of(args.gaps, ",")
        columns = Columns(args.image, attributes, args.split_column, args.several or None, delimiter, gaps)
        about = {key: value for key in ("source", "licence") if (value := getattr(args, key))}
        options = args.seed, args.by_content, args.link, about
        tell(args.out, *prepare(args.table, args.images, args.out, columns, *options))

    guarded(work)


if __name__ == "__main__":
    main()
