"""A trained model as people use it: pictures and attribute names in, embeddings out; on disk or on the hub.

    model = ccakit.load("runs/mine")         # a folder, or a repository of the hub
    model.embed("shirt.jpg", "neck design")  # (E,), a vector of length 1
    model.push_to_hub("me/neck-designs")     # with a model card made from the run

It saves safetensors and JSON, and loads nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from PIL import Image
from torch import Tensor

from ccakit.data.images import read_image
from ccakit.disk import write_json
from ccakit.errors import DataError, first_line
from ccakit.evaluation.provenance import read_record
from ccakit.hub.model_card import model_card
from ccakit.models.base import ConditionalModel
from ccakit.models.saved import SavedModel, load_model, save_model

# what is downloaded; the hub counts downloads by config.json
FILES = ["model.safetensors", "model.json", "README.md", "config.json"]
RUN_FILES = ("log.csv", "train.json", "checkpoints")
LOADED = re.compile(r'(ccakit\.load|from_pretrained)\("[^"\n]*"\)')  # in the examples of a model card
File = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO
Picture = File | Image.Image | np.ndarray | Tensor
"""A file, by its path or open, its bytes, a PIL image of any mode, RGB as (H, W, 3) uint8, a tensor
(3, H, W) uint8, or the output of the transform: (3, h, w) float. Equal pictures, equal embeddings."""
Pictures = Picture | Sequence[Picture]
Condition = str | int
Conditions = Condition | Sequence[Condition]


class PretrainedModel(ModelHubMixin):
    """A trained model that takes pictures of any kind, and conditions by name or index.

    model: the network. attributes: the names of the conditions, and of the values of each. conditions: those
    names, in the order of `spaces`; one may be written "neck design", "neck_design" or "Neck-Design".
    transform: from a picture to the input of the network. folder: where the model was loaded from; if that is
    the folder of a run, the model card describes the run.
    """

    _hub_mixin_config = {}  # the mixin then saves no constructor arguments: model.json holds them

    def __init__(self, saved: SavedModel, folder: str | Path | None = None) -> None:
        self.saved, self.folder = saved, None if folder is None else Path(folder)
        self.model, self.attributes, self.transform = saved.model.eval(), saved.attributes, saved.transform
        self.conditions = saved.attributes.names

    def to(self, device: str | torch.device) -> PretrainedModel:
        """Move the network to a device; results are always on the CPU."""
        self.model.to(device)
        return self

    def condition(self, condition: Condition) -> int:
        """Find the index of a condition, given by name or index; ValueError lists those that exist."""
        return find_condition(self.conditions, condition)

    def embed(self, images: Pictures, condition: Conditions, batch_size: int = 64) -> Tensor:
        """Embed pictures under a condition: one picture -> (E,), several -> (B, E), each vector of length 1.

        condition: one for all pictures, or one for each.
        """
        return self._look(images, condition, batch_size, self.model.embed)

    def spaces(self, images: Pictures, batch_size: int = 64) -> Tensor:
        """Embed pictures under all conditions: one picture -> (K, E), several -> (B, K, E)."""
        return self._look(images, 0, batch_size, lambda tokens, _: self.model.spaces(tokens))

    def heatmap(self, images: Pictures, condition: Conditions, batch_size: int = 64) -> Tensor:
        """Show where the model looks, as the mean of its heads: one picture -> (h, w), several -> (B, h, w).

        The map covers the part of a picture that the transform keeps: `model.transform.view(height, width)`.
        ValueError for a system that does not attend.
        """
        self._check_attends()
        attn = self._look(images, condition, batch_size, self.model.attention)  # (B, H, h, w) or (H, h, w)
        return attn.mean(dim=-3)

    def heatmaps(self, images: Pictures, conditions: Sequence[Condition], batch_size: int = 64) -> Tensor:
        """Show where the model looks under R conditions: one picture -> (R, h, w), several -> (B, R, h, w).

        Pictures are encoded once. ValueError for a system that does not attend, as in `heatmap`.
        """
        self._check_attends()
        rows = [self.condition(condition) for condition in conditions]

        def view(tokens: Tensor, _: Tensor) -> Tensor:
            maps = [self.model.attention(tokens, self.model.repeat_condition(row, tokens)) for row in rows]
            return torch.stack(maps, dim=1)  # (B, R, H, h, w)

        return self._look(images, 0, batch_size, view).mean(dim=-3)

    @property
    def attends(self) -> bool:
        """Whether the model looks at places, so that it has heatmaps."""
        return type(self.model).attention_rows is not ConditionalModel.attention_rows

    def _check_attends(self) -> None:
        if not self.attends:
            raise ValueError(f"{self.saved.recipe['name']} does not attend: it has no heatmap")

    def _look(self, images: Pictures, condition: Conditions, batch_size: int, view: Callable) -> Tensor:
        """Encode pictures in batches and give what `view(tokens, condition)` makes of them, on the CPU."""
        single = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
        single = single or hasattr(images, "read") or not isinstance(images, Iterable)
        single = single or getattr(images, "ndim", 4) in (2, 3)
        pictures = [images] if single else list(images)
        if not pictures:
            raise ValueError("no picture given")
        conditions = self._conditions(condition, len(pictures))
        device = next(self.model.parameters()).device
        parts = []
        for start in range(0, len(pictures), batch_size):
            rows = slice(start, start + batch_size)
            batch = torch.stack([self.pixels(picture) for picture in pictures[rows]]).to(device)
            with torch.no_grad():
                parts.append(view(self.model.encode(batch), conditions[rows].to(device)).float().cpu())
        result = torch.cat(parts)
        return result[0] if single else result

    def _conditions(self, condition: Conditions, count: int) -> Tensor:
        """The conditions of `count` pictures: (count,) int."""
        if isinstance(condition, str | int | np.integer):
            return torch.full((count,), self.condition(condition))
        if len(condition) != count:
            raise ValueError(f"{len(condition)} conditions for {count} pictures: give one, or one for each")
        return torch.tensor([self.condition(each) for each in condition])

    def pixels(self, picture: Picture) -> Tensor:
        """Prepare one picture for the network: (3, h, w) float32.

        DataError for a file that cannot be read, ValueError for anything else that is not a picture.
        """
        if isinstance(picture, Tensor) and self.transform.gives(picture):
            return picture.float()
        return self.transform(read_image(picture, at_least=self.transform.at_least))

    # --- the hub

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write model.safetensors, model.json, config.json and, if there is none yet, the model card
        README.md.

        options: those of huggingface_hub's mixin; of them, model_card_kwargs goes to
        `ccakit.hub.model_card.model_card`. DataError for the folder of a run, whose config.json would be
        lost.
        """
        folder = Path(save_directory)
        refuse_run(folder)
        kwargs = {"source": str(save_directory), **(options.pop("model_card_kwargs", None) or {})}
        return super().save_pretrained(folder, model_card_kwargs=kwargs, **options)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict | None = None, **options: Any) -> str:
        """Upload the files of `save_pretrained`; the examples in the model card name the repository."""
        kwargs = {"source": repo_id, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=kwargs, **options)

    def generate_model_card(self, **options: Any) -> ModelCard:
        """Give the model card: the one that came with the model or, for the folder of a run, a new one.

        options: those of `ccakit.hub.model_card.model_card`; of them, a card that came with the model takes
        `source`.
        """
        if self.folder and (self.folder / "README.md").is_file() and not is_run(self.folder):
            source = json.dumps(options.get("source", str(self.folder)))
            text = (self.folder / "README.md").read_text("utf-8")
            named = LOADED.sub(lambda match: f"{match[1]}({source})", text)
            return ModelCard(named, ignore_metadata_errors=True)
        return model_card(self.saved, self.folder, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self.saved)
        system, conditions = self.saved.recipe["name"], list(self.conditions)
        facts = {"library_name": "ccakit", "system": system, "conditions": conditions}
        facts["trained_on"] = read_record(self.folder) if self.folder else {}
        write_json(save_directory / "config.json", facts)  # by which the hub counts downloads

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> PretrainedModel:
        """Load a trained model; see `load`."""
        folder = pretrained_model_name_or_path
        if not Path(folder).is_dir():
            try:
                folder = snapshot_download(str(folder), allow_patterns=FILES, **options)
            except (OSError, ValueError) as error:  # the hub's errors are among them
                problem = f"is not a folder here, and cannot be loaded from the hub ({first_line(error)})"
                remedy = "Give a folder with model.safetensors and model.json, or a repository of the hub."
                raise DataError(folder, problem, remedy) from error
        return cls(load_model(folder), folder)


