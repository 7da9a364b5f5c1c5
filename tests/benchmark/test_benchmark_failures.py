"""The benchmark: what fails, collapses, is at chance or cannot be read is a row that says so."""

from __future__ import annotations

import shutil

import pytest
import torch
from small_benchmarks import SMALL, config, status_of, trained_before, watch_training

from ccakit.benchmark import runs as module
from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.plan import Trial
from ccakit.benchmark.results import at_chance, read_rows
from ccakit.benchmark.runs import benchmark, describe
from ccakit.benchmark.speed import measure_speed
from ccakit.benchmark.standings import markdown, report, standings
from ccakit.cli import main
from ccakit.data.layout import read_dataset


def fail_for(name):
    """The changed facts of `trained_before`: training this system fails."""

    def changed(model):
        if model == name:
            raise FloatingPointError(f"the loss is nan at step 3 of {name}\nand more")
        return {}

    return changed


def test_a_failing_system_is_a_row_and_is_tried_again(finished, garments, tmp_path, monkeypatch):
    one = dict(modes=("spaces",), seeds="0")
    with monkeypatch.context() as patch:
        tried = watch_training(patch, trained_before(finished, fail_for("csn")))
        benchmark(config(garments, tmp_path / "out", **one))
    assert tried == [("spaces", "csn", 0), ("spaces", "triplet", 0)]
    trained = watch_training(monkeypatch)
    rows = {r["model"]: r for r in read_rows(tmp_path / "out" / "garments.csv")}
    assert (
        rows["csn"]["status"] == "failed: the loss is nan at step 3 of csn"
        and rows["csn"]["map_weighted"] is None
    )
    assert rows["triplet"]["status"] == status_of(rows["triplet"]) and rows["triplet"]["map_weighted"] > 0
    assert describe(rows["csn"]) == "spaces csn seed 0: failed: the loss is nan at step 3 of csn"
    for table in (report(list(rows.values())), markdown(list(rows.values()))):
        assert "failed: the loss is nan at step 3 of csn" in table
    rows = benchmark(config(garments, tmp_path / "out", **one))
    assert trained == [("spaces", "csn", 0)]
    assert all(r["status"] == status_of(r) for r in rows)


def test_a_failing_system_is_shown_by_the_command(finished, garments, tmp_path, monkeypatch, capsys):
    watch_training(monkeypatch, trained_before(finished, fail_for("csn")))
    flags = [
        "--data",
        garments,
        "--out",
        tmp_path / "out",
        "--models",
        "triplet,csn",
        "--seeds",
        "0",
        "--modes",
        "spaces",
        "--budget",
        "epochs=1",
        "--image-size",
        64,
        "--no-speed",
    ]
    assert main(["benchmark", *map(str, flags)]) == 0
    assert "failed: the loss is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options,models",
    [
        pytest.param(dict(speed=False), "asen-v2,csn", id="keep_features"),
        pytest.param(dict(speed=True), "csn,asen-v2", id="speed"),
        pytest.param(dict(speed=False), "csn,asen-v2", id="neither"),
    ],
)
def test_a_system_that_cannot_be_built_does_not_stop_the_others(
    options, models, finished, garments, tmp_path, monkeypatch
):
    real, before = module.train, trained_before(finished)

    def train(settings, dataset=None, quiet=False):
        return (before if settings.model == "csn" else real)(settings, dataset, quiet=quiet)

    watch_training(monkeypatch, train)
    one = dict(modes=("spaces",), seeds="0", models=models, variants=(f"embed_dim=16 {SMALL}",))
    rows = {r["model"]: r for r in benchmark(config(garments, tmp_path / "out", **one, **options))}
    assert rows["csn"]["status"] == status_of(rows["csn"]) and rows["csn"]["map_weighted"] > 0
    assert rows["asen-v2"]["status"].startswith("failed: embed_dim=16: asen-v2 has no FC")


