"""Bring the images of a release: one file, or all that it names, copied or hard-linked, whole or not at all.

A file counts as the same only if its bytes are. A name that is not there is said, with the name that it would
have been found by.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from tqdm import tqdm

from ccakit.data.text import count
from ccakit.disk import atomic_write, file_digest, leads_out, linked_folders
from ccakit.errors import DataError


def place(source: Path, target: Path, link: bool = False) -> str:
    """Copy a file (link: hard-link it), completely or not at all: "copied", "linked", or "" if it is there.

    Where the disk does not allow the hard link, as to another disk, it is copied.
    """
    if target.is_file() and same_content(source, target):
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        if link:
            try:
                os.link(os.path.realpath(source), temporary)
                return "linked"
            except OSError:  # of many kinds, by disk; what forbids copying, too, is raised below
                pass
        shutil.copyfile(source, temporary)
    return "copied"


def same_content(a: Path, b: Path) -> bool:
    """Say whether two files hold the same bytes."""
    if a.samefile(b):
        return True
    return a.stat().st_size == b.stat().st_size and file_digest(a) == file_digest(b)


def keep(data: bytes, path: Path) -> bool:
    """Write a small file, completely or not at all; return False if it is there with these bytes."""
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return True


@dataclass(frozen=True)
class Source:
    """Where images are brought from: their folder, and for errors the file that lists them, and its lines."""

    folder: Path
    listed: Path | None = None
    lines: Sequence[int] | None = None

    def error(self, problem: str, remedy: str, image: int = 0) -> DataError:
        """Make the error about one of the images."""
        return DataError(self.listed or self.folder, problem, remedy, self.lines and self.lines[image])


def bring(names: Sequence[str], source: Source, out: Path, link: bool = False) -> tuple[int, list[str]]:
    """Copy or link the named files of a folder to `out`; return how many were new, and notes.

    DataError if it is not a folder, if a name is a link that leads out of it, and if no name is there.
    """
    root = source.folder
    if not root.is_dir():
        raise DataError(root, "is not a folder", "Give the folder that the images' paths start from.")
    done: Counter[str] = Counter()
    for image, name in enumerate(tqdm(names, desc=f"bring {root.name}", unit="file", disable=None)):
        if not (root / name).is_file():
            continue
        if leads_out(root, name):
            remedy = "Put the file itself there."
            raise source.error(f"{name!r} is a link to outside the folder {root}", remedy, image)
        done[place(root / name, out / name, link)] += 1
    notes = check_found(names, source)
    notes += [f"{root} is a link to {root.resolve()}"] if root.is_symlink() else []
    notes += linked_folders(root, names)
    if link and done["copied"]:
        files = count(done["copied"], "file")
        notes.append(f"{files} copied, not linked: {out} allows no hard links to {root}, as on another disk")
    return done["copied"] + done["linked"], notes


def check_found(names: Sequence[str], source: Source) -> list[str]:
    """Say how names that are not in the folder would be found, if they would; DataError if none is there."""
    missing = [name for name in names if not (source.folder / name).is_file()]
    if not missing:
        return []
    hint = found_otherwise(missing, source.folder, set(names))
    if len(missing) < len(names):
        return [f"{count(len(missing), 'image')} not found in {source.folder}: {hint}"] if hint else []
    problem = (
        f"none of {count(len(names), 'image')} found; the first that was tried is {source.folder / names[0]}"
    )
    if hint:
        raise source.error(problem, f"Change the paths, or the folder: {hint}.")
    files = list(files_under(source.folder))
    holds = f"{source.folder} holds {count(len(files), 'file')}{f', as {files[0]!r}' if files else ''}"
    remedy = f"Give the folder that the paths start from, and the column of a table: {holds}."
    raise source.error(problem, remedy)


def files_under(root: Path) -> Iterator[str]:
    """Yield the files below a folder, relative to it. Links to folders right below it are followed."""
    tops = [root, *(path for path in sorted(root.iterdir()) if path.is_symlink() and path.is_dir())]
    for top in tops:
        for folder, _, files in os.walk(top):
            yield from (Path(folder, file).relative_to(root).as_posix() for file in sorted(files))


# How a name and a file may be the same: from the smallest change to the largest


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _decoded(name: str) -> str:
    return unquote(_slashes(name))


def _composed(name: str) -> str:
    seen = "".join(sign for sign in _decoded(name) if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFC", seen)


def _folded(name: str) -> str:
    return _composed(name).casefold()


def _no_ending(name: str) -> str:
    return re.sub(r"\.[^./]*$", "", _folded(name))


def _last(name: str) -> str:
    return PurePosixPath(_folded(name)).name


def _last_no_ending(name: str) -> str:
    return PurePosixPath(_no_ending(name)).name


def _number(name: str) -> str:
    return re.sub(r"^0+(?=.)", "", _last_no_ending(name))


Change = Callable[[str], str]
CHANGES: dict[str, tuple[Change, Change]] = {  # of the name, of the file
    "with / for \\": (_slashes, _slashes),
    "without codes such as %20": (_decoded, _decoded),
    "in another Unicode form": (_composed, _composed),
    "in other upper and lower case": (_folded, _folded),
    "with an ending": (_folded, _no_ending),
    "with another ending": (_no_ending, _no_ending),
    "in another folder": (_last, _last),
    "in another folder, with an ending": (_last, _last_no_ending),
    "in another folder, with another ending": (_last_no_ending, _last_no_ending),
    "with other leading zeros": (_number, _number),
}


def found_otherwise(missing: Sequence[str], root: Path, taken: set[str]) -> str:
    """Say by which smallest change names would be found among the files that nothing names; "" if by none."""
    files = [file for file in files_under(root) if file not in taken]
    for words, (of_name, of_file) in CHANGES.items():
        there = {of_file(file): file for file in files}
        found = {name: there[of_name(name)] for name in missing if of_name(name) in there}
        if found:
            name, file = next(iter(found.items()))
            return f"{len(found)} of {len(missing)} are there {words}, as {file!r} for {name!r}"
    return ""
