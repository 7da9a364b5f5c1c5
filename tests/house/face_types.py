"""A typed use of every name of the face: pyright reads it in `make lint`, and nothing runs it.

`assert_type` fails where the package gives another type than the one that is written here, or an unknown one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pandas import DataFrame
from PIL import Image
from torch import Tensor
from typing_extensions import assert_type

import ccakit
from ccakit.catalogue.search import Catalogue
from ccakit.data.split import Dataset, Split
from ccakit.evaluation.run import Run
from ccakit.hub import PretrainedModel
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import ModelInfo
from ccakit.models.saved import SavedModel
from ccakit.training.config import TrainConfig

assert_type(ccakit.__version__, str)
assert_type(ccakit.__all__, list[str])


def load_a_model() -> None:
    model = assert_type(ccakit.load("runs/demo", revision="main"), PretrainedModel)
    names = assert_type(model.conditions, tuple[str, ...])
    pixels = np.zeros((256, 192, 3), np.uint8)
    pictures = ["shirt.jpg", Path("shirt.jpg"), Image.open("shirt.jpg"), pixels]
    assert_type(model.spaces(pictures), Tensor)
    assert_type(model.spaces("shirt.jpg"), Tensor)
    assert_type(model.embed(Path("shirt.jpg"), names[0]), Tensor)
    assert_type(model.heatmap(pixels, 3), Tensor)


def create_a_network(images: Tensor, condition: Tensor) -> None:
    systems = assert_type(ccakit.list_models(), list[ModelInfo])
    network = assert_type(
        ccakit.create_model(systems[0].name, conditions=8, pretrained=False), ConditionalModel
    )
    tokens = assert_type(network.encode(images), Tensor)
    assert_type(network.embed(tokens, condition), Tensor)
    assert_type(network.spaces(tokens), Tensor)
    assert_type(network.attention(tokens, condition), Tensor)


def train_and_evaluate(config: TrainConfig) -> None:
    dataset = assert_type(ccakit.read_dataset("data/garments", splits=("train", "valid")), Dataset)
    saved, facts = ccakit.train(config, dataset)
    assert_type(saved, SavedModel)
    epochs: int = facts["epochs"]
    run = assert_type(ccakit.open_run(config.out, split="test"), Run)
    assert_type(run.split, Split)
    percent: float = ccakit.evaluate(run)["map_weighted"]
    print(f"{epochs} epochs, {percent:.1f}")


def open_the_demo() -> None:
    run = assert_type(ccakit.open_demo("smoke"), Run)
    assert_type(run.on("valid"), Run)


def search_a_catalogue() -> None:
    catalogue = assert_type(ccakit.open_catalogue("catalogue", run="runs/demo"), Catalogue)
    found = catalogue.search("shirt.jpg", {"neck design": 2, 1: 0.5}, where="price < 50", k=3)
    assert_type(found, DataFrame)
