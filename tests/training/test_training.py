"""Training end to end on drawn garments: it learns, repeats itself, resumes, and refuses what is unfit."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny_vit  # noqa: F401 - registers vit_for_tests
import torch
from rank_jobs import train_config
from ranks import run_ranks
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ccakit.cli import main
from ccakit.data.inputs import FeatureInputs, ImageInputs, keep_features
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.errors import DataError
from ccakit.evaluation.embedding import attention_maps, embed_images, embed_rows
from ccakit.models.saved import load_model
from ccakit.settings import from_preset
from ccakit.training.config import TrainConfig
from ccakit.training.progress import Progress
from ccakit.training.reporting import warn_of_collapse
from ccakit.training.setup import learning_rate
from ccakit.training.trainer import train

TINY = dict(trunk="vit_for_tests", image_size=32, freeze="1", batch_size=16, evaluate_every=1)
LITE = dict(trunk="lite", image_size=64, freeze="backbone", lite_width=32, lite_depth=2, lite_heads=2)


@pytest.fixture(scope="session")
def garments(draw):
    return draw(96, 24, 40)


@pytest.fixture(scope="session")
def one_label(draw):
    return draw(160, 60, 60, name="one", labels="one")


def settings(data, out, **options):
    return TrainConfig(data=data, out=out, **{**TINY, "budget": "epochs=2", **options})


def weights(folder):
    return load_model(folder).model.state_dict()


def rows_of(out):
    with open(out / "log.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "options",
    [
        dict(mode="spaces", **LITE),
        dict(mode="triplets", triplets_per_epoch=96, mining="all"),
        dict(mode="triplets", triplets_per_epoch=96, negatives="asen++"),
        dict(LITE, model="triplet"),
        dict(model="cca-type1"),
        dict(LITE, freeze="none", cache=False, flip=True, head_norm="batchnorm", budget="steps=3"),
        dict(freeze="all", budget="2s", evaluate_every=100),
        dict(freeze="1", query="fc-wq", residual=False),
    ],
)
def test_every_way_to_train_runs(garments, tmp_path, options):
    saved, facts = train(settings(garments, tmp_path / "run", **options), quiet=True)
    out = tmp_path / "run"
    assert facts["steps"] > 0 and 0 < facts["best_valid_map_weighted"] <= 100
    assert all(torch.equal(a, b) for a, b in zip(weights(out).values(), saved.model.state_dict().values()))
    log = rows_of(out)
    assert len(log) >= 1 and max(float(r["valid_map_weighted"]) for r in log) == pytest.approx(
        facts["best_valid_map_weighted"], abs=0.01
    )
    assert all(
        0 < float(r["loss"]) < 1 and float(r["images_per_second"]) > 0 for r in log
    )  # 6 small batches: noisy
    for name in ("config.json", "versions.json", "model.json", "model.safetensors"):
        assert (out / name).is_file()
    assert list((out / "tensorboard").glob("events*"))


def test_it_learns(garments, tmp_path):
    """Fitting its few training images, the loss falls well below where it starts."""
    options = dict(budget="epochs=80", lr=3e-3, mining="all", evaluate_every=10, head_norm="batchnorm")
    _, facts = train(settings(garments, tmp_path / "run", **options), quiet=True)
    losses = [float(r["loss"]) for r in rows_of(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0] and not facts["collapsed"]


def test_one_label_an_image_makes_balanced_batches(one_label, tmp_path):
    saved, facts = train(settings(one_label, tmp_path / "run", balance=(2, 4, 3)), quiet=True)
    assert facts["steps"] > 0
    assert all(float(r["triplets"]) > 0 for r in rows_of(tmp_path / "run"))


@pytest.mark.parametrize("mode", ["spaces", "triplets"])
def test_the_same_seed_gives_the_same_weights(garments, tmp_path, mode):
    options = dict(mode=mode, triplets_per_epoch=64)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(settings(garments, tmp_path / name, seed=seed, **options), quiet=True)
    a, b, c = (weights(tmp_path / n) for n in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


class Stop(Exception):
    pass


def test_resume_ends_where_an_unbroken_run_does(garments, tmp_path, monkeypatch):
    train(settings(garments, tmp_path / "whole", budget="epochs=3"), quiet=True)
    from ccakit.training.trainer import Trainer

    broken, epochs = settings(garments, tmp_path / "broken", budget="epochs=3"), []
    real = Trainer._epoch

    def stop_in_the_third(self):
        epochs.append(self.progress.epoch)
        if len(epochs) == 3:
            raise Stop
        return real(self)

    monkeypatch.setattr(Trainer, "_epoch", stop_in_the_third)
    with pytest.raises(Stop):
        train(broken, quiet=True)
    monkeypatch.setattr(Trainer, "_epoch", real)
    with pytest.raises(DataError, match="already holds a run"):
        train(broken, quiet=True)
    broken.resume = True
    _, facts = train(broken, quiet=True)
    assert facts["epochs"] == 3 and [r["epoch"] for r in rows_of(tmp_path / "broken")] == ["1", "2", "3"]
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(a[k], b[k]) for k in a)
    broken.margin = 0.5
    with pytest.raises(DataError, match="margin was 0.2, now 0.5"):
        train(broken, quiet=True)


def test_resume_needs_a_run_and_begins_anew_where_no_checkpoint_was_written(garments, tmp_path):
    with pytest.raises(DataError, match="no run to resume"):
        train(settings(garments, tmp_path / "run", resume=True), quiet=True)
    train(settings(garments, tmp_path / "whole"), quiet=True)
    train(settings(garments, tmp_path / "run"), quiet=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # as if it had been killed in its first epoch
    train(settings(garments, tmp_path / "run", resume=True), quiet=True)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(a[k], b[k]) for k in a) and len(rows_of(tmp_path / "run")) == 2


def test_flips_do_not_go_with_kept_features(garments, tmp_path):
    with pytest.raises(ValueError, match="--no-cache"):
        train(settings(garments, tmp_path / "run", flip=True), quiet=True)


@pytest.mark.parametrize("mode", ["spaces", "triplets"])
def test_collapse_is_noticed(garments, tmp_path, caplog, mode):
    """A model blind to the image gives one point a condition: training says so, and what to change."""
    from ccakit.training.trainer import Trainer

    options = dict(mode=mode, budget="epochs=1", lr=1e-9, triplets_per_epoch=96, head_norm="none")
    trainer = Trainer(settings(garments, tmp_path / "run", **options), quiet=True)
    torch.nn.init.zeros_(trainer.saved.model.trunk.patch_embed.proj.weight)
    assert trainer.run()["collapsed"]
    assert "collapsed" in (tmp_path / "run/train.log").read_text()
    assert "collapsed" in caplog.text and "--head-norm batchnorm" in caplog.text


def test_a_run_that_finds_its_way_out_has_not_collapsed(caplog):
    """The warning comes where a collapse begins; what is kept of it follows the last epoch."""
    progress, found = Progress(), []
    for share, value in ((0.2, 0.0), (0.4, 0.001), (0.6, 0.001), (0.8, 0.3), (1.0, 0.002)):
        progress.rows = [[0.2, 10, 0.5]] * 6 + [[0.2, 10, value]] * 2
        warn_of_collapse(progress, share)
        found.append((progress.collapsed, caplog.text.count("training has collapsed")))
    assert found == [(False, 0), (True, 1), (True, 1), (False, 1), (True, 2)]


@pytest.mark.parametrize("blind", [(), (3,)])
def test_one_space_of_eight_that_is_a_point_is_a_collapse(garments, tmp_path, blind):
    from ccakit.training.trainer import Trainer

    options = dict(model="networks", budget="epochs=1", lr=1e-9, head_norm="none")
    trainer = Trainer(settings(garments, tmp_path / "run", **options), quiet=True)
    for number in blind:
        torch.nn.init.zeros_(trainer.saved.model.nets[number].head.fc.weight)
    assert trainer.run()["collapsed"] == bool(blind)


def test_a_loss_that_is_not_finite_stops_with_the_step(garments, tmp_path):
    from ccakit.training.trainer import Trainer

    trainer = Trainer(settings(garments, tmp_path / "run"), quiet=True)
    trainer.saved.model.head.fc.bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0; try a smaller --lr"):
        trainer.run()


def test_flips_are_left_to_right_for_about_half_of_the_images(garments):
    from ccakit.training.batches import Steps
    from ccakit.training.objectives import objective_for

    split = read_dataset(garments)["train"]
    config = settings(garments, garments, batch_size=48)
    plain = ImageInputs(split, ImageTransform((64, 64), crop_pct=1.0))
    objective = objective_for(split, config)
    (images, _), (flipped, _) = Steps(objective, 0, plain)[0], Steps(objective, 0, plain, flip_seed=3)[0]
    same = [torch.equal(a, b) for a, b in zip(images, flipped)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(images, flipped)]
    assert all(a != b for a, b in zip(same, mirrored)) and 10 < sum(mirrored) < 38


def test_mining_becomes_active_on_time(garments, tmp_path, monkeypatch):
    from ccakit.training.objectives import SpacesObjective

    seen, real = [], SpacesObjective.step

    def step(self, model, inputs, extra, mining, cached):
        seen.append(mining)
        return real(self, model, inputs, extra, mining, cached)

    monkeypatch.setattr(SpacesObjective, "step", step)
    train(settings(garments, tmp_path / "run", budget="steps=10", active_from=0.5), quiet=True)
    assert seen == ["all"] * 5 + ["active"] * 5


def test_data_without_a_triplet_are_refused(garments, tmp_path):
    dataset = read_dataset(garments)
    dataset["train"].labels[:, 2] = 1
    for mode in ("spaces", "triplets"):
        with pytest.raises(ValueError, match="no triplet"):
            train(settings(garments, tmp_path / mode, mode=mode), dataset, quiet=True)


@pytest.mark.parametrize("lacks", ["train", "valid"])
def test_data_without_a_split_are_refused_before_anything_is_written(garments, tmp_path, lacks):
    dataset = read_dataset(garments, [split for split in ("train", "valid", "test") if split != lacks])
    dataset.root = tmp_path / "lists"  # a folder that lacks the split's lists
    with pytest.raises(
        DataError, match=f"filenames_{lacks}.txt: is missing.*raining .*(needs|by) it"
    ) as caught:
        train(settings(garments, tmp_path / "run"), dataset, quiet=True)
    assert "--split" not in str(caught.value) and not (tmp_path / "run").exists()


def test_resume_on_other_data_is_refused(garments, one_label, tmp_path):
    train(settings(garments, tmp_path / "run", budget="epochs=1"), quiet=True)
    with pytest.raises(DataError, match="other data"):
        train(settings(one_label, tmp_path / "run", budget="epochs=1", resume=True), quiet=True)


@pytest.mark.parametrize("cache", [True, False])
def test_a_missing_image_is_named_by_its_line(garments, tmp_path, cache):
    root = tmp_path / "data"
    shutil.copytree(garments, root)
    (root / "images/train/000007.png").unlink()
    with pytest.raises(
        DataError, match="filenames_train.txt, line 8: lists images/train/000007.png, which is miss"
    ):
        train(settings(root, tmp_path / "run", cache=cache, budget="epochs=1"), quiet=True)


def test_the_paper_preset_runs_with_a_small_trunk(garments, tmp_path):
    """bf16, flips, triplets, nothing frozen, loader processes: as on a GPU, but small."""
    config = from_preset(TrainConfig, "paper")
    small = dict(
        data=garments,
        out=tmp_path / "run",
        trunk="vit_tiny_patch16_224",
        pretrained=False,
        image_size=64,
        budget="steps=2",
        batch_size=4,
        workers=1,
    )
    run_ranks(
        1, train_config, dataclasses.replace(config, **small)
    )  # in a process: accelerate keeps its precision
    assert json.loads((tmp_path / "run/train.json").read_text())["steps"] == 2
    rows = rows_of(tmp_path / "run")
    assert 0 < float(rows[-1]["loss"]) < 0.6


PAPERS_TRUNK = """
import json, sys, torch
from pathlib import Path
from ccakit.settings import from_preset
from ccakit.training.config import TrainConfig
from ccakit.evaluation.embedding import embed_images
from ccakit.training.batches import Steps
from ccakit.training.trainer import Trainer
from dataclasses import replace
small = dict(pretrained=False, image_size=32, batch_size=2, workers=0, budget="steps=10", warmup=0.0)
given = dict(data=Path(sys.argv[1]), out=Path(sys.argv[2]), checkpoint_activations=True)
config = replace(from_preset(TrainConfig, "paper"), **small, **given)
trainer = Trainer(config, quiet=True)
trainer.open_training()
model, calls = trainer.saved.model, []
trainer.model.train()
layer = model.trunk.blocks[3].mlp.fc1
hook = layer.register_forward_hook(lambda module, given, out: calls.append(str(out.dtype)))
named = {"cnn": model.trunk.patch_embed.backbone.stem.conv.weight, "block": layer.weight}
before = {name: weight.detach().clone() for name, weight in named.items()}
result = trainer.step(*Steps(trainer.objective, 0, trainer.inputs, 0)[0])
moved = {name: float((weight - before[name]).abs().max()) for name, weight in named.items()}
hook.remove()
shape = embed_images(model, trainer.valid_inputs, [0, 1]).shape
print(json.dumps(dict(loss=float(result.loss), moved=moved, calls=calls, shape=shape)))
"""


@pytest.mark.slow
def test_the_papers_trunk_makes_a_step_in_bf16_with_activations_computed_anew(garments, tmp_path):
    """vit_base_r50_s16_224, nothing frozen, 32 pixels: the CNN and the blocks move, blocks run twice."""
    command = [sys.executable, "-c", PAPERS_TRUNK, garments, tmp_path / "run"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert 0 <= found["loss"] < 0.6 and min(found["moved"].values()) > 0 and found["shape"] == [2, 8, 768]
    assert found["calls"] == ["torch.bfloat16"] * 2  # a second time on the way back


def test_one_precision_after_the_other_in_one_process(garments, tmp_path):
    from ccakit.training.trainer import Trainer

    for precision in ("no", "bf16", "no"):
        options = dict(mixed_precision=precision, budget="steps=1")
        trainer = Trainer(settings(garments, tmp_path / "run", **options), quiet=True)
        trainer.open_training()
        with trainer.accelerator.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(
                torch, "bfloat16" if precision == "bf16" else "float32"
            )


def losses_of(config, until=None):
    """Train; the loss of each step. until: break the run off before this step, after its checkpoint."""
    from ccakit.training.trainer import Trainer

    trainer, losses = Trainer(config, quiet=True), []
    real = trainer.step

    def step(*batch):
        if trainer.progress.step == until:
            raise Stop
        result = real(*batch)
        losses.append(float(result.loss))
        return result

    trainer.step = step
    try:
        trainer.run()
    except Stop:
        pass
    return losses


def test_accumulated_batches_of_triplets_are_one_large_batch(garments, tmp_path):
    """Mean of all triplets, no BatchNorm: 4 batches of 8 are one of 32, in losses and weights, to the end.

    A small lr: the gradient of a key's bias is rounding alone, and AdamW makes whole steps of it.
    """
    options = dict(
        mode="triplets",
        mining="all",
        pull=0.0,
        head_norm="none",
        lr=3e-5,
        triplets_per_epoch=112,
        evaluate_every=2,
    )
    large = losses_of(settings(garments, tmp_path / "large", **{**options, "batch_size": 16}))
    small = losses_of(settings(garments, tmp_path / "small", **{**options, "batch_size": 8, "accumulate": 2}))
    np.testing.assert_allclose(np.reshape(small, (-1, 2)).mean(axis=1), large, atol=1e-5)
    a, b = weights(tmp_path / "large"), weights(tmp_path / "small")
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=name)


def test_how_many_batches_are_taken_together():
    from ccakit.training.config import parse_budget
    from ccakit.training.progress import Progress

    def groups(budget, steps_per_epoch, accumulate):
        progress, found = Progress(), []
        for _ in range(2 * steps_per_epoch):
            found.append(progress.group_size(parse_budget(budget), steps_per_epoch, accumulate))
            progress.step += found[-1]
            progress.batch = (progress.batch + found[-1]) % steps_per_epoch
            if progress.step >= 2 * steps_per_epoch:
                return found

    assert groups("epochs=2", 5, 3) == [3, 2, 3, 2] and groups("60s", 4, 2) == [2, 2, 2, 2]
    assert groups("steps=9", 5, 3) == [3, 2, 3, 1, 1]  # the budget's last, and on if a benchmark goes on
    assert groups("epochs=2", 2, 1) == [1, 1, 1, 1]


@pytest.mark.slow
def test_compiled_and_eager_training_agree_and_go_on_from_each_other(garments, tmp_path, caplog):
    """Losses within 1e-4; a compiled run's files name no wrapper, and load in a run that is not compiled."""
    if not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("torch.compile needs a C++ compiler, and there is none: set CXX, or install g++")
    options = dict(budget="steps=6", checkpoint_every=3, evaluate_every=9, lr=1e-4, head_norm="none")
    whole = losses_of(settings(garments, tmp_path / "whole", **options))
    for first in (True, False):
        out = tmp_path / str(first)
        begun = losses_of(settings(garments, out, compile=first, **options), until=3)
        assert not [
            name for name in load_file(out / "checkpoints/step-00000003/model.safetensors") if "orig" in name
        ]
        gone_on = losses_of(settings(garments, out, compile=not first, resume=True, **options))
        np.testing.assert_allclose([*begun, *gone_on], whole, atol=1e-4)
        assert not [name for name in load_file(out / "model.safetensors") if "orig" in name]
        assert f"compile was {first}, now {not first}; sums differ in the last digits" in caplog.text
        a, b = weights(out), weights(tmp_path / "whole")
        assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-4


