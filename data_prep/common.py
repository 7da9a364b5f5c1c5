"""What the scripts of this folder share: safe unpacking, splits, checks, reports, the command line.

The scripts are run as `python data_prep/NAME.py`, and import this file as `common`. In the order of a script:

    unpack(archive, out)                     zip or tar -> files under out; resumes, refuses what is unsafe
    place(source, target)                    copy (or hard-link) one file, whole or not at all; resumes
    use_splits(given, out, "DARN", known)    ASEN's split files, used as they are -> Dataset and notes
    seeded_splits(out, attributes, ...)      splits of ASEN's proportions (8:1:1, queries 1:4) -> Prepared
    write_prepared(out, name, attributes, prepared, about)  -> Dataset
    parser(__doc__, ...), guarded(work), tell(dataset, notes)   the command line
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from unpacking import Limits, Unpacked, names_in, unpack  # noqa: F401 (for the scripts)

from ccakit.attributes import Attributes
from ccakit.data.errors import DataError
from ccakit.data.files import check_filenames, count, read_filenames, write_lines
from ccakit.data.layout import SPLITS, Dataset, Split, read_dataset, write_dataset
from ccakit.data.meta import Meta, meta_lines, read_meta
from ccakit.data.rows import distinct
from ccakit.protocol import shipped

LISTS = tuple(f"{kind}_{split}.txt" for split in SPLITS for kind in ("filenames", "label", "query", "candidate"))
SEEDED, GIVEN = "seeded, not ASEN's, seed {}", "ASEN's split files"
KNOWN_SUMS = shipped()["sha256"]  # of the split files that the readers of this package were checked with


def place(source: Path, target: Path, link: bool = False, resume: bool = True) -> bool:
    """Copy a file (link: hard-link it), whole or not at all; False if it is there: of the same size (resume)."""
    there = target.is_file()
    if there and (target.samefile(source) or (resume and target.stat().st_size == source.stat().st_size)):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(source), temporary) if link else shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


# Checks


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_sums(folder: Path, known: dict[str, str]) -> list[str]:
    """What to say of a folder's files beside the sums known: {file name: sha256}. A finding, never an error."""
    here = [name for name in known if (folder / name).is_file()]
    differs = [name for name in here if sha256(folder / name) != known[name]]
    notes = [f"{count(len(here) - len(differs), 'file')} of {len(here)} with a known checksum verified"]
    return notes + [f"{name}: differs from the one this was checked with (sha256)" for name in differs]


def content_groups(paths: Sequence[Path]) -> np.ndarray:
    """(n,) int64, equal for files of the same bytes; only files of one size are read. Missing: a group each."""
    sizes: dict[int, list[int]] = {}
    for i, path in enumerate(paths):
        sizes.setdefault(path.stat().st_size if path.is_file() else -1 - i, []).append(i)
    groups, first = np.arange(len(paths)), {}
    for same in tqdm([s for s in sizes.values() if len(s) > 1], desc="compare contents", disable=None):
        for i in same:
            groups[i] = first.setdefault(sha256(paths[i]), i)
    return groups


def check_name(path: Path, name: str, line: int) -> None:
    """DataError, at the line of `path` that names an image: the name is empty, too long, or leaves the folder."""
    sizes = [len(part.encode("utf-8", "replace")) for part in name.split("/")]
    if sum(sizes) > 1000 or max(sizes) > 255:
        raise DataError(path, f"{name[:80]!r}... is too long for a file's name", "Shorten it.", line)
    try:
        check_filenames(path, [name])
    except DataError as error:
        raise DataError(path, error.problem, error.remedy, line) from None


