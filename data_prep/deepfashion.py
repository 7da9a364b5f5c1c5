"""DeepFashion's Category and Attribute Prediction Benchmark -> ccakit's layout, under five attributes.

Where to get it: The Chinese University of Hong Kong, Multimedia Lab,
http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html (links behind an agreement). Terms:
non-commercial research and education only; the images' copyrights stay with their owners, and they may not be
passed on.
ASEN's split files, meta_data.tar.gz, are linked from https://github.com/Maryeon/asen (no licence is given
there), and are not part of this project.

What is read, from the folder --source (as downloaded; Anno may also be called Anno_coarse):
  Anno/list_attr_cloth.txt       count, header, then 1000 lines: attribute name, type
  Anno/list_attr_img.txt         count, header, 289,222 lines: image, 1000 values: -1 (no), 0 (unknown), 1
  Eval/list_eval_partition.txt   count, header, then lines: image, train, val or test (with --partition only)
  Img/img.zip or img/            the images: img/NAME/img_00000001.jpg
The five types (texture, fabric, shape, part, style) become the attributes, the names of a type its values. An
image often has several values of one type: train keeps them all. As in ASEN's lists, each image of valid and
test is listed once, with one value, and label_valid.txt and label_test.txt give all of them.

Expected: 289,222 images (Table 1 of the paper), 1,000 values (156 texture, 218 fabric, 180 shape, 216 part,
230 style); in ASEN's splits valid and test 27,625 each: 5,525 queries and 22,100 candidates. ASEN leaves out
images without any value. Table 1 says 6 attributes, its text and Table 4 five. Not tried here on the full
release.

What is written: the images under OUT, the lists, meta.json and survival.json (which listed images are
present, which missing). list_attr_img.txt is read line by line. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
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
    guarded,
    only_present,
    parser,
    seeded_splits,
    tell,
    unpack,
    use_splits,
    write_prepared,
)
from tqdm import tqdm

from ccakit.attributes import Attributes

TYPES = ("texture-related", "fabric-related", "shape-related", "part-related", "style-related")
PARTITION = {"train": 0, "val": 1, "test": 2}
MOST_BYTES = 2**20  # of a line
EXPECTED = {"images": 289_222, "values": 1_000, "valid": 27_625, "test": 27_625}
EXPECTED |= dict(zip(TYPES, (156, 218, 180, 216, 230)))
ABOUT = {
    "source": "DeepFashion, Category and Attribute Prediction Benchmark, CUHK Multimedia Lab",
    "licence": "non-commercial research and education only; images not to be passed on",
    "notes": "values are a type's attributes in the order of list_attr_cloth.txt",
}
AGAIN = "Take the file again from the release."


def find(source: Path, *places: str) -> Path:
    """Find the first of the places that exists; DataError names the first place."""
    for each in places:
        if (source / each).exists():
            return source / each
    remedy = f"Give the release's folder as --source; looked for: {', '.join(places)}."
    raise DataError(source / places[0], "is missing", remedy)


def lines_of(path: Path, findings: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of a list after its count and header; a wrong count becomes a finding.

    One line is in memory at a time. DataError if there is no count, no header, a very long line, or other
    text than UTF-8.
    """
    rows, number = 0, 0
    try:
        with open(path, "rb") as file, tqdm(desc=path.name, unit="line", disable=None) as progress:
            for number, line in enumerate(iter(lambda: file.readline(MOST_BYTES), b""), 1):
                if len(line) == MOST_BYTES:
                    raise DataError(path, f"has a line of over {MOST_BYTES} bytes", AGAIN, number)
                cells = line.decode("utf-8-sig").split()
                if number == 1:
                    counted = _count(path, cells)
                elif number > 2 and cells:
                    rows += 1
                    progress.update()
                    yield number, cells
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not UTF-8 ({error.reason})", AGAIN, number) from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error})", AGAIN) from None
    if not rows:
        raise DataError(path, "has no line after its count and header", AGAIN)
    if rows != counted:
        findings.append(
            f"{path.name}: the first line counts {counted:,}, and {rows:,} lines follow the header"
        )


def _count(path: Path, cells: list[str]) -> int:
    if len(cells) != 1 or not (cells[0].isascii() and cells[0].isdigit()):
        raise DataError(path, "does not begin with the count of its lines", AGAIN, 1)
    return int(cells[0][:12])


def read_attributes(path: Path, findings: list[str]) -> tuple[Attributes, np.ndarray]:
    """Read the five attributes, and condition and label of each line of list_attr_cloth.txt, (1000, 2)."""
    values: list[list[str]] = [[] for _ in TYPES]
    order = []
    for number, cells in lines_of(path, findings):
        if len(cells) < 2 or cells[-1] not in ("1", "2", "3", "4", "5"):
            problem, remedy = f"{' '.join(cells)[:80]!r} has no type from 1 to 5", "A line is: name, type."
            raise DataError(path, problem, remedy, number)
        mine, name = values[int(cells[-1]) - 1], " ".join(cells[:-1])
        if name in mine:
            findings.append(f"{path.name}: {name!r} is there twice (line {number})")
            name = f"{name} (line {number})"
        order.append((int(cells[-1]) - 1, len(mine)))
        mine.append(name)
    if empty := [name for name, mine in zip(TYPES, values) if not mine]:
        raise DataError(path, f"has no attribute of the type {empty[0]}", AGAIN)
    return Attributes(TYPES, tuple(map(tuple, values))), np.array(order, np.int64)


