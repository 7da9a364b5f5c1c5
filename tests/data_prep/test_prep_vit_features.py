"""Features of several depths by one command: what training then finds, and what it says before it begins."""

from __future__ import annotations

import pytest
import tiny_vit  # noqa: F401 - registers `vit_for_tests`, of two blocks
import torch
import vit_features

from ccakit.data.inputs import ImageInputs, inputs_for
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.models.registry import create_model


def test_a_run_finds_what_it_keeps(draw, capsys, monkeypatch):
    root = draw(6, 4, 4)
    flags = ["--data", str(root), "--trunk", "vit_for_tests", "--image-size", "32", "--no-pretrained"]
    monkeypatch.setattr(vit_features, "create_model", seeded)
    vit_features.main([*flags, "--read-blocks", "1", "2", "--splits", "train", "test"])
    told = capsys.readouterr().out
    assert "10 images at" in told and "GiB in" in told and "test: 4 images" in told
    kept = sorted(path.name for path in (root / ".features").glob("*.npy"))
    assert len(kept) == 4 and not any(name.startswith("valid") for name in kept)
    dataset = read_dataset(root)
    for block in (1, 2):
        model = seeded("cca-type2", conditions=8, trunk="vit_for_tests", read_block=block, freeze="all")
        transform = ImageTransform.from_timm(model.trunk.pretrained_cfg)
        found = inputs_for(model, dataset["test"], transform, cache=True, progress=False)
        expected = model.trunk.stem(ImageInputs(dataset["test"], transform).load([0, 3]))
        torch.testing.assert_close(found.load([0, 3]), expected, atol=5e-3, rtol=2e-3)
    assert sorted(path.name for path in (root / ".features").glob("*.npy")) == kept  # nothing was computed
    vit_features.main([*flags, "--read-blocks", "1", "2", "--splits", "train"])
    assert "holds them all" in capsys.readouterr().out


def seeded(name: str, **options):
    """Random weights, which are the same each time."""
    torch.manual_seed(0)
    return create_model(name, **{**options, "pretrained": False}).eval()


def test_what_is_wrong_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="^error: .*is not a folder"):
        vit_features.main(["--data", str(tmp_path / "none")])
