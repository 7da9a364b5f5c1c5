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
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from ccakit.attributes import Attributes
from ccakit.data.errors import DataError
from ccakit.data.files import CONTROL, check_filenames, count, read_filenames, write_lines
from ccakit.data.layout import SPLITS, Dataset, Split, read_dataset, write_dataset
from ccakit.data.meta import Meta, meta_lines, read_meta
from ccakit.data.rows import distinct

LISTS = tuple(f"{kind}_{split}.txt" for split in SPLITS for kind in ("filenames", "label", "query", "candidate"))
SEEDED, GIVEN = "seeded, not ASEN's, seed {}", "ASEN's split files"
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error)  # of archives
BROKEN += (EOFError, RuntimeError, ValueError, IndexError, OverflowError)
KNOWN_SUMS = {  # sha256 of the split files that the readers of this package were checked with
    "DARN/candidate_test.txt": "514470e236798532ad2e6b1e1dda87bb579190ebc06699c0be082def000c2ebb",
    "DARN/candidate_valid.txt": "cc62b44f14768d057e63e6802a46367db2a2e9b406e07344b64662086742ca8c",
    "DARN/filenames_test.txt": "a6be5cba4c2695a4a4273008c7da8277ec1395806e2184dff07fa48d83e95aa2",
    "DARN/filenames_valid.txt": "2c2f3f8833dd98dc6aaab2c6e4c799735e748821a5959e0e04dfdb59ce27c09e",
    "DARN/query_test.txt": "70ab8cfd1d9ad9a9a6c697aab397b6dc9e2c32dcc53f26f619c9ec5e9b8f34e4",
    "DARN/query_valid.txt": "c2241d1e716cfa4b64fb07abee0aaecbed1618aa34f341de7769a14292f5441b",
    "DeepFashion/candidate_test.txt": "c87b3319d094624884c030c263e77205dbeb966ef92d22d813369549b2dc045d",
    "DeepFashion/candidate_valid.txt": "f29e4f3cbd654b68da74d377565ff59123cb85e83e15468ef220e6d286a2aa1a",
    "DeepFashion/filenames_test.txt": "15693496f6edc71e4b7d9c572c6502e32ed74e3da711e14c4133afab0b8aeb6f",
    "DeepFashion/filenames_valid.txt": "d6daeffd9d8ab55b2968ea9ba79c8805434a408b50ee4a6260624f98fcbd614b",
    "DeepFashion/label_test.txt": "3065d0a9bd98b0e2cd71dfc645e95456257110318e0ae137aa4aecd49955016c",
    "DeepFashion/label_valid.txt": "e4516f32583c8125d7e158c95a877e55600af243f046ef72547fa93244893de8",
    "DeepFashion/query_test.txt": "3a6b6172aeef3057217fbb4be9d091a961d48aff89a7dcfbcb92967fbacf567a",
    "DeepFashion/query_valid.txt": "ea657097935f9c8209ba822225eb59beacbd87a010fb2b98c80ad34206e2bdc3",
    "FashionAI/candidate_test.txt": "2bfaafa075d5c9652ab819b51e774eba76f6eda9cf93b16cc7f20639ade2f530",
    "FashionAI/candidate_valid.txt": "b2dad42fb4cb387126eb3619dde9467c357e918b24da7a3f549e89a4ca214c3f",
    "FashionAI/filenames_test.txt": "b68e55eb939aaf48b29eb99b6207f817315f524a79d7ca2b17e1132582078fb0",
    "FashionAI/filenames_valid.txt": "267ab2bd19dcab79ee2add7213d657287f7e09ee7cb63c64364870c8e756f926",
    "FashionAI/label_train.txt": "5560a60bd35540089131a68770c37e1265106a5afd078cddc63761e8e0eef7b2",
    "FashionAI/query_test.txt": "78d8425a2a27ed1143e467c13ed7e19356dfb7ae0e771d39f0745f754caac1ad",
    "FashionAI/query_valid.txt": "2ea9edbf97d0e8c95ce855627d74ecb9f3f728f6ca7e4859f00970d606ad78e6",
}


# Unpacking


@dataclass(frozen=True)
class Limits:
    """What an archive may hold before it is taken for a bomb.

    total: bytes of all files. files: their number. ratio: unpacked bytes for each packed byte, of one file and
    of the archive; not looked at below `slack` bytes.
    """

    total: int = 64 * 2**30
    files: int = 2_000_000
    ratio: int = 300
    slack: int = 16 * 2**20

    def most(self, packed: int) -> int:
        """The most bytes that `packed` bytes may become."""
        return min(self.total, max(self.slack, self.ratio * packed))


