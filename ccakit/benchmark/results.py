"""The rows of a benchmark on disk, as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = (
    "dataset",
    "mode",
    "variant",
    "model",
    "seed",
    "status",
    "map_weighted",
    "map_macro",
    "random_map_weighted",
    "triplet_accuracy",
    "pointing_game",
    "pointing_chance",
    "unreadable",
    "best_epoch",
    "epochs",
    "images",
    "train_seconds",
    "parameters",
    "trained_parameters",
    "shares_trunk",
    "embed_mflops",
    "embed_ms",
    "images_per_second",
    "trunk",
    "budget",
    "threads",
    "torch",
    "device",
    "settings",
)
MEASURED = COLUMNS[COLUMNS.index("map_weighted") : COLUMNS.index("unreadable")]
PER_ATTRIBUTE = "map:"
TEXT = ("dataset", "mode", "variant", "model", "status", "trunk", "budget", "torch", "device", "settings")
CHANCE_MARGIN = 1.0  # points of weighted mAP above a random ranking's, below which a run has learnt nothing


def at_chance(row: dict) -> bool:
    """Whether a run has learnt nothing: its weighted mAP is less than CHANCE_MARGIN above a random ranking's."""
    found, chance = row.get("map_weighted"), row.get("random_map_weighted")
    return None not in (found, chance) and found < chance + CHANCE_MARGIN


def write_rows(path: Path, rows: list[dict]) -> None:
    """The results as CSV: a line a run; columns `map:NAME` hold the attributes' mAPs in percent."""
    attributes = [name for row in rows for name in row if name.startswith(PER_ATTRIBUTE)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *dict.fromkeys(attributes)], restval="")
        writer.writeheader()
        writer.writerows(
            {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def read_rows(path: Path) -> list[dict]:
    """The rows of a results file: numbers as int or float, empty cells as None."""
    with open(path, newline="") as file:
        return [
            {name: (text or None) if name in TEXT else _cell(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _cell(text: str):
    for kind in (int, float):
        try:
            return kind(text) if text else None
        except ValueError:
            continue
    return {"True": True, "False": False}.get(text, text)
