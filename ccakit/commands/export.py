"""`ccakit export`: a trained model for others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ccakit.settings import CommandConfig


@dataclass
class Config(CommandConfig):
    """Write a trained model for others: safetensors and JSON with a model card, and ONNX if wanted."""

    run: Path = Path("runs/demo")
    """A run folder, or any folder with model.safetensors and model.json."""
    out: Path = Path("runs/export")
    """The folder to write, which may not be a run's."""
    overwrite: bool = False
    """Replace an earlier export in the folder, if there is something in it."""
    onnx: bool = False
    """Write encode, spaces and embed as ONNX files too; needs pip install 'ccakit[export]'."""
    card: bool = True
    """Write the model card README.md; it replaces one that is there."""
    licence: Optional[str] = None
    """The saved model's licence, for the card, such as apache-2.0."""


def run(config: Config) -> dict:
    """Write a run's model into `config.out`; returns what was written.

    ONNX files that an earlier export left there are removed, as they may be of another model.
    """
    from ccakit.commands import note
    from ccakit.disk import check_output, refuse_existing, write_text
    from ccakit.hub.model_card import read_run_facts
    from ccakit.hub.onnx import PARTS, export_onnx
    from ccakit.hub.pretrained import PretrainedModel, refuse_run

    check_output(config.out / "model.safetensors")
    refuse_run(config.out)
    if not config.overwrite:
        refuse_existing(config.out)
    model, card, onnx = PretrainedModel.from_pretrained(config.run), config.out / "README.md", {}
    for name in ("onnx.json", *(f"{part}.onnx" for part in PARTS)):
        (config.out / name).unlink(missing_ok=True)
    if config.onnx:
        parts = export_onnx(model.saved, config.out)["parts"]
        onnx = {part: values["max_difference"] for part, values in parts.items()}
    had_card = card.is_file()
    text = model.generate_model_card(source=str(config.out), licence=config.licence, onnx=config.onnx).content
    model.save_pretrained(config.out)  # writes a card, too
    if config.card:
        write_text(card, text)
    elif not had_card:
        card.unlink()
    remarks = read_run_facts(config.run).remarks
    for remark in remarks:
        note(f"note: {remark}")
    system, conditions = model.saved.recipe["name"], list(model.conditions)
    differences = "".join(f"; {part}.onnx differs from torch by {value:.1e}" for part, value in onnx.items())
    print(f"{system} with {len(conditions)} conditions in {config.out}{differences}")
    return {
        "out": str(config.out),
        "system": system,
        "conditions": conditions,
        "onnx": onnx,
        "remarks": remarks,
    }
