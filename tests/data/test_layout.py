"""The layout on disk: round trips, every corruption an error with file and line, and the real split files."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from places import ROOT

from ccakit.attributes import Attributes
from ccakit.audit.dataset import audit
from ccakit.data.drawn import write_garments
from ccakit.data.layout import read_dataset, rows_of, write_dataset
from ccakit.data.rows import read_all_values, read_labels
from ccakit.data.split import Dataset, Split
from ccakit.data.text import leaves, read_filenames, read_numbers, split_lines
from ccakit.errors import DataError

ATTRIBUTES = Attributes(
    ("sleeve", "tone", "collar"), (("none", "short", "long"), ("dark", "light"), tuple("abcde"))
)


def random_split(name: str, n: int, rng: np.random.Generator, regions: bool = True) -> Split:
    """A split with labels for some conditions of every image, and boxes for some of them."""
    matrix = np.column_stack([rng.integers(-1, size, n) for size in ATTRIBUTES.sizes])
    matrix[:, 1] = rng.integers(0, 2, n)
    rows = rows_of(matrix)
    boxes = None
    if regions:
        corners = np.sort(rng.random((len(rows), 2, 2)), axis=1)
        boxes = np.column_stack([rows[:, :2], corners.reshape(-1, 4)])[rng.random(len(rows)) < 0.7]
    names = [f"images/{name} {i:03d} é.png" for i in range(n)]
    if name == "train":
        return Split(name, Path("."), ATTRIBUTES, names, rows, regions=boxes)
    asks = rng.random(len(rows)) < 0.3
    asks[:2] = False, True
    labels = np.concatenate([rows[~asks], rows[asks]])
    return Split(name, Path("."), ATTRIBUTES, names, labels, rows[asks], rows[~asks], boxes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small data set on disk, with regions for train."""
    rng = np.random.default_rng(0)
    splits = [random_split(name, 12, rng, regions=name == "train") for name in ("train", "valid", "test")]
    write_dataset(tmp_path / "toy", "toy", ATTRIBUTES, splits, {"made": "here"})
    return tmp_path / "toy"


def same(one: Split, other: Split) -> bool:
    pairs = [(getattr(one, k), getattr(other, k)) for k in ("labels", "queries", "candidates", "regions")]
    return one.filenames == other.filenames and all(
        (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)) for a, b in pairs
    )


@pytest.mark.parametrize("seed", range(10))
def test_written_and_read_again_is_equal(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    splits = [random_split(name, int(rng.integers(5, 60)), rng) for name in ("train", "valid", "test")]
    write_dataset(tmp_path, "toy", ATTRIBUTES, splits, {"seed": seed})
    dataset = read_dataset(tmp_path)
    assert dataset.attributes == ATTRIBUTES and dataset.name == "toy" and dataset.about == {"seed": seed}
    assert all(same(split, dataset[split.name]) for split in splits)
    assert dataset["train"].path(0) == tmp_path / splits[0].filenames[0]
    assert not list(tmp_path.glob(".*")), "a temporary file was left"


def test_label_matrix_takes_the_first_of_several_values() -> None:
    rows = np.array([[0, 0, 2], [1, 1, 1], [0, 0, 1], [0, 0, 3], [1, 2, 4]])
    split = Split("train", Path("."), ATTRIBUTES, ["a", "b", "c"], rows)
    assert split.label_matrix().tolist() == [[2, -1, -1], [-1, 1, 4], [-1, -1, -1]]
    assert split.multi_valued == 1
    matrix = np.random.default_rng(1).integers(-1, 2, (30, 3))
    split = Split("train", Path("."), ATTRIBUTES, [str(i) for i in range(30)], rows_of(matrix))
    assert np.array_equal(split.label_matrix(), matrix) and split.multi_valued == 0


def test_writing_keeps_the_order_of_rows_and_replaces_stale_regions(root: Path) -> None:
    rows = np.array([[1, 0, 2], [0, 1, 1], [0, 0, 1], [1, 2, 4]])
    write_dataset(root, "toy", ATTRIBUTES, [Split("train", root, ATTRIBUTES, ["a.png", "b.png"], rows)])
    assert (root / "label_train.txt").read_text() == "1 0 2\n0 1 1 0 1\n1 2 4\n"
    train = read_dataset(root, ("train",))["train"]
    assert train.labels.tolist() == rows.tolist() and train.regions is None


BAD_SPLITS = {
    "label": dict(labels=np.array([[0, 0, 1], [1, 1, 2]])),
    "condition": dict(labels=np.array([[0, 0, 1], [1, 3, 0]])),
    "image": dict(labels=np.array([[0, 0, 1], [2, 0, 0]])),
    "negative": dict(labels=np.array([[0, 0, 1], [1, 0, -1]])),
    "path": dict(filenames=["a.png", "../b.png"]),
    "empty path": dict(filenames=["a.png", ""]),
    "box": dict(regions=np.array([[0, 0, 0.1, 0.1, 0.2, 0.2], [0, 0, 0.5, 0.1, 0.5, 0.2]])),
}


@pytest.mark.parametrize("what", BAD_SPLITS)
def test_bad_data_is_not_written(tmp_path: Path, what: str) -> None:
    good = dict(filenames=["a.png", "b.png"], labels=np.array([[0, 0, 1], [1, 1, 1]]))
    split = Split("train", tmp_path, ATTRIBUTES, **{**good, **BAD_SPLITS[what]})
    with pytest.raises(DataError) as caught:
        write_dataset(tmp_path, "toy", ATTRIBUTES, [split])
    assert caught.value.line == 2 and caught.value.remedy and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [" a.png", "b.png\t", "\udcff.png"])
