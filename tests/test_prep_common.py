"""data_prep/common.py: unsafe, broken and resumed archives; splits in ASEN's proportions; ASEN's files as given."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data_prep"))
import common
import unpacking
from common import DataError, Limits, deal, place, seeded_splits, unpack, use_splits, write_prepared

from ccakit.attributes import Attributes
from ccakit.data.layout import read_dataset

SMALL = Limits(total=100_000, files=50, ratio=20, slack=2_000)


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


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_file_of_the_same_size_is_known_by_its_crc(tmp_path: Path, form: str) -> None:
    path, out = tmp_path / f"in.{form}", tmp_path / "out"
    zipped(path, FILES) if form == "zip" else tarred(path, FILES, mode="w")
    unpack(path, out)
    (out / "a/one.bin").write_bytes(bytes(len(FILES["a/one.bin"])))
    assert unpack(path, out).written == (form == "zip")  # a tar has no CRC
    assert (everything(out) == FILES) == (form == "zip")


UNSAFE = ["../x", "a/../../x", "a/..", "/x", "//x", "C:/x", "c:x", "a/C:x"]
UNSAFE += ["..\\x", "a\\b", "\\\\host\\x", "a\nb", "a\x7fb"]


@pytest.mark.parametrize("name", UNSAFE)
def test_no_path_outside_the_target(tmp_path: Path, name: str) -> None:
    for archive in (zipped(tmp_path / "in.zip", {"fine": b"1", name: b"2"}),
                    tarred(tmp_path / "in.tgz", {"fine": b"1", name: b"2"})):  # fmt: skip
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
        "encrypted": bytes(encrypted), "cut short": good[:-30], "flipped": flipped, "no archive": b"hello" * 300,
        "empty": b"", "tar cut short": tar[: len(tar) // 2],
    }  # fmt: skip
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
    sources = [zipped(tmp_path / "in.zip", FILES), tarred(tmp_path / "in.tgz", FILES),
               tarred(tmp_path / "in.tar", FILES, mode="w")]  # fmt: skip
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


def test_placing(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "deep" / "b.jpg"
    source.write_bytes(b"1234")
    assert place(source, target) and target.read_bytes() == b"1234" and not place(source, target)
    target.write_bytes(b"4321")
    assert not place(source, target) and place(source, target, resume=False) and target.read_bytes() == b"1234"
    (tmp_path / "soft").symlink_to(source)
    assert place(tmp_path / "soft", tmp_path / "c.jpg", link=True)
    assert (tmp_path / "c.jpg").samefile(source) and not (tmp_path / "c.jpg").is_symlink()
    assert not place(source, source, resume=False) and source.read_bytes() == b"1234"


def test_keeping(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.png"
    assert common.keep(b"1234", path) and not common.keep(b"1234", path) and path.read_bytes() == b"1234"
    assert common.keep(b"4321", path) and path.read_bytes() == b"4321" and os.listdir(path.parent) == ["a.png"]


@pytest.mark.parametrize("shares", [(8, 1, 1), (4, 1)])
def test_dealing_keeps_the_shares_of_every_key(shares: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    keys = rng.permutation(np.repeat(np.arange(40), rng.integers(len(shares), 90, 40)))
    part = deal(keys, shares, np.random.default_rng(1))
    want = np.array(shares) / sum(shares)
    assert np.abs(np.bincount(part) - want * len(keys)).max() <= 1 + len(shares)
    for key in range(40):
        mine = np.bincount(part[keys == key], minlength=len(shares))
        floor = mine.sum() // sum(shares) * np.array(shares)
        assert (mine >= floor).all() and mine.sum() - floor.sum() < sum(shares)
    assert (part == deal(keys, shares, np.random.default_rng(1))).all()
    assert (part != deal(keys, shares, np.random.default_rng(2))).any()
    rare = deal(np.append(keys, [97, 98, 99]), shares, np.random.default_rng(1))
    assert rare[-3:].tolist() == [0, 0, 0]  # a single image goes where it can be of use
    alone = np.bincount(deal(np.arange(30), shares, rng))
    assert np.array_equal(alone, want * 30)  # as far as the shares allow


def labelled(n: int, per_image: int) -> tuple[Attributes, list[str], np.ndarray]:
    attributes = Attributes.numbered({"a": 3, "b": 4})
    rng = np.random.default_rng(5)
    rows = [(i, c, rng.integers(attributes.sizes[c])) for i in range(n) for c in (0, 1) for _ in range(per_image)]
    return attributes, [f"img/{i}.jpg" for i in range(n)], np.array(rows)


def test_seeded_splits_have_asens_proportions(tmp_path: Path) -> None:
    attributes, names, rows = labelled(200, 1)
    rows = rows[rows[:, 0] != 7]
    prepared = seeded_splits(tmp_path, attributes, names, rows, seed=3)
    dataset = write_prepared(tmp_path, "x", attributes, prepared, {"seed": 3})
    assert dataset.about["split"] == "seeded, not ASEN's, seed 3"
    assert "1 image left out, without a label" in dataset.findings
    seen = {name: set(split.filenames) for name, split in dataset.splits.items()}
    assert sum(map(len, seen.values())) == 199 == len(set.union(*seen.values())) and "img/7.jpg" not in seen["train"]
    assert [len(seen[name]) for name in ("train", "valid", "test")] == [159, 20, 20]
    for name in ("valid", "test"):
        split = dataset[name]
        asks, answers = (set(side[:, 0].tolist()) for side in (split.queries, split.candidates))
        assert len(asks) == 4 and len(answers) == 16 and not asks & answers
    back = {(split.filenames[i], c, v) for split in dataset.splits.values() for i, c, v in split.labels.tolist()}
    assert back == {(names[i], c, v) for i, c, v in rows.tolist()}
    report = json.loads((tmp_path / "survival.json").read_text())
    assert report["valid"] == {"listed": 20, "present": 0, "missing": dataset["valid"].filenames}
    again = seeded_splits(tmp_path, attributes, names, rows, seed=4)
    assert again.splits[0].filenames != prepared.splits[0].filenames


@pytest.mark.parametrize("per_image", [True, False])
def test_several_values(tmp_path: Path, per_image: bool) -> None:
    attributes, names, rows = labelled(150, 3)
    prepared = seeded_splits(tmp_path, attributes, names, rows, 0, per_image=per_image)
    dataset = write_prepared(tmp_path, "x", attributes, prepared, {})
    want = {(names[i], c, v) for i, c, v in rows.tolist()}
    train = dataset["train"]
    found = {(train.filenames[i], c, v) for i, c, v in train.labels.tolist()}
    for name in ("valid", "test"):
        split = dataset[name]
        unit = split.labels[:, :1] if per_image else split.labels[:, :2]
        assert len(np.unique(unit, axis=0)) == len(unit) == len(split.filenames) * (1 if per_image else 2)
        every = np.loadtxt(tmp_path / f"label_{name}.txt", dtype=int)
        assert {tuple(row) for row in split.labels.tolist()} <= {tuple(row) for row in every.tolist()}
        found |= {(split.filenames[i], c, v) for i, c, v in every.tolist()}
        assert any("more than one value" in note and note.startswith(name) for note in dataset.findings)
    assert found == want
    one = seeded_splits(tmp_path, attributes, names, labelled(150, 1)[2], 0)
    write_prepared(tmp_path, "x", attributes, one, {})
    assert not (tmp_path / "label_test.txt").exists()  # what an earlier run left is gone


def test_images_of_one_content_stay_together(tmp_path: Path) -> None:
    attributes, names, rows = labelled(100, 1)
    for i, name in enumerate(names[:90]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"%03d" % (i % 30) + b"x" * (i % 3))
    groups = common.content_groups([tmp_path / name for name in names])
    assert len(set(groups[:90].tolist())) == 30 and len(set(groups.tolist())) == 40
    splits = seeded_splits(tmp_path, attributes, names, rows, 0, groups=groups).splits
    contents = [{(tmp_path / n).read_bytes() for n in s.filenames if (tmp_path / n).exists()} for s in splits]
    assert not contents[0] & contents[1] and not contents[0] & contents[2] and not contents[1] & contents[2]


def test_a_given_part_and_too_few_images(tmp_path: Path) -> None:
    attributes, names, rows = labelled(60, 1)
    part = np.repeat([2, 0, -1], 20)
    prepared = seeded_splits(tmp_path, attributes, names, rows, 0, part=part, how="as told")
    assert [s.name for s in prepared.splits] == ["train", "test"] and prepared.splits[1].filenames == names[:20]
    (tmp_path / "query_valid.txt").write_text("0 0 0\n")
    dataset = write_prepared(tmp_path, "x", attributes, prepared, {})
    assert dataset.about["split"] == "as told" and not (tmp_path / "query_valid.txt").exists()
    few = np.where(np.arange(60) == 3, 1, 0)
    for bad in ({"part": few}, {"part": np.full(60, -1)}):
        with pytest.raises(DataError, match="too few images"):
            seeded_splits(tmp_path, attributes, names, rows, 0, **bad)
    with pytest.raises(DataError, match="too few images"):
        seeded_splits(tmp_path, attributes, [], rows[:0], 0)


LISTS = {
    "filenames_train.txt": b"i/0.jpg\r\ni/1.jpg\r\n", "label_train.txt": b"0 0 1\r\n1 1 0\r\n",
    "filenames_test.txt": b"i/2.jpg\ni/3.jpg\n", "query_test.txt": b"0 0 1\t\t\n", "candidate_test.txt": b"1 0 1\n",
}  # fmt: skip
META = {"X": {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": {"a": 2, "b": 3}}, "Y": {}}
KNOWN = Attributes(("a", "b"), (("no", "yes"), ("one", "two")))


def test_asens_lists_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, out = tmp_path / "splits", tmp_path / "out"
    (given / "X").mkdir(parents=True)
    (given / "meta.json").write_text(json.dumps(META))
    for name, data in LISTS.items():
        (given / "X" / name).write_bytes(data)
    sums = {f"X/{name}": hashlib.sha256(data).hexdigest() for name, data in LISTS.items()}
    monkeypatch.setattr(common, "KNOWN_SUMS", {**sums, "X/query_test.txt": "0" * 64, "X/query_valid.txt": "1" * 64})
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


@pytest.mark.parametrize("name", ["FashionAI", "DeepFashion", "DARN"])
def test_asens_own_lists(splits: Path, tmp_path: Path, name: str) -> None:
    dataset, notes = use_splits(splits, tmp_path, name, KNOWN, {})
    n = len(list((splits / name).glob("*.txt")))
    assert f"{n} files of {n} with a known checksum verified" in notes
    for path in (splits / name).glob("*.txt"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert len(dataset["test"].filenames) == {"FashionAI": 18_000, "DeepFashion": 27_625, "DARN": 21_461}[name]
    assert read_dataset(tmp_path).attributes.sizes == read_dataset(splits / name).attributes.sizes


def test_the_agreement_with_a_release(tmp_path: Path) -> None:
    attributes, names, rows = labelled(60, 1)
    dataset = write_prepared(tmp_path, "x", attributes, seeded_splits(tmp_path, attributes, names, rows, 0), {})
    assert common.agreement(dataset, rows, names).startswith("120 of 120 labels")
    rows[:10, 2] = 3 - rows[:10, 2]
    changed = (labelled(60, 1)[2] != rows).any(axis=1).sum()
    assert common.agreement(dataset, rows, names).startswith(f"{120 - changed} of 120 labels")


@pytest.mark.parametrize("name", ["", "../x", "/x", "a\nb", "C:/x", "y" * 256, "/".join("z" * 200 for _ in range(9))])
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
