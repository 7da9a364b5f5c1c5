"""Which attributes training will leave behind, by their expected share of the pull."""

from __future__ import annotations

from ccakit.data.split import Split
from ccakit.training.config import TrainConfig
from ccakit.training.objectives import objective_for
from ccakit.training.pull import expected_shares, starving

PLANNED = ("mode", "pull", "oversample")  # the settings that decide most of it


def pull_facts(train: Split | None, **planned) -> dict | None:
    """Estimate the "shares" of the attributes, {name: 0 to 1}, and list those that are "starving".

    planned: settings of `TrainConfig` that are not its defaults. None without a train split, and where it has
    no triplet.
    """
    if train is None:
        return None
    config = TrainConfig(**planned)
    try:
        objective = objective_for(train, config)
    except ValueError:  # no triplet: a finding of its own
        return None
    shares, names = expected_shares(objective, config.pull), train.attributes.names
    few = [name for name, starves in zip(names, starving(shares)) if starves]
    settings = {name: getattr(config, name) for name in PLANNED}
    return {**settings, "shares": dict(zip(names, shares.tolist())), "starving": few}
