"""DARN: a URL downloader, a report of what survived, and ASEN's split files over the survivors.

Where the data come from: the Dual Attribute-aware Ranking Network (Huang et al., ICCV 2015), photographs of
clothes from shops and street shots, under 9 attributes with 185 values. The photographs were never handed out
as files: there is a list of their addresses, darn_url.txt, which ASEN's authors link from
https://github.com/Maryeon/asen ("DARN"), beside their split files, meta_data.tar.gz. The rights in the
photographs remain with their owners, and no licence is known for the list: use it for research only, and
check what your law and your institution allow. ASEN's split files have no licence either: they are read here,
and are not part of this project.

Expected: 214,619 images in ASEN's release (valid 21,461, test 21,461); the paper's Table 1 says 195,771. Most
addresses have been dead since 2020, so expect fewer.

What is read:
  --urls FILE ...   lists of addresses, a line an image: `path address`, set apart by a tab or spaces. path is
                    the name the lists use, e.g. pic/51586095/3660_47_1.jpg. What exactly darn_url.txt looks
                    like could not be checked: bring it into this form if it differs.
  --images DIR      images you already have, DIR/pic/...: copied into --out (--link: hard-linked)
  --splits PATH     ASEN's split files, meta_data.tar.gz or unpacked, used as they are
  --labels FILE     without ASEN's: `path v1 v2 ... v9` a line, a number for each attribute in ASEN's order
                    (clothes category, button, color, length, pattern, shape, collar shape, sleeve length,
                    sleeve shape), -1 where there is none; the split is then seeded, and not ASEN's

What is written: the images and lists; download_log.jsonl, by which a second run leaves alone what failed for
good, as by HTTP 404 (--retry-failed asks for that too), and asks again where there was no connection, no
answer in time, or a host too busy; survival.json: of each split and attribute, how many labelled images there
are, and why the others are not. Where images are missing, the lists are reduced to the survivors, and
meta.json says so: "reduced to survivors: n of m images". mAPs of reduced lists are not comparable with the
paper's. The values have no known names: they are numbered.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Prepared,
    Source,
    beside,
    bring,
    check_name,
    content_groups,
    guarded,
    parser,
    seeded_splits,
    tell,
    use_splits,
    write_prepared,
)
from download import MEGABYTE, Downloader, Fetcher, read_log, read_urls
from tqdm import tqdm

from ccakit.attributes import Attributes
from ccakit.data.images import read_image
from ccakit.data.rows import read_all_values
from ccakit.data.split import Dataset, Split
from ccakit.data.text import read_lines
from ccakit.disk import write_lines
from ccakit.errors import DataError

SIZES = {
    "clothes category": 20,
    "clothes button": 13,
    "clothes color": 55,
    "clothes length": 7,
    "clothes pattern": 28,
    "clothes shape": 11,
    "collar shape": 26,
    "sleeve length": 8,
    "sleeve shape": 17,
}
ATTRIBUTES = Attributes.numbered(SIZES)
EXPECTED = {"images": 214_619, "values": 185, "valid": 21_461, "test": 21_461}
LOG, REPORT = "download_log.jsonl", "survival.json"
ABOUT = {
    "source": "DARN, Huang et al., ICCV 2015; addresses from https://github.com/Maryeon/asen",
    "licence": "none known; the rights in the photographs remain with their owners",
    "notes": "the values' names are unknown: they are numbered as in the lists",
}
Reasons = dict[str, str]


def download(
    urls: Sequence[Path], out: Path, fetcher: Fetcher, threads: int, retry_failed: bool
) -> Counter[str]:
    """Download the images of the lists into `out`; return the number of images for each outcome."""
    return Downloader(out, out / LOG, fetcher, threads).run(read_urls(urls), retry_failed)


def missing_images(names: Sequence[str], out: Path) -> Reasons:
    """Find the images that are missing or do not decode, {name: reason}, with the log's reasons."""
    failed = {name: reason for (name, _), reason in read_log(out / LOG).items()}

    def look(name: str) -> str | None:
        if not (out / name).is_file():
            return failed.get(name, "no file")
        try:
            read_image(out / name)
        except DataError:
            return "broken, or no image"
        return None

    with ThreadPoolExecutor(4) as pool:
        found = list(
            tqdm(pool.map(look, names), desc="check images", unit="img", total=len(names), disable=None)
        )
    return {name: why for name, why in zip(names, found) if why}


