"""`ccakit evaluate`: the table of a trained model on a split of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from ccakit.settings import CommandConfig, Positive


@dataclass
class RunConfig(CommandConfig):
    """The settings that commands on a trained model share."""

    run: Path = Path("runs/demo")
    """A run folder, or any folder with model.safetensors and model.json."""
    data: Optional[Path] = None
    """The data set; the run's own by default."""
    batch_size: Positive = 64
    """Images in a forward pass."""
    skip_unreadable: bool = False
    """Leave out unreadable images, and list them, instead of an error; embed gives them embeddings of NaN."""


def open_for(config: RunConfig):
    """Open the run that a command's settings name, and print what is odd about its data."""
    from ccakit.commands import print_findings
    from ccakit.evaluation.run import open_run

    options = dict(data=config.data, skip_unreadable=config.skip_unreadable)
    opened = open_run(config.run, config.split, progress=True, **options)
    print_findings(opened.dataset)
    return opened


@dataclass
class Config(RunConfig):
    """Rank a split under every condition by a trained model: mAP as in Tables 2-4, heatmaps scored."""

    split: Literal["valid", "test"] = "test"
    """The split to rank."""
    seed: int = 0
    """The seed of the bootstrap."""


def run(config: Config) -> dict:
    """Print the metrics, and write them into the run's folder."""
    from ccakit import processes
    from ccakit.disk import write_json
    from ccakit.evaluation.evaluate import evaluate, table
    from ccakit.evaluation.triplets import triplet_table

    opened = open_for(config)
    metrics = evaluate(opened, batch_size=config.batch_size, seed=config.seed)
    title = f"{opened.system} on {opened.dataset.name}, {config.split}"
    print(table(metrics, title))
    if "triplet_accuracy" in metrics:
        print(triplet_table(metrics, title))
    if processes.is_main():
        write_json(config.run / f"metrics_{opened.dataset.name}_{config.split}.json", metrics)
    return metrics
