"""`ccakit random`: the paper's "Random baseline" rows, from labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccakit.settings import CommandConfig, Positive


@dataclass
class Config(CommandConfig):
    """Score random rankings of a split, from labels alone: the paper's random baseline."""

    data: Path = Path("data/garments")
    """The data set's folder; its images are not needed."""
    split: Literal["valid", "test"] = "test"
    """The split to rank."""
    repeats: Positive = 1
    """Random rankings a query; the paper's row is one."""
    seed: int = 0
    """The seed of the rankings."""


def run(config: Config) -> dict:
    """Print random rankings beside their exact expectation and, for the paper's data, beside its row."""
    import pandas as pd

    from ccakit.audit.tables import paper_rows
    from ccakit.commands import note_findings
    from ccakit.data.layout import read_dataset
    from ccakit.metrics import random_aps, random_map

    dataset = read_dataset(config.data, splits=(config.split,))
    note_findings(dataset)
    split, seeds = dataset[config.split], range(config.seed, config.seed + config.repeats)
    lists = (*split.sides(), split.attributes)
    drawn = [random_aps(*lists, seed=seed).to_dict(repeats=1) for seed in seeds]
    expected = random_map(*lists).to_dict(repeats=1)
    paper = paper_rows(dataset.name).get("Random baseline", {})
    result = {
        "dataset": dataset.name,
        "split": config.split,
        "repeats": config.repeats,
        "seed": config.seed,
        "map_weighted": float(pd.DataFrame(drawn)["map_weighted"].mean()),
        "expected_map_weighted": expected["map_weighted"],
        "map_per_attribute": pd.DataFrame([each["map_per_attribute"] for each in drawn]).mean().to_dict(),
        "expected_map_per_attribute": expected["map_per_attribute"],
        "own_left_out": expected["own_left_out"],
        "paper": paper if "mAP" in paper else None,  # Table 5 has no mAP
    }
    print(_table(result))
    return result


def _table(result: dict) -> str:
    from ccakit.text_table import text_table

    paper, rows = result["paper"], [["attribute", "drawn", "expected"]]
    drawn = {**result["map_per_attribute"], "weighted by query": result["map_weighted"]}
    expected = {**result["expected_map_per_attribute"], "weighted by query": result["expected_map_weighted"]}
    rows += [[name.replace("_", " "), f"{drawn[name]:.2f}", f"{expected[name]:.2f}"] for name in drawn]
    if paper:
        rows[0] += ["paper", "drawn - paper"]
        printed = {**paper["per_attribute"], "weighted by query": paper["mAP"]}
        for row, name in zip(rows[1:], drawn):
            known = name in printed
            row += [f"{printed[name]:.2f}", f"{drawn[name] - printed[name]:+.2f}"] if known else ["", ""]
    return f"a random ranking of {result['dataset']}, {result['split']} (mAP, percent)\n{text_table(rows)}"
