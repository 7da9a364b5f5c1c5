"""Images that cannot be read: replaced and counted in training, an error or left out and counted in evaluation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ccakit.cli import main
from ccakit.data.inputs import FeatureInputs, ImageInputs, UnreadableImage, inputs_for
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.errors import DataError
from ccakit.evaluation.embedding import embed_images, rank, readable
from ccakit.training.batches import Steps
from ccakit.training.config import TrainConfig
from ccakit.training.objectives import objective_for
from ccakit.training.trainer import Trainer, train

TINY = dict(image_size=64, lite_width=32, lite_depth=1, lite_heads=2, batch_size=16, budget="steps=12")
BAD = {3: "is missing", 7: "is broken, or no image", 40: "is empty"}
SMALL = ImageTransform((16, 16), crop_pct=1.0)


@pytest.fixture(scope="module")
def whole(draw):
    return draw(96, 24, 40)


def spoil(root, split, images):
    """Make images of a split unreadable, each in its way."""
    of = read_dataset(root)[split]
    for index, reason in images.items():
        path = of.path(index)
        if "missing" in reason:
            path.unlink()
        else:
            path.write_bytes(b"" if "empty" in reason else path.read_bytes()[:200])


@pytest.fixture
def spoilt(whole, tmp_path):
    """A copy, in which three training images are missing, cut short and empty."""
    root = tmp_path / "garments"
    shutil.copytree(whole, root)
    spoil(root, "train", BAD)
    return root


def settings(data, out, **options):
    return TrainConfig(data=data, out=out, **{**TINY, **options})


def objective(split, mode, **options):
    return objective_for(split, settings("", "", mode=mode, triplets_per_epoch=96, **options))


# --- inputs


def test_load_names_the_line_or_gives_nan(spoilt):
    split = read_dataset(spoilt)["train"]
    strict, lenient = ImageInputs(split, SMALL), ImageInputs(split, SMALL, 0.05)
    for index, reason in BAD.items():
        with pytest.raises(
            UnreadableImage, match=f"filenames_train.txt, line {index + 1}: lists .* {reason}"
        ):
            strict.load(np.array([0, index]))
    rows = lenient.load(np.array([7, 5, 3, 40]))
    assert rows.isnan().all((1, 2, 3)).tolist() == [True, False, True, True] and lenient.unreadable == BAD
    assert torch.equal(rows[1], strict.load(np.array([5]))[0])
    assert [(row["line"], row["reason"]) for row in lenient.report()] == [
        (i + 1, why) for i, why in BAD.items()
    ]
    lenient.check()
    lenient.max_unreadable = 0.03  # of 96: two
    with pytest.raises(
        UnreadableImage, match=r"line 4: lists .*000003.png, which is missing; so are lines 8 \(is br"
    ):
        lenient.check()


def test_a_picture_too_narrow_to_enlarge_is_unreadable_too(whole, tmp_path):
    import cv2

    shutil.copytree(whole, tmp_path / "g")
    split = read_dataset(tmp_path / "g")["valid"]
    cv2.imwrite(str(split.path(2)), np.zeros((1, 30000, 3), np.uint8))
    with pytest.raises(UnreadableImage, match="line 3: lists .*, which has 30000 x 1 pixels, too narrow"):
        ImageInputs(split, ImageTransform((224, 224))).load(np.arange(4))


# --- the draws in their place


@pytest.mark.parametrize(
    "mode,options", [("spaces", {}), ("spaces", dict(balance=(2, 2, 3))), ("triplets", {})]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_without_its_unreadable_images(whole, spoilt, mode, options, workers):
    """Every row is a readable image with its own labels; other batches are as ever; again and with any history
    the same draws come."""
    split = read_dataset(whole)["train"]
    made, plain = objective(split, mode, **options), ImageInputs(split, SMALL)
    old = Steps(made, 0, plain)
    new = Steps(made, 0, ImageInputs(read_dataset(spoilt)["train"], SMALL, 0.05))
    every = plain.load(np.arange(96))
    met, changed = set(), 0
    loaded = list(DataLoader(new, batch_size=None, num_workers=workers))
    for index, (inputs, extra) in enumerate(loaded):
        images, before = made.prepare(old.batches[index])
        found = extra.pop("unreadable", {})
        assert set(found) >= set(images.tolist()) & set(BAD) and all(
            BAD[i] == why for i, why in found.items()
        )
        met |= set(found)
        got = [int(np.flatnonzero((every == row).all((1, 2, 3)))[0]) for row in inputs]
        assert not set(got) & set(BAD) and len(set(got)) == len(got)
        if not found:
            assert got == images.tolist() and all(torch.equal(extra[k], before[k]) for k in before)
            continue
        changed += 1
        if mode == "spaces":
            assert torch.equal(extra["relation"], torch.from_numpy(made.relations.of(np.array(got))))
            assert len(got) == len(images) and all(a == b or b in BAD for a, b in zip(got, images.tolist()))
        else:
            check_triplets(split, old.batches[index], np.array(got)[extra["gather"]].reshape(3, -1), extra)
    assert met and met <= set(BAD) and changed
    again = Steps(made, 0, ImageInputs(read_dataset(spoilt)["train"], SMALL, 0.05))
    for index in reversed(
        range(len(again))
    ):  # in another order, so that other images are known to be unreadable
        assert torch.equal(again[index][0], loaded[index][0])


def check_triplets(split, batch, images, extra):
    """Triplets of the batch without a bad image are kept; the others are right, and of the same condition."""
    labels = {
        (i, c): {v for j, d, v in split.labels.tolist() if (j, d) == (i, c)}
        for i, c, _ in split.labels.tolist()
    }
    condition = extra["condition"].reshape(3, -1)[0].tolist()
    assert condition == batch.condition.tolist()
    for place, (c, a, p, n) in enumerate(zip(condition, *images.tolist())):
        assert a != p and labels[a, c] & labels[p, c] and not labels[a, c] & labels[n, c]
        old = [int(each[place]) for each in (batch.anchor, batch.positive, batch.negative)]
        assert set(old) & set(BAD) or old == [a, p, n]


def test_a_replacement_shares_a_value_where_it_can():
    """Image 0 (value 0) is replaced by the one other image of value 0; the next has to be of another value."""
    split = SimpleNamespace(
        labels=np.array([[i, 0, int(i > 1)] for i in range(6)]),
        attributes=["a"],
        filenames=list("abcdef"),
        label_matrix=lambda: np.zeros((6, 1), int),
    )
    made, rng = objective(split, "spaces", balance=(1, 2, 2)), np.random.default_rng(0)
    batch = made.redraw(np.array([0, 4]), {0}, rng)
    assert batch.tolist() == [1, 4]
    batch = made.redraw(batch, {0, 1}, rng)
    assert batch[1] == 4 and batch[0] in (2, 3, 5)
    assert made.redraw(np.array([0, 4]), {0, 1, 2, 3, 5}, rng).tolist() == [4], "nothing left to draw"


# --- training


@pytest.mark.parametrize(
    "options",
    [
        dict(cache=True),
        dict(cache=False),
        dict(cache=False, workers=2, mode="triplets", triplets_per_epoch=96),
    ],
)
def test_training_counts_and_reports_them(spoilt, tmp_path, options, monkeypatch):
    seen, real = {}, Trainer._note

    def note(self, unreadable, left):
        for index in unreadable:
            seen[index] = seen.get(index, 0) + 1
        return real(self, unreadable, left)

    monkeypatch.setattr(Trainer, "_note", note)
    _, facts = train(settings(spoilt, tmp_path / "run", max_unreadable=0.04, **options), quiet=True)
    report = json.loads((tmp_path / "run/unreadable.json").read_text())
    assert [(row["image"], row["line"], row["reason"], row["drawn"]) for row in report["train"]] == [
        (i, i + 1, why, seen[i]) for i, why in BAD.items()
    ]
    assert all(row["file"] == f"images/train/{row['image']:06d}.png" for row in report["train"])
    assert facts["unreadable"] == 3 and facts["steps"] == 12 and report["valid"] == []
    state = sorted((tmp_path / "run/checkpoints").glob("step-*"))[-1] / "state.json"
    assert json.loads(state.read_text())["progress"]["unreadable"] == {str(i): n for i, n in seen.items()}
    again = settings(spoilt, tmp_path / "run", max_unreadable=0.04, resume=True, **options)
    assert train(again, quiet=True)[1]["unreadable"] == 3, "resumed, at its end, without a batch"


def test_kept_features_and_images_draw_the_same(spoilt, tmp_path):
    """The images that were missed are marked beside the features, and found there again."""
    trainer = Trainer(settings(spoilt, tmp_path / "run"), quiet=True)
    split, model = trainer.dataset["train"], trainer.saved.model
    kept, again = (
        inputs_for(model, split, trainer.saved.transform, cache=True, progress=False, max_unreadable=0.1)
        for _ in range(2)
    )
    assert isinstance(kept, FeatureInputs) and kept.unreadable == again.unreadable == BAD
    assert np.flatnonzero(np.isnan(kept.features).any((1, 2, 3))).tolist() == list(BAD)
    images = inputs_for(model, split, trainer.saved.transform, cache=False, max_unreadable=0.1)
    made = objective(split, "spaces")
    for (a, one), (b, other) in zip(Steps(made, 0, kept), Steps(made, 0, images)):
        assert torch.equal(one["relation"], other["relation"]) and len(a) == len(b) and not a.isnan().any()
        assert one.get("unreadable") == other.get("unreadable")
    with pytest.raises(UnreadableImage, match="line 4: lists .* missing"):
        inputs_for(model, split, trainer.saved.transform, cache=True, progress=False)
    shutil.copy(split.path(0), split.path(3))
    mended = inputs_for(model, split, trainer.saved.transform, cache=True, progress=False, max_unreadable=0.1)
    assert sorted(mended.unreadable) == [7, 40]


@pytest.mark.parametrize("options", [dict(cache=True), dict(cache=False), dict(cache=False, workers=2)])
def test_too_many_end_the_run_with_the_list(spoilt, tmp_path, options):
    config = settings(spoilt, tmp_path / "run", max_unreadable=0.02, budget="epochs=3", **options)
    with pytest.raises(
        DataError, match=r"line \d+: lists .*; so are lines? .*of 96 images cannot .* share of 0.02"
    ):
        train(config, quiet=True)
    if not options["cache"]:  # the run has begun: the report is there, and a higher share goes on
        report = json.loads((tmp_path / "run/unreadable.json").read_text())
        assert 2 <= len(report["train"]) <= 3 and all(row["drawn"] > 0 for row in report["train"])
        config.resume, config.max_unreadable = True, 0.05
        assert train(config, quiet=True)[1]["unreadable"] == 3


def test_where_nothing_is_left_the_run_ends(spoilt, tmp_path):
    for path in (spoilt / "images/train").iterdir():
        path.write_bytes(b"")
    for mode, workers in (("spaces", 0), ("triplets", 1)):
        config = settings(
            spoilt, tmp_path / mode, mode=mode, cache=False, max_unreadable=1.0, workers=workers
        )
        with pytest.raises(DataError, match="nothing to draw in its place"):
            train(config, quiet=True)
        assert (tmp_path / mode / "unreadable.json").exists()


def test_the_share_is_checked():
    with pytest.raises(ValueError, match="max_unreadable=2: a share"):
        TrainConfig(max_unreadable=2)


@pytest.mark.parametrize("cache", [True, False])
def test_the_valid_split_must_be_whole_unless_told(whole, tmp_path, cache):
    root = tmp_path / "garments"
    shutil.copytree(whole, root)
    spoil(root, "valid", {2: "is missing"})
    config = settings(root, tmp_path / "run", cache=cache, budget="steps=3")
    with pytest.raises(DataError, match="filenames_valid.txt, line 3: lists .*missing"):
        train(config, quiet=True)
    config.skip_unreadable, config.out = True, tmp_path / "other"
    train(config, quiet=True)
    report = json.loads((config.out / "unreadable.json").read_text())
    assert report["train"] == [] and [row["line"] for row in report["valid"]] == [3]


# --- evaluation


@pytest.fixture(scope="module")
def run(whole, tmp_path_factory):
    """Two trained runs' folders, with and without kept features."""
    out = tmp_path_factory.mktemp("runs")
    for cache in (True, False):
        train(settings(whole, out / str(cache), cache=cache, budget="steps=3"), quiet=True)
    return out


