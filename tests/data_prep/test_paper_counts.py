"""The label counts that are shipped with the audit of the paper, made again from the real split files."""

from __future__ import annotations

import json
from pathlib import Path

import paper_counts
import pytest

from ccakit.audit.tables import label_counts


def test_the_shipped_counts_are_those_of_the_split_files(splits: Path, tmp_path: Path) -> None:
    paper_counts.main([str(splits), "--out", str(tmp_path / "counts.json")])
    text = (tmp_path / "counts.json").read_text(encoding="utf-8")
    counts = json.loads(text)
    assert counts == label_counts() and text == paper_counts.SHIPPED.read_text(encoding="utf-8")
    listed = dict(line.split()[::-1] for line in (splits / "SHA256SUMS").read_text().splitlines())
    assert counts["sha256"] == listed, "every file that the counts are from, and no other"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: .*FashionAI"):
        paper_counts.main([str(tmp_path), "--out", str(tmp_path / "counts.json")])
    assert not list(tmp_path.iterdir())
