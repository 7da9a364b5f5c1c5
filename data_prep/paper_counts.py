"""The label counts of ASEN's split files, from which `ccakit audit --paper` checks the paper's tables.

    python data_prep/paper_counts.py FOLDER

Where to get the split files: meta_data.tar.gz, linked from https://github.com/Maryeon/asen. They have no
licence, and are not part of this project; their counts are.

What is read: FOLDER/meta.json, and the lists in FOLDER/FashionAI, FOLDER/DARN and FOLDER/DeepFashion.

What is written: ccakit/audit/protocol.json (or --out FILE). It holds, for each attribute and value, how many
queries, candidates and training images the split files list, and the SHA-256 of every file that was read.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from common import guarded

import ccakit
from ccakit.audit.labels import label_facts
from ccakit.audit.paper import DATASETS
from ccakit.data.layout import read_dataset
from ccakit.disk import file_digest

SHIPPED = Path(ccakit.__file__).with_name("audit") / "protocol.json"
ABOUT = (
    "Counts of the split files that ASEN's authors published, which the paper uses: per attribute, how "
    "many queries, candidates and (train) images have each value, in the order of the labels. "
    "'unanswered': queries without a relevant candidate. 'several': label rows whose image has several "
    "values of the row's attribute, by label_*.txt."
)


def count_labels(root: Path) -> dict[str, Any]:
    """Count the labels of all split files in `root`: the content of protocol.json.

    Raises DataError where a file is missing or cannot be read.
    """
    datasets = {}
    for name in DATASETS:
        dataset = read_dataset(root / name)
        datasets[name] = {
            "attributes": list(dataset.attributes.names),
            "sizes": list(dataset.attributes.sizes),
            "splits": {split: select_counts(facts) for split, facts in label_facts(dataset).items()},
        }
    sources = [root / "meta.json", *sorted(path for name in DATASETS for path in (root / name).glob("*.txt"))]
    sums = {path.relative_to(root).as_posix(): file_digest(path) for path in sources}
    return {"about": ABOUT, "sha256": sums, "datasets": datasets}


def select_counts(facts: dict[str, Any]) -> dict[str, Any]:
    """Select from the facts of a split what the audit of the paper needs."""
    attributes = facts["attributes"]
    if "queries" not in facts:
        images = {name: counts["images"] for name, counts in attributes.items()}
        return {"count": facts["images"], "images": images}
    several = {key: facts["several"][key] for key in ("rows", "of", "source")}
    selected = {"count": facts["images"], "unanswered": facts["unanswered"], "several": several}
    for side in ("queries", "candidates"):
        selected[side] = {name: counts[side] for name, counts in attributes.items()}
    return selected


def write_counts(root: Path, path: Path) -> None:
    """Write the label counts of the split files in `root` to a JSON file, one list of counts a line."""
    text = json.dumps(count_labels(root), indent=1)
    text = re.sub(r"\[[\d,\s]+\]", lambda counts: re.sub(r"\s+", "", counts[0]), text)
    path.write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="folder of meta.json, FashionAI, DARN and DeepFashion")
    made.add_argument("--out", type=Path, default=SHIPPED, help="the JSON file to write (%(default)s)")
    given = made.parse_args(argv)
    guarded(lambda: write_counts(given.folder, given.out))


if __name__ == "__main__":
    main()
