"""Conditional cross attention (CCA, ICCV 2023): one network, one embedding space for each attribute.

Look at a picture with a trained model:

    import ccakit

    model = ccakit.load("runs/demo")  # the folder of a run or of `ccakit export`, or a name on the hub
    model.spaces("shirt.jpg")  # (K, E): the picture under each of the K conditions
    model.embed("shirt.jpg", "neck design")  # (E,): under one condition
    model.heatmap("shirt.jpg", "neck design")  # (h, w): where the model looks

Train a model and measure it:

    from pathlib import Path
    from ccakit.training.config import TrainConfig

    dataset = ccakit.read_dataset("data/garments")  # a data set in ASEN's layout
    saved, facts = ccakit.train(TrainConfig(out=Path("runs/mine")), dataset)
    metrics = ccakit.evaluate(ccakit.open_run("runs/mine", split="test"))

Create a network of your own, of any system in the paper's tables:

    network = ccakit.create_model("cca-type2", conditions=8)
    [info.name for info in ccakit.list_models()]

Search a catalogue of your own pictures, which `ccakit index` makes:

    catalogue = ccakit.open_catalogue("catalogue")
    frame = catalogue.search("shirt.jpg", {"sleeve length": 2, "neck design": 1}, where="price < 50")

`ccakit.open_demo()` opens the run of `ccakit demo`, and makes a small one where there is none.

`import ccakit` loads neither torch nor timm nor OpenCV and changes no setting: a name of the face is imported
when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ccakit.version import __version__ as __version__

if TYPE_CHECKING:
    from ccakit.catalogue.search import open_catalogue as open_catalogue
    from ccakit.commands.demo import open_demo as open_demo
    from ccakit.data.layout import read_dataset as read_dataset
    from ccakit.evaluation.evaluate import evaluate as evaluate
    from ccakit.evaluation.run import open_run as open_run
    from ccakit.hub.pretrained import load as load
    from ccakit.models.registry import create_model as create_model
    from ccakit.models.registry import list_models as list_models
    from ccakit.training.trainer import train as train

_HOMES = {
    "create_model": "ccakit.models.registry",
    "list_models": "ccakit.models.registry",
    "load": "ccakit.hub.pretrained",
    "train": "ccakit.training.trainer",
    "evaluate": "ccakit.evaluation.evaluate",
    "open_run": "ccakit.evaluation.run",
    "open_demo": "ccakit.commands.demo",
    "open_catalogue": "ccakit.catalogue.search",
    "read_dataset": "ccakit.data.layout",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
