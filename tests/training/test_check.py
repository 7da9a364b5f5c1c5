"""`ccakit train --check`: what a training needs, computed from a few steps; nothing is left behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields

import numpy as np
import pytest
import rank_jobs
import torch
from rank_jobs import LITE, TINY
from ranks import run_ranks, torchrun

from ccakit.cli import main, parse
from ccakit.data.inputs import inputs_for
from ccakit.data.layout import read_dataset
from ccakit.training import check as module
from ccakit.training.check import CheckTrainer, check, table
from ccakit.training.config import TrainConfig

SECONDS = 2.0  # of whatever is timed, where a test says so


@pytest.fixture(scope="module")
def garments(draw):
    return draw(48, 12, 12)


@pytest.fixture
def timed(monkeypatch):
    """Let all that is timed take SECONDS."""
    monkeypatch.setattr(CheckTrainer, "_timed", lambda trainer, work: (work(), SECONDS))


def settings(data, out, **options):
    return TrainConfig(data=data, out=out, **{**TINY, **options})


def flags(**options):
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def test_a_check_takes_steps_and_leaves_nothing(garments, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = sorted(garments.rglob("*"))
    facts = check(settings(garments, tmp_path / "run", trunk="lite", image_size=64, freeze="backbone"))
    assert sorted(garments.rglob("*")) == before
    assert list(tmp_path.rglob("*")) == [tmp_path / "temporary"]
    (process,) = facts["processes"]
    assert process["device"] == "cpu" and process["batch"] == {"images": 16}
    assert 0.1 < process["peak_gib"] < process["of_gib"]
    assert facts["epochs"] == 2 and facts["batches"] == 2 * 48 // 16
    assert facts["looked_at"] == {"train": 48, "valid": 12} and facts["refused"] == ""
    assert all(facts["hours"][name] > 0 for name in ("look", "features", "steps", "validation"))


@pytest.mark.parametrize(
    "options,batches,epochs,evaluations",
    [
        (dict(budget="epochs=4", evaluate_every=2), 12, 4, 2),
        (dict(budget="steps=30"), 30, 10, 10),
        (dict(budget="36s"), 9, 3, 3),  # 4 s a step
    ],
)
def test_hours_are_those_of_all_parts(garments, tmp_path, timed, options, batches, epochs, evaluations):
    facts = check(settings(garments, tmp_path / "run", freeze="1", **options))
    assert (facts["batches"], facts["epochs"]) == (batches, epochs)
    seconds = {name: pytest.approx(3600 * hours) for name, hours in facts["hours"].items()}
    assert seconds["look"] == SECONDS  # train alone: of valid, training looks at none before it needs it
    assert seconds["steps"] == batches * 2 * SECONDS  # reading, then training
    assert seconds["validation"] == evaluations * SECONDS
    assert seconds["features"] == SECONDS / 12 * (48 + 12)  # 12 images of valid, or more of train, at a time
    assert facts["hours"]["all"] == pytest.approx(sum(h for n, h in facts["hours"].items() if n != "all"))
    assert facts["images_per_second"] == {"steps": 8, "reading": 8, "both": 4}


def test_loader_processes_read_while_steps_are_taken(garments, tmp_path, timed, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    facts = check(settings(garments, tmp_path / "run", freeze="none", workers=6))
    assert facts["images_per_second"] == {
        "steps": 8,
        "reading": 16,
        "both": 8,
    }  # 8 cores, of which 4 were busy
    assert facts["hours"]["features"] == 0


@pytest.mark.parametrize("mode", ["spaces", "triplets"])
def test_steps_are_fed_what_training_feeds(garments, tmp_path, mode):
    config = settings(garments, tmp_path / "run", freeze="1", mode=mode)
    trainer = CheckTrainer(config, None, tmp_path)
    trainer.open_training()
    train, model = read_dataset(garments)["train"], trainer.saved.model
    usual = inputs_for(model, train, trainer.saved.transform, cache=True, progress=False)
    for number, batch in enumerate(trainer.steps.batches):
        images, _ = trainer.objective.prepare(batch)
        assert trainer.inputs.cached and torch.equal(trainer.steps[number][0], usual.load(images))
    shutil.rmtree(garments / ".features")


def test_a_group_of_batches_is_finished_before_steps_count(garments, tmp_path):
    config = settings(garments, tmp_path / "run", freeze="none", accumulate=4, batch_size=8)
    trainer = CheckTrainer(config, None, tmp_path)
    trainer.open_training()
    trainer.run_steps()
    assert len(trainer.steps) == 4 + module.STEPS and trainer.optimizer.state  # memory of AdamW is taken


def test_unreadable_images_are_listed_and_too_many_refused(garments, tmp_path, capsys):
    data = tmp_path / "garments"
    shutil.copytree(garments, data)
    dataset = read_dataset(data)
    dataset["train"].path(7).unlink()
    dataset["valid"].path(2).write_bytes(b"")
    words = ["train", "--check", *flags(**TINY | dict(data=data, out=tmp_path / "run", freeze="none"))]
    assert main([*words, "--max-unreadable", "0.1", "--skip-unreadable", "--json"]) == 0
    out = capsys.readouterr().out
    facts = json.loads(out.splitlines()[-1])
    assert [(row["line"], row["reason"]) for row in facts["unreadable"]["train"]] == [(8, "is missing")]
    assert "unreadable: 1 of 48 images of train: images/train/000007.png (line 8: is missing)" in out
    assert "unreadable: 1 of 12 images of valid" in out and facts["refused"] == ""
    assert main([*words, "--skip-unreadable"]) == 1  # more than 1%
    shown = capsys.readouterr()
    assert "process" in shown.out and "filenames_train.txt, line 8: lists" in shown.err
    assert main([*words, "--max-unreadable", "0.1"]) == 1
    assert "filenames_valid.txt, line 3: lists" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_check_is_no_setting_of_training():
    config = parse("train", ["--preset", "paper", "--check", "--lr", "0.5"])
    assert config.check and "check" not in [field.name for field in fields(TrainConfig)]
    assert config.training() == TrainConfig(**{**TrainConfig.presets["paper"], "lr": 0.5})


def test_the_table_names_the_first_unreadable_images():
    rows = [{"file": f"{n}.jpg", "line": n, "reason": "is empty"} for n in range(1, 9)]
    facts = {
        "model": "csn",
        "trunk": "resnet50",
        "mode": "triplets",
        "dataset": "shoes",
        "processes": [{"device": "GPU", "batch": {"triplets": 8, "images": 24}, "peak_gib": 3, "of_gib": 80}],
        "images_per_second": {"steps": 1000.0, "reading": 2000.0, "both": 1000.0},
        "workers": 8,
        "epochs": 200.0,
        "batches": 312400,
        "hours": {"look": 0.5, "features": 0, "steps": 2.0, "validation": 0.25, "all": 2.75},
        "unreadable": {"train": rows},
        "looked_at": {"train": 9000},
    }
    lines = table(facts).splitlines()
    assert lines[2] == "0        GPU     8 triplets, 24 images  3.0 of 80.0 GiB"
    assert "reading 2,000.0 by 8 loader processes (estimated)" in lines[3]
    assert lines[4].endswith("312,400 batches, 2.75 hours (look 0.50, steps 2.00, validation 0.25)")
    assert lines[5].startswith("unreadable: 8 of 9,000 images of train: 1.jpg (line 1: is empty), 2.jpg")
    assert lines[5].endswith("5.jpg (line 5: is empty), 3 more")


def test_each_process_says_its_own(garments, tmp_path):
    words = flags(**TINY | dict(data=garments, out=tmp_path / "run", mode="triplets"))
    ended = run_ranks(2, rank_jobs.command, "train", "--check", *words, "--json")
    facts = json.loads(ended.stdout.strip().splitlines()[-1])
    assert [each["batch"]["triplets"] for each in facts["processes"]] == [8, 8]
    assert ended.stdout.count("process  device") == 1
    assert not (tmp_path / "run").exists() and not (garments / ".features").exists()


@pytest.mark.slow
def test_torchrun_checks(garments, tmp_path):
    words = flags(**{**TINY, **LITE, "data": garments, "out": tmp_path / "run"})
    ended = torchrun(2, "-m", "ccakit", "train", "--check", *words, "--json")
    facts = json.loads(ended.stdout.strip().splitlines()[-1])
    assert np.sum([each["batch"]["images"] for each in facts["processes"]]) == 16
    assert list(tmp_path.iterdir()) == []