@pytest.mark.parametrize(
    "flags,says",
    [
        (["--image-size", "70"], "not a multiple of its stride"),
        pytest.param(
            ["--mixed-precision", "fp16"],
            "--mixed-precision fp16 has no effect on this cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in fp16"),
        ),
    ],
)
def test_what_makes_every_run_fail_is_one_error(flags, says, garments, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["--data", str(garments), "--out", str(out), "--models", "csn,triplet", "--seeds", "0,1"]
    assert main(["benchmark", *given, *flags]) == 1
    assert says in capsys.readouterr().err.splitlines()[-1] and not out.exists()


def test_a_run_at_chance_is_shown_as_that(finished, garments, tmp_path, monkeypatch):
    watch_training(monkeypatch, trained_before(finished))
    real = module.evaluate

    def evaluate(run):
        metrics = real(run)
        chance = metrics["random_map_weighted"]
        return {**metrics, "map_weighted": chance + (0.99 if run.system == "csn" else 1.01)}

    monkeypatch.setattr(module, "evaluate", evaluate)
    rows = benchmark(config(garments, tmp_path / "out", modes=("spaces",), seeds="0"))
    assert {r["model"]: r["status"] for r in rows} == {"csn": "at chance", "triplet": "ok"}
    assert describe(rows[0]).count("(at chance)") == 1 and "at chance" not in describe(rows[1])
    assert not any(
        at_chance({"map_weighted": a, "random_map_weighted": b}) for a, b in ((None, 9), (9, None))
    )


def test_a_collapsed_run_is_shown_as_that(finished, garments, tmp_path, monkeypatch):
    train = trained_before(finished, lambda model: {"collapsed": model == "csn"})
    watch_training(monkeypatch, train)
    rows = benchmark(config(garments, tmp_path / "out", modes=("spaces",), seeds="0"))
    assert rows[0]["status"] == "collapsed" and rows[1]["status"] == status_of(rows[1])
    assert "(collapsed)" in describe(rows[0]) and "collapsed" not in describe(rows[1])
    again = read_rows(tmp_path / "out" / "garments.csv")
    for table in (report(again), markdown(again)):
        lines = [line for line in table.splitlines() if "collapsed" in line]
        assert len(lines) == 1 and "csn" in lines[0] and "1 of 1 collapsed" in lines[0]
    assert sum(line["collapsed"] for line in standings(again)) == 1


@pytest.fixture()
def spoilt(garments, tmp_path):
    """A copy of the data with an image of train and two of test that cannot be read."""
    root = tmp_path / "garments"
    shutil.copytree(garments, root)
    dataset = read_dataset(root)
    for split, images in {"train": [5], "test": [0, 3]}.items():
        for image in images:
            dataset[split].path(image).write_bytes(b"no picture")
    return root


def test_an_unreadable_image_fails_a_run_and_not_the_benchmark(spoilt, tmp_path, trained):
    out, one = tmp_path / "out", dict(models="csn", modes=("spaces",), seeds="0,1", max_unreadable=0.05)
    for _ in range(2):  # the second time on what the first has begun
        rows = benchmark(config(spoilt, out, **one))
        assert [r["seed"] for r in rows] == [0, 1]
        for r in rows:
            assert r["status"].startswith("failed: ") and "filenames_test.txt, line 1" in r["status"]
    rows = benchmark(config(spoilt, out, skip_unreadable=True, **one))  # they continue: the training is there
    assert all(r["status"] == status_of(r) for r in rows) and [r["unreadable"] for r in rows] == [3, 3]
    assert [r["unreadable"] for r in read_rows(out / "garments.csv")] == [3, 3]
    assert rows[0]["epochs"] == 1 and len(trained) == 6
    benchmark(config(spoilt, out, **one))  # what is done is done
    assert len(trained) == 6


@pytest.mark.parametrize("freeze", ["backbone", "none"])
def test_too_many_unreadable_training_images_fail_the_runs(spoilt, tmp_path, freeze):
    one = dict(modes=("spaces",), seeds="0", freeze=freeze, models="csn", skip_unreadable=True)
    rows = benchmark(config(spoilt, tmp_path / "out", **one))
    assert "filenames_train.txt, line 6" in rows[0]["status"] and rows[0]["status"].startswith("failed: ")
    assert "more than a share of 0.01" in rows[0]["status"]
    with pytest.raises(ValueError, match="max_unreadable: Input should be less than or equal to 1, not 1.5"):
        BenchmarkConfig(max_unreadable=1.5)


def test_speed_is_measured_beside_unreadable_images(spoilt, tmp_path):
    given = config(spoilt, tmp_path / "out", max_unreadable=0.05)
    found = measure_speed(given, [Trial("spaces", SMALL, "csn", 0)], read_dataset(spoilt))
    assert min(found["spaces", SMALL, "csn"].values()) > 0
