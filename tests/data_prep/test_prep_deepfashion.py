"""data_prep/deepfashion.py on small releases in their form: counts, headers, padding, several values."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import deepfashion
import numpy as np
import pytest
from common import DataError
from places import ROOT

from ccakit.data.layout import read_dataset
from ccakit.data.rows import read_all_values

NAMES = [
    "a-line",
    "abstract print",
    "faux fur",
    "cap sleeve",
    "boho chic",
    "animal",
    "lace",
    "mini",
    "crew neck",
    "preppy",
    "zebra",
    "zip front",
]
TYPES = [
    3,
    1,
    2,
    4,
    5,
    1,
    2,
    3,
    4,
    5,
    1,
    4,
]  # texture: 1, 5, 10; fabric: 2, 6; shape: 0, 7; part: 3, 8, 11; style
RANK = {
    0: (2, 0),
    1: (0, 0),
    2: (1, 0),
    3: (3, 0),
    4: (4, 0),
    5: (0, 1),
    6: (1, 1),
    7: (2, 1),
    8: (3, 1),
    9: (4, 1),
    10: (0, 2),
    11: (3, 2),
}


class Made:
    """A release of n images: `values` (n, 12) of -1, 0, 1, image 3 without any; the last 10 are test."""

    def __init__(self, n: int = 120) -> None:
        rng = np.random.default_rng(0)
        self.values = rng.choice([-1, -1, -1, 0, 1], (n, 12))
        self.values[np.arange(n), np.arange(n) % 12] = 1
        self.values[3] = np.where(self.values[3] == 1, 0, self.values[3])
        self.names = [f"img/Sheer_Pleated-Front_Blouse_{i // 8}/img_{i % 8 + 1:08d}.jpg" for i in range(n)]
        self.count = [12, n, n]

    def labels(self) -> set[tuple[str, int, int]]:
        rows = np.argwhere(self.values == 1).tolist()
        return {(self.names[i], *RANK[a]) for i, a in rows}

    def lists(self, end: str = "\r\n") -> dict[str, str]:
        cloth = [f"{name:<30}{kind}" for name, kind in zip(NAMES, TYPES)]
        images = [
            f"{name:<70}" + " ".join(f"{v:2d}" for v in row) + "  "
            for name, row in zip(self.names, self.values)
        ]
        parts = ["train" if i % 4 else ("val", "test")[i // 4 % 2] for i in range(len(self.names))]
        part = [f"{name:<70}{kind}" for name, kind in zip(self.names, parts)]
        headers = [
            "attribute_name  attribute_type",
            "image_name  attribute_labels",
            "image_name  evaluation_status",
        ]
        places = ["Anno/list_attr_cloth.txt", "Anno/list_attr_img.txt", "Eval/list_eval_partition.txt"]
        return {
            place: "".join(f"{line}{end}" for line in [str(count), header, *lines])
            for place, count, header, lines in zip(places, self.count, headers, (cloth, images, part))
        }

    def write(self, at: Path, packed: bool = True, missing: int | None = None) -> Path:
        for place, text in self.lists().items():
            (at / place).parent.mkdir(parents=True, exist_ok=True)
            (at / place).write_text(text, newline="")
        (at / "Img").mkdir()
        rng = np.random.default_rng(1)
        images = {
            name: cv2.imencode(".jpg", rng.integers(0, 256, (8, 6, 3)).astype(np.uint8))[1].tobytes()
            for i, name in enumerate(self.names)
            if i != missing
        }
        if packed:
            with zipfile.ZipFile(at / "Img" / "img.zip", "w") as pack:
                for name, data in images.items():
                    pack.writestr(name, data)
            return at
        for name, data in images.items():
            (at / "Img" / name).parent.mkdir(parents=True, exist_ok=True)
            (at / "Img" / name).write_bytes(data)
        return at


def written(out: Path) -> set[tuple[str, int, int]]:
    """Every value of every image: train's rows, and label_valid.txt and label_test.txt."""
    dataset, found = read_dataset(out, check_images=True), set()
    for name, split in dataset.splits.items():
        rows = split.labels if name == "train" else read_all_values(out, name)
        found |= {(split.filenames[i], c, v) for i, c, v in rows.tolist()}
    return found


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_written_is_the_release(tmp_path: Path, packed: bool) -> None:
    made, out = Made(), tmp_path / "out"
    dataset, notes = deepfashion.prepare(made.write(tmp_path / "in", packed), out)
    assert written(out) == made.labels()
    attributes = dataset.attributes
    assert attributes.names == (
        "texture-related",
        "fabric-related",
        "shape-related",
        "part-related",
        "style-related",
    )
    assert attributes.values[0] == ("abstract print", "animal", "zebra") and attributes.sizes == (
        3,
        2,
        2,
        3,
        2,
    )
    sizes = {name: len(split.filenames) for name, split in dataset.splits.items()}
    assert sum(sizes.values()) == 119 and abs(sizes["valid"] - 12) <= 2 and abs(sizes["test"] - 12) <= 2
    for name in ("valid", "test"):
        split = dataset[name]  # as in ASEN's lists: an image once, with one value
        assert sorted(split.labels[:, 0].tolist()) == list(range(sizes[name]))
    assert dataset["train"].multi_valued > 0
    assert (
        "images: 120 found, 289,222 expected" in notes and "texture-related: 3 found, 156 expected" in notes
    )
    assert not any("first line counts" in note for note in notes)
    assert "1 image left out, without a label" in dataset.findings
    deepfashion.prepare(tmp_path / "in", tmp_path / "again")
    assert (tmp_path / "again/query_test.txt").read_bytes() == (out / "query_test.txt").read_bytes()


