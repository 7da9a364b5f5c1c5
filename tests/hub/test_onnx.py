"""ONNX: each part gives the result of torch in onnxruntime at any batch size, or the export says why it
cannot.

An export takes seconds: each model is exported once in a session and shared, and most of them are tested with
the slow tests.
"""

from __future__ import annotations

import json
import sys
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ccakit.attributes import Attributes
from ccakit.cli import main
from ccakit.data.transform import ImageTransform
from ccakit.hub.onnx import PARTS, ExportError, export_onnx
from ccakit.models.registry import create_model, list_models
from ccakit.models.saved import SavedModel, save_model

ATTRIBUTES = Attributes(("neck_design", "tone"), (("V", "round", "none"), ("dark", "light")))
IN_OTHER_TESTS = ("cca-type1", "cca-type2", "triplet", "asen-pp", "csn")
OTHERS = [info.name for info in list_models() if info.name not in IN_OTHER_TESTS]
CLASSIFY = [info.name for info in list_models() if info.system.classifies]


def slow(name: str):
    """A parameter of the slow tests."""
    return pytest.param(name, marks=pytest.mark.slow)


def saved_model(
    name, trunk="lite", size=64, pretrained=False, freeze="backbone", depth=None, **options
) -> SavedModel:
    recipe = dict(name=name, conditions=2, trunk=trunk, image_size=size, freeze=freeze, **options)
    if depth:
        recipe["trunk_options"] = {"depth": depth}
    if name in CLASSIFY:
        recipe["values"] = list(ATTRIBUTES.sizes)
    model = create_model(**recipe, pretrained=pretrained).eval()
    for norm in model.modules():  # a BatchNorm that does something
        if isinstance(norm, torch.nn.BatchNorm1d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return SavedModel(model, ATTRIBUTES, ImageTransform(tuple(model.trunk.image_size), crop_pct=1.0), recipe)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(name, trunk, ...): the model of `saved_model`, its folder of ONNX files, and the facts of its
    export."""

    @cache
    def export(name: str, trunk: str = "lite", **options):
        torch.manual_seed(0)
        saved, folder = saved_model(name, trunk, **options), tmp_path_factory.mktemp("onnx")
        return saved, folder, export_onnx(saved, folder)

    return export


def in_onnxruntime(folder, part, **inputs):
    session = onnxruntime.InferenceSession(folder / f"{part}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def assert_same(saved, folder, facts, batches=(1, 5), atol=1e-4):
    """All parts, each on its own and one after the other, against torch at every batch size."""
    assert all(part["max_difference"] < 1e-4 for part in facts["parts"].values())
    for batch in batches:
        images = torch.randn(batch, 3, *saved.transform.size)
        condition = torch.randint(0, 2, (batch,))
        with torch.no_grad():
            tokens = saved.model.encode(images)
            spaces, embedding = saved.model.spaces(tokens), saved.model.embed(tokens, condition)
        found = in_onnxruntime(folder, "encode", images=images.numpy())
        np.testing.assert_allclose(found, tokens.numpy(), atol=atol, rtol=1e-4)
        np.testing.assert_allclose(in_onnxruntime(folder, "spaces", tokens=found), spaces.numpy(), atol=atol)
        one = in_onnxruntime(folder, "embed", tokens=found, condition=condition.numpy())
        np.testing.assert_allclose(one, embedding.numpy(), atol=atol)
        assert spaces.shape == (batch, 2, saved.model.embed_dim) and float(spaces.std()) > 1e-3


@pytest.mark.parametrize("name", [slow("cca-type1"), "cca-type2", slow("triplet")])
def test_lite_with_imagenet_weights_in_onnxruntime(name, exported):
    options = {} if name == "triplet" else dict(head="each")
    assert_same(*exported(name, pretrained=True, head_norm="batchnorm", depth=2, **options))


@pytest.mark.slow
@pytest.mark.parametrize("name,size", [("cca-type2", None), ("triplet", 64)])
def test_a_vision_transformer_in_onnxruntime(name, size, exported):
    assert_same(*exported(name, "vit_tiny_patch16_224", size=size, freeze="none"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cca-type2", "triplet"])
def test_a_hybrid_trunk_in_onnxruntime(name, exported):
    """A CNN before the blocks, as in the paper's vit_base_r50_s16_224; that trunk takes minutes, and agrees
    as well."""
    assert_same(*exported(name, "vit_tiny_r_s16_p8_224", freeze="none"))


@pytest.mark.parametrize("name", ["csn", *map(slow, OTHERS)])
def test_every_other_system_in_onnxruntime(name, exported):
    assert_same(*exported(name, head_norm="batchnorm"), batches=[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,freeze,options",
    [
        ("networks", "none", {}),
        ("cca-type1", "all", dict(query="fc-wq", residual=False)),
        ("asen-pp", "backbone", dict(crop="map", head="each", head_norm="batchnorm")),
    ],
)
def test_other_settings_in_onnxruntime(name, freeze, options, exported):
    assert_same(*exported(name, freeze=freeze, **options), batches=[3])


@pytest.mark.slow
def test_asen_pps_second_stage_in_onnxruntime(tmp_path):
    """The local branch cuts its box out of the map, for each image and condition."""
    saved = saved_model("asen-pp", pretrained=True, crop="map", head_norm="batchnorm")
    saved.model.advance(1.0)
    with torch.no_grad():
        spaces = saved.model.spaces(saved.model.encode(torch.randn(3, 3, 64, 64)))
    local = spaces[..., saved.model.embed_dim // 2 :]
    assert float(local.abs().max()) > 0.01
    assert_same(saved, tmp_path, export_onnx(saved, tmp_path), batches=(1, 4))


@pytest.mark.slow
def test_the_command_says_in_one_line_what_cannot_be_exported(tmp_path, capsys):
    save_model(tmp_path / "run", saved_model("asen-pp", crop="image"))
    assert main(["export", "--onnx", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith(
        "ccakit export: asen-pp cannot be exported to ONNX: its local branch reads the picture"
    )
    assert "\n" not in message and not list(tmp_path.glob("out/*.onnx"))


@pytest.mark.slow
def test_a_cnn_in_onnxruntime(exported):
    assert_same(*exported("asen", "resnet18", freeze="none"), batches=[4])


def test_the_files_know_conditions_values_and_transform(exported):
    saved, folder, facts = exported("csn", head_norm="batchnorm")
    beside = json.loads((folder / "onnx.json").read_text())
    files = ["onnx.json", *(f"{part}.onnx" for part in PARTS)]
    assert beside == facts and sorted(p.name for p in folder.iterdir()) == sorted(files)
    for part, (output, inputs) in PARTS.items():
        model = onnx.load(folder / f"{part}.onnx")
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(metadata["conditions"]) == ["neck_design", "tone"] == beside["conditions"]
        assert json.loads(metadata["values"])["tone"] == ["dark", "light"] == beside["values"]["tone"]
        assert ImageTransform.from_dict(json.loads(metadata["transform"])) == saved.transform
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert [i.name for i in model.graph.input] == list(inputs) and model.graph.output[0].name == output


@pytest.mark.slow
def test_exporting_leaves_the_model_and_the_modules_as_they_were(tmp_path):
    saved = saved_model("cca-type2", head_norm="batchnorm")
    saved.model.train()
    before = {name: tensor.clone() for name, tensor in saved.model.state_dict().items()}
    trained = [p.requires_grad for p in saved.model.parameters()]
    export_onnx(saved, tmp_path)
    assert saved.model.training and trained == [p.requires_grad for p in saved.model.parameters()]
    assert all(torch.equal(before[name], tensor) for name, tensor in saved.model.state_dict().items())
    systems = [module for name, module in list(sys.modules.items()) if name.startswith("ccakit.models")]
    assert not any("len" in vars(module) for module in systems)


def test_what_cannot_be_exported_says_why(tmp_path, monkeypatch):
    with pytest.raises(
        ExportError, match="asen-pp cannot be exported to ONNX: its local branch reads the picture"
    ):
        export_onnx(saved_model("asen-pp", crop="image"), tmp_path / "a")
    monkeypatch.setattr("ccakit.hub.onnx.MOST_BYTES", 1000)
    with pytest.raises(ExportError, match="2 GiB"):
        export_onnx(saved_model("csn"), tmp_path / "c")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_result_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("ccakit.hub.onnx.TOLERANCE", 0.0)
    with pytest.raises(ExportError, match="differs from torch"):
        export_onnx(saved_model("csn"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_does_not_run_at_another_batch_size_is_not_kept(tmp_path, monkeypatch):
    saved = saved_model("csn")
    real = type(saved.model).spaces

    def spaces(self, tokens):
        found = real(self, tokens)
        return found.reshape(int(found.shape[0]), -1, self.embed_dim)  # int(...) is a constant in a trace

    monkeypatch.setattr(type(saved.model), "spaces", spaces)
    with pytest.raises(ExportError, match="spaces.onnx does not run at batch 1: it is not kept") as error:
        export_onnx(saved, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match="exporting needs onnxruntime: pip install 'ccakit\\[export\\]'"):
        export_onnx(saved_model("csn"), tmp_path)


@pytest.mark.slow
def test_the_command_exports_again_and_leaves_no_stale_file(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    save_model(run, saved_model("cca-type2"))
    flags = ["export", "--run", str(run), "--out", str(out)]
    assert main([*flags, "--onnx", "--licence", "MIT", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(facts["onnx"]) == set(PARTS) and max(facts["onnx"].values()) < 1e-4
    assert (
        "license: mit" in (out / "README.md").read_text() and "onnxruntime" in (out / "README.md").read_text()
    )
    assert main([*flags, "--no-card"]) == 1 and "--overwrite" in capsys.readouterr().err
    assert main([*flags, "--no-card", "--overwrite"]) == 0
    assert not list(out.glob("*.onnx")) and not (out / "onnx.json").exists() and (out / "README.md").exists()
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "bare"), "--no-card"]) == 0
    assert sorted(p.name for p in (tmp_path / "bare").iterdir()) == [
        "config.json",
        "model.json",
        "model.safetensors",
    ]
    (run / "log.csv").touch()
    assert main(["export", "--run", str(run), "--out", str(run)]) == 1
    assert "is the folder of a training run" in capsys.readouterr().err and not (run / "config.json").exists()
