"""Settings of `ccakit benchmark`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Optional

from annotated_types import Ge, MinLen

from ccakit.disk import file_name
from ccakit.settings import CommandConfig, NotNegative, Positive, Share
from ccakit.training.config import PLAIN, TrainConfig, parse_budget


@dataclass
class BenchmarkConfig(CommandConfig):
    """Train systems with several seeds under one protocol, and compare them in a table; can be resumed."""

    presets: ClassVar[dict[str, dict]]

    data: Path = Path("data/garments")
    """The data set's folder."""
    out: Path = Path("runs/benchmark")
    """The folder of the runs; a benchmark that was stopped continues from it."""
    results: Optional[Path] = None
    """The CSV file to write; OUT/DATASET.csv by default."""
    models: str = "all"
    """The systems, separated by commas (`ccakit params --list`), all, or paper: those of the paper's table on
    this data set, and of all its tables for other data."""
    seeds: str = "0,1,2"
    """The seeds of training, separated by commas."""
    modes: Annotated[tuple[Literal["triplets", "spaces"], ...], MinLen(1)] = ("spaces", "triplets")
    """Train on the paper's triplets, on all spaces of every image, or on each in turn."""
    train_preset: Literal["demo", "paper"] = "demo"
    """The preset of `ccakit train` whose settings the runs begin with; those of this command go before them.
    In the paper's, the triplet network reads the CNN trunk."""
    variants: Annotated[tuple[str, ...], MinLen(1)] = ("",)
    """Settings of `ccakit train` to change: "query=fc-wq", "lite_depth=2 lite_heads=4"; "" changes none, and
    "plain" balances no attributes: pull=0 oversample=0 head=shared wv=shared adapter=0 lite_heads=4."""
    budget: str = "epochs=10"
    """The length of each run: epochs=N (equal images) or a time such as 4m (equal seconds)."""
    trunk: str = "lite"
    """The trunk of systems that read a vision transformer's tokens."""
    cnn_trunk: str = "lite"
    """The trunk of systems that read a CNN's map."""
    freeze: str = "backbone"
    """What is frozen, as in `ccakit train`; frozen features are computed once an image and kept."""
    pretrained: bool = True
    """Start the trunks from ImageNet weights."""
    weights: Optional[Path] = None
    """A local weights file for the trunk, or `hub`, as in `ccakit train`."""
    cnn_weights: Optional[Path] = None
    """The same for the CNN trunk; WEIGHTS where both trunks have the same name."""
    image_size: Optional[Positive] = None
    """Pixels a side; the trunk's own by default."""
    batch_size: Annotated[int, Ge(2)] = 64
    """Triplets (mode triplets) or images (mode spaces) in a step."""
    triplets_per_epoch: Optional[Positive] = None
    """Mode triplets: how many an epoch draws; by default a third of the training images, so that an epoch has
    as many images in both modes."""
    lr: NotNegative = 1e-3
    """AdamW's learning rate."""
    evaluate_every: Positive = 2
    """Epochs between evaluations on valid."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """The number format of training, for GPUs."""
    workers: Annotated[int, Ge(0)] = 0
    """Processes that load images."""
    max_unreadable: Share = 0.01
    """The share of training images that may be unreadable; they are left out, and counted."""
    skip_unreadable: bool = False
    """Leave out unreadable images of valid and test, and count them; otherwise their runs fail."""
    jobs: Positive = 1
    """Runs at the same time, each with its share of the threads."""
    speed: bool = True
    """Measure the cost of each system when the runs are done."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_budget(self.budget)
        self.seed_list()
        if not self.model_names():
            raise ValueError("models: at least one")
        for variant in self.variants:
            changes(variant)

    def model_names(self, dataset: str = "") -> list[str]:
        """List the systems in the order given. dataset: the name of the data set."""
        if self.models in ("all", "paper"):
            from ccakit.audit.tables import paper_methods
            from ccakit.models.registry import list_models

            methods = paper_methods(dataset)
            return [info.name for info in list_models() if self.models == "all" or info.title in methods]
        return list(dict.fromkeys(name.strip() for name in self.models.split(",") if name.strip()))

    def seed_list(self) -> list[int]:
        """List the seeds as numbers."""
        try:
            return [int(seed) for seed in self.seeds.split(",")]
        except ValueError:
            raise ValueError(f"seeds {self.seeds!r}: whole numbers separated by commas") from None

    def results_file(self, dataset: str) -> Path:
        """Name the CSV file of a data set."""
        return self.results or self.out / f"{file_name(dataset)}.csv"


def _paper() -> dict:
    """Give the paper's settings of a benchmark: those of training that a benchmark has, and its own."""
    names = {field.name for field in fields(BenchmarkConfig)}
    shared = {name: value for name, value in TrainConfig.presets["paper"].items() if name in names}
    own = dict(train_preset="paper", models="paper", modes=("triplets",), seeds="0", cnn_trunk="resnet50")
    usual = {name: getattr(TrainConfig, name) for name in ("triplets_per_epoch", "evaluate_every")}
    return {**usual, **shared, **own}


BenchmarkConfig.presets = {"paper": _paper()}


def changes(variant: str) -> dict:
    """Read what a variant changes: "lite_depth=2 query=fc-wq", or "plain" for all of PLAIN.

    Raises ValueError for another word.
    """
    varied = {}
    for word in variant.split():
        name, equals, value = word.partition("=")
        if not equals and name != "plain":
            raise ValueError(f'variant {variant!r}: settings such as "query=fc-wq lite_depth=2", or plain')
        varied |= {name: value} if equals else PLAIN
    return varied