def test_names_that_would_not_come_back_are_not_written(tmp_path: Path, name: str) -> None:
    split = Split("train", tmp_path, ATTRIBUTES, [name], np.array([[0, 0, 1]]))
    with pytest.raises(DataError, match="filenames_train.txt"):
        write_dataset(tmp_path, "toy", ATTRIBUTES, [split])
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in root.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(root, "toy", ATTRIBUTES, [random_split("train", 5, np.random.default_rng(5))])
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before


# --- reading: lines, numbers


def test_lines_end_as_editors_have_it(tmp_path: Path) -> None:
    assert split_lines("a\r\nb\nc\r\r\nd\re") == ["a", "b", "c", "d", "e"]
    path = tmp_path / "query_test.txt"
    path.write_bytes(b"0 0 1\t\t\r\n1 1 0\r2 0 2 \r\n\r\n")
    assert read_labels(path, ATTRIBUTES).rows.tolist() == [[0, 0, 1], [1, 1, 0], [2, 0, 2]]
    path.write_bytes(b"0 0 1\r\n1 1 0\r2 0 x\n")
    with pytest.raises(DataError, match="line 3: 'x' is not a whole number"):
        read_labels(path, ATTRIBUTES)


def test_a_byte_order_mark_is_no_text(root: Path) -> None:
    before = read_dataset(root)
    for path in root.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    after = read_dataset(root)
    assert all(same(split, after[name]) for name, split in before.splits.items())
    assert after.attributes == before.attributes and after.findings == before.findings


def test_reading_numbers_agrees_with_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table = rng.integers(0, 10**9, (500, 5))
    path = tmp_path / "numbers.txt"
    path.write_text("\n".join(rng.choice([" ", "\t", "  "]).join(map(str, row)) for row in table))
    values, lines, notes = read_numbers(path)
    assert np.array_equal(values.reshape(500, 5), np.loadtxt(path, dtype=np.int64)) and not notes
    assert np.array_equal(lines, np.repeat(np.arange(1, 501), 5))
    floats = rng.random((200, 6))
    path.write_text("\n".join(" ".join(map(repr, row)) for row in floats.tolist()))
    assert np.array_equal(read_numbers(path, float)[0].reshape(200, 6), floats)


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a/b.jpg", False),
        ("a/../b.jpg", False),
        ("a../b..jpg", False),
        ("..a/b", False),
        ("Nina./x.jpg", False),
    ]
    + [
        (name, True)
        for name in ("/a.jpg", "../a", "a/../../b", "C:\\a.jpg", "\\a", "..\\a", "a\\..\\..\\b", "..")
    ],
)
def test_which_paths_leave_their_folder(tmp_path: Path, name: str, out: bool) -> None:
    assert leaves(name) == out
    path = tmp_path / "filenames_test.txt"
    path.write_text(f"fine.jpg\n{name}\n")
    if not out:
        assert read_filenames(path).lines == ["fine.jpg", name]
    else:
        with pytest.raises(DataError, match="line 2: .* points outside"):
            read_filenames(path)


