"""`ccakit train`: one system on a data set."""

from __future__ import annotations

from ccakit.training.config import TrainConfig as Config


def run(config: Config) -> dict:
    from ccakit.commands import print_findings
    from ccakit.data.layout import read_dataset
    from ccakit.training.trainer import train

    dataset = read_dataset(config.data)
    print_findings(dataset)
    _, facts = train(config, dataset)
    length = f"{facts['epochs']} epochs in {facts['train_seconds']:.0f} s"
    best = f"best weighted mAP on valid {facts['best_valid_map_weighted']:.2f} (epoch {facts['best_epoch']})"
    print(f"{config.model}: {length}; {best}; model in {config.out}")
    print(f"sampler: {facts['sampling']}")
    if n := facts["unreadable"]:
        print(f"unreadable: {n} training images, left out; see {config.out / 'unreadable.json'}")
    return facts
