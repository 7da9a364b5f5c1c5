"""Where commands write: no name is cut at a dot, nothing is replaced unasked, all is checked beforehand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from broken_runs import settings
from places import ROOT
from safetensors.torch import load_file

import ccakit.evaluation.evaluate as evaluating
from ccakit import disk
from ccakit.cli import main, parse
from ccakit.errors import DataError
from ccakit.evaluation import embedding
from ccakit.evaluation import run as running
from ccakit.models.saved import save_model
from ccakit.settings import from_dict
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import Trainer


@pytest.fixture(scope="module")
def made(draw, tmp_path_factory):
    """A model that was not trained, beside the data that its config.json names."""
    data = draw(20, 8, 12)
    save_model(data.parent / "run", Trainer(settings(data, "run"), quiet=True).saved)
    (data.parent / "run/config.json").write_text('{"data": "garments"}', encoding="utf-8")
    return data.parent


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_no_name_is_cut_at_a_dot(run, capfd):
    """Each of them has its embeddings and its own names."""
    for out in ("v1.0", "v1.1", "e.json", "a.b.safetensors"):
        assert main(["embed", "--run", "run", "--out", out]) == 0
        assert load_file(out)["embeddings"].shape[0] == 12
        names = f"{out.removesuffix('.safetensors')}.json"
        assert json.loads(Path(names).read_text(encoding="utf-8"))["file"] == out
    assert len(list(Path().glob("*.json"))) == 4 + 1  # and e.json, the embeddings


@pytest.mark.parametrize("command", ["embed", "evaluate", "export"])
def test_what_exists_is_replaced_only_when_asked_for(run, command, capfd):
    out = Path("mine.v1")
    argv = [command, "--run", "run", "--out", str(out)]
    if command == "export":
        out.mkdir()  # an empty folder may be
    assert main(argv) == 0
    file = out / "model.safetensors" if command == "export" else out
    before = file.read_bytes()
    file.write_bytes(b"mine")
    assert main(argv) == 1
    assert file.read_bytes() == b"mine"
    assert (
        "mine.v1: exists already. Choose another name, or replace it with --overwrite."
        in capfd.readouterr().err
    )
    assert main([*argv, "--overwrite"]) == 0 and file.read_bytes() == before
    if command == "embed":
        out.unlink()  # the names beside it still are another's
        assert main(argv) == 1 and not out.exists()
        for _ in range(2):  # the default files are replaced
            assert main([command, "--run", "run"]) == 0


@pytest.mark.parametrize("name", ["acme/shoes", "a\\b", "two\nlines"])
def test_any_name_of_a_data_set_makes_a_file(run, name):
    meta = json.loads(Path("garments/meta.json").read_text(encoding="utf-8"))
    (entry,) = meta.values()
    Path("garments/meta.json").write_text(json.dumps({name: entry}), encoding="utf-8")
    assert main(["evaluate", "--run", "run"]) == 0
    (file,) = run.glob("metrics_*.json")
    assert file.name == f"metrics_{disk.file_name(name)}_test.json" and "\n" not in file.name
    assert json.loads(file.read_text(encoding="utf-8"))["data"]["name"] == name


@pytest.mark.parametrize("command", ["evaluate", "embed", "export"])
@pytest.mark.parametrize("place", ["file/below", "folder", "long"])
def test_what_cannot_be_written_is_said_before_anything_is_computed(run, command, place, monkeypatch, capfd):
    def never(*args, **kwargs):
        raise AssertionError("it began to compute")

    monkeypatch.setattr(running, "open_run", never)  # it may compute features
    monkeypatch.setattr(evaluating, "embed_sides", never)
    monkeypatch.setattr(embedding, "embed_images", never)
    Path("file").touch()
    Path("folder/model.safetensors").mkdir(parents=True)
    out = {"long": "x" * 300}.get(place, place)
    before = sorted(Path().iterdir())
    assert main([command, "--run", "run", "--out", out, "--overwrite"]) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "cannot be written" in error
    assert sorted(Path().iterdir()) == before


def test_a_run_folder_that_cannot_be_written_is_said_first(run, monkeypatch, capfd):
    monkeypatch.setattr(evaluating, "embed_sides", None)
    (run / "metrics_garments_test.json").mkdir()
    assert main(["evaluate", "--run", "run"]) == 1
    assert "metrics_garments_test.json: cannot be written (it is a folder)" in capfd.readouterr().err
    Path("file").touch()
    assert main(["train", "--data", "garments", "--out", "file/run"]) == 1
    assert "cannot be written" in capfd.readouterr().err and not Path("garments/.features").exists()
    with pytest.raises(DataError, match="cannot be written"):
        disk.check_output(Path("file/a/b"))
    disk.check_output(Path("new/folder/file"))
    assert not Path("new").exists()


@pytest.mark.parametrize("out", [".", "", "..", "folder/.."])
def test_a_name_without_letters_is_a_folder_that_exists(run, out, capfd):
    for command in ("embed", "evaluate", "export"):
        assert main([command, "--run", "run", "--out", out]) == 1
        assert "exists already" in capfd.readouterr().err


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(DataError, match="it is not an ordinary file"):
            disk.check_output(path)


def test_an_existing_out_is_refused_before_features_are_computed(run, monkeypatch):
    monkeypatch.setattr("ccakit.commands.evaluate.open_for", None)
    assert main(["evaluate", "--run", "run", "--out", "garments"]) == 1
    Path("file").touch()
    monkeypatch.setattr("ccakit.commands.demo._draw", None)
    assert main(["demo", "--out", "file", "--data", "new"]) == 1


@pytest.mark.parametrize("name", ["p", "p.", "p.1", "p.txt", ".png", "p.png/"])
def test_a_picture_has_the_name_that_was_given(run, name, capfd):
    Path("p.png").write_bytes(b"mine")
    assert main(["audit", "garments", "--no-images", "--plot", name]) == 1
    ends = "exists already" if name == "p.png/" else "has no picture's ending. Let its name end in .png"
    assert ends in capfd.readouterr().err
    assert Path("p.png").read_bytes() == b"mine" and not Path(".png.png").exists()


def test_tensors_can_be_read_by_those_who_can_read_other_files(tmp_path):
    disk.write_text(tmp_path / "text", "")
    disk.save_tensors({"a": torch.zeros(1)}, tmp_path / "tensors")
    assert (tmp_path / "tensors").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_a_tilde_is_the_home_folder_in_yaml_flags_and_variants(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.yaml").write_text("data: ~/garments\nweights: ~/w\n")
    config = parse("train", ["--config=~/x.yaml", "--out=~/runs/a"])
    assert (config.data, config.weights) == (tmp_path / "garments", tmp_path / "w")
    assert config.out == tmp_path / "runs/a"
    assert from_dict(TrainConfig, {"weights": "~/w"}).weights == tmp_path / "w"
    assert parse("evaluate", ["--run=~/r", "--data=~"]).data == tmp_path


def test_no_code_derives_a_name_by_cutting_at_a_dot():
    cuts = ("with_suffix(", "splitext(", ".stem}", '.name.split(".")')
    for room in ("ccakit", "figures", "benchmarks", "data_prep"):
        for file in sorted((ROOT / room).rglob("*.py")):
            lines = file.read_text(encoding="utf-8").splitlines()
            found = [line for line in lines if any(cut in line for cut in cuts)]
            assert not found or file.name == "placing.py", (file, found)  # which compares names
