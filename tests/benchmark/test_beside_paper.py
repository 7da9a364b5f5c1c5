"""`ccakit benchmark --preset paper`: the paper's settings, and its figures beside ours, on its own data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rank_jobs
import tiny_vit  # noqa: F401 - registers `vit_for_tests`
from rank_jobs import TINY
from ranks import run_ranks
from small_benchmarks import config

from ccakit.attributes import Attributes
from ccakit.audit.tables import other_lists, paper_rows, table_title
from ccakit.benchmark.beside_paper import beside_paper, write_beside_paper
from ccakit.benchmark.config import BenchmarkConfig
from ccakit.benchmark.plan import plan, settings_of
from ccakit.benchmark.results import read_rows
from ccakit.benchmark.runs import benchmark
from ccakit.benchmark.standings import report
from ccakit.cli import main, parse
from ccakit.data.layout import read_dataset
from ccakit.data.split import Dataset, Split
from ccakit.training.config import TrainConfig

TABLE2 = "triplet csn asen camnet asen-pp tf-csn tf-asen cca-type1 cca-type2".split()


def row(model, seed, weighted, dataset="FashionAI", **more):
    about = dict(dataset=dataset, mode="triplets", variant="", model=model, seed=seed, status="ok")
    return {**about, "map_weighted": weighted, "random_map_weighted": 15.5, "trunk": "resnet50", **more}


def test_a_row_a_figure_that_the_paper_prints():
    each = {"map:skirt_length": 60.0, "map:zip_length": 9.0, "triplets:skirt_length": 90.0}
    rows = [row("csn", 0, 50.0, **each), row("csn", 1, 53.0, **each), row("networks", 0, 60.0)]
    overall, skirt = beside_paper(rows)
    assert overall == {
        "table": "Table 2",
        "dataset": "FashionAI",
        "mode": "triplets",
        "variant": "",
        "model": "csn",
        "method": "CSN",
        "seeds": 2,
        "figure": "mAP",
        "ours": 51.5,
        "std": pytest.approx(4.5**0.5),
        "paper": 53.52,
        "difference": pytest.approx(-2.02),
    }
    assert (skirt["figure"], skirt["paper"]) == ("skirt_length", 61.97)
    assert skirt["difference"] == pytest.approx(-1.97)
    text = report(rows).splitlines()
    (csn,) = (line.split() for line in text if "51.5" in line)
    assert csn[:6] == ["csn", "51.5", "±", "2.1", "53.52", "-2.02"]
    assert ["difference", "-1.97"] in [line.split() for line in text]
    assert "random ranking: weighted mAP 15.50 (paper 15.79, difference -0.29)" in text


@pytest.mark.parametrize(
    "dataset,table", [("DARN", "Table 3"), ("deep-fashion", "Table 4"), ("UT-Zappos50K", "Table 5")]
)
def test_all_tables_alike(dataset, table):
    printed = paper_rows(dataset)["CSN"]
    (found,) = beside_paper([row("csn", 0, 1.0, dataset=dataset, triplet_accuracy=80.0)])
    name = "accuracy" if table == "Table 5" else "mAP"
    assert (found["table"], found["figure"], found["paper"]) == (table, name, printed[name])
    assert found["ours"] == (80.0 if name == "accuracy" else 1.0) and found["std"] is None


@pytest.mark.parametrize("dataset", ["garments", "garments_one", "fashion_mnist", "statistics", "FashionAI2"])
def test_no_figures_of_the_paper_beside_other_data(dataset, tmp_path):
    rows = [row(name, 0, 50.0, dataset=dataset, triplet_accuracy=80.0) for name in TABLE2]
    rows = [{**each, "map:skirt_length": 60.0} for each in rows]
    assert beside_paper(rows) == [] and "paper" not in report(rows) and "difference" not in report(rows)
    write_beside_paper(tmp_path / "results.csv", rows)
    assert not list(tmp_path.iterdir()) and not other_lists(named(dataset))


def named(name: str, queries: int = 0, candidates: int = 0):
    """A data set of a name, with so many rows in its test split."""
    attributes = Attributes(("tone",), (("dark", "light"),))
    sides = dict(queries=np.zeros((queries, 3), int), candidates=np.zeros((candidates, 3), int))
    split = Split("test", Path(), attributes, [], np.zeros((0, 3), int), **sides)
    return Dataset(Path(), name, attributes, {"test": split})


def test_other_lists_than_asens_are_noted(splits):
    assert other_lists(named("Fashion-AI", 3600, 14400)) == ""
    assert "40 queries (ASEN's 3,600)" in other_lists(named("FashionAI", 40, 14400))
    assert other_lists(named("Zappos50K", 40, 14400)) == ""  # ASEN has no lists of it
    for name in ("FashionAI", "DARN", "DeepFashion"):
        assert other_lists(read_dataset(splits / name, splits=("test",))) == ""


def test_failed_runs_have_no_difference(tmp_path):
    rows = [row("csn", 0, None, status="failed: no memory"), row("asen", 0, 60.0)]
    assert [found["model"] for found in beside_paper(rows)] == ["asen"]
    write_beside_paper(tmp_path / "fashionai.csv", rows)
    (written,) = pd.read_csv(tmp_path / "fashionai_beside_paper.csv").to_dict("records")
    assert (written["method"], written["paper"], written["difference"]) == ("ASEN", 61.02, -1.02)


def test_the_preset_trains_as_the_papers(garments):
    given, dataset = parse("benchmark", ["--preset", "paper"]), read_dataset(garments)
    for trial in plan(replace(given, models="csn,triplet,cca-type2"), "FashionAI"):
        settings = settings_of(given, trial, dataset)
        trunk = "vit_base_r50_s16_224" if trial.model == "cca-type2" else "resnet50"
        own = dict(model=trial.model, trunk=trunk, out=settings.out)
        assert settings == TrainConfig(**{**TrainConfig.presets["paper"], **own})
    assert settings.mining == "all" and settings.triplets_per_epoch == 100_000


def test_flags_win_over_the_preset(garments):
    flags = ["--preset", "paper", "--lr", "0.5", "--triplets-per-epoch", "64", "--freeze", "all"]
    given = parse("benchmark", [*flags, "--models", "cca-type2"])
    (trial,) = plan(given)
    settings = settings_of(given, trial, read_dataset(garments))
    assert (settings.lr, settings.triplets_per_epoch, settings.freeze) == (0.5, 64, "all")
    assert settings.flip and not settings.cache  # what is flipped is not kept
    usual = settings_of(BenchmarkConfig(), trial, read_dataset(garments))
    assert (usual.lr, usual.triplets_per_epoch, usual.mining) == (1e-3, 64, "all-then-active")


@pytest.mark.parametrize(
    "dataset,more", [("FashionAI", []), ("DARN", ["m2fashion"]), ("UT-Zappos50K", ["adde"])]
)
def test_the_systems_are_those_of_the_papers_table(dataset, more):
    names = BenchmarkConfig(models="paper").model_names(dataset)
    without = {"DARN": [], "UT-Zappos50K": ["camnet", "asen-pp"]}.get(dataset, [])
    assert sorted(names) == sorted({*TABLE2, *more} - set(without))
    assert len(names) == len(paper_rows(dataset)) - 1  # the random ranking is no system
    assert table_title("garments") == ""
    assert len(BenchmarkConfig(models="paper").model_names("garments")) == 11


def test_processes_do_not_run_trials_apart(garments, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="leave out --jobs"):
        benchmark(config(garments, tmp_path, jobs=2))


@pytest.mark.slow
def test_several_processes_make_the_table_of_one(garments, tmp_path):
    options = dict(TINY, data=garments, models="cca-type2", seeds="0", modes="triplets", train_preset="paper")
    options |= dict(budget="epochs=1", triplets_per_epoch=32, evaluate_every=1)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    for name in ("head-norm", "adapter"):  # the benchmark leaves these to the preset
        at = words.index(f"--{name}")
        del words[at : at + 2]
    for count in (1, 2):
        run_ranks(count, rank_jobs.command, "benchmark", *words, "--out", str(tmp_path / str(count)))
    one, two = (read_rows(tmp_path / name / "garments.csv")[0] for name in "12")
    assert two["status"] == one["status"] and two["images"] == one["images"]
    assert two["map_weighted"] == pytest.approx(one["map_weighted"], abs=0.2)


@pytest.mark.slow
def test_the_walk_of_reproduce_md_on_one_label_garments(draw, tmp_path, capsys):
    """docs/reproduce.md at a small size: check, train, benchmark; no figure of the paper stands beside it."""
    data = draw(96, 40, 60, name="garments_one", labels="one")
    small = "--trunk lite --image-size 64 --batch-size 8 --triplets-per-epoch 16 --budget epochs=1"
    words = [*small.split(), "--preset", "paper", "--mixed-precision", "no", "--workers", "0"]
    words += ["--data", str(data), "--json"]
    assert main(["train", "--check", *words, "--out", str(tmp_path / "run")]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["batches"] == 2 and not (tmp_path / "run").exists()
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    words += ["--cnn-trunk", "lite", "--no-speed", "--out", str(tmp_path / "table")]
    assert main(["benchmark", *words]) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert len(result["rows"]) == 11 and all(not r["status"].startswith("failed") for r in result["rows"])
    assert result["beside_paper"] == [] and "difference" not in out
    shutil.rmtree(tmp_path / "table/triplets/default/csn-0")
    assert main(["benchmark", *words]) == 0  # by the CSV file
    assert "11 of them done" in capsys.readouterr().out