def given_splits(splits: Path, out: Path) -> tuple[Dataset, Prepared]:
    """Copy ASEN's lists into `out` byte for byte, and read them back."""
    if any(folder.exists() and folder.resolve() == out.resolve() for folder in (splits, splits / "DARN")):
        raise DataError(
            out, "is the folder of the split files", "Give another --out: they may be reduced there."
        )
    dataset, notes = use_splits(splits, out, "DARN", ATTRIBUTES, ABOUT)
    every = {
        name: read_all_values(out, name) for name in dataset.splits if (out / f"label_{name}.txt").is_file()
    }
    every.pop("train", None)
    notes = [note for note in notes if REPORT not in note]  # this script's own report says more
    return dataset, Prepared(list(dataset.splits.values()), dataset.about["split"], every, notes)


def read_labels(path: Path, attributes: Attributes = ATTRIBUTES) -> tuple[list[str], np.ndarray]:
    """Read lines `path v1 ... v9` as names and (R, 3) rows; -1 is not a label. DataError with the line."""
    names, rows, lines = [], [], read_lines(path).lines
    for number, line in enumerate(lines, 1):
        if not (cells := line.split()):
            continue
        if len(cells) != 1 + len(attributes):
            remedy = f"Write the path, then {len(attributes)} numbers, -1 for none."
            raise DataError(path, f"has {len(cells)} columns", remedy, number)
        for condition, cell in enumerate(cells[1:]):
            if cell != "-1" and not (
                cell.isascii() and cell.isdigit() and int(cell[:9]) < attributes.sizes[condition]
            ):
                remedy = f"Its labels are 0 to {attributes.sizes[condition] - 1}, or -1 for none."
                raise DataError(
                    path, f"label {cell[:40]!r} of {attributes.names[condition]!r}", remedy, number
                )
            if cell != "-1":
                rows.append((len(names), condition, int(cell)))
        check_name(path, cells[0], number)
        names.append(cells[0])
    if len(set(names)) < len(names) or not rows:
        problem = "names an image twice" if rows else "has no label"
        raise DataError(path, problem, "Write each image once, with its labels.")
    return names, np.array(rows, np.int64)


def reduce_split(
    split: Split, every: np.ndarray | None, lost: Reasons
) -> tuple[Split | None, np.ndarray | None]:
    """Leave the lost images out of a split and of all its values, with new numbers.

    None if a list would be empty.
    """
    keep = np.array([name not in lost for name in split.filenames])
    number = np.cumsum(keep) - 1

    def rows(table: np.ndarray) -> np.ndarray:
        kept = table[keep[table[:, 0]]]
        return np.column_stack([number[kept[:, 0]], kept[:, 1:]])

    names = [name for name in split.filenames if name not in lost]
    tables = [rows(table) for table in split.tables()]
    if not all(map(len, tables)):
        return None, None
    made = Split.from_tables(split.name, split.root, split.attributes, names, tables)
    return made, None if every is None else rows(every)


def reduce_prepared(prepared: Prepared, lost: Reasons) -> Prepared:
    """Leave the lost images out of all splits, and say so in the splits' name."""
    total = sum(len(split.filenames) for split in prepared.splits)
    gone = sum(name in lost for split in prepared.splits for name in split.filenames)
    reduced = Prepared([], f"{prepared.how}, reduced to survivors: {total - gone} of {total} images", {})
    for split in prepared.splits:
        made, every = reduce_split(split, prepared.every.get(split.name), lost)
        if made is None:
            reduced.notes.append(f"{split.name}: left out, as too few of its images survive")
            continue
        reduced.splits.append(made)
        if every is not None:
            reduced.every[split.name] = every
    return reduced


def survival(splits: Sequence[Split], lost: Reasons) -> dict[str, Any]:
    """Count for each split: images listed and present, why others are missing, labels per attribute."""
    report = {}
    for split in splits:
        here = np.array([name not in lost for name in split.filenames])
        reasons = Counter(lost[name] for name in split.filenames if name in lost)
        labelled = np.unique(split.labels[:, :2], axis=0)
        attributes = {}
        for condition, name in enumerate(split.attributes.names):
            images = labelled[labelled[:, 1] == condition, 0]
            attributes[name] = {"listed": len(images), "present": int(here[images].sum())}
        report[split.name] = {
            "listed": len(here),
            "present": int(here.sum()),
            "reasons": dict(reasons.most_common()),
            "attributes": attributes,
            "missing": [name for name in split.filenames if name in lost],
        }
    return report


def survival_lines(report: dict[str, Any]) -> list[str]:
    """Write the report as text: a line for each attribute, a column for each split, `present of listed`."""

    def cell(each: dict[str, Any]) -> str:
        return f"{each['present']:,} of {each['listed']:,}"

    lines = ["".join(["labelled images".ljust(20), *(name.rjust(20) for name in report)])]
    names = next(iter(report.values()))["attributes"]
    lines += [
        "".join([n.ljust(20), *(cell(s["attributes"][n]).rjust(20) for s in report.values())]) for n in names
    ]
    lines.append("".join(["images".ljust(20), *(cell(split).rjust(20) for split in report.values())]))
    reasons = sum((Counter(split["reasons"]) for split in report.values()), Counter())
    return lines + [f"missing, {why}: {n:,}" for why, n in reasons.most_common()]


