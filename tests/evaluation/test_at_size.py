"""A run on a frozen ViT, read at another size: the same weights, the positions of the pre-trained ones."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from places import ROOT
from safetensors.torch import save_file

import ccakit
from ccakit.data.inputs import ImageInputs
from ccakit.evaluation.at_size import POSITION, at_size, takes_sizes
from ccakit.evaluation.embedding import attention_maps
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import train

sys.path[:0] = [str(ROOT), str(ROOT / "figures")]
import figure4  # noqa: E402

from benchmarks import heatmaps  # noqa: E402


@pytest.fixture(scope="module")
def runs(draw, tmp_path_factory):
    """Two runs, in either block of one frozen ViT, and the file of its weights."""
    folder = tmp_path_factory.mktemp("at-size")
    torch.manual_seed(5)
    file, data = folder / "vit.safetensors", draw(32, 16, 16)
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), file)
    shared = dict(data=data, weights=file, budget="steps=1", batch_size=16)
    shared |= dict(trunk="vit_tiny_patch16_224", image_size=32)
    for block in (1, 2):
        train(TrainConfig(out=folder / str(block), read_block=block, freeze="all", **shared), quiet=True)
    return {str(block): folder / str(block) for block in (1, 2)}, file


@pytest.fixture
def found(runs, monkeypatch):
    """The weights are given, as they are not where `ccakit train` finds them by itself."""
    folders, file = runs
    module = "ccakit.evaluation.at_size.at_size"
    monkeypatch.setattr(module, lambda run, side: at_size(run, side, weights=file))
    return folders


def test_the_same_weights_on_a_finer_grid(runs):
    folders, file = runs
    run = ccakit.open_run(folders["2"])
    finer = at_size(run, 64, weights=file)
    assert takes_sizes(run) and finer.model.trunk.grid_size == (4, 4)
    before, after = run.model.state_dict(), finer.model.state_dict()
    assert [name for name in before if not before[name].equal(after[name])] == [POSITION]
    maps = attention_maps(finer.model, finer.inputs, np.arange(2))
    assert maps.shape == (2, 8, 4, 4)
    same = at_size(run, 32, weights=file)  # at its own size it is the run
    torch.testing.assert_close(same.model.state_dict(), before)


def test_other_weights_and_tuned_trunks_are_refused(runs, draw, tmp_path):
    folders, _ = runs
    with pytest.raises(ValueError, match="did not start from the weights that were found"):
        at_size(ccakit.open_run(folders["1"]), 64, pretrained=False)
    tuned = ccakit.open_run(folders["1"])
    tuned.saved.recipe["freeze"] = "none"
    with pytest.raises(ValueError, match="only a frozen vision transformer"):
        at_size(tuned, 64)


def test_the_benchmark_scores_each_head_at_both_sizes(found, tmp_path, capsys):
    results = tmp_path / "heatmaps.csv"
    named = [f"block {block}={folder}" for block, folder in found.items()]
    flags = ["--image-size", "64", "--images", "6", "--results", str(results), "--threads", "1"]
    heatmaps.main(["--runs", *named, *flags])
    rows = heatmaps.read_csv(results)
    assert [(row["run"], row["px"], row["head"]) for row in rows[:3]] == [
        ("block 1", "32", "mean"), ("block 1", "32", "0"), ("block 1", "32", "1")
    ]  # fmt: skip
    assert len(rows) == 2 * 2 * 4 and {row["grid"] for row in rows} == {"2x2", "4x4"}
    assert "| block 2 | 64 | 4 x 4 |" in capsys.readouterr().out
    run = ccakit.open_run(found["2"])
    images = np.unique(run.split.regions[:, 0]).astype(int)[:6]
    maps = dict(heatmaps.head_maps({"two": run_of_images(run)}, images))["two"]
    expected = attention_maps(run.model, run.inputs, images)
    np.testing.assert_allclose(maps.mean(axis=2), expected, atol=2e-3)


def run_of_images(run):
    """The run on its pictures, as the benchmark reads them, not on kept features."""
    return replace(run, inputs=ImageInputs(run.split, run.saved.transform))


def test_figure_4_of_several_runs_names_their_rows(found, tmp_path):
    runs = {f"block {block}": ccakit.open_run(folder) for block, folder in found.items()}
    figure = figure4.draw_runs(runs, images=2)
    assert len(figure.axes) == 2 * 2 * 9
    assert [ax.get_ylabel() for ax in figure.axes[::9]] == ["block 1", "block 2"] * 2
    pictures = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[::9]]
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])
