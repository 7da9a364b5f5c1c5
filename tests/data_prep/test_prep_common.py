"""data_prep/common.py: placing, ASEN's files as given, names, errors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import common
import pytest
from archives import everything, tarred, zipped
from common import DataError, use_splits

from ccakit.attributes import Attributes
from ccakit.data.layout import read_dataset

LISTS = {
    "filenames_train.txt": b"i/0.jpg\r\ni/1.jpg\r\n",
    "label_train.txt": b"0 0 1\r\n1 1 0\r\n",
    "filenames_test.txt": b"i/2.jpg\ni/3.jpg\n",
    "query_test.txt": b"0 0 1\t\t\n",
    "candidate_test.txt": b"1 0 1\n",
}
META = {"X": {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": {"a": 2, "b": 3}}, "Y": {}}
KNOWN = Attributes(("a", "b"), (("no", "yes"), ("one", "two")))


def test_asens_lists_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, out = tmp_path / "splits", tmp_path / "out"
    (given / "X").mkdir(parents=True)
    (given / "meta.json").write_text(json.dumps(META))
    for name, data in LISTS.items():
        (given / "X" / name).write_bytes(data)
    sums = {f"X/{name}": hashlib.sha256(data).hexdigest() for name, data in LISTS.items()}
    monkeypatch.setattr(
        common, "KNOWN_SUMS", {**sums, "X/query_test.txt": "0" * 64, "X/query_valid.txt": "1" * 64}
    )
    (out / "i").mkdir(parents=True)
    (out / "i" / "2.jpg").write_bytes(b"2")
    (out / "label_valid.txt").write_bytes(b"of an earlier run")
    (out / "query_test.txt").write_bytes(b"9 9 9\t\t\n")  # of the same size
    dataset, notes = use_splits(given, out, "X", KNOWN, {"licence": "none"})
    assert {n: d for n, d in everything(out).items() if n.endswith(".txt")} == LISTS
    assert dataset.about == {"licence": "none", "split": "ASEN's split files"}
    assert dataset.attributes == Attributes(("a", "b"), (("no", "yes"), ("0", "1", "2")))  # b: sizes differ
    assert "4 files of 5 with a known checksum verified" in notes
    assert "query_test.txt: differs from the one this was checked with (sha256)" in notes
    assert "train: 2 of 2 listed images are missing (survival.json)" in notes
    report = json.loads((out / "survival.json").read_text())
    assert report["test"] == {"listed": 2, "present": 1, "missing": ["i/3.jpg"]} and "valid" not in report
    (given / "meta.json").unlink()
    assert use_splits(given / "X", out, "X", KNOWN, {})[0].attributes == KNOWN
    assert use_splits(out, out, "X", KNOWN, {})[0].splits.keys() == {"train", "test"}  # in place
    with pytest.raises(DataError, match="has none of the lists"):
        use_splits(tmp_path, out, "X", KNOWN, {})


@pytest.mark.parametrize("above", ["", "data/", "splits/X/"])
def test_asens_lists_in_an_archive(tmp_path: Path, above: str) -> None:
    other = {name: b"x" for name in LISTS}  # another data set's, which must not be taken
    files = {f"{above}{folder}/{n}": d for folder, of in (("X", LISTS), ("A", other)) for n, d in of.items()}
    packed = tarred(tmp_path / "meta_data.tar.gz", {**files, f"{above}meta.json": json.dumps(META).encode()})
    dataset, notes = use_splits(packed, tmp_path / "out", "X", KNOWN, {})
    assert {n: d for n, d in everything(tmp_path / "out").items() if n.endswith(".txt")} == LISTS
    assert dataset.attributes.sizes == (2, 3) and dataset.about["split"] == "ASEN's split files"
    bare = zipped(tmp_path / "bare.zip", LISTS)
    assert use_splits(bare, tmp_path / "bare", "X", KNOWN, {})[0].attributes == KNOWN


def test_an_archive_of_lists_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    lists = {f"X/{name}": data for name, data in LISTS.items()}
    archives = {
        "has none of the lists": tarred(tmp_path / "none.tgz", {"Y/filenames_test.txt": b"x"}),
        "X/meta.json: ": tarred(tmp_path / "meta.tgz", {"X/meta.json": b"{", **lists}),
        "is broken": tmp_path / "broken.tgz",
        "outside the target": tarred(tmp_path / "unsafe.tgz", {"../X/filenames_test.txt": b"x"}),
    }
    archives["is broken"].write_bytes(b"no archive")
    for problem, path in archives.items():
        with pytest.raises(DataError, match=problem) as caught:
            use_splits(path, tmp_path / "out", "X", KNOWN, {})
        assert caught.value.path == path
    assert not everything(tmp_path / "out")


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("DeepFashion", "DARN")]


@pytest.mark.parametrize("name", ["FashionAI", *LARGE])
def test_asens_own_lists(splits: Path, tmp_path: Path, name: str) -> None:
    dataset, notes = use_splits(splits, tmp_path, name, KNOWN, {})
    n = len(list((splits / name).glob("*.txt")))
    assert f"{n} files of {n} with a known checksum verified" in notes
    for path in (splits / name).glob("*.txt"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert (
        len(dataset["test"].filenames) == {"FashionAI": 18_000, "DeepFashion": 27_625, "DARN": 21_461}[name]
    )
    assert read_dataset(tmp_path).attributes.sizes == read_dataset(splits / name).attributes.sizes


@pytest.mark.parametrize(
    "name", ["", "../x", "/x", "a\nb", "C:/x", "y" * 256, "/".join("z" * 200 for _ in range(9))]
)
def test_names_of_images(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        common.check_name(tmp_path / "label.csv", name, 7)
    assert caught.value.line == 7
    common.check_name(tmp_path / "label.csv", "Ben Sherman./3..jpg", 7)


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DataError("x.csv", "has\ntwo lines", "Join\nthem.", 3)

    with pytest.raises(SystemExit, match=r"^error: x\.csv, line 3: has two lines\. Join them\.$"):
        common.guarded(fail)
    with pytest.raises(SystemExit, match="^error: interrupted"):
        common.guarded(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
