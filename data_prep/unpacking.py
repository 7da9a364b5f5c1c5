"""Unpack zip and tar safely: nothing outside the target, no bombs, each file completely or not at all."""

from __future__ import annotations

import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from ccakit.data.text import CONTROL
from ccakit.disk import atomic_write
from ccakit.errors import DataError

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error)  # of archives
BROKEN += (EOFError, RuntimeError, ValueError, IndexError, OverflowError)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold; beyond it, it is refused as a bomb.

    total: bytes of all files. files: their number. ratio: unpacked bytes for each packed byte, of one file
    and of the archive; below `slack` bytes it does not matter.
    """

    total: int = 64 * 2**30
    files: int = 2_000_000
    ratio: int = 300
    slack: int = 16 * 2**20

    def most(self, packed: int) -> int:
        """Return how many bytes `packed` bytes may become."""
        return min(self.total, max(self.slack, self.ratio * packed))


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked.

    Names: every file of the archive, relative to `out`; written: how many this call wrote.
    """

    names: list[str]
    written: int


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive; `size`, and of a zip `packed` and `crc`, are what its header says."""

    name: str
    size: int
    packed: int | None
    crc: int | None
    folder: bool
    problem: str
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, out: Path, limits: Limits | None = None) -> Unpacked:
    """Unpack a zip or tar into `out`; a file that is there with the same size and CRC is kept as it is.

    Refused before anything is written: absolute names, "..", drive letters, backslashes, control characters,
    links and devices, encrypted members, and sizes over the limits. The bytes are counted again on writing,
    as headers may lie. DataError for these, and for an archive that is missing, broken or cut short.
    """
    archive, out, limits = Path(archive), Path(out), limits or Limits()
    with _opened(archive, limits) as members:
        return _unpack(archive, out, members, limits)


def names_in(archive: Path, limits: Limits | None = None) -> list[str]:
    """List the names of an archive's files, checked as `unpack` does; nothing is written."""
    with _opened(Path(archive), limits or Limits()) as members:
        return [PurePosixPath(member.name).as_posix() for member in members]


@contextmanager
def _opened(archive: Path, limits: Limits) -> Iterator[list[_Member]]:
    """Open an archive and yield its checked files; an error in the archive becomes a DataError."""
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
        raise DataError(
            archive, "is missing" if missing else f"cannot be unpacked ({error})", remedy
        ) from None
    except OSError as error:
        raise DataError(
            archive, f"cannot be unpacked ({error})", "Make room, or repair the archive."
        ) from None


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
            yield _Member(
                info.filename, info.file_size, info.compress_size, info.CRC, info.is_dir(), problem, opener
            )
        return
    pack = stack.enter_context(tarfile.open(archive, "r:*"))
    for info in pack:
        problem = "" if info.isreg() or info.isdir() else "is a link or a device"
        yield _Member(
            info.name, info.size, None, None, info.isdir(), problem, partial(pack.extractfile, info)
        )


def _checked(archive: Path, members: Iterable[_Member], limits: Limits) -> list[_Member]:
    """List the files of an archive, if all of its members may be unpacked.

    MacOS's extra files are left out.
    """
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
    """Say why a name may not be written, or "": it must stay inside the folder on every system."""
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
        if _is_there(path, member):
            left -= member.size
            continue
        left -= _write_member(archive, member, path, min(left, _most(member, limits)))
        written += 1
    return Unpacked(names, written)


def _is_there(path: Path, member: _Member) -> bool:
    """Say whether the file was unpacked before: it has the member's size and CRC.

    A tar has no CRCs: the member is read for it.
    """
    if path.is_symlink() or not path.is_file() or path.stat().st_size != member.size:
        return False
    with open(path, "rb") as file:
        crc = _crc(file, member.size)
    if member.crc is not None:
        return crc == member.crc
    with member.open() as packed:
        return crc == _crc(packed, member.size)


def _crc(file: IO[bytes], size: int) -> int:
    """Compute the CRC of the first bytes of a file."""
    crc = 0
    while block := file.read(min(size, 2**20)):
        crc, size = zlib.crc32(block, crc), size - len(block)
    return crc


def _write_member(archive: Path, member: _Member, path: Path, most: int) -> int:
    """Write one file, completely or not at all; return the number of its bytes, which is counted."""
    size = 0
    with member.open() as source, atomic_write(path) as temporary, open(temporary, "wb") as target:
        while block := source.read(2**20):
            size += len(block)
            if size > most:
                raise _bomb(archive, f"{member.name[:200]!r} goes on after {most:,} bytes")
            target.write(block)
    return size
