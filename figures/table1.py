"""Table 1: the data sets' statistics as printed, beside what ASEN's split files hold, and the data drawn here."""

from __future__ import annotations

import shared
import sheets

from ccakit.audit.paper import audit_paper
from ccakit.audit.tables import label_counts, paper_tables


def make(run=None, audit: dict | None = None) -> sheets.Sheet:
    """The printed figures against the split files' counts; the claims that fail; the drawn data of a run."""
    run, audit = run or shared.run_or_demo(), audit or audit_paper()
    printed = paper_tables()["statistics"]["rows"]
    wrong = [each for each in audit["claims"] if each["where"] == "Table 1" and not each["holds"]]
    facts, rows, marked = label_counts()["datasets"], [], set()
    for i, row in enumerate(printed):
        counted = _counted(facts.get(row["dataset"]))
        rows.append(
            [row["dataset"], *(f"{row[key]:,}" for key in ("attributes", "classes", "images")), *counted]
        )
        marked |= {
            (i, 1 + j)
            for j, what in enumerate(("attributes", "classes", "images"))
            if any(
                each["says"].startswith(f"{row['dataset']}: ") and each["says"].endswith(what)
                for each in wrong
            )
        }
    head = [
        "data set",
        "attributes\n(printed)",
        "classes\n(printed)",
        "images\n(printed)",
        "attributes\n(lists)",
        "classes\n(lists)",
        "images in lists\n(train + valid + test)",
    ]
    notes = [f"Contradicted: {each['says']}; {each['computed']}." for each in wrong]
    notes.append(
        "Lists: the split files that ASEN's authors published. ?, –: not among them. "
        "In orange, or (!): contradicted."
    )
    return sheets.Sheet(
        "Table 1. Statistics of the benchmark data sets",
        [
            sheets.Block("The paper's figures, and the counts of the split files", head, rows, notes, marked),
            _ours(run),
        ],
    )


def _counted(facts: dict | None) -> list[str]:
    """Attributes, classes and images of the lists, where they are known."""
    if facts is None:
        return ["–", "–", "–"]
    splits = ("train", "valid", "test")
    counts = [f"{facts['splits'][name]['count']:,}" if name in facts["splits"] else "?" for name in splits]
    return [str(len(facts["attributes"])), f"{sum(facts['sizes']):,}", " + ".join(counts)]


def _ours(run) -> sheets.Block:
    of = run.dataset
    counts = " + ".join(
        f"{len(of[name].filenames):,}" for name in ("train", "valid", "test") if name in of.splits
    )
    row = [of.name, str(len(of.attributes)), str(sum(of.attributes.sizes)), counts]
    head = ["data set", "attributes", "classes", "images (train + valid + test)"]
    return sheets.Block("The data of this run (not the paper's)", head, [row])


def main(argv=None):
    given = shared.arguments(__doc__, argv, shared.RUN)
    return sheets.write_sheet(make(shared.run_or_demo(given.run)), "table1", given.out)


if __name__ == "__main__":
    main()