def only_present(out: Path, filenames: Sequence[str], rows: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The images that are files under `out`, their rows (R', 3), numbered anew, and (n,) bool: which they are."""
    here = np.array([os.path.isfile(out / name) for name in filenames], bool)
    mine = rows[here[rows[:, 0]]]
    mine[:, 0] = (np.cumsum(here) - 1)[mine[:, 0]]
    return [name for name, is_here in zip(filenames, here) if is_here], mine, here


def survival(out: Path, release: Sequence[str] = ()) -> list[str]:
    """Write survival.json: of each filenames_*.txt, how many images are there, and which are not; findings.

    release: the images that the release's own labels name, reported the same way under "release".
    """
    report, notes = {}, []
    lists = {split: out / f"filenames_{split}.txt" for split in SPLITS}
    every = {split: read_filenames(path).lines for split, path in lists.items() if path.is_file()}
    for split, names in [*every.items(), *([("release", release)] if len(release) else [])]:
        missing = [name for name in names if not os.path.isfile(out / name)]
        report[split] = {"listed": len(names), "present": len(names) - len(missing), "missing": missing}
        notes += [f"{split}: {len(missing)} of {len(names)} listed images are missing (survival.json)"] * bool(missing)
    write_lines(out / "survival.json", json.dumps(report, indent=1, ensure_ascii=False).split("\n"))
    return notes


def agreement(dataset: Dataset, rows: np.ndarray, filenames: Sequence[str]) -> str:
    """How many of the data set's labels the release has too: its (R, 3) rows index its own `filenames`."""
    index, same, total = {name: i for i, name in enumerate(filenames)}, 0, 0
    release = set(map(tuple, rows.tolist()))
    for split in dataset.splits.values():
        total += len(split.labels)
        same += sum((index.get(split.filenames[i]), c, v) in release for i, c, v in split.labels.tolist())
    return f"{same:,} of {total:,} labels of ASEN's lists are those of the release"


# Splits


@dataclass
class Prepared:
    """Splits ready to be written; `every` holds all rows of a split of which only some are listed."""

    splits: list[Split]
    how: str
    every: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def use_splits(
    given: Path, out: Path, name: str, known: Attributes, about: dict[str, Any], release: Sequence[str] = ()
) -> tuple[Dataset, list[str]]:
    """Copy ASEN's lists into `out` byte for byte, write meta.json and survival.json, and read it back.

    given: the folder of the lists, or one with a folder `name` ("FashionAI") of them. known: the attributes to
    use if there is no meta.json, and whose value names are taken where names and sizes are the same. Missing
    images are findings, and listed in survival.json, with those of the `release` (see `survival`). DataError: no
    list there, or one that cannot be read.
    """
    folder = given / name if (given / name).is_dir() else given
    present = [each for each in LISTS if (folder / each).is_file()]
    if not present:
        remedy = f"Give ASEN's folder {name}, or the one that holds it."
        raise DataError(folder, "has none of the lists filenames_*.txt, label_*, query_*, candidate_*", remedy)
    notes = check_sums(folder, {each.split("/")[1]: s for each, s in KNOWN_SUMS.items() if each.startswith(name)})
    attributes = _given_attributes(folder, known)
    out.mkdir(parents=True, exist_ok=True)
    for each in LISTS:
        if each not in present:
            (out / each).unlink(missing_ok=True)  # of an earlier run
        else:
            place(folder / each, out / each, resume=False)  # one of the same size may be another
    write_lines(out / "meta.json", meta_lines(Meta(name, attributes, {**about, "split": GIVEN})))
    dataset = read_dataset(out)
    return dataset, notes + survival(out, release)


def _given_attributes(folder: Path, known: Attributes) -> Attributes:
    """Those of the meta.json beside or above the lists, with the names of values where they are known."""
    if not any((at / "meta.json").is_file() for at in (folder, folder.resolve().parent)):
        return known
    given = read_meta(folder).attributes
    values = dict(zip(known.names, known.values))
    named = (values.get(n, v) if len(values.get(n, ())) == len(v) else v for n, v in zip(given.names, given.values))
    return Attributes(given.names, tuple(named))


def deal(keys: np.ndarray, shares: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """(n,) int64: which part each of n images goes to, in the given shares, for each key as well as overall.

    Whole rounds of sum(shares) images are dealt within a key, what is left over among all keys together. Keys with
    fewer images than there are parts go to part 0, as far as its share allows.

    >>> part = deal(np.repeat([0, 1], [20, 10]), (8, 1, 1), np.random.default_rng(0))
    >>> np.bincount(part[:20]).tolist(), np.bincount(part[20:]).tolist()
    ([16, 2, 2], [8, 1, 1])
    """
    n, period = len(keys), sum(shares)
    _, key, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.lexsort((rng.random(n), key))
    rank = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rest = rank >= np.repeat(sizes - sizes % period, sizes)
    rounds = np.tile(np.repeat(np.arange(len(shares)), shares), (-(-n // period), 1))
    parts = rng.permuted(rounds, axis=1).ravel()[:n]
    whole, left = np.split(parts, [n - rest.sum()])
    rare = sizes[key[order]] < len(shares)  # all of them among the rest
    zeros = rng.permutation(np.flatnonzero(left == 0))[: rare.sum()]
    part = np.empty(n, np.int64)
    part[np.concatenate([order[~rest], order[rare], order[rest & ~rare]])] = np.concatenate(
        [whole, left[zeros], np.delete(left, zeros)]
    )
    return part


def rarest(rows: np.ndarray, n_images: int) -> np.ndarray:
    """(n,) int64: a number for each image's rarest (condition, label) of its (R, 3) rows; -1 without a row."""
    pair = rows[:, 1] * (1 + rows[:, 2].max(initial=0)) + rows[:, 2]
    _, inverse, sizes = np.unique(pair, return_inverse=True, return_counts=True)
    order = np.argsort(-sizes[inverse], kind="stable")  # the rarest is written last
    keys = np.full(n_images, -1, np.int64)
    keys[rows[order, 0]] = pair[order]
    return keys


def seeded_splits(
    out: Path,
    attributes: Attributes,
    filenames: Sequence[str],
    rows: np.ndarray,
    seed: int,
    *,
    part: np.ndarray | None = None,
    how: str = "",
    groups: np.ndarray | None = None,
    per_image: bool = False,
) -> Prepared:
    """Splits in ASEN's proportions: images 8:1:1 to train, valid, test; of these two, 1:4 queries, candidates.

    filenames: n images relative to `out`. rows: (R, 3) int64 (image, condition, label). An image is dealt by its
    rarest value; one without a row is left out, and counted. part: (n,) 0, 1, 2 or -1 (left out) if the release
    says which split an image is in, and `how` it says so. groups: (n,) as of `content_groups`, dealt together.
    Train keeps all rows; valid and test one value, drawn, for each image and condition (per_image: for each
    image, as ASEN does for DeepFashion), and `every` keeps the others. DataError if a split would be empty.
    """
    rng, rows, n = np.random.default_rng(seed), distinct(rows), len(filenames)
    keys = rarest(rows, n)
    if part is None:
        part, how = np.full(n, -1, np.int64), SEEDED.format(seed)
        _, first, member = np.unique(np.arange(n) if groups is None else groups, return_index=True, return_inverse=True)
        head = first[member]
        heads = np.unique(head[keys >= 0])
        part[heads] = deal(keys[heads], (8, 1, 1), rng)
        part = part[head]
    part = np.where(keys >= 0, part, -1)
    prepared = Prepared([], how)
    prepared.notes += [f"{count(int((part < 0).sum()), 'image')} left out, without a label"] * bool((part < 0).any())
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero(part == number)
        if len(chosen):
            index = np.full(n, -1)
            index[chosen] = np.arange(len(chosen))
            mine = rows[part[rows[:, 0]] == number]
            mine[:, 0] = index[mine[:, 0]]
            _add(prepared, out, attributes, split, [filenames[i] for i in chosen], mine, rng, per_image)
    if not prepared.splits or prepared.splits[0].name != "train":
        raise DataError(out, f"has too few images ({n}) for a train split", "Give at least ten labelled images.")
    return prepared


def _add(
    prepared: Prepared, out: Path, attributes: Attributes, name: str, filenames: list[str], rows: np.ndarray,
    rng: np.random.Generator, per_image: bool,
) -> None:  # fmt: skip
    """Append one split, its queries and candidates drawn."""
    if name == "train":
        prepared.splits.append(Split(name, out, attributes, filenames, rows))
        return
    shuffled = rng.permutation(rows)
    unit = shuffled[:, 0] if per_image else shuffled[:, 0] * len(attributes) + shuffled[:, 1]
    listed = distinct(shuffled[np.unique(unit, return_index=True)[1]])
    asks = deal(rarest(listed, len(filenames)), (4, 1), rng)[listed[:, 0]] == 1
    queries, candidates = listed[asks], listed[~asks]
    if not len(queries) or not len(candidates):
        remedy = "Give more images, or fewer splits."
        raise DataError(out, f"has too few images for the split {name!r} ({len(filenames)})", remedy)
    labels = np.concatenate([candidates, queries])
    prepared.splits.append(Split(name, out, attributes, filenames, labels, queries, candidates))
    if len(listed) < len(rows):
        prepared.every[name] = rows


def write_prepared(
    out: Path,
    name: str,
    attributes: Attributes,
    prepared: Prepared,
    about: dict[str, Any],
    release: Sequence[str] = (),
) -> Dataset:
    """Write lists, all values (label_valid.txt, label_test.txt), meta.json, survival.json; read the lists back.

    Lists that an earlier run left and this one does not write are removed. Of `release` see `survival`. The
    data set's findings begin with those of the preparation.
    """
    write_dataset(out, name, attributes, prepared.splits, {**about, "split": prepared.how})
    written = {split.name for split in prepared.splits}
    for each in LISTS:
        kind, split = each.removesuffix(".txt").split("_")
        if split not in written or (kind == "label" and split != "train"):
            (out / each).unlink(missing_ok=True)
    for split, rows in prepared.every.items():
        write_lines(out / f"label_{split}.txt", [f"{i} {c} {v}" for i, c, v in rows.tolist()])
    notes = prepared.notes + survival(out, release)
    dataset = read_dataset(out)
    dataset.findings[:0] = notes
    return dataset


# The command line


def parser(doc: str, name: str, splits: bool = True) -> argparse.ArgumentParser:
    """--out, --seed, --by-content, and --splits where ASEN has split files for the data set `name`."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help=f"folder to write, e.g. data/{name}")
    if splits:
        told = f"ASEN's split files: the folder {name}, or the one that holds it; without: seeded splits"
        made.add_argument("--splits", type=Path, metavar="DIR", help=told)
    made.add_argument("--seed", type=int, default=0, help="of the seeded splits (%(default)s)")
    told = "seeded splits: images of the same bytes go to one split (reads those of equal size)"
    made.add_argument("--by-content", action="store_true", help=told)
    return made


def guarded(work: Callable[[], None]) -> None:
    """Run a script's work; what a user can cause ends in one line `error: ...` and exit status 1."""
    try:
        work()
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted; the same command goes on from there") from None
    except (ValueError, OSError) as error:  # a DataError is a ValueError
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None


def beside(found: dict[str, int], expected: dict[str, int]) -> list[str]:
    """Lines of counts, found and expected.

    >>> beside({"images": 7}, {"images": 8, "valid": 2})
    ['images: 7 found, 8 expected', 'valid: 0 found, 2 expected']
    """
    return [f"{what}: {found.get(what, 0):,} found, {n:,} expected" for what, n in expected.items()]


def tell(out: Path, dataset: Dataset, notes: Sequence[str] = ()) -> None:
    """Print what was written, and every finding."""
    counts = ", ".join(f"{name} {len(split.filenames)}" for name, split in dataset.splits.items())
    how = dataset.about.get("split", "")
    print(f"wrote {out}: {counts} images ({how})", *notes, *dataset.findings, sep="\n")
