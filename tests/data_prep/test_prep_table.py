"""data_prep/table.py on small tables: every delimiter, quotes, empty and several values, ragged rows."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pyarrow
import pytest
import table
from common import DataError
from places import ROOT
from pyarrow import parquet
from table import Columns

from ccakit.data import table_files
from ccakit.data.cells import GAPS
from ccakit.data.layout import read_dataset
from ccakit.data.rows import read_all_values

COLOURS, HEELS = ["blue, light", 'the "red"', "grün"], ["2", "10", "3.5"]
Row = list[str]


def rows_of(n: int) -> list[Row]:
    """n rows: image, colour, heel (some empty), brand (one value only)."""
    rows = [[f"shop {i % 3}./{i:03d}.png", COLOURS[i % 3], HEELS[i // 3 % 3], "acme"] for i in range(n)]
    for i in (4, 9):
        rows[i][1 + i % 2] = ""
    return rows


HEADER = ["file", "colour", "heel", "brand"]


def images_of(folder: Path, rows: list[Row]) -> Path:
    rng = np.random.default_rng(0)
    for name in {row[0] for row in rows}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (6, 5, 3)).astype(np.uint8))
    return folder


def save(
    path: Path, rows: list[Row], delimiter: str = ",", header: Row = HEADER, start: str = "", end: str = "\n"
) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(start)
        csv.writer(file, delimiter=delimiter, lineterminator=end).writerows([header, *rows])
    return path


def want(
    rows: list[Row], columns: tuple[int, ...] = (1, 2, 3), several: str = "\n"
) -> set[tuple[str, str, str]]:
    return {(row[0], HEADER[c], v) for row in rows for c in columns for v in row[c].split(several) if v}


def written(out: Path) -> set[tuple[str, str, str]]:
    """Every (image, attribute, value), by name."""
    dataset, found = read_dataset(out, check_images=True), set()
    for name, split in dataset.splits.items():
        listed = name == "train" or not (out / f"label_{name}.txt").exists()
        rows = split.labels if listed else read_all_values(out, name)
        names, values = dataset.attributes.names, dataset.attributes.values
        found |= {(split.filenames[i], names[c], values[c][v]) for i, c, v in rows.tolist()}
    return found


@pytest.mark.parametrize("form", ["comma", "semicolon", "tab", "BOM and CRLF", "given"])
def test_what_is_written_is_the_table(tmp_path: Path, form: str) -> None:
    rows, out = rows_of(90), tmp_path / "shoes"
    delimiter = {"semicolon": ";", "tab": "\t", "given": "|"}.get(form, ",")
    crlf = {"start": "\ufeff", "end": "\r\n"} if form.startswith("BOM") else {}
    path = save(tmp_path / "t.csv", rows, delimiter, **crlf)
    columns = Columns(delimiter="|") if form == "given" else None
    dataset, notes = table.prepare(path, images_of(tmp_path / "in", rows), out, columns)
    assert written(out) == want(rows)
    assert dataset.name == "shoes" and dataset.attributes.names == ("colour", "heel", "brand")
    assert dataset.attributes.values[1] == ("2", "3.5", "10")  # numbers in their order
    assert sorted(dataset.attributes.values[0]) == list(dataset.attributes.values[0])
    sizes = [len(dataset[name].filenames) for name in ("train", "valid", "test")]
    assert sizes == [72, 9, 9] and dataset.about["split"] == "seeded, not ASEN's, seed 0"
    assert "brand: one value only ('acme'), so no triplet can be formed" in notes
    assert "images: 90 found, 90 expected" in notes
    for row in rows:
        assert (out / row[0]).read_bytes() == (tmp_path / "in" / row[0]).read_bytes()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("line", ["sep=;", "SEP=\t", "\ufeffsep=,", '"sep=|"', "Sep=;  ", "\n\nsep=;"])
def test_excels_line_names_the_delimiter(tmp_path: Path, line: str, end: str) -> None:
    rows, delimiter = rows_of(60), line.strip(' "')[-1] if "\t" not in line else "\t"
    start = line.replace("\n", end) + end
    path = save(tmp_path / "t.csv", rows, delimiter, start=start, end=end)
    dataset, _ = table.prepare(path, images_of(tmp_path / "in", rows), tmp_path / "out")
    assert written(tmp_path / "out") == want(rows) and dataset.attributes.names == ("colour", "heel", "brand")
    rows[3] = rows[3][:2]
    with pytest.raises(DataError, match="has 2 cells") as caught:
        table.prepare(save(path, rows, delimiter, start=start, end=end), tmp_path / "in", tmp_path / "out")
    assert caught.value.line == start.count("\n") + 5


def test_excels_line_alone_and_a_column_called_sep(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\n")
    with pytest.raises(DataError, match="has no line after sep="):
        table_files.read_csv(tmp_path / "t.csv", None)
    for text in ("sep=x;b\n1;2\n", "sep;b\n1;2\n", "sep=;b\n1;2\n"):
        (tmp_path / "t.csv").write_text(text)
        header, rows = table_files.read_csv(tmp_path / "t.csv", None)
        assert header == text.split("\n")[0].split(";") and list(rows) == [(2, ["1", "2"])]
    (tmp_path / "t.csv").write_text("sep=;\na,b\n1,2\n")
    assert table_files.read_csv(tmp_path / "t.csv", ",")[0] == ["a", "b"]  # --delimiter has the last word


def test_several_values_and_rows_of_one_image(tmp_path: Path) -> None:
    rows = rows_of(90)
    for i in range(0, 90, 2):
        rows[i][1] = "red | blue||"
    path = save(tmp_path / "t.csv", [*rows, [rows[0][0], "", "12", ""], rows[1]])
    dataset, _ = table.prepare(path, images_of(tmp_path / "in", rows), tmp_path / "out", Columns(several="|"))
    for i in range(0, 90, 2):
        rows[i][1] = "red|blue"
    assert written(tmp_path / "out") == want(rows, several="|") | {(rows[0][0], "heel", "12")}
    for name in ("valid", "test"):  # an image and attribute is listed once; label_{split}.txt has the rest
        pairs = dataset[name].labels[:, :2]
        assert len(np.unique(pairs, axis=0)) == len(pairs) and (tmp_path / f"out/label_{name}.txt").exists()


def test_chosen_columns_and_split(tmp_path: Path) -> None:
    rows = rows_of(60)
    said = ["Train", "train", "val", "test", "valid", "TEST "] * 10
    path = save(tmp_path / "t.csv", [[s, *row] for s, row in zip(said, rows)], header=["part", *HEADER])
    columns = Columns("file", ["heel"], "part")
    dataset, _ = table.prepare(path, images_of(tmp_path / "in", rows), tmp_path / "out", columns)
    assert written(tmp_path / "out") == want(rows, (2,)) and dataset.attributes.names == ("heel",)
    for name, says in (("train", "train"), ("valid", "val"), ("test", "test")):
        mine = [row[0] for s, row in zip(said, rows) if s.strip().lower().startswith(says) and row[2]]
        assert dataset[name].filenames == mine
    assert "'part'" in dataset.about["split"]


@pytest.mark.parametrize("lacks,says", [("valid", "best epoch"), ("test", "--split")])
def test_a_table_without_a_split_says_what_that_costs(tmp_path: Path, lacks: str, says: str) -> None:
    rows = rows_of(60)
    parts = [part for part in ("train", "train", "valid", "test") if part != lacks]
    path = save(
        tmp_path / "t.csv", [[parts[i % 3], *row] for i, row in enumerate(rows)], header=["part", *HEADER]
    )
    images, columns = images_of(tmp_path / "in", rows), Columns("file", split="part")
    dataset, _ = table.prepare(path, images, tmp_path / "out", columns)
    assert any(note.startswith(f"{lacks}: no image. ") and says in note for note in dataset.findings)
    with pytest.raises(DataError, match=f"filenames_{lacks}.txt: is missing.*; there are: train, ") as caught:
        read_dataset(tmp_path / "out")[lacks]
    assert says in caught.value.remedy


def test_running_again_and_hard_links(tmp_path: Path) -> None:
    rows, out = rows_of(40), tmp_path / "out"
    path, images = save(tmp_path / "t.csv", rows), images_of(tmp_path / "in", rows)
    table.prepare(path, images, out, link=True)
    assert all((out / row[0]).samefile(images / row[0]) for row in rows)
    table.prepare(path, images, tmp_path / "copy")
    first = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in (tmp_path / "copy").rglob("*.png")}
    assert not any(p.samefile(images / p.relative_to(tmp_path / "copy")) for p in first)
    table.prepare(path, images, tmp_path / "copy")
    assert first == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in first}
    table.prepare(path, images, images)  # in place
    assert written(images) == want(rows)


def test_findings(tmp_path: Path) -> None:
    rows = [[*row, f"SKU{i}", str(i // 2), ""] for i, row in enumerate(rows_of(90))]
    header = [*HEADER, "sku", "pair", "empty"]
    path, images = save(tmp_path / "t.csv", rows, header=header), images_of(tmp_path / "in", rows)
    (images / rows[5][0]).unlink()
    dataset, notes = table.prepare(path, images, tmp_path / "out", about={"licence": "mine"})
    told = "\n".join([*notes, *dataset.findings])
    assert "sku: no value has two images, so no triplet can be formed" in told
    assert "pair: 45 values for 89 labels: is it an attribute?" in told
    assert "empty: no value at all, left out" in told and "empty" not in dataset.attributes.names
    assert "release: 1 of 90 listed images are missing (survival.json)" in told
    assert "images: 89 found, 90 expected" in told and dataset.about["licence"] == "mine"
    assert json.loads((tmp_path / "out/survival.json").read_text())["release"]["missing"] == [rows[5][0]]


def made_with(
    tmp_path: Path, colours: list[str], columns: Columns | None = None
) -> tuple[set, list[str], dict]:
    """Write a table whose first images have these colours and all others 'red'; its values, notes, ABOUT."""
    rows = rows_of(90)
    for i, row in enumerate(rows):
        row[1] = colours[i] if i < len(colours) else "red"
    path, images = save(tmp_path / "t.csv", rows), images_of(tmp_path / "in", rows)
    dataset, notes = table.prepare(path, images, tmp_path / "out", columns)
    return set(dataset.attributes.values[0]), notes, read_dataset(tmp_path / "out").about


def test_words_for_a_gap_are_those_of_pandas_without_none() -> None:
    from pandas._libs.parsers import STR_NA_VALUES  # what pandas.read_csv takes for a gap

    assert {*GAPS, "None", ""} == STR_NA_VALUES


@pytest.mark.parametrize("word", ["nan", "NA", "N/A", "<NA>", "null", "#N/A"])
def test_a_word_for_a_gap_is_no_value(tmp_path: Path, word: str) -> None:
    values, notes, about = made_with(tmp_path, ["blue", word, f" {word} ", "", "blue"])
    assert values == {"blue", "red"}
    line = f"colour: 3 cells taken for gaps: 1 empty, 2 {word!r} (--gaps names the words)"
    assert line in notes and line in about["findings"]


def test_words_for_gaps_can_be_chosen(tmp_path: Path) -> None:
    values, notes, _ = made_with(
        tmp_path, ["NA", "unknown", "x|unknown"], Columns(gaps=["unknown"], several="|")
    )
    assert values == {"NA", "x", "red"}
    assert "colour: 2 cells taken for gaps: 2 'unknown' (--gaps names the words)" in notes
    assert "colour: 'NA' (1 image) kept as values: if they are gaps, name them in --gaps" in notes


@pytest.mark.parametrize("cell", ["\u3000", "\u200b", "\ufeff", "\u00a0\u2060", "\u00ad"])
def test_a_cell_without_a_visible_sign_is_empty(tmp_path: Path, cell: str) -> None:
    values, notes, _ = made_with(tmp_path, ["blue", cell, "blue"])
    assert values == {"blue", "red"}
    assert "colour: 1 cell taken for gaps: 1 empty (--gaps names the words)" in notes


@pytest.mark.parametrize(
    "word",
    ["None", "none", "-", "unknown", "Unknown", "Nan", "n / a", "?", "–", "N.A.", "#REF!", "NA\u200b", "．"],
)
def test_a_value_that_may_be_a_gap_stays_and_is_named(tmp_path: Path, word: str) -> None:
    values, notes, about = made_with(tmp_path, [word, word, "blue"])
    assert values == {word, "blue", "red"}
    line = f"colour: {word!r} (2 images) kept as values: if they are gaps, name them in --gaps"
    assert line in notes and line in about["findings"]


@pytest.mark.parametrize(
    "one,other",
    [("1", "1.0"), ("1.5", "1,5"), ("7", "007"), ("100", "1e2"), ("Blau", "blau"), ("straße", "STRASSE")]
    + [
        ("1,000", "1000"),
        ("1'250", "1250.0"),
        ("-5", "−5"),
        ("light blue", "light  blue"),
        ("light blue", "lightblue"),
        ("a b", "a\u00a0b"),
        ("a1", "a１"),
        ("ab", "a\u200bb"),
    ],
)
def test_values_that_hardly_differ_are_named(tmp_path: Path, one: str, other: str) -> None:
    values, notes, about = made_with(tmp_path, [one, other, one])
    assert values == {one, other, "red"}
    line = next(note for note in notes if "differ only in case, space or number format" in note)
    assert f"{one!r} (2 images)" in line and f"{other!r} (1 image)" in line and line in about["findings"]


@pytest.mark.parametrize(
    "one,other",
    [
        ("1", "10"),
        ("1.5", "15"),
        ("1", "1,000"),
        ("0,125", "125"),
        ("blue", "blues"),
        ("9" * 30, "9" * 29 + "8"),
    ],
)
def test_values_that_differ_are_not_named(tmp_path: Path, one: str, other: str) -> None:
    values, notes, _ = made_with(tmp_path, [one, other, one, other])
    assert values == {one, other, "red"} and not [note for note in notes if "differ only" in note]


@pytest.mark.parametrize("word", ["grün", "crème", "가방", "Å"])
def test_two_unicode_forms_of_a_word_are_one_value(tmp_path: Path, word: str) -> None:
    forms = [unicodedata.normalize(form, word) for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    values, notes, _ = made_with(tmp_path, forms)
    assert values == {forms[0], "red"} and not [note for note in notes if "differ only" in note]


def test_two_unicode_forms_of_a_column_are_one_name(tmp_path: Path) -> None:
    rows, header = rows_of(90), ["file", "größe", "heel", "brand"]
    path = save(tmp_path / "t.csv", rows, header=[unicodedata.normalize("NFD", name) for name in header])
    columns = Columns(attributes=["größe"])
    dataset, _ = table.prepare(path, images_of(tmp_path / "in", rows), tmp_path / "out", columns)
    assert dataset.attributes.names == ("größe",)
    save(path, rows, header=["file", "größe", unicodedata.normalize("NFD", "größe"), "brand"])
    with pytest.raises(DataError, match="two of one name"):
        table.prepare(path, tmp_path / "in", tmp_path / "out")


BAD_ROWS = {
    "too few cells": "a.png,red,2",
    "too many cells": "a.png,red,2,acme,1",
    "an open quote": 'a.png,"red,2,acme',
    "a quote in a quote": 'a.png,"red"x,2,acme',
    "no image": ",red,2,acme",
    "spaces": "\u3000 ,red,2,acme",
    "leaves": "../a.png,red,2,acme",
    "leaves and returns": "../in/a.png,red,2,acme",
    "leaves within": "x/../a.png,red,2,acme",
    "absolute": "/etc/a.png,red,2,acme",
    "a drive": "C:/a.png,red,2,acme",
    "a control character": "a\x01.png,red,2,acme",
    "too long": "a" * 300 + ".png,red,2,acme",
    "a list's name": "filenames_train.txt,red,2,acme",
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path: Path, what: str) -> None:
    rows = rows_of(30)
    images = images_of(tmp_path / "in", rows)
    lines = save(tmp_path / "t.csv", rows).read_text().split("\n")
    lines[6] = BAD_ROWS[what]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        table.prepare(tmp_path / "t.csv", images, tmp_path / "out")
    assert caught.value.line == 7 and caught.value.path.name == "t.csv" and caught.value.remedy


def test_other_bad_tables(tmp_path: Path) -> None:
    rows = rows_of(30)
    images, path = images_of(tmp_path / "in", rows), tmp_path / "t.csv"
    cases = {
        "is empty": b" \n",
        "is not UTF-8": b"file,colour\na.png,\xff\n",
        "two of one name": b"a,b,b\n1,2,3\n",
        "without a name": b"a,,b\n1,2,3\n",
        "beside the image": b"file\na.png\n",
        "has no value": b"file,a\nx.png,\n",
        "none of 1 image found": b"file,a\nx.png,1\n",
    }
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            table.prepare(path, images, tmp_path / "out")
    save(path, rows)
    for columns, message in (
        (Columns(image="no"), "no column 'no'"),
        (Columns(attributes=["file"]), "beside"),
        (Columns(split="brand"), "'acme' is not a split"),
    ):
        with pytest.raises(DataError, match=message):
            table.prepare(path, images, tmp_path / "out", columns)
    save(path, [*[["train", *row] for row in rows], ["test", *rows[3]]], header=["part", *HEADER])
    with pytest.raises(DataError, match="another split in line 5") as caught:
        table.prepare(path, images, tmp_path / "out", Columns(image="file", split="part"))
    assert caught.value.line == 32
    with pytest.raises(DataError, match="is not a folder"):
        table.prepare(save(path, rows), tmp_path / "none", tmp_path / "out")


def test_another_column_of_images_is_named(tmp_path: Path) -> None:
    rows = [[f"{i:03d}", *row] for i, row in enumerate(rows_of(60))]
    path = save(tmp_path / "t.csv", rows, header=["id", *HEADER])
    images = images_of(tmp_path / "in", rows_of(60))
    with pytest.raises(
        DataError, match="column 'id' names no file in .*, and column 'file' names 60"
    ) as caught:
        table.prepare(path, images, tmp_path / "out")
    assert caught.value.line == 2 and caught.value.remedy == "Give --image 'file'."
    table.prepare(path, images, tmp_path / "out", Columns(image="file"))


def test_nothing_outside_the_images_is_read(tmp_path: Path) -> None:
    rows = rows_of(30)
    path, images = save(tmp_path / "t.csv", rows), images_of(tmp_path / "in", rows)
    (images / rows[8][0]).rename(tmp_path / "secret.png")
    (images / rows[8][0]).symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="link to outside") as caught:
        table.prepare(path, images, tmp_path / "out")
    assert caught.value.line == 10 and not (tmp_path / "out" / rows[8][0]).exists()


def test_a_quoted_line_break_keeps_the_line_numbers(tmp_path: Path) -> None:
    rows = rows_of(30)
    rows[2][1] = "two\nlines"
    rows[20] = rows[20][:2]
    with pytest.raises(DataError) as caught:
        table.prepare(save(tmp_path / "t.csv", rows), images_of(tmp_path / "in", rows), tmp_path / "out")
    assert caught.value.line == 23


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pip install pyarrow, or save the table as CSV"):
        table.prepare(tmp_path / "t.parquet", tmp_path, tmp_path / "out")


def parquet_of(path: Path, columns: list[list[object]]) -> Path:
    parquet.write_table(pyarrow.table(dict(zip(HEADER, columns))), path, row_group_size=40)
    return path


def test_parquet(tmp_path: Path) -> None:
    rows = rows_of(90)
    columns = [[cell or None for cell in column] for column in zip(*rows)]
    images = images_of(tmp_path / "in", rows)
    table.prepare(parquet_of(tmp_path / "t.parquet", columns), images, tmp_path / "out")
    assert written(tmp_path / "out") == want(rows)
    columns[1] = [[cell, "extra"] if cell else None for cell in columns[1]]
    columns[2] = [float(cell) if cell else float("nan") for cell in columns[2]]
    table.prepare(parquet_of(tmp_path / "t.pq", columns), images, tmp_path / "lists")
    assert written(tmp_path / "lists") == want(rows) | {(row[0], "colour", "extra") for row in rows if row[1]}


def test_damaged_parquet_ends_in_one_error_or_a_data_set(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), rows_of(90)
    images, path = images_of(tmp_path / "in", rows), tmp_path / "t.parquet"
    good, failed = (
        parquet_of(path, [[cell or None for cell in column] for column in zip(*rows)]).read_bytes(),
        0,
    )
    for i in range(100):
        data = bytearray(good[: rng.integers(4, len(good))] if i % 4 == 0 else good)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            table.prepare(path, images, tmp_path / "out")
        except DataError as error:
            failed += "cannot be read as Parquet" in str(error)
    assert 25 < failed < 100


def test_damaged_tables_end_in_one_error_or_a_data_set(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), rows_of(40)
    images, path = images_of(tmp_path / "in", rows), tmp_path / "t.csv"
    good = save(path, rows).read_bytes()
    signs = np.frombuffer(b'"",;\t\n\r./\\:\x00\xff\xe4a0', np.uint8)
    failed = 0
    for i in range(150):
        data = bytearray(good[: rng.integers(60, len(good))] if i % 3 == 0 else good)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.choice(signs)
        path.write_bytes(data)
        try:
            table.prepare(path, images, tmp_path / "out")
        except DataError:
            failed += 1
    assert 20 < failed < 150


def test_command_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "data_prep" / "table.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    rows = rows_of(60)
    for i in range(30):
        rows[i][1] = "a|b"
    path, images = save(tmp_path / "t.tsv", rows, "\t"), images_of(tmp_path / "in", rows)
    told = run("--help").stdout
    assert "pyarrow" in told and "--several" in told and "terms" in told and "8:1:1" in told
    options = ["--image", "file", "--attributes", "colour, heel", "--several", "|", "--delimiter", "tab"]
    options += ["--seed", "4", "--by-content", "--licence", "CC0"]
    done = run("--table", str(path), "--images", str(images), "--out", str(tmp_path / "out"), *options)
    assert done.returncode == 0 and "images (seeded, not ASEN's, seed 4)" in done.stdout, done.stderr
    assert written(tmp_path / "out") == want(rows, (1, 2), "|")
    assert read_dataset(tmp_path / "out").about["licence"] == "CC0"
    failed = run("--table", "no.csv", "--images", str(images), "--out", str(tmp_path / "x"))
    assert failed.returncode == 1 and failed.stderr.startswith("error: no.csv: is missing")
    failed = run("--table", str(path), "--images", "x", "--out", "y", "--delimiter", "ab")
    assert failed.returncode == 1 and failed.stderr.startswith("error: --delimiter")
