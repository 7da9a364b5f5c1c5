"""UT-Zappos50K -> ccakit's layout, under CSN's four conditions, with triplets.

Where to get it: Yu and Grauman, The University of Texas at Austin,
http://vision.cs.utexas.edu/projects/finegrained/utzap50k/: ut-zap50k-images.zip (or
ut-zap50k-images-square.zip) and ut-zap50k-data.zip. Terms: academic, non-commercial use only; the rights in
the photographs remain with Zappos.com. CSN's triplet lists (Veit et al., CVPR 2017,
https://github.com/andreasveit/conditional-similarity-networks) are no longer at their address: if you have
them, give them as --triplets; else triplets are regenerated.

What is read, from the folder --source, as zips or unpacked:
  ut-zap50k-images/             Shoes/Oxfords/Bostonian/100627.72.jpg; folder names may end in "."
                                (--square: the folder or zip ut-zap50k-images-square)
  ut-zap50k-data/meta-data.csv  CID,Category,SubCategory,HeelHeight,Insole,Closure,Gender,Material,ToeStyle;
                                several values of a cell are separated by ";". CID 100627-72 is the image
                                100627.72.jpg
  --triplets DIR                DIR/{class,closure,gender,heel}_tripletlist_{train,val,test}.txt, or the same
                                in DIR/tripletlists: lines `anchor far close`, by the lines of filenames.json
                                beside or above them, found by their file names

The conditions: class (Category), closure, gender, and heel, HeelHeight by whole inches: flat, under 1in, 1in,
2in, 3in, 4in, 5in and over; heights without a measure ("High heel") make no label. CSN's own binning is not
known.

Triplets: from CSN's lists, anchor positive negative condition, and its images of train, valid (val) and test;
or regenerated, with --seed: images 70:10:20 to the splits, then an anchor value, two of its images and one
that does not carry the value, uniformly, with replacement. meta.json calls these "regenerated, seed N: not
CSN's lists", as results on them are not comparable with published ones. Beside the triplets each split has
label rows: all values in train; of valid and test one in five images is a query, the others candidates, with
one value of each condition.

Expected: 50,025 images (Table 1 of the paper, which counts 34 values), and, as far as is known, 200,000,
20,000 and 40,000 triplets a condition in CSN's lists. Not tried here on the full release. Run again, it
copies or unpacks only what is not there.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from common import (
    Prepared,
    Source,
    beside,
    bring,
    content_groups,
    deal,
    guarded,
    parser,
    rarest,
    seeded_splits,
    tell,
    unpack,
    write_prepared,
)
from csn_lists import read_csn_lists, repeating

from ccakit.attributes import Attributes
from ccakit.data.split import SPLITS, Dataset
from ccakit.data.text import CONTROL, count, read_content, split_lines
from ccakit.data.triplet_lists import draw_triplets, triplets_path, write_triplets
from ccakit.errors import DataError

COLUMNS = {"class": "Category", "closure": "Closure", "gender": "Gender", "heel": "HeelHeight"}
HEELS = ("flat", "under 1in", "1in", "2in", "3in", "4in", "5in and over")
SIZES = {"train": 200_000, "valid": 20_000, "test": 40_000}
SOURCE = "http://vision.cs.utexas.edu/projects/finegrained/utzap50k/"
REMEDY = f"Give the folder with the files of {SOURCE} as --source."
ABOUT = {
    "source": f"UT-Zappos50K, Yu and Grauman, {SOURCE}",
    "licence": "academic, non-commercial use only; the rights in the photographs remain with Zappos.com",
    "notes": "class, closure, gender: the release's values; heel: HeelHeight by whole inches",
}
Cells = dict[str, list[str]]  # condition: values


def key_of(name: str) -> str:
    """Return the key that joins a row and an image: "100627.72", for the CID 100627-72 and for
    .../100627.72.jpg.

    >>> key_of("100627-72") == key_of("Shoes/Oxfords/A. Testoni./100627.72.jpg") == "100627.72"
    True
    """
    return re.sub(r"\.jpe?g$", "", PurePosixPath(name).name, flags=re.IGNORECASE).replace("-", ".")


def heel_bin(text: str) -> str | None:
    """Return the bin of a HeelHeight; None if it has no measure.

    >>> [heel_bin(text) for text in ("Flat", "Under 1in", "2in - 2 3/4in", "4in & over", "6in", "High heel")]
    ['flat', 'under 1in', '2in', '4in', '5in and over', None]
    """
    text = text.lower()
    if text.startswith(("flat", "under 1")):
        return "flat" if text.startswith("flat") else "under 1in"
    inches = re.match(r"(\d{1,2})\b|(\d{1,2})in", text)
    return HEELS[min(int(inches[1] or inches[2]), 5) + 1] if inches else None


def find_images(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Find the JPEGs among the names, {key: path}; of two with the same file name, the first counts."""
    found: dict[str, str] = {}
    twice = 0
    for name in sorted(names):
        if name.lower().endswith((".jpg", ".jpeg")) and not PurePosixPath(name).name.startswith("."):
            twice += found.setdefault(key_of(name), name) != name
    notes = [f"{count(twice, 'image')} left out: another has the same file name"] if twice else []
    return found, notes


