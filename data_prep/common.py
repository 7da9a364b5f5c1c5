"""What the scripts of this folder share: files, checks, ASEN's splits, reports, the command line.

The scripts run as `python data_prep/NAME.py`, and import this file as `common`; it passes on what they need
of `unpacking`, `placing` and `splitting`. In the order of a script:

    unpack(archive, out)                     zip or tar -> files under out; resumes, refuses what is unsafe
    bring(names, Source(folder), out)        copy (or hard-link) the files of a folder that a release names
    use_splits(given, out, "DARN", known)    ASEN's split files, used as they are -> Dataset and notes
    seeded_splits(out, attributes, ...)      splits of ASEN's proportions (8:1:1, queries 1:4) -> Prepared
    write_prepared(out, name, attributes, prepared, about)  -> Dataset
    parser(__doc__, ...), guarded(work), tell(dataset, notes)   the command line
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from placing import Source, bring, check_found, files_under, keep, place  # noqa: F401 (for the scripts)
from splitting import Prepared, deal, rarest, seeded_splits  # noqa: F401 (for the scripts)
from tqdm import tqdm
from unpacking import Limits, Unpacked, names_in, unpack  # noqa: F401 (for the scripts)

from ccakit.attributes import Attributes
from ccakit.audit.tables import label_counts
from ccakit.data.layout import read_dataset, write_dataset
from ccakit.data.meta import Meta, meta_json, read_meta
from ccakit.data.rows import read_all_values
from ccakit.data.split import SPLITS, Dataset
from ccakit.data.text import check_name, count, read_filenames  # noqa: F401 (for the scripts)
from ccakit.data.triplet_lists import triplets_path, write_drawn_triplets
from ccakit.disk import file_digest, write_lines, write_text
from ccakit.errors import DataError, in_words

LISTS = tuple(
    f"{kind}_{split}.txt" for split in SPLITS for kind in ("filenames", "label", "query", "candidate")
)
GIVEN = "ASEN's split files"
KNOWN_SUMS = label_counts()["sha256"]  # of the split files that the readers of this package were checked with


# Checks


def check_sums(folder: Path, known: dict[str, str]) -> list[str]:
    """Compare the files of a folder with known checksums, {name: sha256}; return findings, never an error."""
    here = [name for name in known if (folder / name).is_file()]
    differs = [name for name in here if file_digest(folder / name) != known[name]]
    notes = [f"{count(len(here) - len(differs), 'file')} of {len(here)} with a known checksum verified"]
    return notes + [f"{name}: differs from the one this was checked with (sha256)" for name in differs]


def content_groups(paths: Sequence[Path]) -> np.ndarray:
    """Number the files so that files of the same bytes have the same number: (n,) int64.

    Only files of equal size are read. Each missing file has a number of its own.
    """
    sizes: dict[int, list[int]] = {}
    for i, path in enumerate(paths):
        sizes.setdefault(path.stat().st_size if path.is_file() else -1 - i, []).append(i)
    groups, first = np.arange(len(paths)), {}
    for same in tqdm([s for s in sizes.values() if len(s) > 1], desc="compare contents", disable=None):
        for i in same:
            groups[i] = first.setdefault(file_digest(paths[i]), i)
    return groups


def only_present(
    out: Path, filenames: Sequence[str], rows: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keep the images that are files under `out`.

    Returns their names, their rows (R', 3) by their new numbers, and which of the images they are, (n,) bool.
    """
    here = np.array([os.path.isfile(out / name) for name in filenames], bool)
    mine = rows[here[rows[:, 0]]]
    mine[:, 0] = (np.cumsum(here) - 1)[mine[:, 0]]
    return [name for name, is_here in zip(filenames, here) if is_here], mine, here


def survival(out: Path, release: Sequence[str] = ()) -> list[str]:
    """Write survival.json, and return findings: how many images of each filenames_*.txt are there.

    release: the images that the release's own labels name; they are reported in the same way, as "release".
    """
    report, notes = {}, []
    lists = {split: out / f"filenames_{split}.txt" for split in SPLITS}
    every = {split: read_filenames(path).lines for split, path in lists.items() if path.is_file()}
    for split, names in [*every.items(), *([("release", release)] if len(release) else [])]:
        missing = [name for name in names if not os.path.isfile(out / name)]
        report[split] = {"listed": len(names), "present": len(names) - len(missing), "missing": missing}
        if missing:
            listed = f"{len(missing)} of {len(names)} listed images"
            notes.append(f"{split}: {listed} are missing (survival.json)")
    write_lines(out / "survival.json", json.dumps(report, indent=1, ensure_ascii=False).split("\n"))
    return notes


def agreement(dataset: Dataset, rows: np.ndarray, filenames: Sequence[str]) -> str:
    """Say how many of the data set's labels the release has, too.

    Its rows (R, 3) index its own `filenames`.
    """
    index, same, total = {name: i for i, name in enumerate(filenames)}, 0, 0
    release = set(map(tuple, rows.tolist()))
    for split in dataset.splits.values():
        total += len(split.labels)
        same += sum((index.get(split.filenames[i]), c, v) in release for i, c, v in split.labels.tolist())
    return f"{same:,} of {total:,} labels of ASEN's lists are those of the release"


# ASEN's splits


