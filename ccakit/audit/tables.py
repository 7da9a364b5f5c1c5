"""The paper's tables and ASEN's label counts: the only reader of paper.json and protocol.json."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from ccakit.data.split import SPLITS, Dataset

ASEN_DARN = 214_619  # images in ASEN's release of DARN, which the splits are made from


@cache
def paper_tables() -> dict:
    """Return the paper's Tables 1-5 as printed (paper.json). All callers share it: leave it as it is."""
    return json.loads(files("ccakit.audit").joinpath("paper.json").read_text("utf-8"))


@cache
def label_counts() -> dict:
    """Return the counts of ASEN's split files (protocol.json). All callers share it: leave it as it is.

    "datasets": by name, the attributes, how many values each has, and the counts of each split by attribute
    and value. "sha256": the checksum of each file.
    """
    return json.loads(files("ccakit.audit").joinpath("protocol.json").read_text("utf-8"))


def bare_name(name: str) -> str:
    """Reduce a name to its letters and digits in lower case, so that other spellings compare equal.

    >>> bare_name("UT-Zappos50K")
    'utzappos50k'
    """
    return "".join(letter for letter in name.lower() if letter.isalnum())


def paper_rows(dataset: str) -> dict[str, dict]:
    """Return the rows of the paper's table on a data set by the method's title; {} if it has no such table.

    Case, hyphens and spaces do not matter, nor does UT before Zappos50K. A row of Tables 2-4 holds "mAP" and
    "per_attribute" in percent, a row of Table 5 "accuracy".
    """
    rows = {bare_name(name): table["rows"] for name, table in paper_tables().items() if name != "statistics"}
    return rows.get(bare_name(dataset).removeprefix("ut"), {})


def table_title(dataset: str) -> str:
    """Return the number of the paper's table on a data set, such as "Table 2"; "" if it has none."""
    titles = {bare_name(name): table["table"] for name, table in paper_tables().items()}
    return titles.get(bare_name(dataset).removeprefix("ut"), "")


def paper_methods(dataset: str) -> set[str]:
    """Return the methods of the paper's table on a data set; of all its tables, if it has none on it."""
    tables = [table["rows"] for name, table in paper_tables().items() if name != "statistics"]
    return set(paper_rows(dataset)) or set().union(*tables)


def other_lists(dataset: Dataset) -> str:
    """Say where a data set of the paper's name has other test lists than ASEN's, by their counts; "" if not.

    "" for other names, too, and where ASEN has no lists that the paper follows (Zappos50K).
    """
    known = {bare_name(name): facts for name, facts in label_counts()["datasets"].items()}
    asen, split = known.get(bare_name(dataset.name)), dataset.splits.get("test")
    if asen is None or split is None or split.queries is None:
        return ""
    counts = asen["splits"]["test"]
    theirs = {side: sum(map(sum, counts[side].values())) for side in ("queries", "candidates")}
    ours = {side: len(getattr(split, side)) for side in theirs}
    if ours == theirs:
        return ""
    words = [f"{ours[side]:,} {side} (ASEN's {theirs[side]:,})" for side in ours]
    return f"test has {' and '.join(words)}: the paper's figures are of other lists"


def beside_table1(name: str, sizes: tuple[int, ...], splits: dict, listed: int) -> dict | None:
    """Compare a data set's attributes, classes and images with the paper's Table 1; None if it is not there.

    listed: how many different images the lists name. Training labels without names count one image each.
    """
    rows = {bare_name(row["dataset"]): row for row in paper_tables()["statistics"]["rows"]}
    paper = rows.get(bare_name(name).removeprefix("ut"))
    if paper is None:
        return None
    unnamed = sum(facts["images"] for facts in splits.values() if facts["labels_only"])
    here = {"attributes": len(sizes), "classes": sum(sizes), "images": listed + unnamed}
    notes = []
    if missing := [split for split in SPLITS if split not in splits]:
        notes.append(f"here without {' and '.join(missing)}")
    if paper["dataset"] == "DARN":
        notes.append(f"ASEN's release, which the paper's splits are made from, counts {ASEN_DARN:,} images")
    figures = {key: paper[key] for key in here}
    return {"dataset": paper["dataset"], "here": here, "paper": figures, "note": "; ".join(notes)}
