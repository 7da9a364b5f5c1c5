"""Export to ONNX: `encode`, `spaces` and `embed` as a file each, for any batch size, checked in onnxruntime.

    encode.onnx   images (B, 3, h, w) -> tokens               once an image
    spaces.onnx   tokens -> embeddings (B, K, E)              all conditions
    embed.onnx    tokens, condition (B,) -> embedding (B, E)  one condition an image
    onnx.json     conditions, values and image transform; also in the metadata of each file

The export traces the model (`dynamo=False`): some fifteen times as fast as `torch.export`, with the same
result.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ccakit.disk import write_json
from ccakit.errors import first_line
from ccakit.models.asen_pp import ASENPP
from ccakit.models.base import ConditionalModel
from ccakit.models.networks import Networks
from ccakit.models.saved import SavedModel
from ccakit.version import __version__

PARTS = {
    "encode": ("tokens", ("images",)),
    "spaces": ("embeddings", ("tokens",)),
    "embed": ("embedding", ("tokens", "condition")),
}
OPSET, TOLERANCE, MOST_BYTES = 17, 1e-4, 2**31 - 2**20  # protobuf's limit is 2 GiB


class ExportError(ValueError):
    """A model cannot be exported; the message says why."""


def export_onnx(saved: SavedModel, folder: str | Path) -> dict:
    """Write the ONNX files and onnx.json into `folder`; return the content of onnx.json.

    onnxruntime runs each file on random inputs, at batch sizes 1 and 5. The result must equal that of torch
    within 1e-4: absolute, and for tokens, which are not of length 1, also relative. `max_difference` is the
    largest found. Raises ExportError for a system that cannot be exported, for a result that differs, and
    where `ccakit[export]` is not installed. Nothing is left in `folder` then.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ExportError(f"exporting needs {error.name}: pip install 'ccakit[export]'") from error
    if obstacle := _obstacle(saved.model):
        raise ExportError(f"{saved.recipe['name']} cannot be exported to ONNX: {obstacle}")
    folder, size, facts = Path(folder), saved.transform.size, _facts(saved)
    model = copy.deepcopy(saved.model).cpu().float().eval().requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        for part, about in facts["parts"].items():
            file = Path(partial, about["file"])
            _write(model, part, file, facts, size)
            about["max_difference"] = _difference(model, part, file, size)
        for about in facts["parts"].values():
            os.replace(Path(partial, about["file"]), folder / about["file"])
    write_json(folder / "onnx.json", facts)
    return facts


def _obstacle(model: ConditionalModel) -> str | None:
    """Say why a system cannot be exported; None where it can."""
    if isinstance(model, ASENPP) and model.crop == "image":
        return (
            "its local branch reads the picture again, so that tokens alone do not hold what `spaces` needs"
        )
    if sum(t.numel() * t.element_size() for t in model.state_dict().values()) > MOST_BYTES:
        return "it has more than 2 GiB of weights, the most that one ONNX file holds"
    return None


def _facts(saved: SavedModel) -> dict:
    """Collect what onnx.json holds, but for the differences."""
    attributes = saved.attributes
    return {
        "ccakit": __version__,
        "system": saved.recipe["name"],
        "opset": OPSET,
        "conditions": list(attributes.names),
        "values": {name: list(values) for name, values in zip(attributes.names, attributes.values)},
        "transform": saved.transform.to_dict(),
        "embed_dim": saved.model.embed_dim,
        "parts": {
            part: {"file": f"{part}.onnx", "inputs": list(inputs), "output": output}
            for part, (output, inputs) in PARTS.items()
        },
    }


class _Part(nn.Module):
    """One of the model's methods as a module."""

    def __init__(self, model: ConditionalModel, part: str) -> None:
        super().__init__()
        self.model, self.part = model, part

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.part == "embed" and isinstance(self.model, Networks):  # it sorts images: not traceable
            spaces, condition = self.model.spaces(inputs[0]), inputs[1]
            return spaces.gather(1, condition[:, None, None].expand(-1, 1, spaces.shape[-1]))[:, 0]
        return getattr(self.model, self.part)(*inputs)


def _inputs(model: ConditionalModel, part: str, batch: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Make random inputs of a part: normal pixels, or their tokens, and each condition in turn."""
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(batch))
    if part == "encode":
        return (images,)
    with torch.no_grad():
        tokens = model.encode(images)
    return (tokens,) if part == "spaces" else (tokens, torch.arange(batch) % model.conditions)


def _write(model: ConditionalModel, part: str, file: Path, facts: dict, size: tuple[int, int]) -> None:
    """Export one part, and put the facts into the file's metadata."""
    import onnx

    output, names = PARTS[part]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of branches on what is fixed in a trained model
        try:
            torch.onnx.export(
                _Part(model, part).eval(),
                _inputs(model, part, 3, size),
                str(file),
                input_names=list(names),
                output_names=[output],
                dynamic_axes={name: {0: "batch"} for name in (*names, output)},
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:  # noqa: BLE001 - the exporter raises many kinds
            problem = f"{part} cannot be exported to ONNX ({first_line(error)})"
            raise ExportError(f"{facts['system']}: {problem}") from error
    graph = onnx.load(str(file))
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    texts.pop("parts")
    onnx.helper.set_model_props(graph, texts)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(file))


def _difference(model: ConditionalModel, part: str, file: Path, size: tuple[int, int]) -> float:
    """Compare a file in onnxruntime with torch at two batch sizes, and give the greatest difference.

    Raises ExportError where the file does not run, or differs by more than TOLERANCE.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    greatest = 0.0
    for batch in (1, 5):
        inputs = _inputs(model, part, batch, size)
        with torch.no_grad():
            by_torch = getattr(model, part)(*inputs)
        try:
            arrays = {name: tensor.numpy() for name, tensor in zip(PARTS[part][1], inputs)}
            by_onnx = torch.from_numpy(session.run(None, arrays)[0])
        except Exception as error:  # noqa: BLE001 - onnxruntime raises kinds of its own
            problem = f"does not run at batch {batch}: it is not kept ({first_line(error)})"
            raise ExportError(f"{file.name} {problem}") from error
        greatest = max(greatest, float((by_onnx - by_torch).abs().max()))
        relative = TOLERANCE if part == "encode" else 0
        if not torch.allclose(by_onnx, by_torch, atol=TOLERANCE, rtol=relative):
            problem = f"differs from torch by {greatest:.1e} at batch {batch}: it is not kept"
            raise ExportError(f"{file.name} {problem}")
    return greatest
