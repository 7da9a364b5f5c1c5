"""JSON, text and tensors on disk: a file is written completely or not at all, and read with one clear error.

All text files are UTF-8.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ccakit.errors import DataError

LONGEST_NAME = 255  # bytes: the limit of ext4, XFS, APFS and NTFS alike


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Make an OSError inside, for example of a full disk, name this file and no other."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk by the latter
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(getattr(error, "errno", None), reason, str(path)) from error


@contextmanager
def writing(folder: Path, then: str) -> Iterator[None]:
    """Raise DataError if something inside cannot be written: the file, why, and what to do `then`."""
    try:
        yield
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        remedy = f"Make room there, or make it writable; {then}."
        raise DataError(error.filename or folder, problem, remedy) from error


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a partial file to write; it replaces `path` at the end, or is removed after an error inside.

    durable: the bytes are on the disk before the file replaces `path`. An OSError names `path`.
    """
    partial = partial_of(path)
    with named(path):
        partial.unlink(missing_ok=True)  # a link that somebody put there is not followed
        try:
            yield partial
            if durable:
                sync(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Name the file that this process writes before `path`; it differs between machines that share a disk.

    Where the suffix would make the name too long for a disk, a digest stands for the name.
    """
    name, suffix = path.name, f"{socket.gethostname()}-{os.getpid()}.partial"
    if len(os.fsencode(f".{name}.{suffix}")) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{suffix}")


def file_name(text: str) -> str:
    """Make a part of a file's name of a text, such as the name of a data set; others stay apart.

    In a long one, a digest stands for the end, so that there is room for the other parts.

    >>> file_name("acme/shoes v1.0")
    'acme%2Fshoes v1.0'
    """
    name = re.sub(r"[/\\\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", text)
    if len(os.fsencode(name)) <= LONGEST_NAME - 55:
        return name
    return f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"


def project_folder() -> Path:
    """Find the nearest folder upward that holds notebooks/, else the current one."""
    here = Path.cwd()
    return next((f for f in (here, *here.parents) if (f / "notebooks").is_dir()), here)


def refuse_existing(path: Path) -> None:
    """Raise DataError where a file or folder that --out names exists; an empty folder may."""
    real = Path(os.path.abspath(path))  # new/.. is a folder, too
    if os.path.lexists(real) and not (real.is_dir() and not any(real.iterdir())):
        raise DataError(path, "exists already", "Choose another name, or replace it with --overwrite.")


def check_output(path: Path) -> None:
    """Check that a file can be written, before what it shall hold is computed; nothing is left there.

    DataError where it cannot be.
    """
    with writing(path, "or choose another place for the result"), named(path):
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if os.path.isdir(os.path.abspath(path)):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if path.exists() and not path.is_file():  # /dev/null, which a file would replace
            raise OSError(errno.EINVAL, "it is not an ordinary file")
        for name in (path.name, partial_of(path).name):
            if not os.path.lexists(parent / name):
                (parent / name).touch()
                (parent / name).unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_text(path: str | Path, remedy: str) -> str:
    """Read a UTF-8 file, with or without a byte-order mark; DataError with the remedy if that fails."""
    try:
        data = Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(path, "is missing", remedy) from error
    except UnicodeDecodeError as error:
        line = len((data[: error.start] + b".").splitlines())
        raise DataError(path, f"is not UTF-8 ({error.reason})", "Save the file as UTF-8.", line) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise DataError(path, f"cannot be read ({error})", remedy) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically; line ends stay as they are in the text."""
    with (
        atomic_write(path, durable=True) as partial,
        open(partial, "w", encoding="utf-8", newline="") as file,
    ):
        file.write(text)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write lines, with an LF after each, as `write_text` does."""
    write_text(path, "\n".join(lines) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object; DataError with the remedy if the file is missing or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(path, "is missing", remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"is not readable JSON ({error})", remedy) from error
    if not isinstance(values, dict):
        raise DataError(path, "does not hold a JSON object", remedy)
    return values


def write_json(path: Path, values: dict) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def save_tensors(tensors: dict, path: Path, about: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically, with the usual rights; the library lets only its owner read it.

    about: words that the file's header keeps, as JSON under "about": of several entries, safetensors would
    change the order, and with it the file's checksum.
    """
    from safetensors.torch import save_file  # imports torch

    header = None if about is None else {"about": json.dumps(about)}
    with atomic_write(path, durable=True) as partial:
        partial.touch()
        usual = partial.stat().st_mode
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial, header)
        partial.chmod(usual)


def load_tensors(path: Path, remedy: str) -> dict:
    """Read tensors by name; DataError with the remedy if the file is missing or not complete."""
    from safetensors.torch import load_file  # imports torch

    if not path.is_file():
        raise DataError(path, "is missing", remedy)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(path, f"is not a whole safetensors file ({error})", remedy) from error


def differences(tensors: dict, wanted: dict) -> str:
    """Say where tensors differ from those wanted in name, shape or kind (of fractions or not); "" if nowhere.

    >>> import torch
    >>> differences({"a": torch.zeros(2)}, {"a": torch.zeros(3), "b": torch.zeros(1)})
    'lacks b, has in another shape or type a'
    """

    def form(tensor) -> tuple:
        return tensor.shape, tensor.is_floating_point()

    shared = [name for name in wanted if name in tensors]
    differing = {
        "lacks": [name for name in wanted if name not in tensors],
        "also has": [name for name in tensors if name not in wanted],
        "has in another shape or type": [n for n in shared if form(tensors[n]) != form(wanted[n])],
    }
    parts = []
    for problem, names in differing.items():
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            parts.append(f"{problem} {names[0]}{more}")
    return ", ".join(parts)


def leads_out(root: Path, name: str) -> bool:
    """Say whether a file of a data set lies elsewhere: by a link, by an absolute path, or by '..'.

    The folder that `name` begins with may be a link itself: what lies below its target is inside.
    """
    root = Path(os.path.realpath(root))
    top, *below = os.path.normpath(name).split(os.sep)
    if top in ("", os.pardir):
        return True
    inside = [root, Path(os.path.realpath(root / top))] if below else [root]
    return not any(Path(os.path.realpath(root / name)).is_relative_to(folder) for folder in inside)


def linked_folders(root: Path, names: Iterable[str]) -> list[str]:
    """Say which of the folders that the names begin with are links, and to where."""
    tops = sorted({name.removeprefix("./").partition("/")[0] for name in names if "/" in name})
    links = [top for top in tops if os.path.islink(root / top)]
    return [f"{top}/ is a link: its images are read from {os.path.realpath(root / top)}" for top in links]


def file_digest(file: Path, kind: str = "sha256") -> str:
    """Return the checksum of a file in hexadecimal; kind: one of hashlib's, such as "sha256" or "md5"."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(file, "rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_digest(data: bytes) -> str:
    """Return a fast digest of a file's content in hexadecimal, by which a picture is known again."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