def write_survivors(
    prepared: Prepared, out: Path, lost: Reasons, complete: Dataset | None = None
) -> tuple[Dataset, list[str]]:
    """Write lists of what is there, and survival.json; return the data set and the lines of the report.

    complete: the data set as it lies in `out` already, which stays as it is if no image is lost.
    """
    report = survival(prepared.splits, lost)
    kept = reduce_prepared(prepared, lost) if lost else prepared
    if not kept.splits:
        raise DataError(out, "has too few of the listed images for any split", "Give --images or --urls.")
    if lost or complete is None:
        complete = write_prepared(out, "DARN", kept.splits[0].attributes, kept, ABOUT)
    write_lines(out / REPORT, json.dumps(report, indent=1, ensure_ascii=False).split("\n"))
    found = {
        "images": sum(split["present"] for split in report.values()),
        "values": sum(complete.attributes.sizes),
    }
    found |= {name: len(split.filenames) for name, split in complete.splits.items()}
    return complete, survival_lines(report) + beside(found, EXPECTED)


def check_flags(given: argparse.Namespace) -> None:
    if not (given.urls or given.splits or given.labels) or (given.splits and given.labels):
        raise ValueError("give --urls, and either --splits or --labels (--help tells what they hold)")
    if min(given.threads, given.tries, given.timeout, given.max_mb) <= 0 or given.backoff < 0:
        raise ValueError("--threads, --tries, --timeout and --max-mb must be above 0, --backoff not below")


def prepare(given: argparse.Namespace) -> None:
    """Download, copy, check, write and report, as far as the flags ask for it."""
    check_flags(given)
    if given.urls:
        fetcher = Fetcher(given.timeout, given.tries, given.backoff, int(given.max_mb * MEGABYTE))
        counts = download(given.urls, given.out, fetcher, given.threads, given.retry_failed)
        print(
            f"{counts.total():,} addresses:",
            *(f"  {why}: {n:,}" for why, n in counts.most_common()),
            sep="\n",
        )
    complete, prepared, rows = None, None, np.zeros((0, 3), np.int64)
    if given.splits:
        complete, prepared = given_splits(given.splits, given.out)
        names = list(dict.fromkeys(name for split in prepared.splits for name in split.filenames))
    elif given.labels:
        names, rows = read_labels(given.labels)
    else:
        return
    if given.images:
        new, notes = bring(names, Source(given.images, given.splits or given.labels), given.out, given.link)
        print(f"{new:,} images taken from {given.images}", *notes, sep="\n")
    if prepared is None:
        groups = content_groups([given.out / name for name in names]) if given.by_content else None
        prepared = seeded_splits(
            given.out, ATTRIBUTES, names, rows, given.seed, groups=groups, per_image=True
        )
    dataset, lines = write_survivors(prepared, given.out, missing_images(names, given.out), complete)
    notes = [note for note in prepared.notes if note not in dataset.findings]
    tell(given.out, dataset, [*notes, *lines])


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__, "DARN")
    made.add_argument(
        "--urls", type=Path, nargs="+", default=[], metavar="FILE", help="lists of `path address`"
    )
    made.add_argument("--images", type=Path, metavar="DIR", help="images you have: DIR/pic/...")
    made.add_argument("--link", action="store_true", help="hard-link them instead of copying")
    made.add_argument(
        "--labels", type=Path, metavar="FILE", help="lines `path v1 ... v9`, for a seeded split"
    )
    made.add_argument("--retry-failed", action="store_true", help="ask again for what failed for good before")
    made.add_argument("--threads", type=int, default=8, metavar="N", help="downloads at a time (%(default)s)")
    made.add_argument(
        "--tries", type=int, default=3, metavar="N", help="requests an image at most (%(default)s)"
    )
    made.add_argument("--timeout", type=float, default=20, metavar="S", help="seconds to wait (%(default)s)")
    made.add_argument(
        "--backoff", type=float, default=1, metavar="S", help="before the second try (%(default)s)"
    )
    made.add_argument("--max-mb", type=float, default=20, metavar="MB", help="of an image (%(default)s)")
    return made


def main(argv: list[str] | None = None) -> None:
    given = arguments().parse_args(argv)
    guarded(lambda: prepare(given))


if __name__ == "__main__":
    main()
