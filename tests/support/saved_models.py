"""A small model and its checkpoints on disk, and how their files are changed: for the tests of loading."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_vit  # noqa: F401 - registers vit_for_tests
import torch
from safetensors.torch import load_file, save_file

from ccakit.attributes import Attributes
from ccakit.data.transform import ImageTransform
from ccakit.disk import write_json
from ccakit.models.registry import create_model
from ccakit.models.saved import SavedModel
from ccakit.training.checkpoints import put_state, read_state, rng_state, save_state
from ccakit.training.progress import Progress

ATTRIBUTES = Attributes(("neck_design", "tone"), (("V", "round"), ("dark", "light")))
LITE = dict(trunk="lite", freeze="backbone", trunk_options={"width": 32, "num_heads": 2})


def saved_model(name="cca-type2", **options) -> SavedModel:
    recipe = dict(
        name=name, conditions=2, image_size=32, **{**dict(trunk="vit_for_tests", freeze="1"), **options}
    )
    return SavedModel(create_model(**recipe, pretrained=False), ATTRIBUTES, ImageTransform((32, 32)), recipe)


def two_checkpoints(tmp_path: Path) -> Path:
    """The newer of two checkpoints of a small model, in `tmp_path / "checkpoints"`."""
    model = saved_model().model
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    for step in (2, 3):
        optimizer.step()
        progress = Progress(step=step, batch=1, rows=[[0.2, 5, 0.5]], terms={"mask": 0.1})
        options = dict(scaler=None, rngs=[rng_state()], keep=2)
        save_state(tmp_path / "checkpoints", model, optimizer, progress, **options)
    return tmp_path / "checkpoints" / "step-00000003"


def load_state(checkpoint: Path, model, optimizer) -> Progress:
    return put_state(read_state(checkpoint, model, optimizer), model, optimizer)


def change_tensors(file: Path, change) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def change_json(file: Path, change) -> None:
    facts = json.loads(file.read_text(encoding="utf-8"))
    change(facts)
    write_json(file, facts)
