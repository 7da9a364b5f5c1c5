"""The worked example of CONTRIBUTING.md is a system like any other: its code and its entry are taken from the
page."""

from __future__ import annotations

import re
import shlex
import sys
import types

import pytest
import torch
from places import ROOT

from ccakit.cli import main
from ccakit.models import registry
from ccakit.models.registry import create_model, list_models

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
FILE, ENTRY = re.findall(r"```python\n(.*?)```", PAGE, re.S)
COMMANDS = re.findall(r"^\.venv/bin/ccakit (.*)$", PAGE, re.M)


@pytest.fixture
def info(monkeypatch):
    """The system of the page, in its place as a module and in the table."""
    path = re.search(r"The file `(ccakit/models/\w+)\.py`", PAGE)[1]
    module = types.ModuleType(path.replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(FILE, f"{path}.py", "exec"), vars(module))
    entry = eval(ENTRY, {**vars(registry), **vars(module)})
    monkeypatch.setitem(registry.MODELS, entry.name, entry)
    return entry


def test_the_example_has_the_four_methods(info):
    assert info in list_models()
    model = create_model(info.name, conditions=3, pretrained=False, image_size=64, embed_dim=16).eval()
    images, condition = torch.randn(2, 3, 64, 64), torch.tensor([2, 0])
    tokens = model.encode(images)
    spaces, embedding = model.spaces(tokens), model.embed(tokens, condition)
    maps = model.attention(tokens, condition)
    assert spaces.shape == (2, 3, 16) and maps.shape == (2, 1, *model.trunk.grid_size)
    torch.testing.assert_close(embedding, spaces[[0, 1], condition])
    torch.testing.assert_close(spaces.norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(maps.sum(dim=(1, 2, 3)), torch.ones(2))
    assert not torch.allclose(spaces[:, 0], spaces[:, 1])
    (spaces[:, 0] * spaces[:, 1].detach()).sum().backward()
    assert float(model.query.weight.grad.abs().sum()) > 0


@pytest.mark.slow
def test_the_commands_of_the_page_train_and_measure_the_example(info, draw, monkeypatch):
    data = draw(32, 10, 20)
    monkeypatch.chdir(data.parent)
    data.rename(data.parent / "data")
    small = ["--data", "data", "--budget", "steps=2", "--batch-size", "8", "--image-size", "64"]
    for command in COMMANDS:
        words = shlex.split(command)
        assert main(words + (small if words[0] == "train" else [])) == 0
    assert {shlex.split(command)[0] for command in COMMANDS} == {"train", "evaluate"}


def test_the_tests_that_the_page_names_are_there():
    for path in re.findall(r"\b(?:tests|ccakit|docs)/[\w/]+(?:\.\w+)?", PAGE):
        assert (ROOT / path).exists() or path == "ccakit/models/queries.py", path