def load(path_or_hub_id: str | Path, **options: Any) -> PretrainedModel:
    """Load a trained model: from a run's folder, from a folder that `ccakit export` wrote, or from the hub.

    options: of the hub's download (revision, token, cache_dir, local_files_only, force_download). DataError
    says which file is missing or broken. `PretrainedModel.from_pretrained` does the same.
    """
    return PretrainedModel.from_pretrained(path_or_hub_id, **options)


def is_run(folder: Path) -> bool:
    """Say whether a folder is that of a training run."""
    return any((folder / name).exists() for name in RUN_FILES)


def refuse_run(folder: Path) -> None:
    """Raise DataError for the folder of a training run: a model for others is saved elsewhere."""
    if is_run(folder):
        raise DataError(folder, "is the folder of a training run", "Save into another folder.")


def find_condition(names: Sequence[str], condition: Condition) -> int:
    """Find the index of a condition among names, as `PretrainedModel.condition` does."""
    if isinstance(condition, str):
        same = [name for name in names if name == condition]
        alike = same or [name for name in names if words_of_name(name) == words_of_name(condition)]
        if len(alike) == 1:
            return names.index(alike[0])
    elif not isinstance(condition, bool) and 0 <= int(condition) < len(names):
        return int(condition)
    known = ", ".join(f"{i}: {name}" for i, name in enumerate(names))
    raise ValueError(f"no condition {condition!r}; there are: {known}")


def words_of_name(name: str) -> list[str]:
    """The words of a name in lower case: "neck_design", "Neck-Design" and "neck design" are the same."""
    return name.replace("_", " ").replace("-", " ").casefold().split()
