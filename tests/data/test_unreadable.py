"""Unreadable images: left out before training, an error or left out in evaluation, and counted."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_vit  # noqa: F401 - registers vit_for_tests
import torch
from torch.utils.data import DataLoader

from ccakit.cli import main
from ccakit.data import inputs as inputs_module
from ccakit.data.inputs import FeatureInputs, ImageInputs, inputs_for
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.errors import DataError
from ccakit.evaluation.embedding import embed_images, rank, readable
from ccakit.training.batches import Steps
from ccakit.training.config import TrainConfig
from ccakit.training.objectives import objective_for
from ccakit.training.trainer import Trainer, train

TINY = dict(trunk="vit_for_tests", image_size=32, freeze="1", batch_size=16, budget="steps=12")
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
        with pytest.raises(DataError, match=f"filenames_train.txt, line {index + 1}: lists .* {reason}"):
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
        DataError, match=r"line 4: lists .*000003.png, which is missing; so are lines 8 \(is br"
    ):
        lenient.check()


def test_a_picture_too_narrow_to_enlarge_is_unreadable_too(whole, tmp_path):
    import cv2

    shutil.copytree(whole, tmp_path / "g")
    split = read_dataset(tmp_path / "g")["valid"]
    cv2.imwrite(str(split.path(2)), np.zeros((1, 30000, 3), np.uint8))
    with pytest.raises(DataError, match="line 3: lists .*, which has 30000 x 1 pixels, too narrow"):
        ImageInputs(split, ImageTransform((224, 224))).load(np.arange(4))


# --- found once, before the first epoch


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names, real = [], inputs_module.read_image

    def read(path, **options):
        names.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(inputs_module, "read_image", read)
    return names


def images_of(split, most, transform=SMALL):
    return inputs_for(None, split, transform, cache=False, progress=False, max_unreadable=most)


def test_all_images_are_decoded_once_and_the_result_is_kept(spoilt, decoded):
    """Again only where a file, the transform or the kept result changes."""
    split = read_dataset(spoilt)["train"]
    assert images_of(split, 0.05).unreadable == BAD
    assert len(decoded) == 96 - 1, "all but the missing one"
    decoded.clear()
    inputs = images_of(split, 0.1)
    assert inputs.unreadable == BAD and decoded == []
    assert inputs.load(np.array([3, 7, 40])).isnan().all()
    (kept,) = (spoilt / ".features").iterdir()
    for damage in ("", "[1]", '{"x": "is broken"}', '{"96": "is none of them"}'):
        kept.write_text(damage)
        decoded.clear()
        assert images_of(split, 0.05).unreadable == BAD and len(decoded) == 95
    images_of(split, 0.05, ImageTransform((18, 18)))
    shutil.copy(split.path(0), split.path(3))
    decoded.clear()
    assert sorted(images_of(split, 0.05).unreadable) == [7, 40] and len(decoded) == 96


def test_a_file_that_is_exchanged_for_one_of_the_same_size_and_time_is_looked_at_again(spoilt):
    split = read_dataset(spoilt)["train"]
    assert images_of(split, 0.05).unreadable == BAD
    for index, data in ((0, bytes(split.path(0).stat().st_size)), (7, split.path(1).read_bytes())):
        before = split.path(index).stat()
        split.path(index).write_bytes(data)
        os.utime(split.path(index), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sorted(images_of(split, 0.05).unreadable) == [0, *sorted({*BAD} - {7})]


def test_one_more_that_cannot_be_read_is_an_error(spoilt):
    split = read_dataset(spoilt)["train"]
    inputs = images_of(split, 0.5)
    split.path(9).write_bytes(b"")
    with pytest.raises(DataError, match="line 10: lists .*, which is empty"):
        inputs.load(np.array([8, 9]))


def test_where_nothing_can_be_kept_all_images_are_decoded_again(spoilt, decoded, caplog):
    (spoilt / ".features").write_text("no folder")
    for _ in range(2):
        decoded.clear()
        assert images_of(read_dataset(spoilt)["train"], 0.05).unreadable == BAD and len(decoded) == 95
    assert caplog.text.count("another run will look at all images again") == 2


def test_without_a_share_nothing_is_decoded_before(spoilt, decoded):
    inputs = images_of(read_dataset(spoilt)["train"], 0.0)
    assert decoded == [] and not (spoilt / ".features").exists()
    with pytest.raises(DataError, match="line 8: lists .* broken"):
        inputs.load(np.array([7]))


@pytest.mark.parametrize(
    "mode,options", [("spaces", {}), ("spaces", dict(balance=(2, 2, 3))), ("triplets", {})]
)
@pytest.mark.parametrize("workers", [0, 2])
def test_no_batch_has_an_unreadable_image(spoilt, mode, options, workers):
    """Every row is a readable image with its own labels; images keep their numbers."""
    split = read_dataset(spoilt)["train"]
    inputs = images_of(split, 0.05)
    kept = readable(inputs)
    assert kept.filenames == split.filenames and not np.isin(kept.labels[:, 0], list(BAD)).any()
    assert kept.labels.tolist() == [row for row in split.labels.tolist() if row[0] not in BAD]
    made = objective(kept, mode, **options)
    good = np.setdiff1d(np.arange(96), list(BAD))
    pictures, seen = inputs.load(good), set()
    for index, (rows, extra) in enumerate(
        DataLoader(steps := Steps(made, 0, inputs), batch_size=None, num_workers=workers)
    ):
        batch = steps.batches[index]
        images = [int(good[(pictures == row).all((1, 2, 3))][0]) for row in rows]
        assert images == made.prepare(batch)[0].tolist() and len(set(images)) == len(images)
        seen |= set(images)
        if mode == "triplets":
            check_triplets(split, np.array(images)[extra["gather"]].reshape(3, -1), extra)
        else:
            assert torch.equal(extra["relation"], torch.from_numpy(made.relations.of(np.array(images))))
    assert seen and not seen & set(BAD)


def check_triplets(split, images, extra):
    """Positives share a value with their anchors under the condition, negatives do not."""
    labels = {}
    for image, condition, label in split.labels.tolist():
        labels.setdefault((image, condition), set()).add(label)
    for c, a, p, n in zip(extra["condition"].reshape(3, -1)[0].tolist(), *images.tolist()):
        assert a != p and labels[a, c] & labels[p, c] and not labels[a, c] & labels[n, c]


# --- training


@pytest.mark.parametrize(
    "options",
    [
        dict(cache=True),
        dict(cache=False),
        dict(cache=False, workers=2, mode="triplets", triplets_per_epoch=96),
    ],
)
def test_training_counts_and_reports_them(spoilt, tmp_path, options):
    _, facts = train(settings(spoilt, tmp_path / "run", max_unreadable=0.04, **options), quiet=True)
    report = json.loads((tmp_path / "run/unreadable.json").read_text())
    assert [(row["image"], row["line"], row["reason"]) for row in report["train"]] == [
        (i, i + 1, why) for i, why in BAD.items()
    ]
    assert all(row["file"] == f"images/train/{row['image']:06d}.png" for row in report["train"])
    assert facts["unreadable"] == 3 and facts["steps"] == 12 and report["valid"] == []
    again = settings(spoilt, tmp_path / "run", max_unreadable=0.04, resume=True, **options)
    assert train(again, quiet=True)[1]["unreadable"] == 3, "resumed, at its end, without a batch"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_during_a_run_ends_it_and_resuming_leaves_it_out(
    spoilt, tmp_path, workers, caplog
):
    config = settings(
        spoilt, tmp_path / "run", max_unreadable=0.05, cache=False, workers=workers, checkpoint_every=1
    )
    trainer, broken = Trainer(config, quiet=True), read_dataset(spoilt)["train"].path(20)
    real = trainer.step

    def step(*batch):
        if trainer.progress.step == 2:
            broken.write_bytes(b"")
        return real(*batch)

    trainer.step = step
    with pytest.raises(DataError, match="filenames_train.txt, line 21: lists .*is empty"):
        trainer.run()
    assert not multiprocessing.active_children(), "an error leaves no loader process to be waited for"
    assert json.loads((config.out / "unreadable.json").read_text())["train"][-1]["image"] == 40
    config.resume = True
    assert train(config, quiet=True)[1]["unreadable"] == 4
    assert "other images are unreadable than before" in caplog.text
    report = json.loads((config.out / "unreadable.json").read_text())
    assert [row["image"] for row in report["train"]] == [3, 7, 20, 40]


def test_kept_features_and_images_draw_the_same(spoilt, tmp_path):
    """The images that were missed are known before the features are computed, which are NaN for them."""
    trainer = Trainer(settings(spoilt, tmp_path / "run"), quiet=True)
    split, model = trainer.dataset["train"], trainer.saved.model
    kept, again = (
        inputs_for(model, split, trainer.saved.transform, cache=True, progress=False, max_unreadable=0.1)
        for _ in range(2)
    )
    assert isinstance(kept, FeatureInputs) and kept.unreadable == again.unreadable == BAD
    assert np.flatnonzero(np.isnan(kept.features).any((1, 2))).tolist() == list(BAD)
    images = inputs_for(model, split, trainer.saved.transform, cache=False, max_unreadable=0.1)
    assert images.unreadable == BAD and not isinstance(images, FeatureInputs)
    each = [Steps(objective(readable(inputs), "spaces"), 0, inputs) for inputs in (kept, images)]
    for (a, one), (b, other) in zip(*each, strict=True):
        assert torch.equal(one["relation"], other["relation"]) and len(a) == len(b) and not a.isnan().any()
    with pytest.raises(DataError, match="line 4: lists .* missing"):
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
    assert not (tmp_path / "run").exists(), "the run has not begun"
    config.max_unreadable = 0.05
    assert train(config, quiet=True)[1]["unreadable"] == 3


def test_where_nothing_is_left_the_run_ends(spoilt, tmp_path):
    for path in (spoilt / "images/train").iterdir():
        path.write_bytes(b"")
    for mode, workers in (("spaces", 0), ("triplets", 1)):
        config = settings(
            spoilt, tmp_path / mode, mode=mode, cache=False, max_unreadable=1.0, workers=workers
        )
        with pytest.raises(DataError, match="96 images cannot be read, and none of the labels is left"):
            train(config, quiet=True)


def test_the_share_is_checked():
    with pytest.raises(ValueError, match="max_unreadable: Input should be less than or equal to 1, not 2"):
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
    inputs = images_of(split, 1.0, saved.transform)
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
