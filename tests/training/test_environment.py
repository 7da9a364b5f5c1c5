"""The settings alone decide what a run computes; what the environment asks for is ignored, and said."""

from __future__ import annotations

import json

import pytest
import torch

from ccakit.cli import main
from ccakit.models.saved import load_model
from ccakit.training.acceleration import SIZES, create_accelerator
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def garments(draw):
    return draw(40, 16, 16)


def flags(garments, out, *more: str) -> list[str]:
    small = ["--image-size", "32", "--lite-width", "32", "--lite-heads", "2", "--batch-size", "8"]
    return ["--data", str(garments), "--out", str(out), *small, "--budget", "steps=3", *more]


@pytest.fixture(scope="module")
def alone(garments, tmp_path_factory):
    """The weights of a run in an empty environment."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *flags(garments, out)]) == 0
    return load_model(out).model.state_dict()


VARIABLES = [
    {
        "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_DEEPSPEED": "true",
    },
    {"RANK": "1"},
    {"RANK": "1", "LOCAL_RANK": "", "WORLD_SIZE": "", "OMPI_COMM_WORLD_SIZE": "2", "PMI_SIZE": "1"},
    {"SLURM_STEP_NUM_TASKS": "4"},
]


@pytest.mark.parametrize("variables", VARIABLES, ids=lambda given: " ".join(given))
def test_the_environment_changes_no_weight(garments, alone, tmp_path, monkeypatch, capsys, caplog, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    assert main(["train", *flags(garments, out, "--json")]) == 0
    for name, tensor in load_model(out).model.state_dict().items():
        assert torch.equal(tensor, alone[name]), name
    printed = capsys.readouterr()
    facts = json.loads(printed.out.splitlines()[-1])
    assert facts == json.loads((out / "train.json").read_text("utf-8")) and facts["steps"] == 3
    asked = [(name, value) for name, value in variables.items() if name.startswith("ACCELERATE_")]
    said_too = [(name, value) for name, value in variables.items() if name in SIZES and value != "1"]
    assert len(facts["ignored_variables"]) == len(asked + said_too)
    for said, (name, value) in zip(facts["ignored_variables"], asked + said_too):
        assert said.startswith(f"{name}={value} is ignored, as settings alone decide; ")
        assert said in caplog.text and said in (out / "train.log").read_text("utf-8")
    environment = json.loads((out / "versions.json").read_text("utf-8"))["environment"]
    assert dict(asked).items() <= environment.items()


def test_what_the_settings_ask_for_too_is_not_ignored(garments, tmp_path, monkeypatch):
    """`accelerate launch` sets all of its variables, most of them to "no"."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    small = dict(image_size=32, lite_width=32, lite_heads=2, batch_size=8, budget="steps=2")
    _, facts = train(TrainConfig(data=garments, out=tmp_path / "run", accumulate=2, **small), quiet=True)
    assert facts["ignored_variables"] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in fp16")
def test_fp16_is_refused_where_it_would_do_nothing(garments, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", *flags(garments, out, "--mixed-precision", "fp16")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "ccakit train: --mixed-precision fp16 has no effect on this cpu; take --mixed-precision bf16, or no"
    )
    assert not out.exists()


@pytest.mark.parametrize("precision,dtype", [("bf16", torch.bfloat16), ("no", torch.float32)])
def test_the_precision_that_is_written_is_the_one_that_computes(precision, dtype, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if precision == "no" else "no")
    with create_accelerator(precision).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    "variables,says",
    [
        ({"WORLD_SIZE": "two"}, "the environment's WORLD_SIZE=two is not a whole number; unset it"),
        ({"LOCAL_RANK": "a"}, "the environment's LOCAL_RANK=a is not a whole number; unset it"),
        (
            {"WORLD_SIZE": "2", "RANK": "1"},
            "WORLD_SIZE=2 asks for other processes, without MASTER_ADDR, MASTER_PORT; "
            "start them with torchrun, or unset it",
        ),
    ],
    ids=["size", "rank", "no launcher"],
)
def test_what_no_launcher_sets_is_one_line(garments, tmp_path, monkeypatch, capsys, variables, says):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["train", *flags(garments, tmp_path / "run")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"ccakit train: {says}"
    assert not (tmp_path / "run").exists()


def test_a_rank_without_other_processes_prints_and_writes(tmp_path, garments, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")  # by hand: a launcher gives MASTER_ADDR, too
    assert main(["random", "--data", str(garments), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["split"] == "test"
    monkeypatch.delenv("WORLD_SIZE")
    assert Trainer(
        TrainConfig(data=garments, out=tmp_path / "run", image_size=32)
    ).accelerator.is_main_process
