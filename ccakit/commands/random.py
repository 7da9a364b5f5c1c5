"""`ccakit random`: the paper's "Random baseline" rows, from labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccakit.settings import Positive, check_limits


@dataclass
class Config:
    """The paper's random baseline, from labels alone: what a random ranking scores."""

    data: Path = Path("data/garments")
    """The data set's folder; images are not needed."""
    split: Literal["valid", "test"] = "test"
    """Which split to rank."""
    repeats: Positive = 1
    """Random rankings a query; the paper's row is one."""
    seed: int = 0
    """Of the rankings."""
    json: bool = False
    """End with one machine-readable line."""

    def __post_init__(self) -> None:
        check_limits(self)


def run(config: Config) -> dict:
    from ccakit.commands import print_findings
    from ccakit.data.layout import read_dataset

    dataset = read_dataset(config.data, splits=(config.split,))
    print_findings(dataset)
    result, text = random_baseline(config, dataset)
    print(text)
    return result


def random_baseline(config: Config, dataset) -> tuple[dict, str]:
    """Random rankings of a split's candidates, their exact expectation, and the paper's row where it is theirs."""
    import numpy as np

    from ccakit.audit.tables import paper_rows
    from ccakit.metrics import random_aps, random_map

    split = dataset[config.split]
    drawn = [
        random_aps(split.queries, split.candidates, split.attributes, seed=config.seed + r)
        for r in range(config.repeats)
    ]
    exact = random_map(split.queries, split.candidates, split.attributes)
    paper = paper_rows(dataset.name).get("Random baseline")
    result = {
        "dataset": dataset.name,
        "split": config.split,
        "repeats": config.repeats,
        "seed": config.seed,
        "map_weighted": 100 * float(np.mean([d.map_weighted for d in drawn])),
        "expected_map_weighted": 100 * exact.map_weighted,
        "map_per_attribute": _named(split, np.mean([d.map_per_attribute for d in drawn], axis=0)),
        "expected_map_per_attribute": _named(split, exact.map_per_attribute),
        "paper": paper,
    }
    return result, _text(result)


def _named(split, values) -> dict[str, float]:
    return {
        name: 100 * float(v) for name, v in zip(split.attributes.names, values) if v == v
    }  # NaN: no queries


def _text(result: dict) -> str:
    paper = result["paper"]
    lines = [
        f"a random ranking of {result['dataset']}, {result['split']} (mAP, percent)",
        f"{'attribute':<20}{'drawn':>9}{'expected':>10}"
        + (f"{'paper':>9}{'drawn - paper':>15}" if paper else ""),
    ]
    rows = [
        (n, v, result["expected_map_per_attribute"][n], paper and paper["per_attribute"].get(n))
        for n, v in result["map_per_attribute"].items()
    ]
    rows.append(
        ("weighted by query", result["map_weighted"], result["expected_map_weighted"], paper and paper["mAP"])
    )
    for name, drawn, expected, printed in rows:
        beside = f"{printed:>9.2f}{drawn - printed:>+15.2f}" if printed is not None else ""
        lines.append(f"{name.replace('_', ' '):<20}{drawn:>9.2f}{expected:>10.2f}{beside}")
    return "\n".join(lines)
