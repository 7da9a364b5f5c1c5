"""The data auditor: what a data set in the layout holds, what is wrong with it, what that costs.

labels.py   counts, triplets, queries without an answer: from the lists alone
whole.py    whether an image file is whole
images.py   images missing, broken or twice there, and splits that share images
report.py   findings in words, and the table
"""

from __future__ import annotations

from pathlib import Path

from ccakit.audit.report import findings, table
from ccakit.audit.tables import beside_table1

__all__ = ["audit", "table"]


def audit(root: str | Path, images: bool = True, threads: int = 0, progress: bool = False) -> dict:
    """Everything about the data set in `root`, as JSON has it.

    root: a folder in the layout of `ccakit.data.layout`; lists alone are enough. images: look at every image,
    too, by `threads` threads (0: one a core, at most 8), with a progress bar if `progress`.

    Out: "name", "root", "attributes" (name -> names of its values), "table1" (beside the paper's Table 1),
    "splits" (counts, see labels.py), "images" (see images.py; None if not looked at), "leakage" (by pair of
    splits), "own_candidates" (by split), "findings" (kind, breaks, text), "breaks" (how many of them break
    training or evaluation). Raises DataError where the lists cannot be read.
    """
    from ccakit.audit.images import image_facts, leakage, own_candidates, places
    from ccakit.audit.labels import label_facts
    from ccakit.data.layout import read_dataset

    dataset = read_dataset(root)
    listed = places(dataset)
    files, content = image_facts(dataset, listed, threads, progress) if images else (None, {})
    same = {"content": files["same_content"], "pixels": files["same_pixels"]} if files else {}
    splits = label_facts(dataset)
    result = {
        "name": dataset.name,
        "root": str(root),
        "attributes": dict(zip(dataset.attributes.names, map(list, dataset.attributes.values))),
        "table1": beside_table1(dataset.name, dataset.attributes.sizes, splits, len(listed)),
        "splits": splits,
        "images": files,
        "leakage": leakage(dataset.splits, listed, same),
        "own_candidates": {
            name: own_candidates(split, content)
            for name, split in dataset.splits.items()
            if split.queries is not None
        },
    }
    result["findings"] = findings(result, _other_notes(dataset))
    return {**result, "breaks": sum(found["breaks"] for found in result["findings"])}


def _other_notes(dataset) -> list[str]:
    """The reader's findings, without those that the audit states itself, in more detail."""
    from ccakit.data.findings import rare, unanswered

    own = {
        f"{name}: {text}"
        for name, split in dataset.splits.items()
        for text in (rare if split.queries is None else unanswered)(split)
    }
    return [note for note in dataset.findings if note not in own]
