"""Files are written whole or not at all, whatever their names."""

from __future__ import annotations

import os

import pytest

from ccakit.disk import atomic_write, read_json, write_json, write_lines

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