def test_running_again_unpacks_nothing_and_in_place(tmp_path: Path) -> None:
    source = Made(60).write(tmp_path / "in")
    deepfashion.prepare(source, source)
    first = {path: path.stat().st_mtime_ns for path in source.rglob("*.jpg")}
    deepfashion.prepare(source, source)
    assert first == {path: path.stat().st_mtime_ns for path in source.rglob("*.jpg")} and len(first) == 60
    (source / "Img" / "img.zip").unlink()
    deepfashion.prepare(source, source)  # only what was unpacked is left
    assert written(source) == Made(60).labels()


def test_the_releases_partition(tmp_path: Path) -> None:
    made = Made()
    dataset, _ = deepfashion.prepare(made.write(tmp_path / "in"), tmp_path / "out", partition=True)
    for offset, name in ((0, "valid"), (4, "test")):
        want = [n for i, n in enumerate(made.names) if i % 8 == offset]
        assert dataset[name].filenames == want and len(dataset[name].queries) == 3
    assert len(dataset["train"].filenames) == 89 and "partition" in dataset.about["split"]
    assert "not ASEN's" in dataset.about["split"] and written(tmp_path / "out") == made.labels()


def test_findings(tmp_path: Path) -> None:
    made = Made()
    made.count = [1000, 289222, 120]
    made.names[50] = made.names[49]
    source = made.write(tmp_path / "in", missing=7)
    dataset, notes = deepfashion.prepare(source, tmp_path / "out")
    told = "\n".join([*notes, *dataset.findings])
    assert "list_attr_cloth.txt: the first line counts 1,000, and 12 lines follow the header" in told
    assert "list_attr_img.txt: the first line counts 289,222, and 120 lines follow the header" in told
    assert "list_attr_img.txt: 1 lines repeat an image" in told
    assert "release: 1 of 119 listed images are missing (survival.json)" in told
    assert json.loads((tmp_path / "out/survival.json").read_text())["release"]["missing"] == [made.names[7]]
    assert written(tmp_path / "out") == {row for row in made.labels() if row[0] != made.names[7]}


