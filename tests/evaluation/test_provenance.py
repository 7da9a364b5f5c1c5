"""A run and its data: other data than it was trained with are marked wherever they are used."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from broken_runs import settings
from places import ROOT

from ccakit.cli import main
from ccakit.data.layout import read_dataset, write_dataset
from ccakit.evaluation.run import open_run
from ccakit.hub.model_card import model_card
from ccakit.hub.pretrained import PretrainedModel
from ccakit.show import pictures
from ccakit.show.widget import ConditionSwitcher
from ccakit.training.trainer import train


@pytest.fixture(scope="module")
def trained(draw, tmp_path_factory):
    """A run on drawn garments, evaluated; its folder lies beside theirs."""
    data = draw(40, 12, 16)
    out = data.parent / "runs" / "v1.0"
    train(settings(data, out, budget="steps=1"), quiet=True)
    assert main(["evaluate", "--run", str(out)]) == 0
    return data, out


@pytest.fixture
def run(trained, tmp_path):
    """Copies of the data and of the run."""
    data, out = tmp_path / "garments", tmp_path / "runs" / "v1.0"
    shutil.copytree(trained[0], data)
    shutil.copytree(trained[1], out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "data": str(data)}))
    return data, out


def lines(path):
    return path.read_text().splitlines()


def split_again(data):
    """The test split's first 12 images are now images of the training list."""
    names = lines(data / "filenames_train.txt")[:12] + lines(data / "filenames_test.txt")[12:]
    (data / "filenames_test.txt").write_text("\n".join(names) + "\n")


def label_again(data):
    dataset = read_dataset(data)
    split = dataset["test"]
    for rows in (split.queries, split.candidates):
        rows[:, 2] = (rows[:, 2] + 1) % np.array(dataset.attributes.sizes)[rows[:, 1]]
    split.labels = np.concatenate([split.candidates, split.queries])
    write_dataset(data, dataset.name, dataset.attributes, list(dataset.splits.values()), dataset.about)


def name_again(data):
    meta = json.loads((data / "meta.json").read_text())
    values = next(iter(meta.values()))["VALUES"]
    first = next(iter(values))
    values[first] = values[first][::-1]
    (data / "meta.json").write_text(json.dumps(meta))


@pytest.fixture
def evaluated(capfd, caplog):
    """evaluated(run folder, flags): the metrics, what was printed, and notes and warnings."""

    def evaluate(out, *flags):
        capfd.readouterr(), caplog.clear()
        assert main(["evaluate", "--run", str(out), "--json", *flags]) == 0
        printed, errors = capfd.readouterr()
        return json.loads(printed.splitlines()[-1]), printed, errors + caplog.text

    return evaluate


def test_the_runs_own_data_say_nothing(run, evaluated):
    metrics, printed, errors = evaluated(run[1])
    assert metrics["data"] == {
        **dict(name="garments", split="test", same=True, differs=[], images=16, trained_on=0)
    }
    assert "data:" not in printed and "training list" not in errors and "own images" not in printed
    assert metrics["own_left_out"] == 0
    moved = run[0].rename(run[0].with_name("elsewhere"))
    assert evaluated(run[1], "--data", str(moved))[0]["data"]["same"] is True


@pytest.mark.parametrize(
    ("change", "says", "count"),
    [
        (split_again, "test has other files, labels, queries or candidates", 12),
        (label_again, "test has other files, labels, queries or candidates", 0),
        (name_again, "other values of", 0),
    ],
)
def test_other_data_are_marked(run, evaluated, change, says, count):
    data, out = run
    before = model_card(PretrainedModel.from_pretrained(out).saved, out).content
    assert "weighted by query" in before and "Note: " not in before
    change(data)
    metrics, printed, errors = evaluated(out)
    found = metrics["data"]
    assert (found["same"], found["trained_on"]) == (False, count) and says in found["differs"][0]
    kept = json.loads((out / "metrics_garments_test.json").read_text())
    assert kept["data"] == found
    for text in (printed, errors):
        assert says in text and (f"{count} of the 16 images of test were in" in text) == bool(count)
    card = model_card(PretrainedModel.from_pretrained(out).saved, out)
    assert "Note: the run's data have changed since it was trained: " in card.content
    assert "weighted by query" not in card.content and card.data.eval_results is None
    assert "metrics_garments_test.json is of other data than the run's, and not shown" in card.content


