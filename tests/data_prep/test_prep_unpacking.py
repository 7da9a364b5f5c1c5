"""data_prep/unpacking.py: unsafe, broken and resumed archives."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import common
import numpy as np
import pytest
import unpacking
from archives import everything, tarred, zipped
from common import DataError, Limits, unpack

SMALL = Limits(total=100_000, files=50, ratio=20, slack=2_000)


FILES = {"a/one.bin": os.urandom(900), "a/b/two.bin": b"2" * 40, "Ben Sherman./3.jpg": b"3"}


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_unpacking_and_resuming(tmp_path: Path, form: str) -> None:
    path, out = tmp_path / f"in.{form}", tmp_path / "out"
    clutter = {"__MACOSX/a/._one.bin": b"x", "a/.DS_Store": b"x"}
    if form == "zip":
        zipped(path, {"a/": b"", **FILES, **clutter})
    else:
        tarred(path, {**FILES, **clutter}, mode="w" if form == "tar" else "w:gz")
    done = unpack(path, out)
    assert done.names == list(FILES) == common.names_in(path) and done.written == 3
    assert everything(out) == FILES
    times = {name: (out / name).stat().st_mtime_ns for name in FILES}
    assert unpack(path, out).written == 0
    (out / "a/one.bin").write_bytes(b"cut short")
    (out / "a/b/two.bin").unlink()
    assert unpack(path, out).written == 2 and everything(out) == FILES
    assert (out / "Ben Sherman./3.jpg").stat().st_mtime_ns == times["Ben Sherman./3.jpg"]


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_a_file_of_the_same_size_is_known_by_its_crc(tmp_path: Path, form: str) -> None:
    path, out = tmp_path / f"in.{form}", tmp_path / "out"
    if form == "zip":
        zipped(path, FILES)
    else:
        tarred(path, FILES, mode="w" if form == "tar" else "w:gz")
    unpack(path, out)
    (out / "a/one.bin").write_bytes(bytes(len(FILES["a/one.bin"])))
    (out / "a/b/two.bin").write_bytes(b"3" * 40)
    assert unpack(path, out).written == 2 and everything(out) == FILES
    assert unpack(path, out).written == 0


UNSAFE = ["../x", "a/../../x", "a/..", "/x", "//x", "C:/x", "c:x", "a/C:x"]
UNSAFE += ["..\\x", "a\\b", "\\\\host\\x", "a\nb", "a\x7fb"]


@pytest.mark.parametrize("name", UNSAFE)
def test_no_path_outside_the_target(tmp_path: Path, name: str) -> None:
    for archive in (
        zipped(tmp_path / "in.zip", {"fine": b"1", name: b"2"}),
        tarred(tmp_path / "in.tgz", {"fine": b"1", name: b"2"}),
    ):
        with pytest.raises(DataError, match="outside the target|control character") as caught:
            unpack(archive, tmp_path / "out" / "deep")
        assert caught.value.path == archive and not (tmp_path / "out").exists()
    assert not (tmp_path / "x").exists()


def test_no_links_or_devices(tmp_path: Path) -> None:
    link = zipped(tmp_path / "in.zip", {"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    archives = [link, zipped(tmp_path / "fifo.zip", {"fifo": b""}, stat.S_IFIFO)]
    for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        archives.append(tarred(tmp_path / f"{i}.tar", {"it": b""}, kind, "w"))
    for archive in archives:
        with pytest.raises(DataError, match="is a link or a device"):
            unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_writing_through_a_link_in_the_target(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="link to outside"):
        unpack(zipped(tmp_path / "in.zip", FILES), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())
    secret = tmp_path / "elsewhere" / "3.jpg"
    secret.write_bytes(b"!")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "3.jpg").symlink_to(secret)
    unpack(zipped(tmp_path / "in.zip", {"3.jpg": b"3"}), tmp_path / "second")
    assert secret.read_bytes() == b"!" and (tmp_path / "second" / "3.jpg").read_bytes() == b"3"


def test_bombs_by_their_headers(tmp_path: Path) -> None:
    bombs = [
        zipped(tmp_path / "ratio.zip", {"zeros": b"\0" * 60_000}),
        zipped(tmp_path / "total.zip", {str(i): os.urandom(30_000) for i in range(4)}),
        zipped(tmp_path / "files.zip", {str(i): b"" for i in range(51)}),
        tarred(tmp_path / "ratio.tgz", {"zeros": b"\0" * 90_000}),
    ]
    for bomb in bombs:
        with pytest.raises(DataError, match="unpacks to more than it may"):
            unpack(bomb, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()
    assert unpack(bombs[0], tmp_path / "out", Limits()).written == 1  # the usual limits have room for it


def test_bombs_whose_headers_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "in.zip", {"zeros": b"\0" * 60_000})
    honest = unpacking._members

    def lying(archive: Path, stack: object) -> object:
        for member in honest(archive, stack):
            yield unpacking._Member(**{**vars(member), "size": 10})

    monkeypatch.setattr(unpacking, "_members", lying)
    with pytest.raises(DataError, match="goes on after 2,000 bytes"):
        unpack(path, tmp_path / "out", SMALL)
    assert everything(tmp_path / "out") == {}  # not even the part that was written


def test_a_header_that_says_less_than_there_is(tmp_path: Path) -> None:
    path = zipped(tmp_path / "in.zip", {"zeros": b"\0" * 60_000})
    size = (60_000).to_bytes(4, "little")
    assert path.read_bytes().count(size) == 2
    path.write_bytes(path.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="broken"):
        unpack(path, tmp_path / "out")
    assert everything(tmp_path / "out") == {}


def test_broken_archives(tmp_path: Path) -> None:
    good = zipped(tmp_path / "in.zip", FILES).read_bytes()
    encrypted = bytearray(good)
    for at in (good.find(b"PK\x03\x04") + 6, good.find(b"PK\x01\x02") + 8):
        encrypted[at] |= 1
    flipped = good.replace(FILES["a/one.bin"][:300], bytes(300))
    tar = tarred(tmp_path / "good.tgz", {"a": os.urandom(4000)}).read_bytes()
    broken = {
        "encrypted": bytes(encrypted),
        "cut short": good[:-30],
        "flipped": flipped,
        "no archive": b"hello" * 300,
        "empty": b"",
        "tar cut short": tar[: len(tar) // 2],
    }
    for what, data in broken.items():
        path = tmp_path / f"{what}.zip"
        path.write_bytes(data)
        with pytest.raises(DataError, match="encrypted" if what == "encrypted" else "broken"):
            unpack(path, tmp_path / "out")
        assert not list((tmp_path / "out").rglob("*one.bin*"))
    for missing in ("none.zip", "."):
        with pytest.raises(DataError):
            unpack(tmp_path / missing, tmp_path / "out")
    with pytest.raises(DataError):
        unpack(zipped(tmp_path / "both.zip", {"a": b"1", "a/b": b"2"}), tmp_path / "x")
    with pytest.raises(DataError):
        unpack(zipped(tmp_path / "long.zip", {"a" * 300: b"1"}), tmp_path / "x")


def test_archives_of_random_damage_end_in_one_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = [
        zipped(tmp_path / "in.zip", FILES),
        tarred(tmp_path / "in.tgz", FILES),
        tarred(tmp_path / "in.tar", FILES, mode="w"),
    ]
    refused, path = 0, tmp_path / "damaged"
    for i in range(600):
        data = bytearray(sources[i % 3].read_bytes())
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            unpack(path, tmp_path / "out" / f"{i % 20}", SMALL)
        except DataError:
            refused += 1
    assert refused > 200
    assert not set(os.listdir(tmp_path)) - {"in.zip", "in.tgz", "in.tar", "damaged", "out"}
