"""The paper's tables as numbers, and a row of them by the name of a data set."""

from __future__ import annotations

import json
from importlib.resources import files


def paper_rows(dataset: str) -> dict[str, dict]:
    """The rows of the paper's table on a data set, by title; none where the data set is not the paper's.

    Case, hyphens and spaces do not matter, nor does UT before Zappos50K.
    """
    tables = json.loads(files("ccakit.audit").joinpath("paper.json").read_text())
    of = {_plain(name): table["rows"] for name, table in tables.items() if name != "statistics"}
    return of.get(_plain(dataset).removeprefix("ut"), {})


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def paper_row(dataset: str, method: str) -> dict | None:
    """A row of Tables 2-4 as printed, in percent: {"mAP": ..., "per_attribute": {...}}; None where there is none."""
    tables = json.loads(files("ccakit.audit").joinpath("paper.json").read_text())
    return tables.get(dataset, {}).get("rows", {}).get(method)


ASEN_RELEASE = {"DARN": "ASEN's release, from which the paper has its splits, counts 214,619 images"}


def beside_table1(name: str, sizes: tuple[int, ...], splits: dict, listed: int) -> dict | None:
    """Attributes, classes and images here and in the paper's Table 1; None if the data set is none of its four.

    listed: how many different images the lists name. Training labels without names count one image each.
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum()).removeprefix("ut")
    rows = json.loads(files("ccakit.audit").joinpath("paper.json").read_text())["statistics"]["rows"]
    paper = next((row for row in rows if row["dataset"].lower() == plain), None)
    if paper is None:
        return None
    alone = sum(of["images"] for of in splits.values() if of["labels_only"])
    here = {"attributes": len(sizes), "classes": sum(sizes), "images": listed + alone}
    lacks = [split for split in ("train", "valid", "test") if split not in splits]
    note = "; ".join(
        filter(
            None,
            [f"here without {' and '.join(lacks)}" if lacks else "", ASEN_RELEASE.get(paper["dataset"], "")],
        )
    )
    return {
        "dataset": paper["dataset"],
        "here": here,
        "paper": {key: paper[key] for key in here},
        "note": note,
    }
