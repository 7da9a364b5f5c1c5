"""Training states: a checkpoint or a log that is not what was written is one clear error."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from saved_models import change_json, change_tensors, load_state, saved_model, two_checkpoints

from ccakit.disk import file_digest, write_json
from ccakit.errors import DataError
from ccakit.training.checkpoints import FILES, last_good_state, read_state, sealed
from ccakit.training.run_folder import COLUMNS, add_row, column_of, keep_rows


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return two_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def checkpoint(written, tmp_path):
    """The newer of two checkpoints, the test's own to damage."""
    return shutil.copytree(written.parent, tmp_path / "checkpoints") / written.name


@pytest.fixture(scope="module")
def model():
    """A model that the checkpoints fit; no test may leave it changed."""
    return saved_model().model


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_a_checkpoint_cut_or_of_another_model_is_one_clear_error(checkpoint, name):
    model = saved_model().model
    optimizer = torch.optim.AdamW(model.parameters())
    assert load_state(checkpoint, model, optimizer).step == 3
    other = saved_model("cca-type1").model
    with pytest.raises(DataError, match="holds another model"):
        load_state(checkpoint, other, torch.optim.AdamW(other.parameters()))
    file = checkpoint / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{name}.safetensors: is not a whole safetensors file.*Delete"):
        load_state(checkpoint, model, optimizer)


def tampered(checkpoint: Path, file: str, change, seal: bool) -> None:
    """Change state.json or a file of tensors; seal: have all digests fit what is there then."""
    if file == "state.json":
        change_json(checkpoint / file, change)
    else:
        change_tensors(checkpoint / file, change)
    if seal:
        digests = {name: file_digest(checkpoint / name) for name in FILES}
        facts = json.loads((checkpoint / "state.json").read_text())
        write_json(
            checkpoint / "state.json", sealed({**facts, **({"digests": digests} if file in FILES else {})})
        )


FACTS = [
    (lambda f: f.update(format=9), "is wrong at format: Input should be 2"),
    (lambda f: f.pop("format"), "is wrong at format: Field required"),
    (lambda f: f.pop("digests"), "is wrong at digests: Field required"),
    (lambda f: f.update(digests=list(f["digests"])), "is wrong at digests: Input should be an object"),
    (lambda f: f["digests"].pop(FILES[1]), "is not what was written"),
    (lambda f: f.update(progress=3), "is wrong at progress: Input should be an object"),
    (lambda f: f.pop("progress"), "is wrong at progress: Field required"),
    (lambda f: f["progress"].update(more=1), "does not hold a run's progress"),
    (lambda f: f["progress"].pop("best"), "does not hold a run's progress"),
    (lambda f: f.update(more=1), "is wrong at more: Unexpected keyword argument"),
    (
        lambda f: f["progress"].update(step="x"),
        "is wrong at progress.step: Input should be a valid integer",
    ),
    (
        lambda f: f["progress"].update(step=True),
        "is wrong at progress.step: Input should be a valid integer",
    ),
    (lambda f: f["progress"].update(step=4), "is of step 3, but its progress of another"),
    (
        lambda f: f["progress"].update(epoch=-1),
        "is wrong at progress.epoch: Input should be greater than or equal to 0",
    ),
    (lambda f: f["progress"].update(best=float("nan")), "is wrong at progress.best: Input should be a"),
    (
        lambda f: f["progress"].update(rows=[[1, 2, "x"]]),
        "is wrong at progress.rows.0.2: Input should be a valid number",
    ),
    (
        lambda f: f["progress"].update(rows=[[1, 2]]),
        "is wrong at progress.rows.0: List should have at least 3 items",
    ),
    (lambda f: f["progress"].update(batch=7), "whose rows are not those of its batches"),
    (lambda f: f["progress"].update(terms=[1]), "is wrong at progress.terms: Input should be an object"),
    (lambda f: f.update(processes="a"), "is wrong at processes: Input should be a valid integer"),
    (lambda f: f.update(processes=0), "is wrong at processes: Input should be greater than or equal to 1"),
    (lambda f: f.update(processes=10**12), "another run: it lacks rng/1/cpu"),
    (lambda f: f.update(scaler=5), "is wrong at scaler: Input should be an object"),
    (lambda f: f.update(scaler={"scale": 1}), "is wrong at scaler: Dictionary should have at least 5 items"),
]
TENSORS = [
    ("optimizer", lambda t: t.update(x=torch.zeros(1)), "it also has x"),
    (
        "optimizer",
        lambda t: t.update({"9999/step": torch.zeros(1)}),
        "it also has 9999/step",
    ),
    (
        "optimizer",
        lambda t: t.update({"x/step": torch.zeros(1)}),
        "it also has x/step",
    ),
    (
        "optimizer",
        lambda t: t.update({first(t, "exp_avg"): torch.zeros(3, 3, 3)}),
        "in another shape or type [0-9]*/exp_avg",
    ),
    ("optimizer", lambda t: t.pop(first(t, "exp_avg_sq")), "it lacks [0-9]*/exp_avg_sq"),
    ("optimizer", lambda t: t.update({first(t, "step") + "/x": torch.zeros(1)}), "it also has [0-9]*/step/x"),
    (
        "optimizer",
        lambda t: t.update({"rng/0/cpu": t["rng/0/cpu"][:9].clone()}),
        "in another shape or type rng/0/cpu",
    ),
    ("optimizer", lambda t: t.update({"rng/0/cpu": torch.zeros(5056)}), "in another shape or type rng/0/cpu"),
    ("optimizer", lambda t: t.pop("rng/0/cpu"), "it lacks rng/0/cpu"),
    (
        "optimizer",
        lambda t: t.update({"rng/7/cpu": t["rng/0/cpu"].clone()}),
        "it also has rng/7/cpu",
    ),
    ("optimizer", lambda t: t.update({"rng/0/x": torch.zeros(1)}), "it also has rng/0/x"),
    (
        "model",
        lambda t: t.pop("head.fc.bias"),
        "another run: it lacks head.fc.bias",
    ),
    ("model", lambda t: t.update({"head.fc.bias": torch.zeros(1)}), "in another shape or type head.fc.bias"),
]


