"""FashionAI's attribute release -> ccakit's layout, under eight attributes of 54 values.

Where to get it: the FashionAI Global Challenge 2018, "Attributes Recognition of Apparel", by Alibaba and The
Hong Kong Polytechnic University, https://tianchi.aliyun.com (search for FashionAI; behind a sign-in). Two
zips of about 6 and 7 GB, with folders fashionAI_attributes_train1 and fashionAI_attributes_train2. Terms:
those you agree to there (academic use); the images may not be passed on. ASEN's split files,
meta_data.tar.gz, are linked from https://github.com/Maryeon/asen (no licence is given there), and are not
part of this project.

What is read: of each zip or folder, Annotations/label.csv, without a header: path,attribute_key,string. The
string has one letter a value, y for the value, m for "may be", n for no: the label is the index of its y.
m makes no label, and is counted. A string without y, or with several, makes none either, and is counted.

Expected: 180,335 images (Table 1 of the paper); in ASEN's splits train 144,335, valid 18,000, test 18,000,
each of these two with 3,600 queries and 14,400 candidates. Not tried here on the full release: the row counts
are those of ASEN's lists. Table 1 says 55 classes; the values are 54.

What is written: the images under OUT, as the zips have them, the lists, meta.json and survival.json (the
images that the lists name: present, missing). Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import (
    DataError,
    Dataset,
    Source,
    agreement,
    beside,
    bring,
    check_found,
    check_name,
    content_groups,
    files_under,
    guarded,
    names_in,
    only_present,
    parser,
    seeded_splits,
    tell,
    unpack,
    use_splits,
    write_prepared,
)
from tqdm import tqdm

from ccakit.data.text import count, read_lines
from ccakit.garments.values import GARMENTS

ATTRIBUTES = GARMENTS  # FashionAI's names, in the order of its label strings
LABELS = "Annotations/label.csv"
EXPECTED = {"images": 180_335, "train": 144_335, "valid": 18_000, "test": 18_000}
ABOUT = {
    "source": "FashionAI Global Challenge 2018, Attributes Recognition of Apparel, https://tianchi.aliyun.com",
    "licence": "the terms agreed to on signing in there; academic use, not to be passed on",
    "notes": "values in the order of the label strings; "
    "that ASEN's labels follow it is counted, see the report",
}
FORM = "A line is: path,attribute_key,one of the letters n, m, y for each value."


class Release:
    """The content of the label.csv files.

    Names (n) relative to OUT, rows (R, 3), and counts of what was odd.
    """

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.labels: dict[tuple[int, int], int] = {}
        self.odd: Counter[str] = Counter()
        self.findings: list[str] = []

    def add(self, name: str, condition: int, string: str) -> None:
        """Add one line of a label.csv."""
        self.odd["lines"] += 1
        self.odd["values marked m (may be), which make no label"] += string.count("m")
        if string.count("y") != 1:
            self.odd["strings without exactly one y, which make no label"] += 1
            return
        label, pair = string.index("y"), (self.names.setdefault(name, len(self.names)), condition)
        if pair not in self.labels:
            self.labels[pair] = label
        elif self.labels[pair] == label:
            self.odd["lines that repeat an earlier one"] += 1
        else:
            self.odd["lines that contradict an earlier one, which is kept"] += 1

    def rows(self) -> np.ndarray:
        """Return rows (R, 3) int64 (image, condition, label)."""
        rows = [(image, condition, label) for (image, condition), label in self.labels.items()]
        return np.array(rows, np.int64).reshape(-1, 3)

    def notes(self) -> list[str]:
        """List the counts, in words for people."""
        return self.findings + [f"label.csv: {n:,} {what}" for what, n in self.odd.items() if n]


def gather(source: Path, out: Path, link: bool, notes: list[str]) -> list[Path]:
    """Bring the images of a zip or folder into `out`, and add notes.

    Return the folders there that hold Annotations/label.csv.
    """
    if source.is_dir():
        found = sorted(path.parent.parent for path in source.rglob(LABELS))
        if not found:
            raise DataError(source, f"has no {LABELS}", "Give the folder that the zip was unpacked to.")
        return [_bring(folder, out, link, notes) for folder in found]
    names = names_in(source)
    found = sorted(
        name.removesuffix(LABELS).rstrip("/") for name in names if re.search(f"(^|/){LABELS}$", name)
    )
    if not found:
        raise DataError(source, f"has no {LABELS}", "Give the zips of the attributes' training sets.")
    name = re.sub(r"\.(zip|tar|tar\.gz|tgz)$", "", source.name, flags=re.IGNORECASE)
    target = out / name if found[0] == "" else out
    unpack(source, target)
    return [target / name for name in found]


def _bring(folder: Path, out: Path, link: bool, notes: list[str]) -> Path:
    """Copy a folder of the release into `out` if it is not there already, and return the copy."""
    if folder.resolve().is_relative_to(out.resolve()):
        return out.resolve() / folder.resolve().relative_to(out.resolve())
    target = out / folder.resolve().name
    notes += bring(list(files_under(folder)), Source(folder), target, link)[1]
    return target


def read_labels(path: Path, prefix: str, release: Release) -> None:
    """Add the lines of a label.csv; `prefix` is put before the images' paths. DataError names the line."""
    text = read_lines(path)
    release.findings += [f"{path.parent.parent.name}: {note}" for note in text.notes]
    lines = [(number, line.strip()) for number, line in enumerate(text.lines, 1)]
    for number, line in tqdm([each for each in lines if each[1]], desc=path.name, unit="line", disable=None):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 3:
            raise DataError(path, f"has {count(len(cells), 'field')}", FORM, number)
        name, key, string = cells
        attribute = key.removesuffix("_labels")
        if attribute not in ATTRIBUTES.names:
            remedy = f"The keys are {', '.join(f'{each}_labels' for each in ATTRIBUTES.names)}."
            raise DataError(path, f"{key[:60]!r} is not an attribute key", remedy, number)
        condition = ATTRIBUTES.condition(attribute)
        size = ATTRIBUTES.sizes[condition]
        if len(string) != size or set(string) - set("nmy"):
            remedy = f"{key} has {size} letters, each n, m or y."
            raise DataError(path, f"{string[:60]!r} is not a label string", remedy, number)
        check_name(path, name, number)
        release.add(f"{prefix}{name}", condition, string)