def use_splits(
    given: Path, out: Path, name: str, known: Attributes, about: dict[str, Any], release: Sequence[str] = ()
) -> tuple[Dataset, list[str]]:
    """Copy ASEN's lists into `out` byte for byte, write meta.json, survival.json and triplets of test, and
    read it back.

    given: the folder of the lists, or a folder that holds a folder `name` ("FashionAI") with the lists, or an
    archive of either. known: the attributes to use if there is no meta.json; their value names are used, too,
    if names and sizes are the same. Missing images are findings, and are listed in survival.json, with those
    of the `release` (see `survival`). DataError if there is no list, or one cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lists_folder(given, name) as folder:
        present = [each for each in LISTS if (folder / each).is_file()]
        if not present:
            remedy = f"Give ASEN's folder {name}, the one that holds it, or its meta_data.tar.gz."
            raise DataError(
                given, "has none of the lists filenames_*.txt, label_*, query_*, candidate_*", remedy
            )
        notes = check_sums(
            folder, {each.split("/")[1]: s for each, s in KNOWN_SUMS.items() if each.startswith(name)}
        )
        attributes = _given_attributes(folder, known)
        for each in LISTS:
            if each not in present:
                (out / each).unlink(missing_ok=True)  # of an earlier run
            else:
                place(folder / each, out / each)
    write_text(out / "meta.json", meta_json(Meta(name, attributes, {**about, "split": GIVEN})))
    dataset = read_dataset(out)
    rows = read_all_values(out, "test") if (out / "label_test.txt").is_file() else None
    _draw_triplets(dataset, rows)
    return dataset, notes + survival(out, release)


@contextmanager
def lists_folder(given: Path, name: str) -> Iterator[Path]:
    """Yield the folder `name` of `given`, or `given` itself.

    An archive is unpacked into a temporary folder.
    """
    if not given.is_file():
        yield given / name if (given / name).is_dir() else given
        return
    with TemporaryDirectory() as aside:
        root = Path(aside) / "splits"
        unpack(given, root)
        try:
            lists = sorted(root.rglob("filenames_*.txt"))
            yield next((path.parent for path in lists if path.parent.name == name), root)
        except DataError as error:
            if not error.path.is_relative_to(root):
                raise
            problem = f"{error.path.relative_to(root)}: {error.problem}"  # the file itself will be gone
            raise DataError(given, problem, error.remedy, error.line) from None


def _given_attributes(folder: Path, known: Attributes) -> Attributes:
    """Read the attributes of the meta.json beside or above the lists, with the names of known values."""
    if not any((at / "meta.json").is_file() for at in (folder, folder.resolve().parent)):
        return known
    given = read_meta(folder).attributes
    values = dict(zip(known.names, known.values))
    named = (
        values.get(n, v) if len(values.get(n, ())) == len(v) else v for n, v in zip(given.names, given.values)
    )
    return Attributes(given.names, tuple(named))


def write_prepared(
    out: Path,
    name: str,
    attributes: Attributes,
    prepared: Prepared,
    about: dict[str, Any],
    release: Sequence[str] = (),
) -> Dataset:
    """Write lists, all values (label_valid.txt, label_test.txt), meta.json, survival.json and triplets of
    test; read them back.

    Lists of an earlier run that this run does not write are removed. For `release` see `survival`. The
    findings of the data set begin with those of the preparation.
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
    _draw_triplets(dataset, prepared.every.get("test"))
    return dataset


def _draw_triplets(dataset: Dataset, rows: np.ndarray | None) -> None:
    """Write triplets_test.txt, for Table 5's measure. rows: all labels of test, where its lists lack some."""
    triplets_path(dataset.root, "test").unlink(missing_ok=True)  # of an earlier run
    if "test" in dataset.splits:
        write_drawn_triplets(dataset["test"], rows, dataset.about.get("seed", 0))


# The command line


def parser(doc: str, name: str, splits: bool = True, by_content: bool = True) -> argparse.ArgumentParser:
    """Make a parser with --out and --seed, and with --splits (ASEN's) and --by-content if asked for."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help=f"folder to write, e.g. data/{name}")
    if splits:
        words = (
            f"ASEN's split files: meta_data.tar.gz, its folder {name} or the one above; else seeded splits"
        )
        made.add_argument("--splits", type=Path, metavar="PATH", help=words)
    made.add_argument("--seed", type=int, default=0, help="of the seeded splits (%(default)s)")
    if by_content:
        words = "seeded splits: images of the same bytes go to one split (reads those of equal size)"
        made.add_argument("--by-content", action="store_true", help=words)
    return made


def guarded(work: Callable[[], None]) -> None:
    """Run the work of a script.

    An error that a user can cause ends in one line `error: ...` and exit status 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks
    try:
        work()
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted; the same command goes on from there") from None
    except OSError as error:
        problem = f"{error.filename or 'a file'}: cannot be read or written ({error.strerror or error})"
        raise SystemExit(f"error: {problem}. Look at its kind, rights and disk, or give another.") from None
    except ValueError as error:  # a DataError is one
        raise SystemExit(f"error: {' '.join(in_words(error).split())}") from None


def beside(found: dict[str, int], expected: dict[str, int]) -> list[str]:
    """Write counts, found and expected, a line each.

    >>> beside({"images": 7}, {"images": 8, "valid": 2})
    ['images: 7 found, 8 expected', 'valid: 0 found, 2 expected']
    """
    return [f"{what}: {found.get(what, 0):,} found, {n:,} expected" for what, n in expected.items()]


def tell(out: Path, dataset: Dataset, notes: Sequence[str] = ()) -> None:
    """Print what was written, and every finding."""
    counts = ", ".join(f"{name} {len(split.filenames)}" for name, split in dataset.splits.items())
    how = dataset.about.get("split", "")
    print(f"wrote {out}: {counts} images ({how})", *notes, *dataset.findings, sep="\n")
