"""`ccakit train`: one system on a data set."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ccakit.training.config import TrainConfig


@dataclass
class Config(TrainConfig):
    """Train one system on a data set in the layout; the defaults are the demo's, for 2 cores."""

    check: bool = False
    """Take five steps instead, print memory, speed, the hours to the end and unreadable images, and leave
    nothing behind."""

    def training(self) -> TrainConfig:
        """Give the settings of the training, which a run folder keeps."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})


def run(config: Config) -> dict:
    from ccakit.commands import note_findings
    from ccakit.data.layout import read_dataset
    from ccakit.training.trainer import train

    dataset = read_dataset(config.data)
    note_findings(dataset)
    if config.check:
        return check_training(config.training(), dataset)
    _, facts = train(config.training(), dataset)
    length = f"{facts['epochs']} epochs in {facts['train_seconds']:.0f} s"
    best = f"best weighted mAP on valid {facts['best_valid_map_weighted']:.2f} (epoch {facts['best_epoch']})"
    print(f"{config.model}: {length}; {best}; model in {config.out}")
    print(f"sampler: {facts['sampling']}")
    if n := facts["unreadable"]:
        print(f"unreadable: {n} training images, left out; see {config.out / 'unreadable.json'}")
    return facts


def check_training(config: TrainConfig, dataset) -> dict:
    """Print what a training needs; ValueError where it would end over its unreadable images."""
    from ccakit.training.check import check, table

    facts = check(config, dataset)
    print(table(facts))
    if facts["refused"]:
        raise ValueError(facts["refused"])
    return facts
