"""The file that a trunk starts from: found in data/weights, told, kept by checksum, the same on resume."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest
import timm
import torch
from safetensors.torch import save_file

from ccakit.benchmark.runs import settings_digest
from ccakit.cli import main
from ccakit.data.layout import read_dataset
from ccakit.disk import save_tensors
from ccakit.errors import DataError
from ccakit.hub.pretrained import PretrainedModel
from ccakit.models.registry import create_model
from ccakit.models.trunks.cnn import create_map_trunk
from ccakit.models.trunks.frozen import TrunkError
from ccakit.models.trunks.lite import imagenet_file
from ccakit.models.trunks.weight_files import weights_record
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import Trainer, train

VIT = "vit_tiny_patch16_224"
ABOUT = {"source": "a test's own", "licence": "CC0-1.0", "notes": "may be | tuned", "other": "not kept"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder below a project's folder; where data/weights/NAME.safetensors is written."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def write(folder, trunk=VIT, seed=1, **options):
    """Write random weights of a trunk; return its network."""
    torch.manual_seed(seed)
    net = timm.create_model(trunk, num_classes=0, **options)
    (folder / "data/weights").mkdir(parents=True, exist_ok=True)
    save_tensors(net.state_dict(), folder / f"data/weights/{trunk}.safetensors", ABOUT)
    return net


def make(**options):
    return create_model("triplet", conditions=2, trunk=VIT, image_size=32, read_block=1, **options)


@pytest.mark.parametrize("where", ["notebooks", "."])
def test_a_file_in_data_weights_is_taken_and_told(place, where, caplog):
    net, file = write(place / where), place / where / f"data/weights/{VIT}.safetensors"
    with caplog.at_level(logging.INFO, "ccakit"):
        model = make()
    assert torch.equal(model.trunk.patch_embed.proj.weight, net.patch_embed.proj.weight)
    assert f"the trunk {VIT} starts from" in caplog.text and "--weights hub" in caplog.text
    (told,) = weights_record(model)
    assert file.samefile(told.pop("file"))
    assert told == {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        **{key: ABOUT[key] for key in ("source", "licence", "notes")},
    }
    assert weights_record(make(pretrained=False)) == []
    for header in (None, {"format": "pt"}, {"about": "no JSON"}, {"about": "[1]"}, {"about": '"source"'}):
        save_file(net.state_dict(), file, header)
        assert weights_record(make())[0].keys() == {"file", "sha256"}


def test_the_working_folders_file_comes_first_and_a_given_one_before_it(place):
    write(place)
    net = write(place / "notebooks", seed=2)
    assert torch.equal(make().block.kv.weight, net.blocks[0].attn.qkv.weight[192:])
    other = timm.create_model(VIT, num_classes=0)
    save_file(other.state_dict(), place / "w.safetensors")
    model = make(weights="../w.safetensors")
    assert torch.equal(model.block.kv.weight, other.blocks[0].attn.qkv.weight[192:])
    assert [each["file"] for each in weights_record(model)] == ["../w.safetensors"]


@pytest.mark.parametrize("weights", ["hub", None])
def test_hub_asks_timm_whatever_lies_there(place, weights, monkeypatch):
    """For systems with a second trunk, of both."""
    asked, build = [], timm.create_model

    def ask(name, pretrained=False, pretrained_cfg_overlay=None, **options):
        if pretrained:
            asked.append((name, pretrained_cfg_overlay))
        return build(name, **options)

    write(place), write(place, "resnet18")
    monkeypatch.setattr(timm, "create_model", ask)
    monkeypatch.setattr("ccakit.models.trunks.timm_weights._check_weights", lambda *given: None)
    make(weights=weights)
    two = dict(trunk="resnet18", local="resnet18", crop="image", image_size=64)
    create_model("asen-pp", conditions=2, weights=weights, **two)
    assert [name for name, _ in asked] == [VIT, "resnet18", "resnet18"]
    assert [overlay is None for _, overlay in asked] == [weights == "hub"] * 3


def test_a_cnn_and_lite_have_theirs_too(place):
    net = write(place, "resnet18")
    trunk = create_map_trunk("resnet18", image_size=64)
    assert torch.equal(trunk.backbone.net.conv1.weight, net.conv1.weight)
    assert trunk.pretrained_cfg["file"].endswith("data/weights/resnet18.safetensors")
    lite = write(place, "tf_efficientnet_lite0")
    whole = timm.create_model("tf_efficientnet_lite0").state_dict() | lite.state_dict()
    save_file(whole, place / "data/weights/lite.safetensors")
    model, usual = (create_model("csn", conditions=2, weights=weights) for weights in (None, "hub"))
    assert torch.equal(model.trunk.backbone.net.conv_stem.weight, lite.conv_stem.weight)
    assert weights_record(usual)[0]["file"] == str(imagenet_file())


@pytest.mark.parametrize("damage", [b"no weights", None])
def test_a_file_that_does_not_fit_is_named(place, damage):
    write(place, "resnet18")
    file = place / "data/weights" / f"{VIT}.safetensors"
    (place / "data/weights/resnet18.safetensors").rename(file)
    if damage:
        file.write_bytes(damage)
    with pytest.raises(TrunkError, match=f"data/weights/{VIT}.safetensors.*--no-pretrained") as caught:
        make()
    assert damage is None or f"give a file with --weights, or lay it at data/weights/{VIT}." in str(
        caught.value
    )


def settings(data, out, **options) -> TrainConfig:
    values = dict(trunk=VIT, image_size=32, read_block=2, freeze="all", batch_size=16, budget="steps=1")
    return TrainConfig(data=data, out=out, **{**values, **options})


@pytest.fixture(scope="module")
def garments(draw):
    return draw(48, 16, 16)


def test_a_run_keeps_the_checksum_and_goes_on_from_these_weights_alone(place, garments, capsys):
    write(place)
    out, file = place / "run", place / f"data/weights/{VIT}.safetensors"
    train(settings(garments, out))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (kept,) = json.loads((out / "weights.json").read_text("utf-8"))["files"]
    told = f"the trunk starts from {file} (SHA-256 {digest})"
    assert kept["sha256"] == digest and told in (out / "train.log").read_text("utf-8")
    assert told in capsys.readouterr().out
    card = PretrainedModel.from_pretrained(out).generate_model_card().content
    assert f"a weights file, {file.name} (SHA-256 {digest}); a test's own; " in card
    assert "its licence is CC0-1.0" in card and str(file.parent) not in card

    again = dict(resume=True, budget="steps=1")
    train(settings(garments, out, **again), quiet=True)
    moved = file.rename(place / "moved.safetensors")
    train(settings(garments, out, weights=moved, **again), quiet=True)
    write(place, seed=3)
    with pytest.raises(DataError, match=f"run: was begun with other weights: .*{VIT}.* by their checksums"):
        train(settings(garments, out, **again), quiet=True)
    write(place)
    (out / "weights.json").unlink()  # as earlier versions left it, which knew no data/weights
    with pytest.raises(DataError, match="was begun with other weights: no file, now"):
        train(settings(garments, out, **again), quiet=True)


def test_features_of_other_weights_are_not_taken(place, garments):
    """And a finished benchmark's row is not that of other weights."""
    found = set()
    for seed in (1, 2):
        write(place, seed=seed)
        config = settings(garments, place / "run")
        model = Trainer(config, quiet=True).saved.model
        found.add((model.trunk.stem_key(), settings_digest(config, read_dataset(garments))))
    hub = settings_digest(settings(garments, place / "run", weights="hub"), read_dataset(garments))
    assert len({key for key, _ in found}) == 2 and len({hub, *(digest for _, digest in found)}) == 3


def test_the_command_line_takes_hub(place, garments, monkeypatch, capsys):
    def offline(name, pretrained=False, **options):
        raise OSError("no network")

    write(place)
    monkeypatch.setattr(timm, "create_model", offline)
    flags = ["--trunk", VIT, "--weights", "hub", "--out", str(place / "run"), "--data", str(garments)]
    assert main(["train", "--freeze", "all", *flags]) == 1
    assert not (place / "run").exists() and capsys.readouterr().err