def prepare(
    sources: Sequence[Path],
    out: Path,
    splits: Path | None = None,
    seed: int = 0,
    by_content: bool = False,
    link: bool = False,
) -> tuple[Dataset, list[str]]:
    """Unpack, read the labels, write lists and reports into `out`; return data set and notes."""
    release = Release()
    for folder in [
        folder for source in sources for folder in gather(Path(source), out, link, release.findings)
    ]:
        inside = folder.resolve().relative_to(out.resolve()).as_posix()
        read_labels(folder / LABELS, "" if inside == "." else f"{inside}/", release)
    names, rows = list(release.names), release.rows()
    there, mine, here = only_present(out, names, rows)
    notes = release.notes() + check_found(names, Source(out, Path(sources[0])))
    if splits:
        dataset, found = use_splits(splits, out, "FashionAI", ATTRIBUTES, ABOUT, names)
        notes += [*found, agreement(dataset, rows, names)]
    else:
        groups = content_groups([out / name for name in there]) if by_content else None
        prepared = seeded_splits(out, ATTRIBUTES, there, mine, seed, groups=groups)
        dataset = write_prepared(out, "FashionAI", ATTRIBUTES, prepared, {**ABOUT, "seed": seed}, names)
    found = {name: len(split.filenames) for name, split in dataset.splits.items()}
    return dataset, notes + beside({"images": int(here.sum()), **found}, EXPECTED)


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__, "FashionAI")
    words = "the zips, or the folders they were unpacked to"
    made.add_argument("--source", type=Path, nargs="+", required=True, help=words)
    made.add_argument(
        "--link", action="store_true", help="hard-link the images of a folder instead of copying"
    )
    return made


def main(given: list[str] | None = None) -> None:
    args = arguments().parse_args(given)

    def work() -> None:
        made = prepare(args.source, args.out, args.splits, args.seed, args.by_content, args.link)
        tell(args.out, *made)

    guarded(work)


if __name__ == "__main__":
    main()
