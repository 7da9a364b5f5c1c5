"""A table with gaps: what is read of it, and that all else is written as it was."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ccakit.attributes import Attributes
from ccakit.data.gap_table import check_same_kind, read_gap_table, write_gap_table
from ccakit.errors import DataError

SHIRTS = Attributes.numbered({"neck_design": 3, "tone": 4})


@pytest.fixture
def shop(tmp_path):
    """shop(text): a table beside a folder `photos`."""
    (tmp_path / "photos").mkdir()

    def made(text: str, encoding: str = "utf-8"):
        (tmp_path / "shop.csv").write_text(text, encoding, newline="")
        return tmp_path / "shop.csv", tmp_path / "photos"

    return made


def test_gaps_values_and_images(shop):
    text = "photo,Neck Design,price,tone\na.jpg,round,7,NA\nb.jpg,,8,dark|mid\na.jpg, round ,9,light\n"
    table = read_gap_table(*shop(text), SHIRTS, several="|")
    assert table.images == ["a.jpg", "b.jpg"] and table.image_of_row == [0, 1, 0]
    assert table.words == {0: [["round"], [], ["round"]], 1: [[], ["dark", "mid"], ["light"]]}
    assert table.lines == [2, 3, 4]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_all_that_is_not_filled_is_written_as_it_was(shop, tmp_path, delimiter, encoding):
    rows = [
        ["image", "note", "tone"],
        ["ä.jpg", 'a "quoted"\nnote, with; signs\tand more', ""],
        ["b/b.jpg", "007", " dark "],
    ]
    path = tmp_path / "shop.csv"
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    table = read_gap_table(path, tmp_path, SHIRTS)
    table.fill(0, 1, "dark")
    table.add_column("tone_confidence", [0.5, ""])
    write_gap_table(table, tmp_path / "out.csv")
    rows[1][2] = "dark"
    expected = [[*row, cell] for row, cell in zip(rows, ["tone_confidence", "0.5", ""])]
    with open(tmp_path / "out.csv", encoding=encoding, newline="") as file:
        assert list(csv.reader(file, delimiter=delimiter)) == expected
    assert (tmp_path / "out.csv").read_bytes()[:3] == path.read_bytes()[:3]


def test_parquet_keeps_its_types(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    made = {
        "image": ["a", "b", "c"],
        "neck_design": [2, None, 3],
        "tone": [["dark", "mid"], [], None],
        "price": [1.5, None, 2.0],
    }
    before = pyarrow.table(made)
    parquet.write_table(before, tmp_path / "shop.parquet")
    table = read_gap_table(tmp_path / "shop.parquet", tmp_path, SHIRTS)
    table.fill(1, 0, "3")
    table.fill(2, 1, "mid")
    table.add_column("tone_confidence", [None, None, 0.5])
    write_gap_table(table, tmp_path / "out.parquet")
    after = parquet.read_table(tmp_path / "out.parquet")
    assert after.schema.names == [*before.schema.names, "tone_confidence"]
    assert after.schema.types[:4] == before.schema.types
    assert after["neck_design"].to_pylist() == [2, 3, 3]
    assert after["tone"].to_pylist() == [["dark", "mid"], [], ["mid"]]
    assert after["price"].to_pylist() == [1.5, None, 2.0]


@pytest.mark.parametrize(
    "text,line,problem",
    [
        ("image,tone\n../secret.jpg,\n", 2, "outside the folder"),
        ("image,tone\na.jpg,\n/etc/passwd,\n", 3, "absolute path"),
        ("image,tone\n,dark\n", 2, "has no image"),
        ("image,tone\nlink.jpg,\n", 2, "leads out of the folder"),
        (f"image,tone\n{'x' * 300}.jpg,\n", 2, "too long"),
        ("image,shade\na.jpg,\n", 1, "has no column of an attribute"),
        ("image,tone,Tone\na.jpg,,\n", 1, "has two columns of one attribute"),
        ("image,tone,tone\na.jpg,,\n", 1, "two of one name"),
        ("image,tone\n", None, "has no row"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(shop, text, line, problem):
    path, photos = shop(text)
    (photos / "link.jpg").symlink_to(path)
    with pytest.raises(DataError, match=problem) as error:
        read_gap_table(path, photos, SHIRTS)
    assert error.value.line == line and error.value.path == path and error.value.remedy


def test_the_column_of_images_can_be_named(shop):
    path, photos = shop("tone,photo\ndark,a.jpg\n")
    assert read_gap_table(path, photos, SHIRTS, image="photo").images == ["a.jpg"]
    with pytest.raises(DataError, match="has no column 'foto'"):
        read_gap_table(path, photos, SHIRTS, image="foto")


def test_a_table_stays_of_its_kind():
    check_same_kind(Path("a.csv"), Path("b.tsv"))
    with pytest.raises(DataError, match="of another kind"):
        check_same_kind(Path("a.parquet"), Path("b.csv"))
