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
    print(
        f"{config.model}: {facts['epochs']} epochs in {facts['train_seconds']:.0f} s; best weighted mAP on valid "
        f"{facts['best_valid_map_weighted']:.2f} (epoch {facts['best_epoch']}); model in {config.out}"
    )
    if facts["unreadable"]:
        print(
            f"unreadable: {facts['unreadable']} training images, left out; see {config.out / 'unreadable.json'}"
        )
    return facts