@pytest.mark.parametrize("cache", [True, False])
def test_evaluation_leaves_them_out_and_counts_them(whole, run, tmp_path, capsys, cache):
    root = tmp_path / "garments"
    shutil.copytree(whole, root)
    split = read_dataset(root)["test"]
    query, candidate = (int(rows[0, 0]) for rows in (split.queries, split.candidates))
    spoil(root, "test", {query: "is missing", candidate: "is broken"})
    argv = ["evaluate", "--run", str(run / str(cache)), "--data", str(root)]
    assert main(argv) == 1
    assert f"filenames_test.txt, line {min(query, candidate) + 1}: lists" in capsys.readouterr().err
    assert main([*argv, "--skip-unreadable", "--json"]) == 0
    out = capsys.readouterr().out
    metrics, bad = json.loads(out.splitlines()[-1]), sorted({query, candidate})
    assert metrics["unreadable"] == len(bad) and [row["image"] for row in metrics["unreadable_images"]] == bad
    gone = {side: int(np.isin(getattr(split, side)[:, 0], bad).sum()) for side in ("queries", "candidates")}
    assert metrics["unreadable_left_out"] == gone and min(gone.values()) > 0
    assert sum(metrics["queries"].values()) == len(split.queries) - gone["queries"]
    assert f"unreadable: {len(bad)} images, left out with their {gone['queries']} queries" in out
    assert all(np.isfinite(metrics[key]) for key in ("map_weighted", "random_map_weighted", "pointing_game"))


