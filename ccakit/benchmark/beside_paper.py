"""The figures of Tables 2-5 beside the benchmark's: a row each, with the difference, in a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ccakit.audit.tables import bare_name, table_title
from ccakit.benchmark.results import PER_ATTRIBUTE
from ccakit.benchmark.standings import PRINTED, TITLES, paper_row, standings
from ccakit.disk import atomic_write


def beside_paper(rows: list[dict]) -> list[dict]:
    """List every mean over seeds that the paper prints, too; empty for data that are not the paper's.

    A row holds "table", "dataset", "mode", "variant", "model", "method" (as printed), "figure" (mAP,
    accuracy, or an attribute's name), "seeds", "ours" and "std" over them, "paper", and "difference", in
    percent and points.
    """
    found = []
    for line in standings(rows):
        theirs, dataset = paper_row(line), line["rows"][0]["dataset"]
        about = {"table": table_title(dataset), "dataset": dataset}
        about |= {name: line[name] for name in ("mode", "variant", "model")}
        about |= {"method": TITLES[line["model"]], "seeds": line["seeds"]}
        for figure, name, printed in _printed(theirs, line["mean"]):
            ours, std = (None if np.isnan(line[each][name]) else line[each][name] for each in ("mean", "std"))
            if ours is not None:
                apart = {"ours": ours, "std": std, "paper": printed, "difference": ours - printed}
                found.append({**about, "figure": figure, **apart})
    return found


def _printed(theirs: dict, ours: dict) -> list[tuple[str, str, float]]:
    """List the figures of a printed row that we have, too: its name there, its name here, and the figure."""
    attributes = {bare_name(name): value for name, value in theirs.get("per_attribute", {}).items()}
    overall = [(PRINTED[name], name, theirs[PRINTED[name]]) for name in PRINTED if PRINTED[name] in theirs]
    titles = [(name.removeprefix(PER_ATTRIBUTE), name) for name in ours if name.startswith(PER_ATTRIBUTE)]
    each = [(title, name, attributes.get(bare_name(title))) for title, name in titles]
    return [row for row in overall + each if row[1] in ours and row[2] is not None]


def write_beside_paper(results: Path, rows: list[dict]) -> None:
    """Write `beside_paper` into a CSV file beside the results, if the paper has figures of these data."""
    found = beside_paper(rows)
    if found:
        name = f"{results.name.removesuffix('.csv')}_beside_paper.csv"
        with atomic_write(results.with_name(name)) as partial:
            pd.DataFrame(found).round(4).to_csv(partial, index=False, lineterminator="\r\n")
