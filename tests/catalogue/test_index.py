"""Filling a catalogue: what is new, changed or gone, columns and their types, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogue_shop import COUNT, HEADER, fill_shop, picture, row, rows_of
from PIL import Image
from saved_models import saved_model

import ccakit
from ccakit.catalogue.index import fill
from ccakit.catalogue.items import items_of_folder, items_of_table
from ccakit.catalogue.store import open_table
from ccakit.cli import main
from ccakit.errors import DataError
from ccakit.models.saved import save_model


def test_each_row_holds_what_the_model_gives(filled):
    """Against PretrainedModel.spaces of each picture, one by one."""
    rows, model = rows_of(filled), ccakit.load(filled / "run")
    assert len(rows) == COUNT
    for index in (0, 7, COUNT - 1):
        name = f"pic {index:02d}.png"
        spaces = model.spaces(filled / "photos" / name).numpy()
        stored = np.stack([rows[name]["space_neck_design"], rows[name]["space_tone"]])
        assert np.abs(stored - spaces).max() < 1e-3
        assert rows[name]["price"] == 10.5 + index and rows[name]["Unit Weight"] == index
        assert rows[name]["tone"] == (("dark", "light", None)[index % 3]) and not rows[name]["missing"]


def test_again_embeds_nothing(shop):
    before = open_table(str(shop / "catalogue"))[0].version
    report = fill_shop(shop)
    assert (report.embedded, report.unchanged, report.updated) == (0, COUNT, 0)
    assert open_table(str(shop / "catalogue"))[0].version == before


def test_new_changed_and_vanished_pictures(shop):
    picture(100).save(shop / "photos" / "pic 03.png")
    picture(101).save(shop / "photos" / "new.png")
    (shop / "photos" / "pic 04.png").unlink()
    lines = [row(index) for index in range(COUNT) if index != 4]
    (shop / "shop.csv").write_text(HEADER + "".join(lines) + "new.png,1.5,y,,1\n", encoding="utf-8")
    before = rows_of(shop)
    report = fill_shop(shop)
    after = rows_of(shop)
    assert (report.embedded, report.unchanged, report.missing, report.items) == (2, COUNT - 2, 1, COUNT)
    assert after["pic 04.png"]["missing"] and after["new.png"]["brand"] == "y"
    assert after["pic 03.png"]["space_tone"] != before["pic 03.png"]["space_tone"]
    assert after["pic 05.png"] == before["pic 05.png"]
    catalogue = ccakit.open_catalogue(shop / "catalogue")
    assert "pic 04.png" not in set(catalogue.search(id="new.png", conditions="tone", k=99)["id"])
    report = fill_shop(shop, prune=True)
    assert (report.pruned, report.missing) == (1, 0) and "pic 04.png" not in rows_of(shop)


def test_a_row_alone_is_updated_without_the_model(shop, monkeypatch):
    text = (shop / "shop.csv").read_text(encoding="utf-8")
    (shop / "shop.csv").write_text(text.replace("pic 02.png,12.5", "pic 02.png,99"), encoding="utf-8")
    before = rows_of(shop)["pic 02.png"]
    report = fill_shop(shop)
    after = rows_of(shop)["pic 02.png"]
    assert (report.embedded, report.updated) == (0, 1)
    assert after["price"] == 99.0 and after["space_tone"] == before["space_tone"]


PRICES = {
    "a currency": ("$10", "$12.50", "€ 3"),
    "a decimal comma": ("10,5", "12,50", "3"),
    "thousands": ("1,200", "980", "1 100.5"),
    "a decimal comma below 1": ("0,50", "0,75", "3"),
    "percent from 0": ("0%", "5%", "10 %"),
    "percent": ("10%", "12.5 %", "3"),
    "one word": ("10", "12.50", "ask"),
    "one code": ("10", "12.50", "007"),
}


@pytest.mark.parametrize("cells", PRICES.values(), ids=PRICES)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_text_that_looks_like_numbers_is_told(tmp_path, filled, cells, kind):
    table = pa.table({"file": [row(i).split(",")[0] for i in range(4)], "price": [*cells, None]})
    if kind == "csv":
        table.to_pandas().to_csv(tmp_path / "shop.csv", index=False)
    else:
        pq.write_table(table, tmp_path / "shop.parquet")
    items = items_of_table(tmp_path / f"shop.{kind}", filled / "photos")
    assert items.columns.schema.field("price").type == pa.string()
    [finding] = items.findings
    first = next(cell for cell in cells if cell.startswith("0") or not cell.replace(".", "").isdigit())
    assert f"the column 'price' is text: {first!r} in line" in finding
    assert finding.endswith("of 3 cells look like one")


@pytest.mark.parametrize(
    "cells", [("007", "012", "100"), ("red", "blue", "3"), ("2024-01-02",) * 3, ("38/40",) * 3, ("", "", "")]
)
def test_other_text_is_not(tmp_path, filled, cells):
    lines = [f'{row(i).split(",")[0]},"{cell}"\n' for i, cell in enumerate(cells)]
    (tmp_path / "shop.csv").write_text("file,price\n" + "".join(lines), encoding="utf-8")
    assert items_of_table(tmp_path / "shop.csv", filled / "photos").findings == []


def test_numbers_with_a_gap_are_numbers_in_every_kind_of_table(tmp_path, filled):
    names = [row(i).split(",")[0] for i in range(3)]
    pq.write_table(pa.table({"file": names, "price": ["10", None, "5"]}), tmp_path / "shop.parquet")
    items = items_of_table(tmp_path / "shop.parquet", filled / "photos")
    assert items.columns["price"].to_pylist() == [10.0, None, 5.0] and items.findings == []


def test_a_column_that_began_as_text_stays_text_and_this_is_told(shop, capsys):
    table, flags = shop / "shop.csv", ["--images", str(shop / "photos"), "--out", str(shop / "catalogue")]
    flags += ["--run", str(shop / "run"), "--table", str(table)]
    lines = table.read_text("utf-8").splitlines()
    for cell, told in (("$5", "'$5' in line 2 is not a number"), ("5", "is text in the catalogue")):
        end = [f"{line},{7 if index else cell}" for index, line in enumerate(lines[1:])]
        table.write_text("\n".join([lines[0] + ",fee", *end]), encoding="utf-8")
        assert main(["index", *flags]) == 0
        [note] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        assert "the column 'fee'" in note and told in note
    assert rows_of(shop)["pic 00.png"]["fee"] == "5"


@pytest.mark.parametrize("column", ["file", "brand"])
@pytest.mark.parametrize("prune", [False, True])
def test_where_no_picture_is_there_nothing_is_marked_or_removed(shop, column, prune):
    (shop / "empty").mkdir()
    text = "file,brand\n" + "".join(f"pic {n:02d}.png,acme {n}\n" for n in range(COUNT))
    (shop / "t.csv").write_text(text, encoding="utf-8")
    photos, before = shop / ("empty" if column == "file" else "photos"), rows_of(shop)
    items = items_of_table(shop / "t.csv", photos, column)
    model, run = ccakit.load(shop / "run"), str(shop / "run")
    for uri in ("catalogue", "another"):
        with pytest.raises(DataError, match="t.csv: names .* none of which is in .* --images, or .* --image"):
            fill(str(shop / uri), model, run, items, prune=prune)
    assert rows_of(shop) == before and not (shop / "another").exists()


def test_a_link_to_a_folder_is_listed(filled, tmp_path):
    (tmp_path / "photos").symlink_to(filled / "photos")
    picture(1).save(tmp_path / "own.png")
    items = items_of_folder(tmp_path)
    assert items.paths == ["own.png"] and "is a link to a folder" in items.refused["photos"]


def test_an_item_that_comes_back_is_not_embedded_again(shop):
    text = (shop / "shop.csv").read_text(encoding="utf-8")
    (shop / "shop.csv").write_text(text.replace(row(5), ""), encoding="utf-8")
    assert fill_shop(shop).missing == 1
    (shop / "shop.csv").write_text(text, encoding="utf-8")
    report = fill_shop(shop)
    assert (report.embedded, report.updated, report.missing) == (0, 1, 0)


def test_a_new_column_and_fractions_where_numbers_were_whole(shop):
    text = (shop / "shop.csv").read_text(encoding="utf-8").splitlines()
    lines = [f"{text[0]},size", *(f"{line},{'L' if n else ''}" for n, line in enumerate(text[1:]))]
    lines[3] = lines[3].replace(",2,", ",2.25,")
    (shop / "shop.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    fill_shop(shop)
    rows = rows_of(shop)
    assert rows["pic 02.png"]["Unit Weight"] == 2.25 and rows["pic 03.png"]["Unit Weight"] == 3.0
    assert rows["pic 00.png"]["size"] is None and rows["pic 01.png"]["size"] == "L"


def test_text_in_a_column_of_numbers_is_refused_with_its_line(shop):
    text = (shop / "shop.csv").read_text(encoding="utf-8")
    (shop / "shop.csv").write_text(text.replace("pic 02.png,12.5", "pic 02.png,cheap"), encoding="utf-8")
    with pytest.raises(
        DataError, match="shop.csv, line 4: 'cheap' in the column 'price', which holds double"
    ):
        fill_shop(shop)


@pytest.mark.parametrize(
    "name", ["id", "path", "missing", "space_tone", "_distance", "label_x", "image_hash", "ID", "Label_x"]
)
def test_a_reserved_column_is_refused(filled, tmp_path, name):
    file = tmp_path / "t.csv"
    file.write_text(f"file,{name}\npic 00.png,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"t.csv, line 1: the column '{name}' has a reserved name. Rename"):
        items_of_table(file, filled / "photos")


@pytest.mark.parametrize(
    "text,problem",
    [
        ("file,a.b\npic 00.png,1\n", "line 1: the column 'a.b' has a dot"),
        ("file,a\n../x.png,1\n", "line 2: '../x.png' is an absolute path, or points outside"),
        ("file,a\n/etc/passwd,1\n", "line 2: '/etc/passwd' is an absolute path, or points outside"),
        ("file,a\nC:\\\\x.png,1\n", "line 2: .* is an absolute path, or points outside"),
        ("file,a\n,1\n", "line 2: the image's path is empty. Write the path"),
        ("file,a\npic 00.png,1\npic 01.png,2\npic 00.png,3\n", "line 4: the item 'pic 00.png' is in line 2"),
        ("file,a,a\npic 00.png,1,2\n", "line 1: has columns without a name, or two of one name"),
        ("file,a,A\npic 00.png,1,2\n", "line 1: has columns without a name, or two of one name, capitals"),
        ("file,a\n", "has no row"),
    ],
)
def test_a_table_that_cannot_be_is_one_line(filled, tmp_path, text, problem):
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        items_of_table(file, filled / "photos")


def test_an_id_column_lets_a_picture_stand_for_two_items(filled, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("sku,file,id\n007,pic 00.png,a\n08,pic 00.png,b\n", encoding="utf-8")
    items = items_of_table(file, filled / "photos", "file", "id")
    assert (items.ids, items.paths) == (["a", "b"], ["pic 00.png"] * 2)
    assert items.columns.to_pydict() == {"sku": ["007", "08"]}  # leading zeros stay


def test_unreadable_pictures_are_listed_and_left_out(shop, tmp_path, capsys):
    """A file cut short, no image at all, a bomb of pixels, and a link that leads out."""
    photos = shop / "photos"
    data = (photos / "pic 01.png").read_bytes()
    (photos / "cut.png").write_bytes(data[: len(data) // 2])
    (photos / "words.jpg").write_text("no picture", encoding="utf-8")
    Image.new("1", (30_000, 30_000)).save(photos / "bomb.png")
    picture(5).save(tmp_path / "secret.png")
    (photos / "link.png").symlink_to(tmp_path / "secret.png")
    out = str(tmp_path / "of folder")
    assert main(["index", "--run", str(shop / "run"), "--images", str(photos), "--out", out]) == 0
    printed = capsys.readouterr()
    assert "unreadable: 4 pictures, left out" in printed.out and "24 items; 24 embedded" in printed.out
    lines = [line for line in printed.err.splitlines() if line.startswith("unreadable")]
    reasons = (
        "bomb.png: has too many pixels",
        "cut.png: is broken",
        "link.png: is a link to outside",
        "words.jpg",
    )
    assert len(lines) == 4 and all(reason in line for reason, line in zip(reasons, lines))


def test_a_picture_that_becomes_unreadable_is_missing(shop):
    (shop / "photos" / "pic 06.png").write_bytes(b"")
    report = fill_shop(shop)
    assert report.missing == 1 and report.items == COUNT - 1 and list(report.unreadable) == ["pic 06.png"]


def test_another_models_vectors_are_refused(shop):
    save_model(shop / "run", saved_model(wv="each"))
    before = rows_of(shop)
    with pytest.raises(DataError, match="holds the vectors of another model"):
        fill_shop(shop)
    assert rows_of(shop) == before


def test_a_folder_needs_pictures(tmp_path, filled):
    with pytest.raises(DataError, match="holds no picture"):
        items_of_folder(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        items_of_folder(tmp_path / "absent")
    picture(0).save(tmp_path / "a\nb.png")
    (tmp_path / os.fsdecode(b"c\xff.png")).write_bytes((tmp_path / "a\nb.png").read_bytes())
    picture(0).save(tmp_path / "good.PNG")
    items = items_of_folder(tmp_path)
    assert items.ids == ["good.PNG"] and set(items.refused) == {"'a\\nb.png'", "'c\\udcff.png'"}
    items = items_of_folder(filled / "photos")
    assert len(items) == COUNT and items.ids == sorted(items.ids)
