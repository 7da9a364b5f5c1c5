"""JSON, text and tensors on disk: each file is written whole or not at all, and read with one clear error."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ccakit.errors import DataError


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError inside, of a full disk for one, names this file and no other."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # the latter is how safetensors tells of a full disk
        number, told = getattr(error, "errno", None), getattr(error, "strerror", None) or str(error)
        raise OSError(number, told, str(path)) from error


@contextmanager
def writing(folder: Path, then: str) -> Iterator[None]:
    """DataError where something inside cannot be written: the file, why, and what to do `then`."""
    try:
        yield
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise DataError(
            error.filename or folder, problem, f"Make room there, or make it writable; {then}."
        ) from error


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give a partial file to write inside; it replaces `path` if all went well, and is removed if not.

    durable: have the bytes on the disk before the file replaces `path`. An OSError names `path`.
    """
    partial = partial_of(path)
    with named(path):
        partial.unlink(missing_ok=True)  # a link that somebody put there is not followed
        try:
            yield partial
            if durable:
                with open(partial, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""
    with atomic_write(path, durable=True) as partial, open(partial, "w", newline="") as file:
        file.write(text)


def write_json(path: Path, values: dict) -> None:
    """JSON, atomically."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """JSON; DataError with the remedy where it is missing or broken."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(path, "is missing", remedy) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"is not readable JSON ({error})", remedy) from error
    if not isinstance(values, dict):
        raise DataError(path, "does not hold a JSON object", remedy)
    return values


def save_tensors(tensors: dict, path: Path) -> None:
    """A safetensors file, atomically."""
    from safetensors.torch import save_file  # imports torch

    with atomic_write(path, durable=True) as partial:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial)


def load_tensors(path: Path, remedy: str) -> dict:
    """Tensors by name; DataError with the remedy where the file is missing or not whole."""
    from safetensors.torch import load_file  # imports torch

    if not path.is_file():
        raise DataError(path, "is missing", remedy)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(path, f"is not a whole safetensors file ({error})", remedy) from error


def differences(tensors: dict, wanted: dict) -> str:
    """Where tensors have other names, shapes or kinds (of fractions or not) than those wanted; "" where they do not.

    >>> import torch
    >>> differences({"a": torch.zeros(2)}, {"a": torch.zeros(3), "b": torch.zeros(1)})
    'lacks b, has in another shape or type a'
    """
    alike = {
        n
        for n in {*tensors} & {*wanted}
        if tensors[n].shape == wanted[n].shape
        and tensors[n].is_floating_point() == wanted[n].is_floating_point()
    }
    found = {
        "lacks": [name for name in wanted if name not in tensors],
        "also has": [name for name in tensors if name not in wanted],
        "has in another shape or type": [name for name in wanted if name in tensors and name not in alike],
    }
    return ", ".join(
        f"{what} {names[0]}" + f" and {len(names) - 1} more" * (len(names) > 1)
        for what, names in found.items()
        if names
    )


def file_digest(file: Path) -> str:
    """A file's SHA-256."""
    digest = hashlib.sha256()
    with open(file, "rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(folder: Path) -> None:
    """Have a folder's entries on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_lines(path: Path, lines: list[str]) -> None:
    """Write lines as UTF-8 with LF ends, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_bytes(("\n".join(lines) + "\n").encode())


def partial_of(path: Path) -> Path:
    """Where this process writes a file before it is whole; machines that share a disk do not meet there."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
