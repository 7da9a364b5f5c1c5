"""Small zip and tar files, and what a folder holds: for the tests of data_prep."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path


def zipped(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            pack.writestr(info, data)
    return path


def tarred(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as pack:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            pack.addfile(info, io.BytesIO(data))
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
