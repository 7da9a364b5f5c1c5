"""Settings of `ccakit benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

from annotated_types import Ge, MinLen

from ccakit.disk import file_name
from ccakit.settings import CommandConfig, NotNegative, Positive, Share
from ccakit.training.config import parse_budget


@dataclass
class BenchmarkConfig(CommandConfig):
    """Train systems with several seeds under one protocol, and compare them in a table; can be resumed."""

    data: Path = Path("data/garments")
    """The data set's folder."""
    out: Path = Path("runs/benchmark")
    """The folder of the runs; a benchmark that was stopped continues from it."""
    results: Optional[Path] = None
    """The CSV file to write; OUT/DATASET.csv by default."""
    models: str = "all"
    """The systems, separated by commas (`ccakit params --list`), or all."""
    seeds: str = "0,1,2"
    """The seeds of training, separated by commas."""
    modes: Annotated[tuple[Literal["triplets", "spaces"], ...], MinLen(1)] = ("spaces", "triplets")
    """Train on the paper's triplets, on all spaces of every image, or on each in turn."""
    variants: Annotated[tuple[str, ...], MinLen(1)] = ("",)
    """Settings of `ccakit train` to change: "query=fc-wq", "lite_depth=2 lite_heads=8"; "" changes none."""
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
    """A local weights file for the trunk, instead of the download."""
    cnn_weights: Optional[Path] = None
    """The same for the CNN trunk; WEIGHTS where both trunks have the same name."""
    image_size: Optional[Positive] = None
    """Pixels a side; the trunk's own by default."""
    batch_size: Annotated[int, Ge(2)] = 64
    """Triplets (mode triplets) or images (mode spaces) in a step."""
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
            if any("=" not in word for word in variant.split()):
                raise ValueError(f'variant {variant!r}: settings such as "query=fc-wq lite_depth=2"')

    def model_names(self) -> list[str]:
        """List the systems in the order given."""
        if self.models == "all":
            from ccakit.models.registry import list_models

            return [info.name for info in list_models()]
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
