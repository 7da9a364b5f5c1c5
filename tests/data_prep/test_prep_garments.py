"""Garments by the script: three ways to label, drawn once. tests/data/test_drawn.py tests the labels."""

from __future__ import annotations

import pytest
from garments import main

from ccakit.data.layout import read_dataset

FEW = ["--train", "50", "--valid", "10", "--test", "30", "--size", "16"]


@pytest.mark.parametrize(
    "labels,name", [("all", "garments"), ("one", "garments_one"), ("rare", "garments_rare")]
)
def test_garments_are_drawn_once(labels, name, tmp_path, capsys):
    given = ["--labels", labels, "--out", str(tmp_path / "out"), *FEW]
    main(given)
    dataset, file = read_dataset(tmp_path / "out"), tmp_path / "out/meta.json"
    assert dataset.name == name and (tmp_path / "out/triplets_test.txt").exists()
    assert len(dataset["train"].filenames) == 50 and dataset.about["labels"] == labels
    printed, written = capsys.readouterr().out, file.stat().st_mtime_ns
    if labels == "rare":
        assert " 10.0%  pant_length" in printed and "  2.0%  neck_design" in printed
    main(given)
    assert file.stat().st_mtime_ns == written
    with pytest.raises(SystemExit, match="error: .*holds other data"):
        main([*given, "--seed", "1"])
