"""Files are written whole or not at all, whatever their names."""

from __future__ import annotations

import os

import pytest

from ccakit.data.drawn import write_garments
from ccakit.disk import atomic_write, file_name, leads_out, read_json, write_json, write_lines

NAMES = {
    "of 241 bytes": "n" * 236 + ".json",
    "as long as a disk takes": "n" * 250 + ".json",
    "of Chinese": "袖" * 83,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_the_disk_takes_is_written(tmp_path, name):
    write_json(tmp_path / name, {"a": 1})
    assert read_json(tmp_path / name, "") == {"a": 1} and os.listdir(tmp_path) == [name]


def test_two_long_names_that_begin_alike_stay_apart(tmp_path):
    one, other = (tmp_path / ("n" * 250 + letter) for letter in "ab")
    with atomic_write(one) as partial, atomic_write(other) as second:
        partial.write_text("1", encoding="utf-8")
        second.write_text("2", encoding="utf-8")
    assert (one.read_text(), other.read_text()) == ("1", "2")


def test_a_name_that_no_disk_takes_is_named_itself(tmp_path):
    name = "n" * 256
    with pytest.raises(OSError, match="too long.*" + name[:200]):
        write_lines(tmp_path / name, ["1"])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["n" * 255, "袖" * 85, "a/b" * 80])
def test_a_part_of_a_name_leaves_room_for_the_others(tmp_path, name):
    parts = [file_name(text) for text in (name, f"{name[:-1]}x")]
    assert parts[0] != parts[1]
    for part in parts:
        write_json(tmp_path / f"metrics_{part}_valid.json", {})


@pytest.mark.parametrize("name", ["../a", "b/../../a", "/a", ".."])
def test_a_path_that_leaves_its_folder_leads_out(tmp_path, name):
    (tmp_path / "b").mkdir()
    assert leads_out(tmp_path, name) and not leads_out(tmp_path, "b/../a")


def test_garments_are_drawn_into_a_folder_with_a_long_name(tmp_path):
    root = tmp_path / ("n" * 255)
    write_garments(root, 2, 2, 2, size=8, workers=1, progress=False)
    assert os.listdir(tmp_path) == [root.name] and (root / "meta.json").is_file()