# --- reading: errors

LINE_3 = {  # file: {text of line 3: a word of the message}
    "filenames_train.txt": {"": "empty", "/x": "outside", "a/../../b.png": "outside", "a\x00b": "control"},
    "label_train.txt": {
        "x 0 1": "'x'",
        "1 0": "2 columns",
        "1": "1 columns",
        "1 0 1 2": "4 columns",
        "-1 0 1": "'-1'",
        "1 0 1.5": "'1.5'",
        "12 0 0": "image 12",
        "1 3 0": "condition 3",
        "1 1 2": "label 2",
        "1 0 1 1 9": "label 9",
        f"1 0 {'9' * 30}": "9999",
        "1 0 ١": "'١'",
        "1 0 1_0": "'1_0'",
        f"1 0 {2**63}": "92233720368",
    },
    "query_test.txt": {"0 0 3": "label 3", "0 0": "2 columns", "12 0 0": "image 12"},
    "candidate_valid.txt": {"0 9 0": "condition 9", "a,b,c": "'a,b,c'"},
    "regions_train.txt": {
        "1 0 0.5 0.1 0.5 0.9": "box",
        "1 0 0 0 1 1.01": "box",
        "1 0 -0.1 0 1 1": "box",
        "1 0 0 0 1": "5 columns",
        "1 0 nan 0 1 1": "'nan'",
        "1.5 0 0 0 1 1": "region",
        "12 0 0 0 1 1": "image 12",
        "1 3 0 0 1 1": "condition 3",
        "1 0 0 0 1e999 1": "region",
        "1 0 0 0 1e 1": "'1e'",
    },
}


