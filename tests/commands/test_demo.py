"""`ccakit demo` from nothing to table and pictures, and what the full demo has to reach."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from places import ROOT

from ccakit.cli import main
from ccakit.commands.demo import open_demo

RUN = ROOT / "runs/demo"
KEYS = {
    "map_weighted",
    "map_macro",
    "map_per_attribute",
    "random_map_weighted",
    "pointing_game",
    "pointing_chance",
    "pointing_other",
    "pointing_fixed",
    "train_seconds",
    "seed",
}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    small = {
        "out": root / "run",
        "data": root / "data",
        "train": 160,
        "valid": 40,
        "test": 60,
        "budget": "epochs=1",
    }
    return [word for name, value in small.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def made(flags):
    """The flags of a demo that is there, also where a worker of pytest has not run the first test."""
    assert main(["demo", *flags, "--no-pictures"]) == 0
    return flags


def test_from_nothing_to_table_and_pictures(flags, capsys):
    assert main(["demo", *flags, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    metrics, out = json.loads(lines[-1]), Path(flags[1])
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert KEYS <= set(metrics) and len(metrics["map_per_attribute"]) == 8
    assert any(line.startswith("weighted by query") for line in lines)
    assert sum("times as often as" in line for line in lines) == 3
    assert 0 < metrics["pointing_chance"] < 0.2 and 10 < metrics["random_map_weighted"] < 30
    for name in ("heatmaps", "spaces", "ranking"):
        picture = cv2.imread(str(out / f"{name}.png"))
        assert picture is not None and min(picture.shape[:2]) > 300 and picture.std() > 20


def test_twice_in_a_row_trains_once(made, capsys):
    model = Path(made[1]) / "model.safetensors"
    before = (model.read_bytes(), model.stat().st_mtime_ns)
    assert main(["demo", *made, "--no-pictures"]) == 0
    assert "holds this demo's model already" in capsys.readouterr().out
    assert (model.read_bytes(), model.stat().st_mtime_ns) == before


def test_other_settings_are_refused_and_lose_nothing(made, capsys):
    model = Path(made[1]) / "model.safetensors"
    before = model.read_bytes()
    assert main(["demo", *made, "--model", "triplet"]) == 1
    assert "holds a demo with other settings" in capsys.readouterr().err
    assert main(["demo", *made, "--train", "170", "--out", str(Path(made[1]).parent / "new")]) == 1
    assert "holds other data" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_an_interrupted_training_begins_again(flags, capsys):
    out = Path(flags[1]).parent / "broken"
    argv = ["demo", *flags, "--out", str(out), "--no-pictures"]
    assert main([*argv, "--budget", "steps=1"]) == 0
    kept = json.loads((out / "demo.json").read_text())
    (out / "demo.json").write_text(json.dumps({**kept, "facts": None}))  # as it stands while training
    assert main([*argv, "--budget", "steps=2"]) == 0
    assert json.loads((out / "demo.json").read_text())["facts"]["steps"] == 2


def test_a_runs_folder_of_another_kind_is_not_touched(made, capsys):
    out = Path(made[1]).parent / "mine"
    train = ["train", "--data", made[3], "--out", str(out), "--budget", "steps=1"]
    assert main(train) == 0
    before = sorted(p.name for p in out.rglob("*"))
    assert main(["demo", *made, "--out", str(out)]) == 1
    assert (
        "already holds a run" in capsys.readouterr().err and sorted(p.name for p in out.rglob("*")) == before
    )


def test_files_of_others_are_never_removed(flags, capsys):
    out = Path(flags[1]).parent / "home"
    (out / "thesis").mkdir(parents=True)
    (out / "thesis/a.txt").write_text("precious")
    argv = ["demo", *flags, "--out", str(out), "--no-pictures", "--budget", "steps=1"]
    assert main(argv) == 1 and "other files" in capsys.readouterr().err
    (out / "demo.json").write_text(json.dumps({"demo": {}, "facts": None}))  # interrupted, beside other files
    assert main(argv) == 0
    assert (out / "thesis/a.txt").read_text() == "precious"


def test_unknown_presets_of_open_demo_are_refused():
    with pytest.raises(ValueError, match="smoke, demo"):
        open_demo("huge")


@pytest.mark.skipif(
    not (RUN / "metrics.json").exists(), reason="no runs/demo: `make demo` makes it, as .ci/run does"
)
def test_make_demo_reaches_its_aims():
    metrics = json.loads((RUN / "metrics.json").read_text())
    assert metrics["map_weighted"] >= metrics["random_map_weighted"] + 45
    game = metrics["pointing_game"]
    assert game >= 5 * metrics["pointing_chance"]
    assert game >= 3 * metrics["pointing_other"]
    assert game >= 1.3 * metrics["pointing_fixed"]
