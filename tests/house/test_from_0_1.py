"""What ccakit 0.1 wrote still opens: a run with its checkpoints, an exported model, a finished demo.

`tests/fixtures/0.1` was written by version 0.1.0 (`written_by.txt` is the script): a run of four steps on 40
drawn garments, with the checkpoint after the second, its metrics and embeddings; the same model exported; and
what a demo says of itself. The data are drawn again.
"""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest
import tiny_vit  # noqa: F401 - registers the trunk of the run
import torch
from places import FIXTURES
from safetensors.torch import load_file

from ccakit.cli import main
from ccakit.commands.demo import Config as DemoConfig
from ccakit.data.drawn import write_garments
from ccakit.data.layout import read_dataset
from ccakit.errors import DataError
from ccakit.hub import model_card
from ccakit.hub.pretrained import PretrainedModel
from ccakit.models.saved import load_model
from ccakit.settings import to_dict
from ccakit.training import config as training_config
from ccakit.training import run_folder
from ccakit.training.config import PLAIN, TrainConfig

STEPS = 4 * 1e-3  # how far Adam moves a weight in four steps, where its gradient is rounding alone
OLD = FIXTURES / "0.1"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The old files beside the data that they were made from."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    write_garments(tmp_path / "garments", 40, 12, 16, size=64, progress=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_evaluated_as_before(folder):
    before = json.loads((folder / "run/metrics_garments_test.json").read_text())
    assert main(["evaluate", "--run", "run"]) == 0
    now = json.loads((folder / "run/metrics_garments_test.json").read_text())
    assert before.keys() <= now.keys()
    for name in ("map_weighted", "map_macro", "random_map_weighted", "pointing_game"):
        assert now[name] == pytest.approx(before[name], abs=1e-3)
    assert now["queries"] == before["queries"]


@pytest.mark.parametrize("name", ["run", "exported"])
def test_a_model_gives_the_embeddings_it_gave(folder, name):
    wanted = load_file(folder / "run/embeddings_test.safetensors")["embeddings"]
    names = json.loads((folder / "run/embeddings_test.json").read_text())["filenames"]
    model = PretrainedModel.from_pretrained(folder / name)
    found = model.spaces([folder / "garments" / file for file in names])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert load_model(folder / name).recipe == model.saved.recipe


def test_a_run_is_embedded_as_before(folder):
    wanted = load_file(folder / "run/embeddings_test.safetensors")["embeddings"].numpy()
    assert main(["embed", "--run", "run", "--out", "new.safetensors"]) == 0
    np.testing.assert_allclose(load_file("new.safetensors")["embeddings"].numpy(), wanted, atol=1e-5)


def test_a_run_goes_on_from_a_checkpoint_of_before(folder):
    """From the second of four steps, to the weights that the unbroken run had."""
    wanted, facts = (
        load_file(folder / "run/model.safetensors"),
        json.loads((folder / "run/train.json").read_text()),
    )
    first_epoch = "".join((folder / "run/log.csv").read_text().splitlines(keepends=True)[:2])
    shutil.rmtree(folder / "run/checkpoints/step-00000004")
    config = json.loads((folder / "run/config.json").read_text())
    flags = [
        "--data",
        "garments",
        "--trunk",
        config["trunk"],
        "--no-pretrained",
        "--image-size",
        "32",
        "--freeze",
        "all",
        "--no-cache",
        "--keep",
        "2",
        "--batch-size",
        "16",
        "--budget",
        "steps=4",
        "--evaluate-every",
        "1",
        *"--pull 0 --oversample 0 --head shared --wv shared --adapter 0 --lite-heads 4".split(),  # as then
    ]
    assert main(["train", *flags, "--out", "run", "--resume"]) == 0
    found = load_file(folder / "run/model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=STEPS, rtol=0)
    assert (folder / "run/log.csv").read_text().startswith(first_epoch), "it began anew"
    now = json.loads((folder / "run/train.json").read_text())
    assert {name: now[name] for name in ("steps", "epochs", "images")} == {
        name: facts[name] for name in ("steps", "epochs", "images")
    }


def test_the_settings_of_before_are_settings_now():
    """A demo that 0.1 trained is that of `plain`, setting by setting."""
    kept = json.loads((OLD / "demo/demo.json").read_text())["demo"]
    config = DemoConfig(**DemoConfig.presets["smoke"])
    settings = to_dict(TrainConfig(model=config.model, budget=config.budget, seed=config.seed, **PLAIN))
    assert {name: json.loads(json.dumps(value)) for name, value in settings.items() if name in kept} == {
        name: value for name, value in kept.items() if name != "about"
    }


def test_settings_that_came_later_are_those_of_then(folder, monkeypatch):
    """Whatever the defaults are today."""
    later = dict(pull=1.0, head="each", oversample=1.0)
    for module in (training_config, model_card):
        monkeypatch.setattr(module, "TrainConfig", partial(TrainConfig, **later))
    before = json.loads((folder / "run/config.json").read_text())
    assert not later.keys() & before.keys()
    now = TrainConfig(
        **{**before, **later, "data": folder / "garments", "out": folder / "run", "resume": True}
    )
    with pytest.raises(DataError, match="pull was 0.0, now 1.0"):
        run_folder.open_folder(now.out, now, read_dataset(now.data))
    command = model_card.train_command(before)
    assert "--pull 0.0" in command and "--head shared" in command
