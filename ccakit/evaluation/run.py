"""A trained model on a split of its data, and the one way to open it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ccakit import processes
from ccakit.attributes import Attributes
from ccakit.data.drawn import redraw_file
from ccakit.data.images import read_image
from ccakit.data.inputs import Inputs, inputs_for
from ccakit.data.layout import read_dataset
from ccakit.data.split import Dataset, Split
from ccakit.disk import project_folder, read_json
from ccakit.errors import DataError
from ccakit.evaluation.provenance import compare_data, remarks
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import model_info
from ccakit.models.saved import SavedModel, load_model

log = logging.getLogger("ccakit")
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
        """The content of the folder's metrics.json, which `ccakit demo` writes; empty without it, or where it
        is of other data."""
        file = self.folder / "metrics.json"
        metrics = read_json(file, "Delete it.") if file.exists() else {}
        same = metrics["data"] == self.data if "data" in metrics else self.data["same"]  # 0.1 has no "data"
        return metrics if same else {}

    @cached_property
    def data(self) -> dict:
        """How the split compares with the data that the run was trained on: see `compare_data`."""
        return compare_data(self.folder, self.split, self.dataset, self.attributes)

    @property
    def remarks(self) -> list[str]:
        """What is to be known of results on this split: other data, images of the run's training."""
        return remarks(self.data)

    def picture(self, image: int) -> np.ndarray:
        """Read an image of the split, uint8 RGB (H, W, 3); drawn garments are drawn again, at 256 pixels."""
        drawn = redraw_file(self.dataset.about, self.split.filenames[image], SHARP)
        return read_image(self.split.path(image)) if drawn is None else drawn

    def on(self, split: str, progress: bool = False) -> Run:
        """Open the same run on another split of its data set."""
        dataset = self.dataset
        if split not in dataset.splits:
            dataset = read_dataset(dataset.root, splits=(split,))
        options = dict(cache=self.inputs.cached, max_unreadable=self.inputs.max_unreadable, progress=progress)
        inputs = inputs_for(self.model, dataset[split], self.saved.transform, **options)
        return _remarked(replace(self, dataset=dataset, inputs=inputs))


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
    default config.json names it, relative to the working folder, to the project's, or to one above the run.
    splits: the splits to read, by default `split` alone. skip_unreadable: leave out images that cannot be
    read, instead of an error. DataError names the file that is missing or does not fit; ValueError if the
    data have other attributes. A warning where the data are not those of the run's training (`Run.remarks`).
    """
    folder = Path(folder)
    saved = load_model(folder)
    config = folder / "config.json"
    settings = read_json(config, "Give the data set with --data.") if data is None or config.exists() else {}
    if data is None and "data" not in settings:
        raise DataError(config, "names no data set", "Give it with --data.")
    dataset = read_dataset(data or find_data(config, settings["data"]), splits=splits or (split,))
    if dataset.attributes.names != saved.attributes.names:
        raise ValueError(
            f"{folder} was trained on {', '.join(saved.attributes.names)}; "
            f"{dataset.root} has {', '.join(dataset.attributes.names)}"
        )
    options = dict(
        cache=settings.get("cache", False), max_unreadable=float(skip_unreadable), progress=progress
    )
    inputs = inputs_for(saved.model, dataset[split], saved.transform, **options)
    return _remarked(Run(folder, saved, dataset, inputs))


def _remarked(run: Run) -> Run:
    """Log the run's remarks, in the main process."""
    if run.remarks and processes.is_main():
        log.warning("%s on %s: %s", run.folder, run.dataset.root, "; ".join(run.remarks))
    return run


def find_data(config: Path, name: str) -> Path:
    """Find the data set that a run's config.json names; DataError where it is not here."""
    above = [folder for path in (config.absolute(), config.resolve()) for folder in path.parents]
    places = [Path(name).expanduser(), *(folder / name for folder in (project_folder(), *above))]
    for place in places:
        if place.is_dir():
            return place
    problem = f"names the data set {name}, which is not in this folder, the project's, or one above the run"
    raise DataError(config, problem, "Give it with --data.")
