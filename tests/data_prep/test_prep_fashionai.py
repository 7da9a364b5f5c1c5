"""data_prep/fashionai.py on small zips in its form: CRLF, two label.csv, missing images, odd rows."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import fashionai
import numpy as np
import pytest
from common import DataError
from places import ROOT

from ccakit.data.layout import read_dataset

SIZES = {  # of each attribute key's strings, as the release has them
    "skirt_length_labels": 6,
    "sleeve_length_labels": 9,
    "coat_length_labels": 8,
    "pant_length_labels": 6,
    "collar_design_labels": 5,
    "lapel_design_labels": 5,
    "neckline_design_labels": 10,
    "neck_design_labels": 5,
}
FOLDERS = ("fashionAI_attributes_train1", "fashionAI_attributes_train2")


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def string(size: int, label: int, maybe: int | None = None) -> str:
    letters = ["n"] * size
    if maybe is not None:
        letters[maybe] = "m"
    letters[label] = "y"
    return "".join(letters)


class Made:
    """A release of two folders: its rows as (path under OUT, key, label), files, and label.csv lines."""

    def __init__(self, per_value: int = 3) -> None:
        self.rows: list[tuple[str, str, int]] = []
        self.files: dict[str, bytes] = {}
        self.lines: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
        for key, size in SIZES.items():
            for label in range(size):
                for i in range(2 * per_value):
                    maybe = (label + 1) % size if i == 0 else None
                    self.add(FOLDERS[i % 2], key, label, string(size, label, maybe))

    def add(self, folder: str, key: str, label: int, letters: str, missing: bool = False) -> str:
        name = f"Images/{key}/{len(self.rows):032x}.jpg"
        self.rows.append((f"{folder}/{name}", key, label))
        self.lines[folder].append(f"{name},{key},{letters}")
        if not missing:
            self.files[f"{folder}/{name}"] = jpeg(len(self.rows))
        return name

    def everything(self) -> dict[str, bytes]:
        csv = {
            f"{f}/Annotations/label.csv": "".join(f"{line}\r\n" for line in lines).encode()
            for f, lines in self.lines.items()
        }
        return {**self.files, **csv}

    def zips(self, at: Path, top: bool = True) -> list[Path]:
        at.mkdir(parents=True, exist_ok=True)
        for folder in FOLDERS:
            with zipfile.ZipFile(at / f"{folder}.zip", "w") as pack:
                for name, data in self.everything().items():
                    if name.startswith(f"{folder}/"):
                        pack.writestr(name if top else name.removeprefix(f"{folder}/"), data)
        return [at / f"{folder}.zip" for folder in FOLDERS]

    def unpacked(self, at: Path) -> Path:
        for name, data in self.everything().items():
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            (at / name).write_bytes(data)
        return at

    def labels(self) -> set[tuple[str, int, int]]:
        keys = list(SIZES)
        return {(name, keys.index(key), label) for name, key, label in self.rows}


def written(out: Path) -> set[tuple[str, int, int]]:
    dataset = read_dataset(out, check_images=True)
    return {(s.filenames[i], c, v) for s in dataset.splits.values() for i, c, v in s.labels.tolist()}


@pytest.mark.parametrize("top", [True, False])
def test_what_is_written_is_the_release(tmp_path: Path, top: bool) -> None:
    made, out = Made(), tmp_path / "out"
    dataset, notes = fashionai.prepare(made.zips(tmp_path / "in", top), out)
    assert written(out) == made.labels() and len(made.rows) == 324
    for name, data in made.files.items():
        assert (out / name).read_bytes() == data
    assert dataset.attributes.sizes == tuple(SIZES.values()) == (6, 9, 8, 6, 5, 5, 10, 5)
    assert [f"{name}_labels" for name in dataset.attributes.names] == list(SIZES)
    assert all(values[0] == "Invisible" for values in dataset.attributes.values)
    sizes = [len(dataset[name].filenames) for name in ("train", "valid", "test")]
    assert sum(sizes) == 324 and abs(sizes[1] - 32) <= 1 and abs(sizes[2] - 32) <= 1
    for name in ("valid", "test"):
        assert 6 <= len(dataset[name].queries) <= 7
    counts = Counter((c, v) for split in dataset.splits.values() for _, c, v in split.labels.tolist())
    assert set(counts.values()) == {6} and len(counts) == 54
    assert "label.csv: 54 values marked m (may be), which make no label" in notes
    assert "images: 324 found, 180,335 expected" in notes and "test: 18,000" not in notes
    assert sum("with CRLF at the end" in note for note in notes) == 2


def test_archives_whose_names_differ_behind_a_dot_are_unpacked_apart(tmp_path: Path) -> None:
    made, out = Made(1), tmp_path / "out"
    zips = [
        path.rename(path.with_name(f"set.v{i}.zip"))
        for i, path in enumerate(made.zips(tmp_path / "in", False))
    ]
    fashionai.prepare(zips, out)
    assert {name.split("/")[0] for name, *_ in written(out)} == {f"set.v{i}" for i in range(len(zips))}
    assert len(written(out)) == len(made.labels())


def test_running_again_unpacks_nothing(tmp_path: Path) -> None:
    made, out = Made(1), tmp_path / "out"
    zips = made.zips(tmp_path / "in")
    fashionai.prepare(zips, out)
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    lists = (out / "filenames_train.txt").read_bytes()
    lost = sorted(first)[0]
    lost.unlink()
    fashionai.prepare(zips, out)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.jpg") if p != lost} == {
        p: t for p, t in first.items() if p != lost
    }
    assert lost.is_file() and (out / "filenames_train.txt").read_bytes() == lists


@pytest.mark.parametrize("link", [False, True])
def test_unpacked_folders(tmp_path: Path, link: bool) -> None:
    made, out = Made(1), tmp_path / "out"
    source = made.unpacked(tmp_path / "in")
    fashionai.prepare([source], out, link=link)
    assert written(out) == made.labels()
    name = next(iter(made.files))
    assert (out / name).samefile(source / name) is link
    fashionai.prepare([source / folder for folder in FOLDERS], tmp_path / "two")
    assert written(tmp_path / "two") == made.labels()
    fashionai.prepare([source], source)  # in place
    assert written(source) == made.labels()


def test_a_linked_folder_of_images_and_an_exchanged_image(tmp_path: Path) -> None:
    made, out = Made(1), tmp_path / "out"
    source, images = made.unpacked(tmp_path / "in"), tmp_path / "store"
    (source / FOLDERS[0] / "Images").rename(images)
    (source / FOLDERS[0] / "Images").symlink_to(images)
    _, notes = fashionai.prepare([source], out)
    assert written(out) == made.labels()
    assert f"Images/ is a link: its images are read from {images}" in notes
    name = next(iter(made.files))
    (source / name).write_bytes(made.files[name][::-1])  # of the same size
    fashionai.prepare([source], out)
    assert (out / name).read_bytes() == made.files[name][::-1]


def test_a_folder_that_links_out(tmp_path: Path) -> None:
    source = Made(1).unpacked(tmp_path / "in")
    (tmp_path / "secret.jpg").write_bytes(jpeg(0))
    (source / FOLDERS[0] / "Images" / "x.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="link to outside"):
        fashionai.prepare([source], tmp_path / "out")


def test_odd_rows_are_counted(tmp_path: Path) -> None:
    made, out = Made(), tmp_path / "out"
    want = made.labels()
    made.add(FOLDERS[0], "skirt_length_labels", 2, "nnynnn", missing=True)
    made.add(FOLDERS[1], "skirt_length_labels", 0, "nnmnnn")
    made.add(FOLDERS[1], "lapel_design_labels", 0, "nynyn")
    again = made.lines[FOLDERS[0]][0]
    made.lines[FOLDERS[0]] += [again, "", again.replace("ymnnnn", "nynnnn"), "   "]
    dataset, notes = fashionai.prepare(made.zips(tmp_path / "in"), out)
    assert written(out) == want
    told = "\n".join([*notes, *dataset.findings])
    assert "label.csv: 2 strings without exactly one y" in told
    assert "label.csv: 1 lines that repeat an earlier one" in told
    assert "label.csv: 1 lines that contradict an earlier one, which is kept" in told
    assert "release: 1 of 325 listed images are missing (survival.json)" in told
    assert json.loads((out / "survival.json").read_text())["release"]["missing"] == [made.rows[324][0]]


BAD = {
    "two fields": "Images/a.jpg,skirt_length_labels",
    "four fields": "Images/a.jpg,skirt_length_labels,nnnnny,1",
    "another key": "Images/a.jpg,shoe_length_labels,nnnnny",
    "a header": "image,attribute,label",
    "too short": "Images/a.jpg,skirt_length_labels,nnnny",
    "too long": "Images/a.jpg,skirt_length_labels,nnnnnny",
    "another letter": "Images/a.jpg,skirt_length_labels,nnnnNy",
    "empty": "Images/a.jpg,skirt_length_labels,",
    "leaves": "../../a.jpg,skirt_length_labels,nnnnny",
    "absolute": "/etc/a.jpg,skirt_length_labels,nnnnny",
    "no name": ",skirt_length_labels,nnnnny",
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_named(tmp_path: Path, what: str) -> None:
    made = Made(1)
    made.lines[FOLDERS[1]][4] = BAD[what]
    with pytest.raises(DataError) as caught:
        fashionai.prepare(made.zips(tmp_path / "in"), tmp_path / "out")
    assert caught.value.line == 5 and caught.value.path.name == "label.csv"
    assert FOLDERS[1] in str(caught.value.path) and caught.value.remedy


def test_archives_without_labels_or_unsafe(tmp_path: Path) -> None:
    for name, message in (
        ("Images/a.jpg", "has no Annotations/label.csv"),
        ("../a.jpg", "outside the target"),
    ):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as pack:
            pack.writestr(name, b"1")
        with pytest.raises(DataError, match=message):
            fashionai.prepare([tmp_path / "x.zip"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "empty", tmp_path / "none.zip"):
        with pytest.raises(DataError):
            fashionai.prepare([missing], tmp_path / "out")


def test_by_content(tmp_path: Path) -> None:
    made = Made()
    for i, name in enumerate(made.files):
        made.files[name] = jpeg(i % 60)
    dataset, _ = fashionai.prepare(made.zips(tmp_path / "in"), tmp_path / "out", by_content=True)
    contents = [
        {split.path(i).read_bytes() for i in range(len(split.filenames))} for split in dataset.splits.values()
    ]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 60


def asen(made: Made, at: Path) -> Path:
    """Split files in ASEN's form, CRLF and all: a folder FashionAI and meta.json beside it."""
    at = at / "FashionAI"
    at.mkdir(parents=True)
    labels = sorted(made.labels())
    for name, rows in (("train", labels[::2]), ("test", labels[1::2])):
        (at / f"filenames_{name}.txt").write_bytes("".join(f"{row[0]}\r\n" for row in rows).encode())
        lines = [f"{i} {c} {v}\r\n" for i, (_, c, v) in enumerate(rows)]
        if name == "train":
            (at / "label_train.txt").write_text("".join(lines), newline="")
        else:
            (at / "query_test.txt").write_text("".join(lines[::5]), newline="")
            (at / "candidate_test.txt").write_text("".join(set(lines) - set(lines[::5])), newline="")
    names = [key.removesuffix("_labels") for key in SIZES]
    meta = {"ATTRIBUTES": names, "ATTRIBUTES_NUM": dict(zip(names, SIZES.values()))}
    (at.parent / "meta.json").write_text(json.dumps({"FashionAI": meta, "DARN": {}}))
    return at.parent