def test_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(s / 100, 1.0, 0.1) for s in range(101)]
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1) and rates[-1] == pytest.approx(0, abs=1e-9)


def test_kept_features_are_the_stems_output_and_follow_their_key(garments, tmp_path):
    from ccakit.models.registry import create_model
    from ccakit.training.trainer import Trainer

    saved = Trainer(settings(garments, tmp_path / "run", **LITE), quiet=True).saved
    split = read_dataset(garments, splits=("valid",))["valid"]
    images, before = ImageInputs(split, saved.transform), split.path(3).stat()
    pictures = [split.path(image).read_bytes() for image in (3, 4)]
    kept = keep_features(saved.model, images, tmp_path / "cache", progress=False)
    indices = np.array([5, 0, 17])
    with torch.no_grad():
        expected = saved.model.trunk.stem(images.load(indices))
    torch.testing.assert_close(kept.load(indices), expected, atol=5e-3, rtol=2e-3)
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 1
    keep_features(saved.model, images, tmp_path / "cache", progress=False)
    assert list((tmp_path / "cache").iterdir()) == files
    saved.model.trunk.patch_embed.backbone.net.conv_stem.weight.data.add_(0.01)
    keep_features(saved.model, images, tmp_path / "cache", progress=False)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    touched = split.path(3)
    os.utime(touched, ns=(1, 1))
    keep_features(saved.model, images, tmp_path / "cache", progress=False)
    assert len(list((tmp_path / "cache").iterdir())) == 2, "the content is the same"
    for count, picture in enumerate(pictures, 3):  # both of the same size and time
        touched.write_bytes(picture.ljust(max(map(len, pictures)) + 1, b"x"))
        os.utime(touched, ns=(1, 1))
        keep_features(saved.model, images, tmp_path / "cache", progress=False)
        assert len(list((tmp_path / "cache").iterdir())) == count
    touched.write_bytes(pictures[0])
    os.utime(touched, ns=(before.st_atime_ns, before.st_mtime_ns))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])  # cut short: computed anew, not half used
    other = create_model(**saved.recipe)
    assert len(keep_features(other, images, tmp_path / "cache", progress=False)) == len(split.filenames)
    assert files[0].read_bytes() == whole