def read_images(path: Path, order: np.ndarray, findings: list[str]) -> tuple[list[str], np.ndarray]:
    """Read the values of 1 in list_attr_img.txt.

    Returns n image names, and (R, 3) int64 rows (image, condition, label).
    """
    names: dict[str, int] = {}
    images, columns, repeats, legal = [], [], 0, {"-1", "0", "1"}
    for number, (name, *cells) in lines_of(path, findings):
        if len(cells) != len(order) or not legal.issuperset(cells):
            _refuse(path, number, cells, len(order))
        if name in names:
            repeats += 1
        else:
            check_name(path, name, number)
        image, at = names.setdefault(name, len(names)), -1
        for _ in range(cells.count("1")):
            at = cells.index("1", at + 1)
            images.append(image)
            columns.append(at)
    if repeats:
        findings.append(f"{path.name}: {repeats:,} lines repeat an image; it has the values of all of them")
    column = np.array(columns, np.int64)
    return list(names), np.column_stack([np.array(images, np.int64), order[column]]).reshape(-1, 3)


def _refuse(path: Path, number: int, cells: list[str], n: int) -> None:
    wrong = [cell for cell in cells if cell not in ("-1", "0", "1")]
    problem = f"has {len(cells):,} values" if len(cells) != n else f"{wrong[0][:40]!r} is not a value"
    raise DataError(path, problem, f"A line is: image, {n:,} values of -1, 0 or 1. {AGAIN}", number)


def read_partition(path: Path, names: Sequence[str], findings: list[str]) -> np.ndarray:
    """Read the split of each image, (n,) int64: 0, 1 or 2 for train, val or test, -1 if it is not listed."""
    index, part, unknown = {name: i for i, name in enumerate(names)}, np.full(len(names), -1, np.int64), 0
    for number, cells in lines_of(path, findings):
        if len(cells) != 2 or cells[1] not in PARTITION:
            raise DataError(
                path, f"{' '.join(cells)[:80]!r} is not a line: image, train/val/test", AGAIN, number
            )
        unknown += cells[0] not in index
        part[index[cells[0]] if cells[0] in index else []] = PARTITION[cells[1]]
    odd = {"images without values": unknown, "images not listed": int((part < 0).sum())}
    findings += [f"{path.name}: {n:,} {what}" for what, n in odd.items() if n]
    return part


def bring_images(
    source: Path, listed: Path, out: Path, names: Sequence[str], link: bool = False
) -> list[str]:
    """Unpack Img/img.zip into `out`, or copy the images of a folder that a file lists; return notes."""
    at = find(source, "Img/img.zip", "img.zip", "Img/img", "img")
    if at.is_dir():
        return bring(names, Source(at.parent, listed), out, link)[1]
    unpack(at, out)
    return check_found(names, Source(out, listed))


def prepare(
    source: Path,
    out: Path,
    splits: Path | None = None,
    seed: int = 0,
    by_content: bool = False,
    partition: bool = False,
    link: bool = False,
) -> tuple[Dataset, list[str]]:
    """Read the release, bring the images, write lists and reports into `out`; return data set and notes."""
    notes: list[str] = []
    places = [f"{folder}/list_attr_{{}}.txt" for folder in ("Anno", "Anno_coarse")]
    attributes, order = read_attributes(find(source, *(each.format("cloth") for each in places)), notes)
    listed = find(source, *(each.format("img") for each in places))
    names, rows = read_images(listed, order, notes)
    part = read_partition(find(source, "Eval/list_eval_partition.txt"), names, notes) if partition else None
    notes += bring_images(source, listed, out, names, link)
    there, mine, here = only_present(out, names, rows)
    if splits:
        dataset, found = use_splits(splits, out, "DeepFashion", attributes, ABOUT, names)
        notes += [*found, agreement(dataset, rows, names)]
    else:
        part = None if part is None else part[here]
        how = "" if part is None else f"the release's own partition, queries drawn by seed {seed}; not ASEN's"
        groups = content_groups([out / name for name in there]) if by_content and part is None else None
        drawn = seeded_splits(
            out, attributes, there, mine, seed, part=part, how=how, groups=groups, per_image=True
        )
        dataset = write_prepared(out, "DeepFashion", attributes, drawn, {**ABOUT, "seed": seed}, names)
    found = Counter({name: len(split.filenames) for name, split in dataset.splits.items()})
    found.update(images=int(here.sum()), values=len(order), **dict(zip(TYPES, attributes.sizes)))
    return dataset, notes + beside(found, EXPECTED)


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__, "DeepFashion")
    made.add_argument("--source", type=Path, required=True, help="the release's folder, with Anno and Img")
    words = "the release's train, val and test instead of seeded splits 8:1:1"
    made.add_argument("--partition", action="store_true", help=words)
    made.add_argument(
        "--link", action="store_true", help="hard-link the images of a folder instead of copying"
    )
    return made


def main(given: list[str] | None = None) -> None:
    args = arguments().parse_args(given)

    def work() -> None:
        made = prepare(
            args.source, args.out, args.splits, args.seed, args.by_content, args.partition, args.link
        )
        tell(args.out, *made)

    guarded(work)


if __name__ == "__main__":
    main()
