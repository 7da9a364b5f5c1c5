"""benchmarks/vit.py: a small run of it on a small random ViT, and what it makes of its rows."""

from __future__ import annotations

import sys

import pytest
import tiny_vit  # noqa: F401 - registers `vit_for_tests`, of two blocks
from places import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import vit  # noqa: E402
from ccakit.benchmark.results import read_rows  # noqa: E402


def test_the_curve_the_systems_and_the_costs(draw, tmp_path, capsys):
    results = tmp_path / "vit.csv"
    flags = ["--data", str(draw(40, 20, 20)), "--out", str(tmp_path / "runs"), "--results", str(results)]
    flags += ["--trunk", "vit_for_tests", "--image-size", "32", "--no-pretrained", "--read-blocks", "1", "2"]
    flags += ["--seeds", "0", "--systems", "tf-csn,tf-asen", "--budget", "steps=1", "--rounds", "2"]
    vit.main([*flags, "--threads", "1", "--no-lite"])
    rows = read_rows(results)
    assert {(row["model"], vit.block_of(row)) for row in rows} >= {("cca-type2", 1), ("cca-type2", 2)}
    assert all(row["status"] in ("ok", "at chance", "collapsed") for row in rows)
    one, two = (next(r for r in rows if r["model"] == "cca-type2" and vit.block_of(r) == n) for n in (1, 2))
    assert 0 < one["spaces_operations"] < two["spaces_operations"] and one["spaces_time"] > 0
    assert "| tf-csn |" in capsys.readouterr().out
    vit.main([*flags, "--threads", "1", "--no-lite"])  # what is there is not made again
    told = capsys.readouterr().out
    assert "2 runs, 2 of them done" in told and read_rows(results) == rows


def test_the_best_block_is_chosen_on_valid_of_seed_0():
    def row(block, valid, test, seed=0):
        name = f"read_block={block}" if block else vit.LITE
        made = dict(model="cca-type2", variant=name, seed=seed, map_weighted=test)
        return made | dict(best_valid_map_weighted=valid, pointing_game=0.5, spaces_time=0.5)

    rows = [row(4, 60, 90), row(8, 80, 70), row(12, 70, 95), row(12, 99, 99, seed=1), row(None, 99, 99)]
    tuned = row(4, 99, 98) | dict(variant="read_block=4 freeze=1 layer_decay=0.7")
    rows.append(tuned)
    assert vit.best_block(rows) == 8, "of the frozen ones"
    table = vit.markdown([*rows, {**row(8, 1, 50), "model": "triplet"}])
    assert "| 12 | 2 | 84.5 ± 20.5 | 97.0 ± 2.8 | 50.0 ± 0.0 | 0.50 |  |" in table
    assert "| 4, `freeze=1 layer_decay=0.7` | 1 | 99.0 | 98.0 | 50.0 | 0.50 |  |" in table
    assert "| (`lite`, 128 px) | 1 | 99.0 | 99.0 | 50.0 | | |" in table
    assert table.endswith("| system | block 8 |\n|---|---|\n| cca-type2 | 70.0 |\n| triplet | 50.0 |")
    more = [{**row(8, 1, test, seed), "model": "triplet"} for seed, test in enumerate((50, 52))]
    assert vit.markdown([*rows, *more]).endswith("| triplet | 51.0 ± 1.4 |")


def test_a_block_later_costs_a_block_more():
    """Counted by hand: the patches' convolution, each Linear, and the attention's two products."""
    found = vit.costs("vit_for_tests", 32, [1, 2], 1)
    tokens, width = 17, 32
    patches = 2 * 16 * 3 * 8 * 8 * width
    block = 2 * tokens * 12 * width * width + 2 * 2 * tokens * tokens * width
    later = found[2]["spaces_operations"] - found[1]["spaces_operations"]
    assert later == pytest.approx(block / (patches + 2 * block))