def test_every_use_of_other_data_says_so(run, capfd, tmp_path, monkeypatch):
    data, out = run
    split_again(data)
    said = "12 of the 16 images of test were in the run's training list"
    assert main(["embed", "--run", str(out)]) == 0
    assert said in capfd.readouterr().out
    assert json.loads((out / "embeddings_test.json").read_text())["data"]["trained_on"] == 12
    opened = open_run(out)
    assert said in ConditionSwitcher.of_run(opened, [0]).remark.value.replace("&#x27;", "'")
    figure = pictures.rankings(opened)
    assert said in figure.get_supxlabel().replace("\n", " ")
    assert main(["export", "--run", str(out), "--out", str(tmp_path / "exported")]) == 0
    assert "the run's data have changed since it was trained: test has other" in capfd.readouterr().err
    monkeypatch.syspath_prepend(str(ROOT / "figures"))
    import figureA2

    drawn = []
    monkeypatch.setattr(figureA2.shared.style, "save", lambda figure, path, dpi: drawn.append(figure) or path)
    figureA2.main(["--run", str(out), "--out", str(tmp_path)])
    assert said in drawn[0].get_supxlabel().replace("\n", " ")
    sys.modules.pop("figureA2"), sys.modules.pop("shared", None)


def test_a_run_of_before_opens_and_says_that_it_does_not_know(run, evaluated):
    data, out = run
    (out / "train_images.txt").unlink()
    record = json.loads((out / "data.json").read_text())
    known = open_run(out).data  # the data's own list is still the run's
    assert known["same"] is True and known["trained_on"] == 0
    (out / "metrics.json").write_text('{"map_weighted": 1.0}')  # as 0.1 wrote it
    assert open_run(out).metrics == {"map_weighted": 1.0}
    del record["lists"]
    (out / "data.json").write_text(json.dumps(record))
    assert open_run(out).data == known
    split_again(data)
    opened = open_run(out)
    assert opened.data["same"] is False and opened.data["trained_on"] is None
    assert opened.remarks[-1] == "how many of its images were in the run's training list is not known"
    (out / "data.json").write_text('{"images": [], "lists": null}', encoding="utf-8")
    assert open_run(out).data["same"] is None  # what somebody else wrote
    assert open_run(out).metrics == {}
    (out / "metrics.json").unlink()
    (out / "data.json").unlink()
    found, printed, errors = evaluated(out)
    assert found["data"]["same"] is found["data"]["trained_on"] is None
    assert "is not known: the run keeps no digest of it" in printed and "no digest" in errors
    card = model_card(PretrainedModel.from_pretrained(out).saved, out).content
    assert "weighted by query" in card and "is not known: the run keeps no digest of it" in card


def test_an_exported_model_still_knows_its_data(run, tmp_path):
    data, out = run
    exported = tmp_path / "exported"
    assert main(["export", "--run", str(out), "--out", str(exported)]) == 0
    kept = json.loads((exported / "config.json").read_text())["trained_on"]
    assert kept == json.loads((out / "data.json").read_text())
    found = open_run(exported, data=data).data
    assert found["same"] is True and found["trained_on"] == 0
    split_again(data)
    assert open_run(exported, data=data).data["same"] is False


def test_a_query_whose_image_is_a_candidate_too_is_counted_everywhere(run, evaluated, capfd):
    """By path: the list names the candidates' images again, for the queries."""
    data, out = run
    names, queries = lines(data / "filenames_test.txt"), lines(data / "query_test.txt")
    asked = sorted({int(line.split()[0]) for line in queries})
    ranked = [int(line.split()[0]) for line in lines(data / "candidate_test.txt")]
    for image in asked:
        names[image] = f"./{names[ranked[0]]}"
    (data / "filenames_test.txt").write_text("\n".join(names) + "\n")
    capfd.readouterr()
    metrics, printed, errors = evaluated(out)
    n = metrics["own_left_out"]
    conditions = [
        line.split()[1] for line in lines(data / "candidate_test.txt") if line.split()[0] == str(ranked[0])
    ]
    assert n == sum(line.split()[1] in conditions for line in queries) > 0
    assert f"{n} of {len(queries)} queries are candidates too" in printed
    assert f"{n} of {len(queries)} queries are candidates too" in errors
    assert main(["random", "--data", str(data), "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["own_left_out"] == n


def test_relative_data_are_found_from_any_folder(run, tmp_path, monkeypatch, capfd):
    data, out = run
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "data": "garments"}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (out, Path("../runs/v1.0")):  # the data lie in a folder above the run
        assert open_run(folder).dataset.root.resolve() == data
    (out / "config.json").write_text(json.dumps({**config, "data": "gone"}))
    assert main(["evaluate", "--run", str(out)]) == 1
    error = capfd.readouterr().err
    assert "names the data set gone" in error and "Give it with --data." in error and error.count("\n") == 1


def test_the_run_folder_says_which_sampler_ran_and_what_is_odd_about_its_data(trained):
    data, out = trained
    facts = json.loads((out / "train.json").read_text())
    assert facts["findings"] == read_dataset(data).findings
    says = (
        "batches of 16 images, shuffled, attributes below 25% drawn more often: 2 of 40 labelled images carry"
    )
    assert facts["sampling"].startswith(says) and says in (out / "train.log").read_text()
