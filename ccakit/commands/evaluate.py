"""`ccakit evaluate`: the table of a trained model on a split of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from ccakit.settings import CommandConfig, Positive, Share


@dataclass
class RunConfig(CommandConfig):
    """The settings that commands on a trained model share."""

    run: Path = Path("runs/demo")
    """A run folder, or any folder with model.safetensors and model.json."""
    data: Optional[Path] = None
    """The data set; the run's own by default."""
    batch_size: Positive = 64
    """Images in a forward pass."""
    overwrite: bool = False
    """Replace what --out names, if it exists."""
    skip_unreadable: bool = False
    """Leave out unreadable images, and list them, instead of an error; embed gives them embeddings of NaN."""


def check_outputs(config: RunConfig, *files: Path) -> None:
    """Check that a command's files can be written, and replace none that --out names without --overwrite."""
    from ccakit import processes
    from ccakit.disk import check_output, refuse_existing

    def check() -> None:
        for file in files:
            if config.out is not None and not config.overwrite:
                refuse_existing(file)
            check_output(file)

    processes.run_on_main(check)


def open_for(config: RunConfig):
    """Open the run that a command's settings name, and print what is odd about its data."""
    from ccakit.commands import note_findings
    from ccakit.evaluation.run import open_run

    options = dict(data=config.data, skip_unreadable=config.skip_unreadable)
    opened = open_run(config.run, config.split, progress=True, **options)
    note_findings(opened.dataset)
    return opened


@dataclass
class Config(RunConfig):
    """Rank a split under every condition by a trained model: mAP as in Tables 2-4, heatmaps scored."""

    split: Literal["valid", "test"] = "test"
    """The split to rank."""
    out: Optional[Path] = None
    """The JSON file to write; RUN/metrics_DATASET_SPLIT.json by default, which is replaced."""
    seed: int = 0
    """The seed of the bootstrap."""
    tagging: bool = True
    """Measure tagging, too: values named by neighbours. It embeds valid, where confidence is calibrated."""
    precision: Share = 0.9
    """The precision that tagging should reach: the share of its values that is right."""


def run(config: Config) -> dict:
    """Write the metrics into the run's folder, or to --out, and then print them."""
    from ccakit import processes
    from ccakit.disk import file_name, write_json, writing
    from ccakit.evaluation.evaluate import evaluate, table
    from ccakit.evaluation.tagging import tagging_table
    from ccakit.evaluation.triplets import triplet_table

    check_outputs(config, config.out or config.run / "metrics.json")  # before anything is computed
    opened = open_for(config)
    name = f"metrics_{file_name(opened.dataset.name)}_{config.split}.json"
    out = config.out or config.run / name
    check_outputs(config, out)
    options = dict(tagging=config.tagging, precision=config.precision)
    metrics = evaluate(opened, batch_size=config.batch_size, seed=config.seed, **options)
    title = f"{opened.system} on {opened.dataset.name}, {config.split}"
    if processes.is_main():
        with writing(out, "then give the command again"):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, metrics)
    print(table(metrics, title))
    if config.tagging:
        print(tagging_table(metrics["tagging"], title))
    if "triplet_accuracy" in metrics:
        print(triplet_table(metrics, title))
    return metrics