@dataclass(frozen=True)
class Unpacked:
    """names: every file of the archive, relative to `out`; written: how many this call wrote."""

    names: list[str]
    written: int


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive; `size` and `packed` (None in a tar) are what its header says."""

    name: str
    size: int
    packed: int | None
    folder: bool
    problem: str
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, out: Path, limits: Limits | None = None) -> Unpacked:
    """Unpack a zip or tar into `out`; a file that is there with the same size is kept as it is.

    Refused before anything is written: absolute names, "..", drive letters, backslashes, control characters,
    links and devices, encrypted members, and sizes over the limits. The bytes are counted again on writing,
    as headers may lie. DataError for these, and for an archive that is missing, broken or cut short.
    """
    archive, out, limits = Path(archive), Path(out), limits or Limits()
    with _opened(archive, limits) as members:
        return _unpack(archive, out, members, limits)


def names_in(archive: Path, limits: Limits | None = None) -> list[str]:
    """The names of an archive's files, checked as by `unpack`; nothing is written."""
    with _opened(Path(archive), limits or Limits()) as members:
        return [PurePosixPath(member.name).as_posix() for member in members]


@contextmanager
def _opened(archive: Path, limits: Limits) -> Iterator[list[_Member]]:
    """An archive's files, checked; what is wrong with the archive becomes a DataError."""
    remedy = "Take the archive again from its source, or unpack it yourself and give the folder."
    try:
        with ExitStack() as stack:
            yield _checked(archive, _members(archive, stack), limits)
    except DataError:
        raise
    except BROKEN as error:
        raise DataError(archive, f"is broken, or no zip or tar ({error})", remedy) from None
    except FileNotFoundError as error:
        missing = not archive.exists()
        raise DataError(archive, "is missing" if missing else f"cannot be unpacked ({error})", remedy) from None
    except OSError as error:
        raise DataError(archive, f"cannot be unpacked ({error})", "Make room, or repair the archive.") from None


def _members(archive: Path, stack: ExitStack) -> Iterator[_Member]:
    with open(archive, "rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped or zipfile.is_zipfile(archive):
        pack = stack.enter_context(zipfile.ZipFile(archive))
        for info in pack.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            problem = "is encrypted" if info.flag_bits & 1 else ""
            problem = problem if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device"
            opener = partial(pack.open, info)
            yield _Member(info.filename, info.file_size, info.compress_size, info.is_dir(), problem, opener)
        return
    pack = stack.enter_context(tarfile.open(archive, "r:*"))
    for info in pack:
        problem = "" if info.isreg() or info.isdir() else "is a link or a device"
        yield _Member(info.name, info.size, None, info.isdir(), problem, partial(pack.extractfile, info))


def _checked(archive: Path, members: Iterable[_Member], limits: Limits) -> list[_Member]:
    """The files of an archive, if all of its members may be unpacked; macOS's own clutter is left out."""
    files, total, most = [], 0, limits.most(archive.stat().st_size)
    for member in members:
        problem = member.problem or _unsafe(member.name)
        if problem:
            remedy = "Unpack it yourself and give the folder, or take the archive from its source."
            raise DataError(archive, f"{member.name[:200]!r} {problem}", remedy)
        parts = PurePosixPath(member.name).parts
        if member.folder or not parts or parts[0] == "__MACOSX" or parts[-1] == ".DS_Store":
            continue
        files.append(member)
        total += member.size
        if total > most or len(files) > limits.files or member.size > _most(member, limits):
            raise _bomb(archive, f"{len(files):,} files and {total:,} bytes by {member.name[:200]!r}")
    return files


def _unsafe(name: str) -> str:
    """Why a name may not be written, or "": it must stay inside the folder on every system."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or any(re.match("[A-Za-z]:", p) for p in parts):
        return "points, or could point, outside the target folder"
    return "holds a control character" if CONTROL.search(name) else ""


def _most(member: _Member, limits: Limits) -> int:
    return limits.total if member.packed is None else limits.most(member.packed)


def _bomb(archive: Path, found: str) -> DataError:
    remedy = "If you trust the archive, unpack it yourself and give the folder."
    return DataError(archive, f"unpacks to more than it may ({found})", remedy)


def _unpack(archive: Path, out: Path, members: list[_Member], limits: Limits) -> Unpacked:
    names, written, left = [], 0, limits.most(archive.stat().st_size)
    out.mkdir(parents=True, exist_ok=True)
    root, folders = out.resolve(), set()
    for member in tqdm(members, desc=f"unpack {archive.name}", unit="file", disable=None):
        names.append(PurePosixPath(member.name).as_posix())
        path = out / names[-1]
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.resolve().is_relative_to(root):
                raise DataError(path.parent, "is a link to outside the target folder", "Remove the link.")
            folders.add(path.parent)
        if path.is_file() and not path.is_symlink() and path.stat().st_size == member.size:
            left -= member.size
            continue
        left -= _write_member(archive, member, path, min(left, _most(member, limits)))
        written += 1
    return Unpacked(names, written)


def _write_member(archive: Path, member: _Member, path: Path, most: int) -> int:
    """Write one file to a temporary name, then rename it; how many bytes it had, counted."""
    temporary, size = path.with_name(f".{path.name}.part"), 0
    try:
        with member.open() as source, open(temporary, "wb") as target:
            while block := source.read(2**20):
                size += len(block)
                if size > most:
                    raise _bomb(archive, f"{member.name[:200]!r} goes on after {most:,} bytes")
                target.write(block)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return size


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