def test_asens_split_files(tmp_path: Path) -> None:
    made, out = Made(), tmp_path / "out"
    given = asen(made, tmp_path / "splits")
    lost = sorted(made.labels())[1][0]
    del made.files[lost]
    dataset, notes = fashionai.prepare(made.zips(tmp_path / "in"), out, given)
    for path in (given / "FashionAI").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert dataset.about["split"] == "ASEN's split files" and dataset.attributes == fashionai.ATTRIBUTES
    assert "324 of 324 labels of ASEN's lists are those of the release" in notes
    assert "test: 1 of 162 listed images are missing (survival.json)" in notes
    report = json.loads((out / "survival.json").read_text())
    assert report["test"]["missing"] == report["release"]["missing"] == [lost]
    assert report["train"] == {"listed": 162, "present": 162, "missing": []}
    assert any("differs from the one this was checked with" in note for note in notes)
    with pytest.raises(DataError, match="is missing"):
        read_dataset(out, check_images=True)


def test_command_line(tmp_path: Path) -> None:
    made = Made(1)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "data_prep" / "fashionai.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    told = run("--help").stdout
    assert "tianchi.aliyun.com" in told and "academic use" in told and "180,335" in told
    zips = [str(path) for path in made.zips(tmp_path / "in")]
    done = run("--source", *zips, "--out", str(tmp_path / "out"), "--seed", "5")
    assert done.returncode == 0 and "images (seeded, not ASEN's, seed 5)" in done.stdout, done.stderr
    assert "images: 108 found, 180,335 expected" in done.stdout
    failed = run("--source", str(tmp_path / "no.zip"), "--out", str(tmp_path / "x"))
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
