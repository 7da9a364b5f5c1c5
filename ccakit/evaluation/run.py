"""A trained model on a split of its data, and the one way to open it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.drawn import redraw
from ccakit.data.images import read_image
from ccakit.data.inputs import Inputs, inputs_for
from ccakit.data.layout import read_dataset
from ccakit.data.split import Dataset, Split
from ccakit.disk import read_json
from ccakit.errors import DataError
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import model_info
from ccakit.models.saved import SavedModel, load_model

SHARP = 256  # pixels of drawn garments in figures


@dataclass(frozen=True)
class Run:
    """A trained model, its data set, and the inputs of one split.

    folder: where the model lies. saved: the network with its attributes, transform and recipe. inputs: what
    the network is fed of the split's images (see `ccakit.data.inputs`).
    """

    folder: Path
    saved: SavedModel
    dataset: Dataset
    inputs: Inputs

    @property
    def model(self) -> ConditionalModel:
        """The network."""
        return self.saved.model

    @property
    def attributes(self) -> Attributes:
        """The conditions' names and values."""
        return self.saved.attributes

    @property
    def split(self) -> Split:
        """The split to which the inputs belong."""
        return self.inputs.split

    @property
    def system(self) -> str:
        """The system's name, as in `ccakit params --list`."""
        return self.saved.recipe["name"]

    @property
    def title(self) -> str:
        """The system's name in prose, as in the paper's tables."""
        return model_info(self.system).title

    @property
    def metrics(self) -> dict:
        """The content of the folder's metrics.json, which `ccakit demo` writes; empty without it."""
        file = self.folder / "metrics.json"
        return read_json(file, "Delete it.") if file.exists() else {}

    def picture(self, image: int) -> np.ndarray:
        """Read an image of the split, uint8 RGB (H, W, 3); drawn garments are drawn again, at 256 pixels."""
        if self.dataset.about.get("drawn") == "garments":
            return redraw(self.dataset.about, self.split.name, int(image), SHARP)
        return read_image(self.split.path(image))

    def on(self, split: str, progress: bool = False) -> Run:
        """Open the same run on another split of its data set."""
        dataset = self.dataset
        if split not in dataset.splits:
            dataset = read_dataset(dataset.root, splits=(split,))
        inputs = inputs_for(
            self.model, dataset[split], self.saved.transform, cache=self.inputs.cached, progress=progress
        )
        return replace(self, dataset=dataset, inputs=inputs)


def open_run(
    folder: str | Path,
    split: str = "test",
    *,
    data: str | Path | None = None,
    splits: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    progress: bool = False,
) -> Run:
    """Open a trained model on a split of its data.

    folder: of a run, or any folder with model.safetensors and model.json. data: the data set's folder; by
    default config.json names it, relative to the working folder or else to the project's. splits: the splits
    to read, by default `split` alone. skip_unreadable: leave out images that cannot be read, instead of an
    error. DataError names the file that is missing or does not fit; ValueError if the data have other
    attributes.
    """
    folder = Path(folder)
    saved = load_model(folder)
    config = folder / "config.json"
    settings = read_json(config, "Give the data set with --data.") if data is None or config.exists() else {}
    if data is None and "data" not in settings:
        raise DataError(config, "names no data set", "Give it with --data.")
    dataset = read_dataset(_found(Path(data or settings["data"])), splits=splits or (split,))
    if dataset.attributes.names != saved.attributes.names:
        raise ValueError(
            f"{folder} was trained on {', '.join(saved.attributes.names)}; "
            f"{dataset.root} has {', '.join(dataset.attributes.names)}"
        )
    options = dict(
        cache=settings.get("cache", False), max_unreadable=float(skip_unreadable), progress=progress
    )
    return Run(folder, saved, dataset, inputs_for(saved.model, dataset[split], saved.transform, **options))


def _found(data: Path) -> Path:
    """Find the data's folder: as it is named, or, if only that exists, in the project's folder."""
    elsewhere = project_folder() / data
    return elsewhere if elsewhere.exists() and not data.exists() else data


def project_folder() -> Path:
    """Find the nearest folder upward that holds notebooks/, else the current one."""
    here = Path.cwd()
    return next((f for f in (here, *here.parents) if (f / "notebooks").is_dir()), here)