@pytest.mark.parametrize(
    ("name", "text", "word"), [(f, t, w) for f, cases in LINE_3.items() for t, w in cases.items()]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_bad_line_is_named(root: Path, name: str, text: str, word: str, end: str) -> None:
    path = root / name
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = text
    path.write_bytes(end.join([*lines, ""]).encode())
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    error = caught.value
    assert (error.path, error.line) == (path, 3) and word in error.problem and error.remedy
    assert str(error).startswith(f"{path}, line 3: {error.problem}. ")


@pytest.mark.parametrize("name", sorted(LINE_3))
def test_empty_missing_and_foreign_files(root: Path, name: str) -> None:
    path = root / name
    empty = (b"", b" \r\n\t", b"\xef\xbb\xbf", b"\x0b\x0c", b"\xc2\xa0\n")
    for content, word, line in (*((each, "empty", None) for each in empty), (b"a\nb\n\xff\n", "UTF-8", 3)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=word) as caught:
            read_dataset(root)
        assert caught.value.path == path and caught.value.line == line
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_dataset(root)
    assert caught.value.path == path


META = {"toy": {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": {"a": 2, "b": 3}}}
BAD_META = {
    "not JSON": "{",
    "deep": "[" * 100_000,
    "list": "[]",
    "no entry": '{"x": {}, "y": {}}',
    "entry": '{"toy": 1}',
    "names": {"ATTRIBUTES": "a"},
    "twice": {"ATTRIBUTES": ["a", "a"]},
    "none": {"ATTRIBUTES": []},
    "counts": {"ATTRIBUTES_NUM": {"a": 2}},
    "more": {"ATTRIBUTES_NUM": {"a": 2, "b": 3, "c": 4}},
    "zero": {"ATTRIBUTES_NUM": {"a": 0, "b": 3}},
    "true": {"ATTRIBUTES_NUM": {"a": True, "b": 3}},
    "huge": {"ATTRIBUTES_NUM": {"a": 10**12, "b": 3}},
    "number name": {"ATTRIBUTES": ["a", 1]},
    "values": {"VALUES": {"a": ["x", "y"]}},
    "few": {"VALUES": {"a": ["x"], "b": ["x", "y", "z"]}},
    "same": {"VALUES": {"a": ["x", "x"], "b": ["x", "y", "z"]}},
    "about": {"ABOUT": "text"},
}


@pytest.mark.parametrize("what", BAD_META)
def test_bad_meta(root: Path, what: str) -> None:
    bad = BAD_META[what]
    (root / "meta.json").write_text(
        bad if isinstance(bad, str) else json.dumps({"toy": {**META["toy"], **bad}})
    )
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    assert caught.value.path == root / "meta.json" and caught.value.remedy


def test_meta_is_found_here_or_above(root: Path, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({**META, "other": {}}))
    assert read_dataset(root).attributes == ATTRIBUTES  # its own comes first
    (root / "meta.json").unlink()
    with pytest.raises(DataError, match="out of range"):
        read_dataset(root)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(DataError, match="meta.json.*is missing"):
        read_dataset(root)
    with pytest.raises(DataError, match="is not a folder"):
        read_dataset(tmp_path / "nowhere")


def test_a_split_that_lacks_a_file(root: Path) -> None:
    (root / "candidate_test.txt").unlink()
    dataset = read_dataset(root)
    assert sorted(dataset.splits) == ["train", "valid"]
    assert any("test" in text and "candidate_test.txt" in text for text in dataset.findings)
    with pytest.raises(DataError, match="candidate_test.txt.* is missing"):
        dataset["test"]
    with pytest.raises(DataError, match="without the split 'valid'"):
        read_dataset(root, ("train",))["valid"]
    with pytest.raises(DataError, match="no split 'val'"):
        dataset["val"]
    with pytest.raises(ValueError, match="no such split: val"):
        read_dataset(root, ("val",))
    for path in root.glob("*_t*.txt"):
        path.unlink()
    with pytest.raises(DataError, match="has no list of the splits"):
        read_dataset(root, ("train", "test"))


def test_random_corruption_is_a_data_error_or_harmless(root: Path) -> None:
    """Bytes changed, cut, doubled anywhere: DataError that names a file, or data that still fit."""
    rng = np.random.default_rng(3)
    files, refused = sorted(root.iterdir()), 0
    for _ in range(400):
        path = files[rng.integers(len(files))]
        before = path.read_bytes()
        data, at = bytearray(before), int(rng.integers(len(before)))
        kind = rng.integers(4)
        if kind == 0:
            data[at] = rng.integers(256)
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data[at:at] = rng.choice([b"\n", b"\r", b" ", b"-", b"\x00", b"../", b"9", b"\xc3"])
        else:
            data = data[:at] + data[at : at + 9] * 2
        path.write_bytes(data)
        try:
            dataset = read_dataset(root)
            for split in dataset.splits.values():
                assert (split.labels[:, 0] < len(split.filenames)).all() and (
                    split.label_matrix() >= -1
                ).all()
        except DataError as error:
            refused += 1
            assert error.path.parent in (root, root.parent) and error.remedy
        path.write_bytes(before)
    assert refused > 100


def test_the_error_survives_pickling_and_a_data_loader() -> None:
    error = DataError("a.txt", "is broken", "Mend it.", 3)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.line, again.remedy) == (str(error), 3, "Mend it.")
    assert str(DataError(str(error))) == str(error)


# --- findings


def test_findings(root: Path) -> None:
    lists = {
        "filenames_train.txt": "a.png\r\nb.png\r\nc.png\r\na.png\r\nd.png\r\n",
        "label_train.txt": "0 0 1 0 2\t\t\n0 0 1\n1 0 1\n2 0 1 1 0\r3 1 0\n",
        "filenames_test.txt": "e.png\nf.png\ng.png",
        "query_test.txt": "0 0 1\n1 0 2\n",
        "candidate_test.txt": "2 0 1\n",
    }
    for name, text in lists.items():
        (root / name).write_bytes(text.encode())
    (root / "regions_train.txt").unlink()
    assert read_dataset(root, ("train", "test")).findings == [
        "filenames_train.txt: 5 lines with CRLF at the end",
        "label_train.txt: 1 line with a lone CR",
        "label_train.txt: 1 line padded with tabs",
        "train: 1 path more than once in filenames_train.txt, e.g. 'a.png' in lines 1, 4",
        "train: 1 label row repeats an earlier one",
        "train: 1 of 5 images without a label",
        "train: 1 image has several values of one attribute",
        "train: 8 values have fewer than two images: sleeve none (0), sleeve long (1), tone light (0), "
        "collar a (0), collar b (0), ...",
        "test: 1 of 2 queries have no relevant candidate: their AP is 0 and overall mAP at most 50.00",
    ]


def test_all_values_in_either_numbering(root: Path) -> None:
    rng = np.random.default_rng(4)
    test = read_dataset(root)["test"]
    extra = np.array([[i % 12, c, v] for i, (c, v) in enumerate((c, v) for c in range(3) for v in range(5))])
    extra = extra[extra[:, 2] < np.array(ATTRIBUTES.sizes)[extra[:, 1]]]
    rows = np.unique(np.concatenate([test.labels, extra]), axis=0)
    ids = [np.sort(part) for part in np.split(rng.permutation(10), np.cumsum(ATTRIBUTES.sizes)[:-1])]
    path = root / "label_test.txt"
    for numbered in (rows, np.array([[i, c + 1, ids[c][v]] for i, c, v in rows])):
        lines = [" ".join(map(str, [i, *numbered[numbered[:, 0] == i, 1:].ravel()])) for i in range(12)]
        path.write_text("\n".join(lines))
        assert np.array_equal(np.unique(read_all_values(root, "test"), axis=0), rows)
    several = sum(len(rows[(rows[:, :2] == row[:2]).all(axis=1)]) > 1 for row in test.labels)
    said = [text for text in read_dataset(root).findings if "more than one value" in text]
    assert len(said) == 1 and f"{100 * several / len(test.labels):.1f}%" in said[0]
    image, condition, label = test.candidates[0]
    keep = ~(rows == test.candidates[0]).all(axis=1)
    path.write_text("\n".join(f"{i} {c} {v}" for i, c, v in rows[keep]))
    with pytest.raises(DataError, match="not among its image's values") as caught:
        read_dataset(root)
    assert (caught.value.path.name, caught.value.line) == ("candidate_test.txt", 1)
    path.write_text("0 7 7\n")
    with pytest.raises(DataError, match="numbers its values neither"):
        read_all_values(root, "test")


# --- images


def write_pictures(root: Path, dataset: Dataset) -> None:
    picture = cv2.imencode(".png", np.full((4, 5, 3), 90, np.uint8))[1].tobytes()
    for split in dataset.splits.values():
        for image in range(len(split.filenames)):
            split.path(image).parent.mkdir(parents=True, exist_ok=True)
            split.path(image).write_bytes(picture)


def test_images_are_opened_on_request(root: Path, tmp_path: Path) -> None:
    dataset = read_dataset(root)
    write_pictures(root, dataset)
    assert same(read_dataset(root, check_images=True)["test"], dataset["test"])
    image = dataset["valid"].path(6)
    good = image.read_bytes()
    outside = tmp_path / "outside.png"
    outside.write_bytes(good)

    def refused(word: str) -> None:
        with pytest.raises(DataError, match=word) as caught:
            read_dataset(root, check_images=True)
        assert (caught.value.path, caught.value.line) == (root / "filenames_valid.txt", 7)
        assert image.name in str(caught.value) and caught.value.remedy

    for content, word in ((b"", "is empty"), (b"text", "is broken"), (good[:-20], "is broken")):
        image.write_bytes(content)
        refused(word)
    image.unlink()
    refused("is missing")
    image.symlink_to(outside)
    refused("outside the folder")
    image.unlink()
    image.symlink_to(image.name)  # a link to itself
    refused("cannot be read|is missing")


# --- the real split files

COUNTS = {
    "FashionAI": (18000, 3600, 14400),
    "DARN": (21461, 4293, 17168),
    "DeepFashion": (27625, 5525, 22100),
}


@pytest.fixture(scope="module")
def real(splits: Path) -> dict[str, Dataset]:
    return {name: read_dataset(splits / name) for name in COUNTS}


@pytest.mark.parametrize("name", COUNTS)
def test_real_splits(real: dict[str, Dataset], name: str) -> None:
    dataset = real[name]
    images, queries, candidates = COUNTS[name]
    assert dataset.name == name and sorted(dataset.splits) == ["test", "valid"]
    for split in dataset.splits.values():
        assert (len(split.filenames), len(split.queries), len(split.candidates)) == COUNTS[name]
        assert len(split.labels) == images and (split.label_matrix() >= 0).sum() == images
        for side, rows in (("query", split.queries), ("candidate", split.candidates)):
            text = (dataset.root / f"{side}_{split.name}.txt").read_text()
            assert rows.tolist() == [[int(cell) for cell in line.split()] for line in text.splitlines()]
    with pytest.raises(DataError, match="filenames_train.txt.* is missing"):
        dataset["train"]


def test_findings_of_the_real_splits(real: dict[str, Dataset]) -> None:
    found = {name: "\n".join(dataset.findings) for name, dataset in real.items()}
    assert "lack of filenames_train.txt (label_train.txt (144335 rows) found alone)" in found["FashionAI"]
    assert (
        "query_test.txt: 3600 lines with CRLF" in found["FashionAI"] and "relevant" not in found["FashionAI"]
    )
    assert "test: 3 of 4293 queries have no relevant candidate" in found["DARN"] and "99.93" in found["DARN"]
    assert "CRLF" not in found["DARN"] and "lone CR" not in "".join(found.values())
    deep = found["DeepFashion"]
    assert "test: 23 of 5525 queries have no relevant candidate" in deep and "99.58" in deep
    assert "test: in 46.3% of the rows the image has more than one value" in deep
    assert "valid: 1 path more than once" in deep and "lines 6347, 17038" in deep
    assert "label_test.txt: 27624 lines padded with tabs" in deep


def test_sizes_of_the_real_attributes(real: dict[str, Dataset]) -> None:
    sizes = {name: dataset.attributes.sizes for name, dataset in real.items()}
    assert sum(sizes["FashionAI"]) == 54 and len(sizes["DARN"]) == 9 and sum(sizes["DeepFashion"]) == 1000
    rows = read_labels(real["FashionAI"].root / "label_train.txt", real["FashionAI"].attributes).rows
    assert rows.shape == (144335, 3) and len(np.unique(rows[:, 0])) == 144335


def test_layout_imports_neither_torch_nor_opencv() -> None:
    code = "import sys, ccakit.data.layout; sys.exit(any(m in sys.modules for m in ('torch', 'cv2')))"
    root = ROOT
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def numbered_articles(root, images=60, values=50):
    """A data set whose attribute `article` has hardly two images of a value; `tone` has three values."""
    attributes = Attributes.numbered({"article": values, "tone": 3})
    rows = np.array([[i, c, [i % values, i % 3][c]] for i in range(images) for c in range(2)])
    train = Split.from_tables("train", root, attributes, [f"{i}.jpg" for i in range(images)], [rows])
    write_dataset(root, root.name, attributes, [train])
    return root


@pytest.mark.parametrize(
    ("images", "values", "warned"),
    [(60, 60, True), (60, 31, True), (60, 30, False), (20, 20, False), (22, 21, True)],
)
def test_an_attribute_whose_values_hardly_repeat_is_found_by_reader_and_auditor(
    tmp_path, images, values, warned
):
    root = numbered_articles(tmp_path / "shop", images, values)
    text = f"train: the values of article hardly repeat: {values} values of {images} images"
    assert sum(finding.startswith(text) for finding in read_dataset(root).findings) == warned
    found = [finding["text"] for finding in audit(root, images=False)["findings"]]
    assert sum(finding.startswith(text) for finding in found) == warned
    assert not any("tone hardly" in finding for finding in found)


@pytest.mark.parametrize("asked,says", [("test", "measure on valid"), ("valid", "best epoch")])
def test_a_split_that_is_not_there_is_said_beside_those_that_are(tmp_path, asked, says):
    write_garments(tmp_path / "data", 8, 8, 8, size=8, workers=1, progress=False)
    for file in (tmp_path / "data").glob(f"*_{asked}.txt"):
        file.unlink()
    with pytest.raises(DataError, match="there are: train, (valid|test)") as caught:
        read_dataset(tmp_path / "data", splits=(asked,))
    assert says in caught.value.remedy
