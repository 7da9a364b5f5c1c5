"""The benchmark: all its runs, resuming, plan and variants, and what systems cost."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_benchmarks import MODELS, MODES, SEEDS, SMALL, config, status_of, trained_before, watch_training

from ccakit.benchmark import speed
from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.plan import Trial, plan, settings_of
from ccakit.benchmark.results import COLUMNS, PER_ATTRIBUTE, PER_TRIPLETS, read_rows, write_rows
from ccakit.benchmark.runs import benchmark, settings_digest
from ccakit.benchmark.speed import measure_speed
from ccakit.benchmark.standings import report
from ccakit.cli import main, parse
from ccakit.data.layout import read_dataset
from ccakit.errors import DataError
from ccakit.models.registry import list_models
from ccakit.training.trainer import Trainer

ORDER = [info.name for info in list_models()]


def without_row(file: Path, mode: str, model: str, seed: int) -> None:
    rows = [r for r in read_rows(file) if (r["mode"], r["model"], r["seed"]) != (mode, model, seed)]
    write_rows(file, rows)


# a finished benchmark


def test_the_file_holds_a_row_a_run(finished, garments):
    file = finished / "garments.csv"
    with open(file, encoding="utf-8", newline="") as lines:
        head, *cells = csv.reader(lines)
    names = read_dataset(garments, splits=("test",)).attributes.names
    assert head[: len(COLUMNS)] == list(COLUMNS)
    each = {kind + name for kind in (PER_ATTRIBUTE, PER_TRIPLETS) for name in names}
    assert set(head[len(COLUMNS) :]) <= each and len(head) > len(COLUMNS) + 6
    rows = read_rows(file)
    runs = [(r["mode"], r["model"], r["seed"]) for r in rows]
    assert runs == [(mode, name, seed) for mode in MODES for name in MODELS for seed in SEEDS]
    for row in rows:
        assert row["status"] == status_of(row) and row["dataset"] == "garments"
        assert row["unreadable"] == 0 and row["variant"] is None
        per_attribute = [v for n, v in row.items() if n.startswith(PER_ATTRIBUTE)]
        assert 0 < row["map_weighted"] <= 100 and row["map_macro"] == pytest.approx(
            np.mean(per_attribute), abs=1e-3
        )
        assert (
            row["epochs"] == 1
            and row["images"] >= 24
            and row["trunk"] == "lite"
            and row["budget"] == "epochs=1"
        )
        assert row["shares_trunk"] is True and 0 < row["trained_parameters"] < row["parameters"]
        assert min(row["embed_mflops"], row["embed_ms"], row["images_per_second"]) > 0
        assert (row["pointing_game"] is None) == (row["model"] == "csn")  # [CLS] of the ViT attends
        result = json.loads(
            (finished / row["mode"] / "default" / f"{row['model']}-{row['seed']}/result.json").read_text()
        )
        assert row["map_weighted"] == pytest.approx(result["map_weighted"], abs=1e-4)
        assert len(result["settings"]) == 8
    assert len({r["map_weighted"] for r in rows}) > 4
    conditions, width = len(names), 128
    each = (width + 1) * width + 2 * width + width  # FC, norm, mask
    csn = (152 + 1) * width + conditions * each  # 1x1 convolution, and these of each condition
    assert {r["trained_parameters"] for r in rows if r["model"] == "csn"} == {csn}


def test_the_numbers_are_those_of_evaluate(finished, garments, capsys):
    out = finished / "spaces" / "default" / "triplet-1"
    assert main(["evaluate", "--run", str(out), "--data", str(garments), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = next(
        r
        for r in read_rows(finished / "garments.csv")
        if (r["mode"], r["model"], r["seed"]) == ("spaces", "triplet", 1)
    )
    for name in ("map_weighted", "map_macro", "random_map_weighted", "pointing_game", "pointing_chance"):
        assert row[name] == pytest.approx(metrics[name], abs=1e-4)
    for name, value in metrics["map_per_attribute"].items():
        assert row[PER_ATTRIBUTE + name] == pytest.approx(value, abs=1e-4)


def test_rows_are_read_as_they_were_written(finished, tmp_path):
    rows = read_rows(finished / "garments.csv")
    write_rows(tmp_path / "a" / "again.csv", rows)
    assert (tmp_path / "a" / "again.csv").read_bytes() == (finished / "garments.csv").read_bytes()
    assert read_rows(tmp_path / "a" / "again.csv") == rows
    assert isinstance(rows[0]["seed"], int) and isinstance(rows[0]["map_weighted"], float)
    sparse = [
        {"mode": "spaces", "seed": 1, "map:a": 0.123456},
        {"mode": "spaces", "map:b": 2.0, "shares_trunk": False},
    ]
    write_rows(tmp_path / "sparse.csv", sparse)
    one, two = read_rows(tmp_path / "sparse.csv")
    assert one["map:a"] == 0.1235 and one["map:b"] is None and one["model"] is None
    assert two["map:b"] == 2.0 and two["shares_trunk"] is False


@pytest.mark.parametrize("digest", ["04821937", "123e4567", "12345678"])
def test_a_digest_of_digits_stays_text(digest, tmp_path):
    write_rows(tmp_path / "rows.csv", [{"mode": "spaces", "settings": digest}])
    assert read_rows(tmp_path / "rows.csv")[0]["settings"] == digest


def test_rows_without_a_count_of_unreadable_images_are_read(folder, garments, trained):
    """Results files of before have no such column; their runs are done all the same."""
    file = folder / "garments.csv"
    with open(file, encoding="utf-8", newline="") as lines:
        rows = [{k: v for k, v in row.items() if k != "unreadable"} for row in csv.DictReader(lines)]
    with open(file, "w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader(), writer.writerows(rows)
    assert "unreadable" not in read_rows(file)[0]
    shutil.rmtree(folder / "spaces"), shutil.rmtree(folder / "triplets")
    done = benchmark(config(garments, folder))
    assert trained == [] and len(done) == 8 and "random ranking" in report(done)
    assert {row["unreadable"] for row in read_rows(file)} == {None}


# resuming


def test_what_is_done_is_not_done_again(folder, garments, trained):
    before = (folder / "garments.csv").read_bytes()
    benchmark(config(garments, folder))
    assert trained == [] and (folder / "garments.csv").read_bytes() == before


def test_one_missing_run_is_run_again(folder, garments, trained):
    file = folder / "garments.csv"
    before = {(r["mode"], r["model"], r["seed"]): r["map_weighted"] for r in read_rows(file)}
    shutil.rmtree(folder / "triplets" / "default" / "csn-1")
    without_row(file, "triplets", "csn", 1)
    assert len(read_rows(file)) == 7
    benchmark(config(garments, folder))
    assert trained == [("triplets", "csn", 1)]
    assert {(r["mode"], r["model"], r["seed"]): r["map_weighted"] for r in read_rows(file)} == before
    (
        folder / "spaces" / "default" / "csn-0" / "result.json"
    ).unlink()  # stopped between training and its result
    without_row(file, "spaces", "csn", 0)
    benchmark(config(garments, folder))
    assert trained[1:] == [("spaces", "csn", 0)]
    assert {(r["mode"], r["model"], r["seed"]): r["map_weighted"] for r in read_rows(file)} == before


def test_either_the_file_or_the_folders_are_enough(folder, garments, tmp_path, trained):
    file = folder / "garments.csv"
    before = {(r["mode"], r["model"], r["seed"]): r["map_weighted"] for r in read_rows(file)}
    kept = tmp_path / "results.csv"
    shutil.copy(file, kept)
    digests = [r["settings"] for r in read_rows(file)]
    benchmark(config(garments, tmp_path / "nowhere", results=kept))
    misread = sum(not isinstance(digest, str) for digest in digests)  # the digest is the machine's: see _cell
    assert len(trained) == misread
    trained.clear()
    file.unlink()
    benchmark(config(garments, folder))
    assert trained == []
    assert {(r["mode"], r["model"], r["seed"]): round(r["map_weighted"], 3) for r in read_rows(file)} == {
        run: round(value, 3) for run, value in before.items()
    }


def test_other_runs_rows_are_kept(folder, garments, trained):
    file = folder / "garments.csv"
    foreign = {
        **read_rows(file)[0],
        "model": "asen",
        "seed": 7,
        "variant": "lite_depth=2",
        "map_weighted": 12.5,
    }
    write_rows(file, [foreign, *read_rows(file)])
    benchmark(config(garments, folder, models="csn", modes=("spaces",), seeds="0"))
    rows = read_rows(file)
    assert trained == [] and len(rows) == 9
    assert [r for r in rows if r["model"] == "asen"] == [foreign]
    assert sum(r["mode"] == "triplets" for r in rows) == 4


def test_other_settings_in_the_same_folder_are_refused(folder, garments):
    with pytest.raises(DataError, match="other settings, or other data.*another --out"):
        benchmark(config(garments, folder, budget="epochs=2"))
    (folder / "spaces" / "default" / "csn-0" / "result.json").unlink()
    (folder / "garments.csv").unlink()
    one = dict(models="csn", modes=("spaces",), seeds="0")
    with pytest.raises(DataError, match="another run: budget was epochs=1, now epochs=2"):
        benchmark(config(garments, folder, budget="epochs=2", **one))
    out = ["--data", str(garments), "--out", str(folder), "--budget", "epochs=3", "--image-size", "64"]
    assert main(["benchmark", *out, "--models", "csn,triplet", "--no-speed"]) == 1


def test_rows_of_other_settings_in_a_file_do_not_count(finished, garments, tmp_path, monkeypatch):
    trained = watch_training(monkeypatch, trained_before(finished))
    kept = tmp_path / "results.csv"
    shutil.copy(finished / "garments.csv", kept)
    one = dict(models="csn", modes=("spaces",), seeds="0", results=kept)
    benchmark(config(garments, tmp_path / "out", batch_size=8, **one))
    assert trained == [("spaces", "csn", 0)]


def test_rows_of_other_settings_stay_until_their_run_has_ended(
    finished, garments, tmp_path, monkeypatch, capsys
):
    kept = tmp_path / "results.csv"
    shutil.copy(finished / "garments.csv", kept)
    before = {(r["mode"], r["model"], r["seed"]): r for r in read_rows(kept)}

    def stopped(model):
        if model == "triplet":
            raise KeyboardInterrupt
        return {}

    watch_training(monkeypatch, trained_before(finished, stopped))
    two = dict(models="csn,triplet", modes=("spaces",), seeds="0", results=kept, batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        benchmark(config(garments, tmp_path / "out", **two))
    assert f"{kept}: 2 rows are of other settings or data" in capsys.readouterr().out
    after = {(r["mode"], r["model"], r["seed"]): r for r in read_rows(kept)}
    assert after.keys() == before.keys()
    assert [run for run in before if after[run]["settings"] != before[run]["settings"]] == [
        ("spaces", "csn", 0)
    ]


def test_the_digest_follows_what_changes_a_result(garments):
    dataset, run = read_dataset(garments), Trial("spaces", "", "csn", 0)

    def digest(run=run, data=dataset, **options):
        given = config(garments, **{"out": Path("somewhere"), **options})
        return settings_digest(settings_of(given, run, data), data)

    same = {
        digest(),
        digest(out=Path("elsewhere")),
        digest(jobs=2),
        digest(speed=True),
        digest(workers=1),
        digest(models="csn,asen"),
        digest(results=Path("r.csv")),
        digest(skip_unreadable=True),
        digest(max_unreadable=0.5),
        digest(cnn_weights=None),
    }
    assert len(same) == 1
    other = read_dataset(garments)
    other["train"].labels[0, 2] = 1 - min(1, other["train"].labels[0, 2])
    others = [
        digest(budget="epochs=2"),
        digest(lr=1e-4),
        digest(freeze="none"),
        digest(batch_size=8),
        digest(image_size=96),
        digest(pretrained=False),
        digest(Trial("triplets", "", "csn", 0)),
        digest(Trial("spaces", "", "asen", 0)),
        digest(Trial("spaces", "", "csn", 1)),
        digest(Trial("spaces", "margin=0.5", "csn", 0)),
        digest(data=other),
    ]
    assert len({*same, *others}) == 1 + len(others)


# plan, variants


def test_the_plan_is_all_systems_of_a_seed_first():
    given = BenchmarkConfig(
        models="asen, csn,asen", seeds="2,0", modes=("triplets",), variants=("", "margin=0.3")
    )
    assert plan(given) == [
        Trial("triplets", variant, name, seed)
        for seed in (2, 0)
        for variant in ("", "margin=0.3")
        for name in ("asen", "csn")
    ]
    assert BenchmarkConfig().model_names() == ORDER
    folders = {run.folder for run in plan(BenchmarkConfig(variants=("", "a=1", "a=1 b=2", "a=2")))}
    assert len(folders) == 2 * 4 * len(ORDER) * 3
    with pytest.raises(ValueError, match="no model 'cam'; there are: .*camnet"):
        plan(BenchmarkConfig(models="csn,cam"))
    for wrong in (
        dict(seeds="0,x"),
        dict(seeds=""),
        dict(jobs=0),
        dict(modes=()),
        dict(variants=()),
        dict(variants=("margin",)),
        dict(budget="4 epochs"),
    ):
        with pytest.raises(ValueError):
            BenchmarkConfig(**wrong)


def test_no_system_at_all_is_a_clear_error():
    with pytest.raises(ValueError, match="models: at least one"):
        BenchmarkConfig(models=" ,")


def test_every_run_trains_under_the_same_protocol(garments):
    dataset, given = read_dataset(garments), config(garments, Path("out"), cnn_trunk="resnet18", budget="4m")
    seen = {}
    for run in plan(BenchmarkConfig(seeds="3")):
        settings = settings_of(given, run, dataset)
        assert settings.model == run.model and settings.mode == run.mode and settings.seed == 3
        assert settings.trunk == (
            "lite" if dict(zip(ORDER, list_models()))[run.model].system.reads == "tokens" else "resnet18"
        )
        rest = {
            k: v
            for k, v in dataclasses.asdict(settings).items()
            if k not in ("model", "mode", "out", "trunk")
        }
        seen.setdefault(json.dumps(rest, default=str), []).append(run)
    assert len(seen) == 1 and settings.triplets_per_epoch == 64 // 3 and settings.budget == "4m"


def test_each_trunk_has_its_own_weights(garments):
    dataset = read_dataset(garments)

    def weights(name, **options):
        return settings_of(
            config(garments, Path("out"), **options), Trial("spaces", "", name, 0), dataset
        ).weights

    vit, cnn = Path("vit.safetensors"), Path("cnn.safetensors")
    for name, own in (("cca-type2", vit), ("triplet", vit), ("csn", cnn)):
        assert (
            weights(name, weights=vit, cnn_weights=cnn)
            == weights(name, weights=vit, cnn_weights=cnn, cnn_trunk="resnet18")
            == own
        )
    assert weights("csn", weights=vit, cnn_trunk="resnet18") is None  # the transformer's do not fit a ResNet
    assert weights("csn", weights=vit) == vit  # both are `lite`
    assert weights("cca-type2", cnn_weights=cnn) is None
    flags = ["--weights", str(vit), "--cnn-weights", str(cnn)]
    assert (parse("benchmark", flags).weights, parse("benchmark", flags).cnn_weights) == (vit, cnn)


def test_a_varied_budget_is_the_rows_budget(finished, garments, tmp_path, monkeypatch):
    watch_training(monkeypatch, trained_before(finished))
    one = dict(models="csn", modes=("spaces",), seeds="0", variants=("", "budget=steps=2"))
    rows = benchmark(config(garments, tmp_path / "out", **one))
    assert [row["budget"] for row in rows] == ["epochs=1", "steps=2"]


def test_variants_change_a_setting_and_are_named(garments, tmp_path, trained):
    dataset, given = read_dataset(garments), config(garments, tmp_path / "out", seeds="0")
    run = Trial("spaces", f"query=fc-wq {SMALL}", "cca-type2", 0)
    settings, plain = (
        settings_of(given, run, dataset),
        settings_of(given, Trial("spaces", "", "cca-type2", 0), dataset),
    )
    assert (settings.query, settings.lite_width, settings.lite_heads) == (
        "fc-wq",
        32,
        2,
    ) and plain.query == "fc"
    assert {k for k, v in vars(settings).items() if v != vars(plain)[k]} == {
        "query",
        "lite_width",
        "lite_heads",
        "out",
    }
    rows = benchmark(
        config(
            garments,
            tmp_path / "out",
            seeds="0",
            models="cca-type2",
            modes=("spaces",),
            variants=(SMALL, f"query=fc-wq {SMALL}"),
        )
    )
    assert len(trained) == 2 and [r["variant"] for r in rows] == [SMALL, f"query=fc-wq {SMALL}"]
    assert rows[1]["parameters"] - rows[0]["parameters"] == 32 * 32 + 32  # W_q stays
    again = read_rows(tmp_path / "out" / "garments.csv")
    assert [r["variant"] for r in again] == [r["variant"] for r in rows]
    assert f"garments, mode spaces, query=fc-wq {SMALL}" in report(again)
    trained.clear()
    benchmark(
        config(
            garments, tmp_path / "out", seeds="0", models="cca-type2", modes=("spaces",), variants=(SMALL,)
        )
    )
    assert trained == [] and len(read_rows(tmp_path / "out" / "garments.csv")) == 2


@pytest.mark.parametrize(
    "variant,message",
    [
        ("quary=fc-wq", "variant 'quary=fc-wq': no setting quary; there are: .*query"),
        ("query=other", "variant 'query=other': query: Input should be 'fc' or 'fc-wq'"),
        ("lite_depth=two", "variant 'lite_depth=two': lite_depth: Input should be a valid integer"),
        ("budget=soon", "variant 'budget=soon': .*epochs=N"),
    ],
)
def test_a_variant_that_is_none_is_named(variant, message, garments, tmp_path, capsys):
    with pytest.raises(ValueError, match=message):
        benchmark(config(garments, tmp_path / "out", variants=("", variant)))
    assert not (tmp_path / "out").exists()  # before anything was trained


@pytest.mark.slow
def test_two_jobs_find_what_one_does(finished, garments, tmp_path):
    rows = benchmark(config(garments, tmp_path / "out", seeds="0", modes=("spaces",), jobs=2))
    one = {
        r["model"]: r for r in read_rows(finished / "garments.csv") if (r["mode"], r["seed"]) == ("spaces", 0)
    }
    assert [r["model"] for r in rows] == list(MODELS)
    for r in rows:
        assert r["map_weighted"] == pytest.approx(one[r["model"]]["map_weighted"], abs=1e-4)
        assert (
            r["settings"]
            == json.loads((finished / "spaces" / "default" / f"{r['model']}-0" / "result.json").read_text())[
                "settings"
            ]
        )


# speed


@pytest.fixture()
def quick_speed(monkeypatch):
    """Few and small batches to measure."""
    monkeypatch.setattr(speed, "STEPS", 2)
    monkeypatch.setattr(speed, "BATCH", 4)


@pytest.mark.slow
def test_what_systems_cost(garments, tmp_path, monkeypatch, quick_speed):
    dataset = read_dataset(garments)
    names = ("triplet", "networks", "asen-pp", "cca-type2")
    given = config(garments, tmp_path / "out", models=",".join(names))
    runs = [Trial("spaces", SMALL, name, seed) for name in names for seed in (0, 1)]
    stages, real = {}, Trainer.step

    def step(self, inputs, extra):
        result = real(self, inputs, extra)
        stages.setdefault(self.config.model, set()).update(result.terms)
        return result

    monkeypatch.setattr(Trainer, "step", step)
    found = measure_speed(given, runs, dataset)
    assert set(found) == {("spaces", SMALL, name) for name in names}
    for speeds in found.values():
        assert set(speeds) == {"embed_mflops", "embed_ms", "images_per_second"} and min(speeds.values()) > 0
    flops = {name: found["spaces", SMALL, name]["embed_mflops"] for name in names}
    k = len(dataset.attributes)
    assert (
        flops["triplet"] < flops["cca-type2"] < 0.5 * k * flops["triplet"]
    )  # K spaces for far less than K passes
    assert flops["networks"] > flops["cca-type2"]
    assert stages["asen-pp"] == {"local", "align"}  # the last stage
    assert not (tmp_path / "out").exists()


def test_the_last_stage_is_measured_under_a_time_budget(garments, tmp_path, monkeypatch, quick_speed):
    seen, real = set(), Trainer.step

    def step(self, inputs, extra):
        result = real(self, inputs, extra)
        seen.update(result.terms)
        return result

    monkeypatch.setattr(Trainer, "step", step)
    measure_speed(
        config(garments, tmp_path / "out", budget="4m"),
        [Trial("spaces", SMALL, "asen-pp", 0)],
        read_dataset(garments),
    )
    assert seen == {"local", "align"}


def test_a_row_says_whether_this_model_shares_its_trunk(garments, tmp_path):
    rows = benchmark(
        config(garments, tmp_path / "out", models="asen-pp", seeds="0", modes=("spaces",), variants=(SMALL,))
    )
    assert (
        rows[0]["shares_trunk"] is True
    )  # crops are cut from the kept map, so that all spaces share one pass