def test_embeddings_of_rows_are_those_of_the_images(garments, tmp_path):
    saved, _ = train(settings(garments, tmp_path / "run", budget="steps=2"), quiet=True)
    split = read_dataset(garments, splits=("test",))["test"]
    inputs = ImageInputs(split, saved.transform)
    spaces = embed_images(saved.model, inputs, batch_size=7)
    rows = split.labels[np.random.default_rng(0).permutation(len(split.labels))]
    got = embed_rows(saved.model, inputs, rows, batch_size=5)
    np.testing.assert_allclose(got, spaces[rows[:, 0], rows[:, 1]], atol=1e-5)
    cached = keep_features(saved.model, inputs, tmp_path / "cache", progress=False)
    assert isinstance(cached, FeatureInputs)
    np.testing.assert_allclose(embed_images(saved.model, cached), spaces, atol=2e-2)
    maps = attention_maps(saved.model, inputs, [3, 1])
    assert maps.shape == (2, 8, 4, 4) and (maps.sum((2, 3)) < 1).all() and (maps >= 0).all()


def test_commands_from_train_to_embed(garments, tmp_path, capsys):
    out = tmp_path / "run"
    flags = [
        "--data",
        garments,
        "--out",
        out,
        "--image-size",
        64,
        "--lite-width",
        32,
        "--lite-heads",
        2,
        "--budget",
        "steps=3",
        "--json",
    ]
    assert main(["train", *map(str, flags)]) == 0
    printed = capsys.readouterr().out
    facts, names = json.loads(printed.splitlines()[-1]), read_dataset(garments).attributes.names
    assert facts["steps"] == 3 and sum(facts["expected_shares"].values()) == pytest.approx(1, abs=1e-3)
    assert printed.count("expected share of the pull: ") == 1
    (*_, row), curves = rows_of(out), EventAccumulator(str(out / "tensorboard")).Reload()
    asked = [name for name in names if row[f"valid_map:{name}"]]
    assert len(asked) > 4 and all(f"valid_map/{name}" in curves.Tags()["scalars"] for name in asked)
    assert 0 < max(float(row[f"valid_map:{name}"]) for name in asked) <= 100
    assert main(["evaluate", "--run", str(out), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metrics == json.loads((out / "metrics_garments_test.json").read_text())
    assert set(metrics["map_per_attribute"]) <= set(load_model(out).attributes.names)
    assert (
        metrics["intervals"]["map_weighted"][0]
        <= metrics["map_weighted"]
        <= metrics["intervals"]["map_weighted"][1]
    )
    assert main(["embed", "--run", str(out), "--split", "valid"]) == 0
    from safetensors.numpy import load_file

    embeddings = load_file(out / "embeddings_valid.safetensors")["embeddings"]
    assert embeddings.shape == (24, 8, 32)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1, atol=1e-5)
    assert len(json.loads((out / "embeddings_valid.json").read_text())["filenames"]) == 24


@pytest.fixture(scope="session")
def trained(garments, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train(settings(garments, out, budget="steps=2"), quiet=True)
    return out


@pytest.mark.parametrize(
    "name,damage",
    [
        ("model.safetensors", lambda f: f.write_bytes(f.read_bytes()[:1000])),
        ("model.safetensors", lambda f: f.unlink()),
        ("model.json", lambda f: f.write_text("{")),
        ("model.json", lambda f: f.write_text(f.read_text().replace('"cca-type2"', '"cca-type1"'))),
        ("model.json", lambda f: f.write_text(f.read_text().replace('"conditions": 8', '"conditions": 9'))),
        ("model.json", lambda f: f.write_text("[]")),
    ],
)
def test_a_damaged_model_is_one_clear_error(trained, tmp_path, name, damage):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    damage(folder / name)
    with pytest.raises(DataError, match="model"):
        load_model(folder)


def test_a_model_meets_other_data_with_a_clear_error(trained, one_label, tmp_path, capsys):
    root = tmp_path / "other"
    shutil.copytree(one_label, root)
    meta = (root / "meta.json").read_text().replace("neck_design", "cuff_design")
    (root / "meta.json").write_text(meta)
    assert main(["evaluate", "--run", str(trained), "--data", str(root)]) == 1
    assert "was trained on" in capsys.readouterr().err