CLOTH, IMG, PART = "Anno/list_attr_cloth.txt", "Anno/list_attr_img.txt", "Eval/list_eval_partition.txt"
BAD = {
    "a row cut short": (IMG, 9, lambda line: line[:-8]),
    "the last row cut short": (IMG, 122, lambda line: line[:75]),
    "a row too long": (IMG, 9, lambda line: line + " 1"),
    "a value of 2": (IMG, 9, lambda line: line[:-4] + "2"),
    "a value of +1": (IMG, 9, lambda line: line[:-4] + "+1"),
    "glued values": (IMG, 9, lambda line: line[::-1].replace("1- ", "1-", 1)[::-1]),
    "a name that leaves": (IMG, 9, lambda line: "../" + line),
    "an absolute name": (IMG, 9, lambda line: "/" + line),
    "no count": (IMG, 1, lambda line: "image_name attribute_labels"),
    "a count of words": (CLOTH, 1, lambda line: "1000 attributes"),
    "a type of 6": (CLOTH, 5, lambda line: "lace 6"),
    "no type": (CLOTH, 5, lambda line: "lace"),
    "no name": (CLOTH, 5, lambda line: "3"),
    "another split": (PART, 6, lambda line: line[:70] + "query"),
    "no split": (PART, 6, lambda line: line[:70]),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_is_named(tmp_path: Path, what: str) -> None:
    source = Made().write(tmp_path / "in")
    place, number, damage = BAD[what]
    lines = (source / place).read_text().split("\n")
    lines[number - 1] = damage(lines[number - 1])
    (source / place).write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        deepfashion.prepare(source, tmp_path / "out", partition=True)
    assert caught.value.line == number and caught.value.path == source / place and caught.value.remedy


def test_other_bad_files(tmp_path: Path) -> None:
    source = Made(40).write(tmp_path / "in")
    cases = {
        "not UTF-8": (IMG, b"1\nh\nimg/\xff.jpg" + b" 1" * 12),
        "a line of over": (IMG, b"1\nh\nimg/a.jpg" + b" -1" * 400_000),
        "no line after": (IMG, b"3\nheader\n\n"),
        "does not begin": (IMG, b"\x00" * 50),
        "no attribute of the type style": (CLOTH, b"4\nh\na 1\nb 2\nc 3\nd 4\n"),
    }
    for message, (place, data) in cases.items():
        before = (source / place).read_bytes()
        (source / place).write_bytes(data)
        with pytest.raises(DataError, match=message) as caught:
            deepfashion.prepare(source, tmp_path / "out")
        assert caught.value.line == (3 if "UTF-8" in message else caught.value.line)
        (source / place).write_bytes(before)
    for place in (IMG, "Img/img.zip"):
        (source / place).unlink()
        with pytest.raises(DataError, match="is missing"):
            deepfashion.prepare(source, tmp_path / "out")


def test_an_attribute_that_is_there_twice(tmp_path: Path) -> None:
    path, findings = tmp_path / "list_attr_cloth.txt", []
    path.write_text("6\nh\nlace 2\nlace 1\nlace 2\na 3\nb 4\nc 5\n")
    attributes, order = deepfashion.read_attributes(path, findings)
    assert attributes.values[1] == ("lace", "lace (line 5)") and order[:3].tolist() == [
        [1, 0],
        [0, 0],
        [1, 1],
    ]
    assert findings == ["list_attr_cloth.txt: 'lace' is there twice (line 5)"]


def test_reading_keeps_to_a_line_in_memory(tmp_path: Path) -> None:
    rng, path, n = np.random.default_rng(0), tmp_path / "list_attr_img.txt", 2_000
    order = np.column_stack([np.arange(1000) % 5, np.arange(1000) // 5])
    want = []
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{n}\nimage_name  attribute_labels\n")
        for i in range(n):
            values = np.full(1000, -1)
            values[chosen := np.sort(rng.choice(1000, 4, replace=False))] = 1
            want += [(i, *order[a]) for a in chosen.tolist()]
            file.write(f"img/Dress/img_{i:08d}.jpg    " + " ".join(f"{v:2d}" for v in values.tolist()) + "\n")
    tracemalloc.start()
    names, rows = deepfashion.read_images(path, order, [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(names) == n and np.array_equal(rows, want)
    assert path.stat().st_size > 6_000_000 > 3 * peak


def asen(made: Made, at: Path) -> Path:
    """Split files in ASEN's form: an image once, label_test.txt with all values, padded by tabs, 0 to 11."""
    folder = at / "DeepFashion"
    folder.mkdir(parents=True)
    has = [i for i in range(len(made.names)) if (made.values[i] == 1).any()]
    lists = {"train": has[::2], "test": has[1::2]}
    for name, chosen in lists.items():
        (folder / f"filenames_{name}.txt").write_text("".join(f"{made.names[i]}\n" for i in chosen))
        values = [np.flatnonzero(made.values[i] == 1).tolist() for i in chosen]
        one = [f"{k} {RANK[v[-1]][0]} {RANK[v[-1]][1]}\n" for k, v in enumerate(values)]
        if name == "train":
            (folder / "label_train.txt").write_text("".join(one))
            continue
        (folder / "candidate_test.txt").write_text("".join(one[:45]))
        (folder / "query_test.txt").write_text("".join(one[45:]))
        rows = [
            "\t".join([str(k), *(f"{TYPES[a]}\t{a}" for a in v)]) + "\t\t\t\r\n" for k, v in enumerate(values)
        ]
        (folder / "label_test.txt").write_text("".join(rows), newline="")
    names = [f"{each}-related" for each in ("texture", "fabric", "shape", "part", "style")]
    meta = {"ATTRIBUTES": names, "ATTRIBUTES_NUM": dict(zip(names, (3, 2, 2, 3, 2)))}
    (at / "meta.json").write_text(json.dumps({"DeepFashion": meta, "FashionAI": {}}))
    return at


def test_asens_split_files(tmp_path: Path) -> None:
    made, out = Made(), tmp_path / "out"
    given = asen(made, tmp_path / "splits")
    dataset, notes = deepfashion.prepare(made.write(tmp_path / "in"), out, given)
    for path in (given / "DeepFashion").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert "119 of 119 labels of ASEN's lists are those of the release" in notes
    assert (
        dataset.attributes.values[1] == ("faux fur", "lace")
        and dataset.about["split"] == "ASEN's split files"
    )
    test = dataset["test"]
    found = {(test.filenames[i], c, v) for i, c, v in read_all_values(out, "test").tolist()}
    assert found == {row for row in made.labels() if row[0] in set(test.filenames)}
    assert read_dataset(out, check_images=True).splits.keys() == {"train", "test"}


def test_command_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "data_prep" / "deepfashion.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    told = run("--help").stdout
    assert "mmlab.ie.cuhk.edu.hk" in told and "non-commercial research" in told and "289,222" in told
    source = str(Made().write(tmp_path / "in"))
    done = run("--source", source, "--out", str(tmp_path / "out"), "--by-content")
    assert done.returncode == 0 and "images (seeded, not ASEN's, seed 0)" in done.stdout, done.stderr
    failed = run("--source", str(tmp_path), "--out", str(tmp_path / "x"))
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