def bring_images(
    source: Path, out: Path, square: bool = False, link: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Copy or unpack the release's images into `out`; return {key: path relative to `out`} and notes."""
    name = "ut-zap50k-images-square" if square else "ut-zap50k-images"
    root, archive = source.resolve(), source / f"{name}.zip"
    if not (root / name).is_dir():
        if not archive.is_file():
            raise DataError(source, f"has neither the folder {name} nor {name}.zip", REMEDY)
        return find_images(unpack(archive, out).names)
    walk = ((Path(folder), file) for folder, _, files in os.walk(root / name) for file in files)
    found, notes = find_images((folder / file).relative_to(root).as_posix() for folder, file in walk)
    return found, notes + bring(list(found.values()), Source(source), out, link)[1]


def find_meta(source: Path, out: Path) -> Path:
    """Find meta-data.csv; it is unpacked into `out` if it is in ut-zap50k-data.zip."""
    for folder in (source / "ut-zap50k-data", source):
        if (folder / "meta-data.csv").is_file():
            return folder / "meta-data.csv"
    archive = source / "ut-zap50k-data.zip"
    if archive.is_file():
        for name in unpack(archive, out).names:
            if PurePosixPath(name).name == "meta-data.csv":
                return out / name
    raise DataError(source, "has neither ut-zap50k-data/meta-data.csv nor ut-zap50k-data.zip with it", REMEDY)


def read_meta_csv(path: Path) -> tuple[dict[str, Cells], list[str]]:
    """Read meta-data.csv as {key: values of each condition}, and notes; DataError with the line."""
    reader = csv.reader(split_lines(read_content(path, REMEDY)), strict=True)
    rows: dict[str, Cells] = {}
    twice = unmeasured = 0
    try:
        at = {name.strip(): i for i, name in enumerate(next(reader))}
        if lacks := {"CID", *COLUMNS.values()} - set(at):
            raise DataError(path, f"has no column {', '.join(sorted(lacks))}", REMEDY, 1)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(at) or CONTROL.search("".join(cells).replace("\t", "")):
                problem = f"has {len(cells)} cells for {len(at)} columns, or a control character"
                raise DataError(path, problem, "Take the file from its zip again.", reader.line_num)
            if not (key := key_of(cells[at["CID"]].strip())):
                raise DataError(path, "has no CID", "Take the file from its zip again.", reader.line_num)
            twice += key in rows
            made, bare = _cells([cells[at[column]] for column in COLUMNS.values()])
            rows.setdefault(key, made)
            unmeasured += bare
    except csv.Error as error:
        raise DataError(
            path, f"is broken ({error})", "Take the file from its zip again.", reader.line_num
        ) from None
    notes = []
    if twice:
        notes.append(f"{count(twice, 'row')} of meta-data.csv left out: the CID has one already")
    if unmeasured:
        notes.append(f"heel: {count(unmeasured, 'height')} without a measure, no label")
    return rows, notes


def _cells(texts: Sequence[str]) -> tuple[Cells, int]:
    """Return the values of the four cells, each once, and the number of heel heights without a measure."""
    split = [list(dict.fromkeys(v.strip() for v in text.split(";") if v.strip())) for text in texts]
    heels = [heel_bin(value) for value in split[3]]
    split[3] = list(dict.fromkeys(heel for heel in heels if heel))
    return dict(zip(COLUMNS, split)), heels.count(None)


@dataclass
class Labelled:
    """The images that have a row: their attributes, paths, and (R, 3) rows (image, condition, label)."""

    attributes: Attributes
    filenames: list[str]
    rows: np.ndarray
    notes: list[str]


def join(images: dict[str, str], cells: dict[str, Cells], path: Path) -> Labelled:
    """Join images and rows of meta-data.csv (`path`, for errors) by their keys.

    Those without a partner are counted.
    """
    keys = [key for key in images if key in cells]
    alone = {"image": len(images) - len(keys), "row": len(cells) - len(keys)}
    notes = [
        f"{count(n, what)} left out, without {other}"
        for (what, n), other in zip(alone.items(), ("a row in meta-data.csv", "an image"))
        if n
    ]
    values = [{value for key in keys for value in cells[key][name]} for name in COLUMNS]
    if not all(values):
        empty = [name for name, found in zip(COLUMNS, values) if not found]
        raise DataError(path, f"has no value of {', '.join(empty)} for any image there is", REMEDY)
    ordered = [sorted(v, key=HEELS.index if name == "heel" else None) for name, v in zip(COLUMNS, values)]
    attributes = Attributes(tuple(COLUMNS), tuple(map(tuple, ordered)))
    label = [{value: i for i, value in enumerate(names)} for names in ordered]
    rows = [
        (i, c, label[c][value])
        for i, key in enumerate(keys)
        for c, name in enumerate(COLUMNS)
        for value in cells[key][name]
    ]
    made = Labelled(attributes, [images[key] for key in keys], np.array(rows, np.int64), notes)
    for c, name in enumerate(COLUMNS):
        counts = [len(cells[key][name]) for key in keys]
        made.notes.append(
            f"{name}: {len(ordered[c])} values; {sum(n > 0 for n in counts):,} of {len(keys):,} images "
            f"labelled, {sum(n > 1 for n in counts):,} with several values"
        )
    return made


def csn_part(
    names: Sequence[str], triplets: dict[str, np.ndarray], labelled: Labelled
) -> tuple[np.ndarray, list[str]]:
    """Return the split whose triplets name each image, (n,) 0, 1, 2, or -1; of several splits, the last."""
    index = {key_of(name): i for i, name in enumerate(labelled.filenames)}
    place = np.array([index.get(key_of(name), -1) for name in names])
    part, several = np.full(len(labelled.filenames), -1), 0
    for number, split in enumerate(SPLITS):
        mine = np.unique(place[triplets[split][:, :3]])
        mine = mine[mine >= 0]
        several += int((part[mine] >= 0).sum())
        part[mine] = number
    if several:
        notes = [f"{count(several, 'image')} named by the triplets of several splits: kept for the last"]
        return part, notes
    return part, []


def own_triplets(names: Sequence[str], triplets: np.ndarray, filenames: Sequence[str]) -> np.ndarray:
    """Number CSN's triplets by a split's own images, without those that name an image it lacks."""
    index = {key_of(name): i for i, name in enumerate(filenames)}
    place = np.array([index.get(key_of(name), -1) for name in names])
    images = place[triplets[:, :3]]
    return np.column_stack([images, triplets[:, 3]])[(images >= 0).all(axis=1)]


def draw_part(labelled: Labelled, out: Path, seed: int, by_content: bool) -> np.ndarray:
    """Deal images 70:10:20 by their rarest values, (n,) 0, 1, 2; by_content: equal files go to one split."""
    n = len(labelled.filenames)
    groups = content_groups([out / name for name in labelled.filenames]) if by_content else np.arange(n)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    part = np.empty(n, np.int64)
    part[first] = deal(rarest(labelled.rows, n)[first], (7, 1, 2), np.random.default_rng(seed))
    return part[first[member]]


def regenerate(prepared: Prepared, out: Path, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Draw (T, 4) triplets for each split, `sizes` for each condition."""
    made = {}
    for split in prepared.splits:
        rows = prepared.every.get(split.name, split.labels)
        made[split.name] = draw_triplets(rows, len(COLUMNS), sizes[split.name], seed)
        for condition in sorted({*range(len(COLUMNS))} - {*made[split.name][:, 3]}):
            problem = (
                f"can have no triplet of {list(COLUMNS)[condition]!r}: too few images, or one value only"
            )
            raise DataError(triplets_path(out, split.name), problem, "Give more images.")
    return made


def given_triplets(folder: Path, out: Path, labelled: Labelled, seed: int) -> tuple[Prepared, dict, str]:
    """Make splits and triplets of CSN's lists; return them and their name."""
    names, lists = read_csn_lists(folder, tuple(COLUMNS))
    part, notes = csn_part(names, lists, labelled)
    how = f"CSN's images of each split; queries drawn by seed {seed}"
    prepared = seeded_splits(
        out, labelled.attributes, labelled.filenames, labelled.rows, seed, part=part, how=how
    )
    prepared.notes = notes
    if left_out := int((part < 0).sum()):
        prepared.notes.append(f"{count(left_out, 'labelled image')} in no triplet left out")
    own = {split.name: own_triplets(names, lists[split.name], split.filenames) for split in prepared.splits}
    kept, total = (sum(map(len, each.values())) for each in (own, lists))
    reduced = "" if kept == total else f", reduced to survivors: {kept} of {total} triplets"
    if odd := sum(map(repeating, own.values())):
        prepared.notes.append(f"{count(odd, 'triplet')} of CSN's lists name an image twice")
    return prepared, own, f"CSN's lists{reduced}"


def drawn_triplets(
    out: Path, labelled: Labelled, sizes: dict[str, int], seed: int, by_content: bool
) -> tuple[Prepared, dict, str]:
    """Draw splits and triplets by a seed; return them and their name."""
    part, how = draw_part(labelled, out, seed, by_content), f"seeded, images 70:10:20, seed {seed}: not CSN's"
    prepared = seeded_splits(
        out, labelled.attributes, labelled.filenames, labelled.rows, seed, part=part, how=how
    )
    called = f"regenerated, seed {seed}: not CSN's lists"
    return prepared, regenerate(prepared, out, sizes, seed), called


def prepare(
    source: Path,
    out: Path,
    triplets: Path | None = None,
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    square: bool = False,
    link: bool = False,
    by_content: bool = False,
) -> tuple[Dataset, list[str]]:
    """Read the release, bring the images, write lists and triplets into `out`; return data set and notes."""
    sizes = sizes or SIZES
    if min(sizes.values()) < 1:
        raise ValueError(f"the numbers of triplets must be above 0: {sizes}")
    images, notes = bring_images(source, out, square, link)
    meta = find_meta(source, out)
    cells, found = read_meta_csv(meta)
    labelled = join(images, cells, meta)
    notes += found + labelled.notes
    made = (
        given_triplets(triplets, out, labelled, seed)
        if triplets
        else drawn_triplets(out, labelled, sizes, seed, by_content)
    )
    prepared, rows, called = made
    if [split.name for split in prepared.splits] != list(SPLITS) or not all(map(len, rows.values())):
        raise DataError(
            out, "would lack images or triplets in a split", "Give more images, or the whole lists."
        )
    about = {**ABOUT, "seed": seed, "triplets": called}
    dataset = write_prepared(out, "Zappos50K", labelled.attributes, prepared, about)
    for split, each in rows.items():
        write_triplets(out, split, each)
    notes += [f"triplets: {', '.join(f'{split} {len(each):,}' for split, each in rows.items())} ({called})"]
    return dataset, notes + beside(
        {"images": len(images), "values": sum(labelled.attributes.sizes)}, {"images": 50_025, "values": 34}
    )


def main(argv: list[str] | None = None) -> None:
    made = parser(__doc__, "Zappos50K", splits=False)
    made.add_argument(
        "--source", type=Path, required=True, help="folder of the release's zips, or of these unpacked"
    )
    made.add_argument("--triplets", type=Path, metavar="DIR", help="CSN's lists; without: regenerated")
    for split, n in SIZES.items():
        words = f"regenerated triplets a condition for {split} (%(default)s)"
        made.add_argument(f"--{split}", type=int, default=n, metavar="N", help=words)
    made.add_argument("--square", action="store_true", help="the images of ut-zap50k-images-square")
    made.add_argument(
        "--link", action="store_true", help="hard-link the images of a folder instead of copying"
    )
    given = made.parse_args(argv)
    sizes = {split: getattr(given, split) for split in SPLITS}
    options = (given.triplets, sizes, given.seed, given.square, given.link, given.by_content)
    guarded(lambda: tell(given.out, *prepare(given.source, given.out, *options)))


if __name__ == "__main__":
    main()
