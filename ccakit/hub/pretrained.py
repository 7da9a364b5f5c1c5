"""A trained model as people use it: pictures and attribute names in, embeddings out; and as the hub keeps it.

    model = PretrainedModel.from_pretrained("runs/mine")     # a folder, or a repository of the hub
    model.embed("shirt.jpg", "neck design")                  # (E,), of length 1
    model.push_to_hub("me/neck-designs")                     # with a model card made from the run

What is saved is safetensors and JSON, and what is loaded is nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from PIL import Image, ImageOps
from torch import Tensor

from ccakit.attributes import Attributes
from ccakit.data.images import read_image
from ccakit.data.transform import ImageTransform
from ccakit.disk import write_json
from ccakit.errors import DataError
from ccakit.hub.model_card import model_card
from ccakit.models.base import ConditionalModel
from ccakit.models.saved import SavedModel, load_model, save_model

FILES = ("model.safetensors", "model.json", "README.md")
OF_A_RUN = ("log.csv", "train.json", "checkpoints")
Picture = str | Path | np.ndarray | Image.Image | Tensor
"""A file, RGB as (H, W, 3) uint8, a PIL image, or what the transform gives: (3, h, w) float."""
Condition = str | int


class PretrainedModel(ModelHubMixin):
    """A `SavedModel` behind names: conditions by name ("neck design", "neck_design") or index, pictures of any kind.

    folder: where it was loaded from; its run, if it is one, is what the model card tells of.
    """

    _hub_mixin_config = {}  # the mixin then keeps none of the constructor's arguments: model.json says it all

    def __init__(self, saved: SavedModel, folder: str | Path | None = None) -> None:
        self.saved, self.folder = saved, None if folder is None else Path(folder)
        saved.model.eval()

    @property
    def model(self) -> ConditionalModel:
        """The network."""
        return self.saved.model

    @property
    def attributes(self) -> Attributes:
        """The conditions' names and values."""
        return self.saved.attributes

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions' names, in the order of `spaces`."""
        return self.saved.attributes.names

    @property
    def transform(self) -> ImageTransform:
        """What is done to a picture."""
        return self.saved.transform

    def to(self, device: str | torch.device) -> PretrainedModel:
        """Move the network; what comes out is always on the CPU."""
        self.model.to(device)
        return self

    def condition(self, condition: Condition) -> int:
        """The index of a condition given by name or index; ValueError lists what there is."""
        names = self.conditions
        if isinstance(condition, str):
            plain = [_plain(name) for name in names]
            if condition in names or plain.count(_plain(condition)) == 1:
                return names.index(condition) if condition in names else plain.index(_plain(condition))
        elif not isinstance(condition, bool) and 0 <= int(condition) < len(names):
            return int(condition)
        known = ", ".join(f"{i}: {name}" for i, name in enumerate(names))
        raise ValueError(f"no condition {condition!r}; there are: {known}")

    def embed(
        self,
        images: Picture | Sequence[Picture],
        condition: Condition | Sequence[Condition],
        batch_size: int = 64,
    ) -> Tensor:
        """One picture -> (E,), several -> (B, E), each of length 1; one condition for all, or one a picture."""
        pictures, single = _listed(images)
        wanted = self._conditions(condition, len(pictures))
        parts = [
            self.model.embed(tokens, wanted[where].to(tokens.device)).float().cpu()
            for where, tokens in self._tokens(pictures, batch_size)
        ]
        return _joined(parts, single)

    def spaces(self, images: Picture | Sequence[Picture], batch_size: int = 64) -> Tensor:
        """All conditions: one picture -> (K, E), several -> (B, K, E)."""
        pictures, single = _listed(images)
        parts = [self.model.spaces(tokens).float().cpu() for _, tokens in self._tokens(pictures, batch_size)]
        return _joined(parts, single)

    def heatmap(
        self,
        images: Picture | Sequence[Picture],
        condition: Condition | Sequence[Condition],
        batch_size: int = 64,
    ) -> Tensor:
        """Where the model looks, the mean of its heads: one picture -> (h, w), several -> (B, h, w).

        The map lies on the part of a picture that the transform keeps: `model.transform.view(height, width)`.
        ValueError for systems that do not attend.
        """
        pictures, single = _listed(images)
        wanted, parts = self._conditions(condition, len(pictures)), []
        for where, tokens in self._tokens(pictures, batch_size):
            try:
                maps = self.model.attention(tokens, wanted[where].to(tokens.device))
            except NotImplementedError:
                raise ValueError(f"{self.saved.recipe['name']} does not attend: it has no heatmap") from None
            parts.append(maps.mean(dim=1).float().cpu())
        return _joined(parts, single)

    def _conditions(self, condition: Condition | Sequence[Condition], count: int) -> Tensor:
        """(count,): the conditions of so many pictures."""
        if isinstance(condition, str | int | np.integer):
            return torch.full((count,), self.condition(condition))
        each = [self.condition(one) for one in condition]
        if len(each) != count:
            raise ValueError(f"{len(each)} conditions for {count} pictures: give one, or one a picture")
        return torch.tensor(each)

    def _tokens(self, pictures: list[Picture], batch_size: int) -> Iterator[tuple[slice, Tensor]]:
        """Batches of pictures, encoded: (where they are, tokens)."""
        device = next(self.model.parameters()).device
        for start in range(0, len(pictures), batch_size):
            part = pictures[start : start + batch_size]
            batch = torch.stack([self.pixels(picture) for picture in part]).to(device)
            with torch.no_grad():
                yield slice(start, start + len(part)), self.model.encode(batch)

    def pixels(self, picture: Picture) -> Tensor:
        """One picture as the network takes it: (3, h, w) float32. DataError for a file, ValueError for another
        picture that cannot be one."""
        if isinstance(picture, str | Path):
            picture = read_image(picture, at_least=self.transform.at_least)
        elif isinstance(picture, Image.Image):
            picture = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
        shape = tuple(getattr(picture, "shape", ()))
        if isinstance(picture, Tensor) and picture.is_floating_point() and shape == (3, *self.transform.size):
            return picture.float()
        if (
            isinstance(picture, np.ndarray)
            and picture.dtype == np.uint8
            and len(shape) == 3
            and shape[2] == 3
        ):
            return self.transform(picture)
        told = f"a {type(picture).__name__} of {getattr(picture, 'dtype', 'no type')} and shape {shape}"
        raise ValueError(
            f"{told} is no picture: give a file, a PIL image, RGB as (height, width, 3) uint8, or what "
            f"`transform` gives, (3, {', '.join(map(str, self.transform.size))})"
        )

    # --- the hub

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write model.safetensors, model.json, config.json and, if there is none, the model card README.md.

        options: the mixin's; model_card_kwargs: those of `ccakit.hub.model_card.model_card`. DataError for a run's
        folder, whose config.json would be lost.
        """
        folder = Path(save_directory)
        refuse_run(folder)
        kwargs = {"source": str(save_directory), **(options.pop("model_card_kwargs", None) or {})}
        return super().save_pretrained(folder, model_card_kwargs=kwargs, **options)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict | None = None, **options: Any) -> str:
        """Upload what `save_pretrained` writes; the card's examples name the repository."""
        kwargs = {"source": repo_id, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=kwargs, **options)

    def generate_model_card(self, **options: Any) -> ModelCard:
        """The model card: the one that came with the model or, of a run, a new one."""
        kept = self.folder / "README.md" if self.folder else None
        if kept and kept.is_file() and not is_run(self.folder):
            source = json.dumps(options.get("source", str(self.folder)))
            named = re.sub(
                r'from_pretrained\("[^"\n]*"\)', lambda _: f"from_pretrained({source})", kept.read_text()
            )
            return ModelCard(named, ignore_metadata_errors=True)
        return ModelCard(model_card(self.saved, self.folder, **options))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self.saved)
        facts = {
            "library_name": "ccakit",
            "system": self.saved.recipe["name"],
            "conditions": list(self.conditions),
        }
        write_json(save_directory / "config.json", facts)  # by which the hub counts downloads

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> PretrainedModel:
        """The model of a folder (of a run, or one that `save_pretrained` wrote), else of a repository of the hub.

        options: the mixin's (revision, token, cache_dir, local_files_only, force_download). DataError says what is
        missing or broken.
        """
        if Path(
            pretrained_model_name_or_path
        ).is_dir():  # the mixin would read the run's config.json as its own
            return cls._from_pretrained(model_id=str(pretrained_model_name_or_path))
        remedy = (
            "Give a folder with model.safetensors and model.json, or the name of a repository of the hub."
        )
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except DataError:
            raise
        except (OSError, ValueError) as error:  # the hub's errors are among them
            told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            problem = f"is no folder here, and cannot be had from the hub ({told})"
            raise DataError(pretrained_model_name_or_path, problem, remedy) from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> PretrainedModel:
        if Path(model_id).is_dir():
            return cls(load_model(model_id), model_id)
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        options = {name: value for name, value in options.items() if name in known}
        folder = snapshot_download(model_id, allow_patterns=list(FILES), **options)
        return cls(load_model(folder), folder)


def load(path_or_hub_id: str | Path, **options: Any) -> PretrainedModel:
    """Load a trained model: of a run's folder, of a folder that `ccakit export` wrote, or of the hub.

    options: of the hub's download (revision, token, cache_dir, local_files_only, force_download). DataError says what
    is missing or broken. The same as `PretrainedModel.from_pretrained`.
    """
    return PretrainedModel.from_pretrained(path_or_hub_id, **options)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training run."""
    return any((folder / name).exists() for name in OF_A_RUN)


def refuse_run(folder: Path) -> None:
    """DataError for a training run's folder, which is no place to save a model for others."""
    if is_run(folder):
        raise DataError(folder, "is the folder of a training run", "Save into another folder.")


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _listed(images: Picture | Sequence[Picture]) -> tuple[list[Picture], bool]:
    """Pictures as a list, and whether it was one alone."""
    if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) == 3:
        return [images], True
    pictures = list(images)
    if not pictures:
        raise ValueError("no picture given")
    return pictures, False


def _joined(parts: list[Tensor], single: bool) -> Tensor:
    whole = torch.cat(parts)
    return whole[0] if single else whole
