"""Table 1: the data sets' statistics as printed, those of ASEN's split files, and those of the drawn data."""

from __future__ import annotations

import shared
import sheets

from ccakit.audit.paper import audit_paper
from ccakit.audit.tables import label_counts, paper_tables
from ccakit.data.split import SPLITS

KEYS = ("attributes", "classes", "images")


def make(run=None, audit: dict | None = None) -> sheets.Sheet:
    """Make the table: printed figures, the split files' counts, claims that fail, and the data of a run."""
    run, audit = run or shared.run_or_demo(), audit or audit_paper()
    printed = paper_tables()["statistics"]["rows"]
    wrong = [each for each in audit["claims"] if each["where"] == "Table 1" and not each["holds"]]
    facts, rows, marked = label_counts()["datasets"], [], set()
    for i, row in enumerate(printed):
        counted = _counted(facts.get(row["dataset"]))
        rows.append([row["dataset"], *(f"{row[key]:,}" for key in KEYS), *counted])
        for column, key in enumerate(KEYS, start=1):
            claims = [claim["says"] for claim in wrong if claim["says"].startswith(f"{row['dataset']}: ")]
            if any(claim.endswith(key) for claim in claims):
                marked.add((i, column))
    counts = ["attributes\n(lists)", "classes\n(lists)", "images in lists\n(train + valid + test)"]
    head = ["data set", *(f"{key}\n(printed)" for key in KEYS), *counts]
    notes = [f"Contradicted: {each['says']}; {each['computed']}." for each in wrong]
    notes.append(
        "Lists: the split files that ASEN's authors published. ?, –: not among them. "
        "In orange, or (!): contradicted."
    )
    title = "The paper's figures, and the counts of the split files"
    blocks = [sheets.Block(title, head, rows, notes, marked), _ours(run)]
    return sheets.Sheet("Table 1. Statistics of the benchmark data sets", blocks)


def _counted(facts: dict | None) -> list[str]:
    """Give attributes, classes and images of the lists, where they are known."""
    if facts is None:
        return ["–", "–", "–"]
    counts = [f"{facts['splits'][name]['count']:,}" if name in facts["splits"] else "?" for name in SPLITS]
    return [str(len(facts["attributes"])), f"{sum(facts['sizes']):,}", " + ".join(counts)]


def _ours(run) -> sheets.Block:
    data, attributes = run.dataset, run.dataset.attributes
    counts = [f"{len(data[name].filenames):,}" for name in SPLITS if name in data.splits]
    row = [data.name, str(len(attributes)), str(sum(attributes.sizes)), " + ".join(counts)]
    head = ["data set", "attributes", "classes", "images (train + valid + test)"]
    return sheets.Block("The data of this run (not the paper's)", head, [row])


def main(argv=None):
    given = shared.arguments(__doc__, argv, shared.RUN)
    return sheets.write_sheet(make(shared.run_or_demo(given.run)), "table1", given.out)


if __name__ == "__main__":
    main()
