"""benchmarks/rehearsal.py: a small run of it on a small random ViT, and what it makes of its rows."""

from __future__ import annotations

import sys

import pytest
import tiny_vit  # noqa: F401 - registers `vit_for_tests`, of two blocks
from places import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import rehearsal  # noqa: E402


@pytest.mark.slow
def test_the_curves_see_the_same_images(draw, tmp_path, capsys):
    flags = ["--data", str(draw(40, 20, 20)), "--out", str(tmp_path / "runs"), "--epochs", "2"]
    flags += ["--results", str(tmp_path / "rehearsal.csv"), "--triplets", "20", "--threads", "1"]
    flags += ["--trunk", "vit_for_tests", "--image-size", "32", "--no-pretrained", "--read-blocks", "1", "2"]
    rehearsal.main(flags)
    told = capsys.readouterr().out
    assert "| images seen |" in told
    names = ["paper", "paper, lr 1e-5", "paper, mode spaces", "ours, block 1", "ours, block 2"]
    rows = rehearsal.read(tmp_path / "rehearsal.csv")
    assert [(row["run"], int(row["images"]) > 0) for row in rows] == [
        (n, True) for n in names for _ in (0, 1)
    ]
    before = (tmp_path / "rehearsal.csv").read_bytes()
    rehearsal.main(flags)  # what is there is not made again
    assert (tmp_path / "rehearsal.csv").read_bytes() == before


def test_the_paper_is_as_printed_but_for_the_trunk():
    options = rehearsal.parser().parse_args([])
    made = rehearsal.configs(options)
    paper, spaces = made["paper"], made["paper, mode spaces"]
    assert (paper.mode, paper.lr, paper.batch_size, paper.margin) == ("triplets", 1e-4, 64, 0.2)
    assert (paper.query, paper.head_norm, paper.head, paper.freeze) == ("fc", "none", "shared", "none")
    assert (paper.pull, paper.wv, paper.adapter, paper.read_block) == (0, "shared", 0, None)
    changed = {name for name in vars(paper) if getattr(paper, name) != getattr(spaces, name)}
    assert changed == {"mode"}


def test_a_run_is_a_line_of_the_table():
    def row(run, images, valid, step):
        return dict(run=run, images=images, valid_map_weighted=valid, step=step, minutes=step / 2)

    rows = [row("paper", 6012, 20, 32), row("paper", 12040, 30.04, 64), row("ours", 6000, 40, 100)]
    assert rehearsal.markdown([*rows, row("ours", 12000, 50, 200)]) == (
        "| images seen | 6,000 | 12,000 | batches | minutes |\n|---|---|---|---|---|\n"
        "| paper | 20.0 | 30.0 | 64 | 32 |\n| ours | 40.0 | 50.0 | 200 | 100 |"
    )
