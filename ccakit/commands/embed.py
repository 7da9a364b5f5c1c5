"""`ccakit embed`: every image of a split under every condition, as safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from ccakit.commands.evaluate import RunConfig, check_outputs, open_for


@dataclass
class Config(RunConfig):
    """Write the embedding of every image of a split under every condition."""

    split: Literal["train", "valid", "test"] = "test"
    """The split to embed."""
    out: Optional[Path] = None
    """The file to write; RUN/embeddings_SPLIT.safetensors by default. File names go to a .json beside it."""


def run(config: Config) -> dict:
    """Write the embeddings; returns their facts."""
    from ccakit import processes
    from ccakit.evaluation.embedding import embed_images, facts_file, save_embeddings

    out = config.out or config.run / f"embeddings_{config.split}.safetensors"
    check_outputs(config, out, facts_file(out))
    opened = open_for(config)
    inputs = opened.inputs
    embeddings = embed_images(opened.model, inputs, batch_size=config.batch_size, progress="embedding")
    facts = {
        "shape": list(embeddings.shape),
        "conditions": list(opened.attributes.names),
        "file": str(out),
        "data": opened.data,
        "unreadable": inputs.report(),
    }
    if processes.is_main():
        save_embeddings(out, embeddings, {**facts, "filenames": opened.split.filenames})
    print(f"{embeddings.shape[0]} images x {embeddings.shape[1]} spaces x {embeddings.shape[2]} in {out}")
    for remark in opened.remarks:
        print(f"data: {remark}")
    if inputs.unreadable:
        lists = facts_file(out)
        print(f"unreadable: {len(inputs.unreadable)} images, whose embeddings are NaN; listed in {lists}")
    return facts
