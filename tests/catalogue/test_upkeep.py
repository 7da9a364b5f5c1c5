"""Looking after a catalogue: counts, indexes with their recall, old versions, Parquet."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from catalogue_shop import COUNT, fill_shop, rows_of

import ccakit
from ccakit.catalogue.upkeep import info, optimize
from ccakit.cli import main


def test_info_counts_what_is_there(shop, capsys):
    (shop / "photos" / "pic 00.png").unlink()
    fill_shop(shop)
    assert main(["catalogue", "info", "--catalogue", str(shop / "catalogue"), "--json"]) == 0
    printed = capsys.readouterr().out
    facts = json.loads(printed.splitlines()[-1])
    size = sum(file.stat().st_size for file in (shop / "catalogue").rglob("*") if file.is_file())
    assert (facts["items"], facts["missing"], facts["bytes_on_disk"]) == (COUNT - 1, 1, size)
    assert facts["columns"] == ["price", "brand", "tone", "Unit Weight"] and facts["indexes"] == []
    assert "no index: every search is exact" in printed


def test_optimize_builds_indexes_and_states_their_recall(shop):
    catalogue = ccakit.open_catalogue(shop / "catalogue")
    assert optimize(catalogue) == []  # so few items need none
    before = catalogue.search(id="pic 03.png", conditions="tone")
    found = optimize(catalogue, from_rows=COUNT, keep_days=0, queries=5)
    assert [index.condition for index in found] == ["neck_design", "tone"]
    assert all((index.rows, index.left, index.recall) == (COUNT, 0, 1.0) for index in found)
    pd.testing.assert_frame_equal(catalogue.search(id="pic 03.png", conditions="tone"), before)
    assert info(catalogue)["versions"] == 1 and rows_of(shop).keys() == {
        f"pic {n:02d}.png" for n in range(COUNT)
    }


def test_items_that_came_after_the_index_are_found(shop):
    catalogue = ccakit.open_catalogue(shop / "catalogue")
    optimize(catalogue, from_rows=COUNT, queries=2)
    photo = (shop / "photos" / "pic 07.png").read_bytes()
    (shop / "photos" / "twin.png").write_bytes(photo)
    with open(shop / "shop.csv", "a", encoding="utf-8") as table:
        table.write("twin.png,1,x,dark,1\n")
    fill_shop(shop)
    frame = catalogue.search(id="pic 07.png", conditions="tone", k=1)
    assert frame["id"].tolist() == ["twin.png"] and frame["cosine"][0] == pytest.approx(1, abs=1e-6)


def test_items_that_go_missing_after_the_index_are_left_out_and_come_back(shop):
    catalogue = ccakit.open_catalogue(shop / "catalogue")
    optimize(catalogue, from_rows=COUNT, queries=0)
    photo, ids = shop / "photos" / "pic 07.png", {f"pic {n:02d}.png" for n in range(COUNT)}
    kept = photo.read_bytes()
    photo.unlink()
    fill_shop(shop)
    for exact in (False, True):
        found = catalogue.search(id="pic 07.png", conditions="tone", k=2 * COUNT, exact=exact)
        assert set(found["id"]) == ids - {photo.name}
        other = catalogue.search(id="pic 08.png", conditions="tone", k=2 * COUNT, exact=exact)
        assert set(other["id"]) == ids - {photo.name, "pic 08.png"}
    photo.write_bytes(kept)
    fill_shop(shop)
    other = catalogue.search(id="pic 08.png", conditions="tone", k=2 * COUNT)
    assert set(other["id"]) == ids - {"pic 08.png"}


def test_export_writes_the_items_to_parquet(shop, capsys):
    (shop / "photos" / "pic 00.png").unlink()
    fill_shop(shop)
    out, words = shop / "out" / "all.parquet", ["catalogue", "export", "--catalogue", str(shop / "catalogue")]
    assert main([*words, "--to", str(out)]) == 0
    frame, rows = pd.read_parquet(out), rows_of(shop)
    assert len(frame) == COUNT - 1 and "pic 00.png" not in set(frame["id"])
    line = frame[frame["id"] == "pic 05.png"].iloc[0]
    assert line["price"] == 15.5 and np.array_equal(line["space_tone"], rows["pic 05.png"]["space_tone"])
    assert main([*words, "--to", str(out)]) == 1 and "exists already" in capsys.readouterr().err
    assert main([*words, "--to", str(out), "--overwrite", "--no-vectors"]) == 0
    assert not [name for name in pd.read_parquet(out) if name.startswith("space_")]


def test_an_action_that_there_is_not(capsys):
    assert main(["catalogue", "burn"]) == 1
    assert "should be 'info', 'optimize' or 'export'" in capsys.readouterr().err
