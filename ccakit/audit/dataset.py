"""The data auditor: what a data set in the layout holds, what is wrong with it, and what that costs.

labels.py   counts, triplets, queries without an answer: from the lists alone
pull.py     attributes that training will leave behind
images.py   images missing, broken or twice there, and splits that share images
report.py   findings in words, and the tables
"""

from __future__ import annotations

from pathlib import Path

from ccakit.audit.images import image_facts, leakage, listed_paths, own_candidates
from ccakit.audit.labels import label_facts
from ccakit.audit.pull import pull_facts
from ccakit.audit.report import findings
from ccakit.audit.tables import beside_table1
from ccakit.data.findings import value_findings
from ccakit.data.layout import read_dataset


def audit(
    root: str | Path,
    images: bool = True,
    threads: int = 0,
    progress: bool = False,
    **planned,
) -> dict:
    """Check the data set in `root`; returns what --json prints.

    root: a folder in the layout of `ccakit.data.layout`; lists alone are enough. images: look at every image,
    too, by `threads` threads (0: one a core, at most 8), with a progress bar if `progress`. planned: settings
    of the training that is planned (`TrainConfig`), where they are not its defaults.

    Out: "name", "root", "attributes" (name -> names of its values), "table1" (beside the paper's Table
    1), "splits" (see labels.py), "pull" (see pull.py; None without a train split), "images" (see
    images.py; None if not looked at), "leakage" (by pair of splits), "own_candidates" (by split),
    "findings" (kind, breaks, text), "breaks" (how many findings break training or evaluation). Raises
    DataError where the lists cannot be read.
    """
    dataset = read_dataset(root)
    attributes, listed, splits = dataset.attributes, listed_paths(dataset), label_facts(dataset)
    files, content, same = None, {}, {}
    if images:
        files, content = image_facts(dataset, listed, threads, progress)
        same = {"content": files["same_content"], "pixels": files["same_pixels"]}
    ranked = {name: split for name, split in dataset.splits.items() if split.queries is not None}
    result = {
        "name": dataset.name,
        "root": str(root),
        "attributes": dict(zip(attributes.names, map(list, attributes.values))),
        "table1": beside_table1(dataset.name, attributes.sizes, splits, len(listed)),
        "splits": splits,
        "pull": pull_facts(dataset.splits.get("train"), **planned),
        "images": files,
        "leakage": leakage(dataset.splits, listed, same),
        "own_candidates": {name: own_candidates(split, content) for name, split in ranked.items()},
    }
    in_detail = {text for split in dataset.splits.values() for text in value_findings(split)}
    result["findings"] = findings(result, [note for note in dataset.findings if note not in in_detail])
    result["breaks"] = sum(finding["breaks"] for finding in result["findings"])
    return result
