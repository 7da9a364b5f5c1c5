"""data_prep/placing.py: files brought by content, across disks, through links, and absent names."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import pytest
from common import DataError, Source, bring, keep, place


def folder_of(folder: Path, names: list[str], content: bytes = b"1234") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_placing(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "deep" / "b.jpg"
    source.write_bytes(b"1234")
    assert place(source, target) == "copied" and target.read_bytes() == b"1234" and not place(source, target)
    (tmp_path / "soft").symlink_to(source)
    assert place(tmp_path / "soft", tmp_path / "c.jpg", link=True) == "linked"
    assert (tmp_path / "c.jpg").samefile(source) and not (tmp_path / "c.jpg").is_symlink()
    assert not place(source, source) and source.read_bytes() == b"1234"


def test_keeping(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.png"
    assert keep(b"1234", path) and not keep(b"1234", path) and path.read_bytes() == b"1234"
    assert keep(b"4321", path) and path.read_bytes() == b"4321" and os.listdir(path.parent) == ["a.png"]


@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_the_same_size_and_time_is_brought_again(tmp_path: Path, link: bool) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "out" / "a.jpg"
    for content in (b"1234", b"4321", b"4322"):
        source.unlink(missing_ok=True)  # another file, not the linked one written again
        source.write_bytes(content)
        os.utime(source, ns=(10**18, 10**18))
        assert place(source, target, link) and target.read_bytes() == content
        os.utime(target, ns=(10**18, 10**18))
    assert not place(source, target, link)
    target.write_bytes(b"9999") if not link else None  # a copy that somebody changed
    assert bool(place(source, target, link)) != link and target.read_bytes() == b"4322"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_what_cannot_be_linked_is_copied_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    images = folder_of(tmp_path / "in", ["a.png", "b/c.png"])
    monkeypatch.setattr(os, "link", refuse)
    new, notes = bring(["a.png", "b/c.png"], Source(images), tmp_path / "out", link=True)
    assert new == 2 and (tmp_path / "out/b/c.png").read_bytes() == b"1234"
    assert not (tmp_path / "out/a.png").samefile(images / "a.png")
    assert len(notes) == 1 and notes[0].startswith("2 files copied, not linked: ") and "disk" in notes[0]
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "b"]
    assert bring(["a.png"], Source(images), tmp_path / "out", link=True) == (0, [])


CHANGED = {  # what the names of the table are made of those of the files by, and what the error says
    "backslashes": (lambda name: name.replace("/", "\\"), "with / for"),
    "another form": (lambda name: unicodedata.normalize("NFD", name), "in another Unicode form"),
    "capitals": (str.upper, "in other upper and lower case"),
    "an ending in capitals": (lambda name: name.replace(".png", ".PNG"), "in other upper and lower case"),
    "no ending": (lambda name: name.removesuffix(".png"), "with an ending"),
    "another ending": (lambda name: name.replace(".png", ".jpg"), "with another ending"),
    "a folder before": (lambda name: f"photos/{name}", "in another folder"),
    "no folder": (lambda name: name.split("/")[-1], "in another folder"),
    "backslashes in capitals": (
        lambda name: name.replace("/", "\\").upper(),
        "in other upper and lower case",
    ),
    "only a number": (
        lambda name: name.split("/")[-1].removesuffix(".png"),
        "in another folder, with an ending",
    ),
    "codes": (lambda name: name.replace("ü", "%C3%BC"), "without codes such as %20"),
    "an invisible sign": (lambda name: f"\ufeff{name}", "in another Unicode form"),
    "a URL": (lambda name: f"https:/shop.example/{name}", "in another folder"),
    "no leading zeros": (lambda name: name.split("/")[-1].lstrip("0"), "with other leading zeros"),
    "a wrong folder": (lambda name: f"{name}x/y.png", "holds 12 files, as 'grün/0000.0.png'"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_when_no_image_is_found_the_error_says_what_would_be(tmp_path: Path, what: str) -> None:
    names = [f"grün/00{i:02}.{i}.png" for i in range(12)]
    images, (change, words) = folder_of(tmp_path / "in", names), CHANGED[what]
    wanted = [change(name) for name in names]
    lines = list(range(2, 14))
    with pytest.raises(DataError) as caught:
        bring(wanted, Source(images, tmp_path / "t.csv", lines), tmp_path / "out")
    text = str(caught.value)
    assert text.startswith(
        f"{tmp_path / 't.csv'}, line 2: none of 12 images found; the first that was tried is "
    )
    assert text.count(" holds ") == words.count("holds")
    assert str(images / wanted[0]) in text and words in text and "\n" not in text
    if "holds" not in words:
        assert "12 of 12 are there" in text and repr(names[0]) in text and repr(wanted[0]) in text


def test_some_that_are_not_found_are_a_note(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", ["a.png", "B.png", "c.jpeg"])
    new, notes = bring(["a.png", "b.png", "c.png", "d.png"], Source(images), tmp_path / "out")
    assert new == 1 and len(notes) == 1
    assert (
        "3 images not found in " in notes[0] and "1 of 3 are there in other upper and lower case" in notes[0]
    )
    assert bring(["a.png", "d.png"], Source(folder_of(tmp_path / "x", ["a.png"])), tmp_path / "o2") == (1, [])


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="none of 1 image found.*holds 0 files"):
        bring(["a.png"], Source(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(DataError, match="is not a folder"):
        bring(["a.png"], Source(tmp_path / "none"), tmp_path / "out")


@pytest.mark.parametrize("top", ["images", "img", "shop 1."])
def test_the_folder_itself_may_be_a_link_and_what_is_below_may_not(tmp_path: Path, top: str) -> None:
    store = folder_of(tmp_path / "store", ["0.png", "deep/1.png"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / top).symlink_to(store)
    names = [f"{top}/0.png", f"{top}/deep/1.png"]
    new, notes = bring(names, Source(tmp_path / "in"), tmp_path / "out")
    assert new == 2 and notes == [f"{top}/ is a link: its images are read from {store}"]
    (tmp_path / "all").symlink_to(tmp_path / "in")
    _, notes = bring(names, Source(tmp_path / "all"), tmp_path / "out")
    assert f"{tmp_path / 'all'} is a link to {tmp_path / 'in'}" in notes
    secret = folder_of(tmp_path / "secret", ["2.png"])
    (store / "2.png").symlink_to(secret / "2.png")
    (store / "other").symlink_to(secret)
    (tmp_path / "in" / "2.png").symlink_to(secret / "2.png")
    for name in (f"{top}/2.png", f"{top}/other/2.png", "2.png"):
        with pytest.raises(DataError, match="is a link to outside the folder") as caught:
            bring([*names, name], Source(tmp_path / "in", tmp_path / "t.csv", [2, 3, 7]), tmp_path / "out")
        assert caught.value.line == 7 and not (tmp_path / "out" / name).exists()