def first(tensors: dict, kind: str) -> str:
    return min(name for name in tensors if name.endswith(f"/{kind}"))


@pytest.mark.parametrize(
    "file,change,told",
    [("state.json", *each) for each in FACTS] + [(f"{name}.safetensors", *each) for name, *each in TENSORS],
)
def test_a_checkpoint_that_was_tampered_with_is_one_clear_error(
    checkpoint, model, file, change, told, caplog
):
    """By its digest, or, where that was made to fit, by what it says; the one before it is taken, if good."""
    optimizer, before = (
        torch.optim.AdamW(model.parameters()),
        {n: t.clone() for n, t in model.state_dict().items()},
    )
    shutil.copytree(checkpoint, spare := checkpoint.parent.parent / "spare")
    for seal in (False, True):
        shutil.rmtree(checkpoint)
        shutil.copytree(spare, checkpoint)
        tampered(checkpoint, file, change, seal)
        with pytest.raises(DataError, match="Delete .* to go on from the checkpoint before it") as error:
            read_state(checkpoint, model, optimizer)
        assert error.value.path.parent == checkpoint and (not seal or re.search(told, error.value.problem))
        assert last_good_state(checkpoint.parent, model, optimizer).facts.step == 2
        assert f"{error.value}; trying the checkpoint before it" in caplog.text
    tampered(checkpoint.parent / "step-00000002", file, change, True)
    with pytest.raises(
        DataError, match="holds no checkpoint to go on from: step-00000003/.*; step-00000002/.*again"
    ):
        last_good_state(checkpoint.parent, model, optimizer)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_number_changed_by_hand_is_noticed(checkpoint, model):
    """Where only the digest can tell."""
    optimizer = torch.optim.AdamW(model.parameters())
    tampered(checkpoint, "state.json", lambda facts: facts["progress"].update(best=1e9), False)
    with pytest.raises(DataError, match="state.json: is not what was written"):
        read_state(checkpoint, model, optimizer)
    other = checkpoint.parent / "step-00000002"
    change_tensors(other / FILES[0], lambda tensors: tensors["head.fc.bias"].add_(1))
    with pytest.raises(DataError, match="model.safetensors: is not what was written"):
        read_state(other, model, optimizer)


ROW = "5,1,0.2,0.001,90.0,30,0.5,40.0"


@pytest.mark.parametrize(
    "line",
    [
        "a,b,c,d,e,f,g,h",
        "5,1",
        "x" + ROW,
        ROW.replace("5,1,", "5,1.5,"),
        ROW + ",1",
        "5,-1" + ROW[3:],
        ROW.replace("0.2", "nan"),
        "\x00\ufffd",
        "",
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_log_that_no_run_has_written_is_one_clear_error(tmp_path, line, end):
    lines = [",".join(COLUMNS), ROW, line, ROW.replace("5,1", "9,2")]
    (tmp_path / "log.csv").write_text("".join(each + end for each in lines), newline="")
    with pytest.raises(DataError, match="log.csv, line 3: is not a line of a run's log.*or delete it"):
        keep_rows(tmp_path, 1)
    lines = [*lines[:2], ROW.replace("5,1", "9,2"), line or "x"]
    (tmp_path / "log.csv").write_text(end.join(lines), newline="")  # the last cut short, as by a kill
    keep_rows(tmp_path, 1)
    assert (tmp_path / "log.csv").read_text().split() == [",".join(COLUMNS), ROW]
    (tmp_path / "log.csv").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(DataError, match="log.csv, line 1: is not a line of a run's log"):
        keep_rows(tmp_path, 1)


def test_a_log_has_a_column_of_each_attribute(tmp_path):
    names = ("sleeve length", 'a, "b"', "two\nlines", "not asked")
    keep_rows(tmp_path, 0, names)
    head, row = COLUMNS, dict(zip(COLUMNS, map(float, ROW.split(","))), step=5, epoch=1)
    for epoch in (1, 2):
        add_row(tmp_path, {**row, "epoch": epoch, **{column_of(name): 30.0 + epoch for name in names[:3]}})
    keep_rows(tmp_path, 1, ("of", "another"))  # a run that goes on keeps its columns
    with open(tmp_path / "log.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*head, *(f"valid_map:{name}" for name in (*names[:2], "two lines", "not asked"))]
    assert [row[-4:] for row in rows] == [["31.0", "31.0", "31.0", ""]]


def test_a_log_of_0_1_goes_on_without_these_columns(tmp_path):
    (tmp_path / "log.csv").write_text(f"{','.join(COLUMNS)}\r\n{ROW}\r\n", newline="")
    keep_rows(tmp_path, 1, ("sleeve",))
    add_row(tmp_path, {**dict.fromkeys(COLUMNS, 1), "epoch": 2, column_of("sleeve"): 30.0})
    assert (tmp_path / "log.csv").read_text().splitlines()[1:] == [ROW, "1,2,1,1,1,1,1,1"]
    (tmp_path / "log.csv").write_text(f"{','.join(COLUMNS)},sleeve\r\n", newline="")
    with pytest.raises(DataError, match="line 1: is not a line of a run's log"):
        keep_rows(tmp_path, 1)
