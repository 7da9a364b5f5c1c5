"""The rows of a benchmark on disk, as CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ccakit.disk import atomic_write

TRIAL = ("dataset", "mode", "variant", "model", "seed", "status")
MEASURED = (
    "map_weighted",
    "map_macro",
    "random_map_weighted",
    "triplet_accuracy",
    "pointing_game",
    "pointing_chance",
)
TRAINED = ("best_valid_map_weighted", "best_epoch", "epochs", "images", "train_seconds")
SIZE = ("parameters", "trained_parameters", "shares_trunk")
SPEED = ("embed_mflops", "embed_ms", "images_per_second")
PROTOCOL = ("trunk", "budget", "threads", "torch", "device", "settings")
COLUMNS = (*TRIAL, *MEASURED, "unreadable", *TRAINED, *SIZE, *SPEED, *PROTOCOL)
PER_ATTRIBUTE = "map:"  # a column `map:NAME` holds an attribute's mAP in percent
PER_TRIPLETS = "triplets:"  # and `triplets:NAME` its triplet accuracy in percent
TEXT = ("dataset", "mode", "variant", "model", "status", "trunk", "budget", "torch", "device", "settings")
CHANCE_MARGIN = 1.0  # points of weighted mAP above a random ranking's, below which a run has learnt nothing


def at_chance(row: dict) -> bool:
    """Say whether a run learnt nothing: its weighted mAP is below a random ranking's plus CHANCE_MARGIN."""
    score, chance = row.get("map_weighted"), row.get("random_map_weighted")
    return score is not None and chance is not None and score < chance + CHANCE_MARGIN


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write the results as CSV, a line a run: COLUMNS, then other columns; floats have four decimals."""
    rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    frame = pd.DataFrame(rounded, dtype=object)
    frame = frame.reindex(columns=[*COLUMNS, *(name for name in frame if name not in COLUMNS)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        frame.to_csv(partial, index=False, lineterminator="\r\n")


def read_rows(path: Path) -> list[dict]:
    """Read the rows of a results file: numbers are int or float, an empty cell is None."""
    frame = pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT, "string"),
        dtype_backend="numpy_nullable",
        keep_default_na=False,
        na_values=[""],
        float_precision="round_trip",
    )
    frame = frame.astype(object)
    return frame.where(frame.notna(), None).to_dict("records")