def test_the_ranking_is_that_of_the_lists_without_them(whole, tmp_path, run):
    from ccakit.models.saved import load_model

    saved, root = load_model(run / "False"), tmp_path / "garments"
    shutil.copytree(whole, root)
    spoil(root, "test", {0: "is missing", 5: "is broken", 11: "is empty"})
    split = read_dataset(root)["test"]
    inputs = ImageInputs(split, saved.transform, 1.0)
    result = rank(saved.model, inputs)
    shorter = readable(inputs)
    good = ImageInputs(replace(shorter, root=whole), saved.transform)
    assert len(shorter.labels) == len(shorter.queries) + len(shorter.candidates) < len(split.labels)
    expected = rank(saved.model, good)
    for ours, theirs in zip(result.aps, expected.aps):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    split.queries = split.queries[:1]
    inputs.unreadable = {int(split.queries[0, 0]): "is missing"}
    with pytest.raises(DataError, match="none of the queries is left"):
        readable(inputs)


@pytest.mark.parametrize("cache", [True, False])
def test_embed_gives_nan_and_lists_them(whole, run, tmp_path, capsys, cache):
    from safetensors.numpy import load_file

    root = tmp_path / "garments"
    shutil.copytree(whole, root)
    spoil(root, "valid", {4: "is broken"})
    argv = ["embed", "--run", str(run / str(cache)), "--data", str(root), "--split", "valid"]
    out = tmp_path / "e.safetensors"
    assert main([*argv, "--out", str(out)]) == 1 and not out.exists()
    assert "filenames_valid.txt, line 5: lists" in capsys.readouterr().err
    assert main([*argv, "--out", str(out), "--skip-unreadable"]) == 0
    embeddings = load_file(out)["embeddings"]
    assert np.flatnonzero(np.isnan(embeddings).any((1, 2))).tolist() == [4] and np.isnan(embeddings[4]).all()
    facts = json.loads(out.with_suffix(".json").read_text())
    assert [row["line"] for row in facts["unreadable"]] == [
        5
    ] and "1 images, whose" in capsys.readouterr().out


def test_whole_data_give_the_same_embeddings_as_ever(whole, run):
    from ccakit.models.saved import load_model

    saved, split = load_model(run / "False"), read_dataset(whole)["valid"]
    strict, lenient = (embed_images(saved.model, ImageInputs(split, saved.transform, m)) for m in (0.0, 1.0))
    assert np.array_equal(strict, lenient) and not np.isnan(strict).any()
