"""data_prep/fashion_mnist.py on small IDX files made here, broken ones, and Debian's own when installed."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from places import DATA_PREP

from ccakit.data.layout import read_dataset
from ccakit.errors import DataError

SCRIPT = DATA_PREP / "fashion_mnist.py"
sys.path.insert(0, str(SCRIPT.parent))

import fashion_mnist as script  # noqa: E402

IMAGES, LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
WORN = [0, 1, 0, 2, 0, 3, 0, 3, -1, 3]  # by article: upper body, legs, whole body, feet, or none
SLEEVE = [0, -1, 1, -1, 1, -1, -1, -1, -1, -1]  # by article: short, long, or none


def idx(array: np.ndarray) -> bytes:
    """The IDX format, written apart from the script: 0, 0, type 8, dimensions, sizes (big-endian), bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def release(folder: Path, packed: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a small release: blobs of random brightness on black, and one image that is all black."""
    rng, parts = np.random.default_rng(0), {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 90), ("t10k", 40)):
        images = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
        images = (images * (rng.random((n, 28, 28)) < 0.5) * rng.random((n, 1, 1))).astype(np.uint8)
        images[3] = 0
        labels = rng.permutation(np.arange(n) % 10).astype(np.uint8)
        for stem, array in ((IMAGES, images), (LABELS, labels)):
            path = folder / (stem.format(part) + (".gz" if packed else ""))
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
        parts[part] = images, labels
    return parts


SIZES = {"train": 60, "valid": 25, "test": 30}


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_written_is_the_release(tmp_path: Path, packed: bool) -> None:
    parts = release(tmp_path / "in", packed)
    _, notes = script.prepare(tmp_path / "in", tmp_path / "out", SIZES, seed=3)
    for note in (
        "train images: 90 found, 60,000 expected",
        "pixels of a train image: 784 found, 784 expected",
        "t10k images of the rarest article: 4 found, 1,000 expected",
    ):
        assert note in notes
    assert sum("neither the published .gz (MD5) nor its content" in note for note in notes) == 4
    dataset = read_dataset(tmp_path / "out", check_images=True)
    assert dataset.attributes.sizes == (10, 4, 2, 4) and "MIT" in dataset.about["licence"]
    seen = {}
    for name, split in dataset.splits.items():
        images, articles = parts["t10k" if name == "test" else "train"]
        seen[name] = [int(Path(filename).stem) for filename in split.filenames]
        assert len(set(seen[name])) == SIZES[name] == len(split.filenames)
        labels = split.label_matrix()
        for row, number in enumerate(seen[name]):
            assert np.array_equal(cv2.imread(str(split.path(row)), cv2.IMREAD_UNCHANGED), images[number])
            article = articles[number]
            assert labels[row, :3].tolist() == [article, WORN[article], SLEEVE[article]]
    assert not set(seen["train"]) & set(seen["valid"])


def test_tone_is_the_quarter_of_the_items_own_brightness(tmp_path: Path) -> None:
    parts = release(tmp_path / "in", True)
    dataset, _ = script.prepare(tmp_path / "in", tmp_path / "out", SIZES)

    def own_mean(image: np.ndarray) -> float:
        item = [int(pixel) for pixel in image.ravel() if pixel > 0]
        return sum(item) / len(item) if item else 0.0

    means = {}
    for name, split in dataset.splits.items():
        images = parts["t10k" if name == "test" else "train"][0]
        means[name] = [own_mean(images[int(Path(filename).stem)]) for filename in split.filenames]
    edges = [float(np.percentile(means["train"], q)) for q in (25, 50, 75)]
    for name, split in dataset.splits.items():
        want = [sum(mean >= edge for edge in edges) for mean in means[name]]
        assert split.label_matrix()[:, 3].tolist() == want
    assert np.bincount(dataset["train"].label_matrix()[:, 3]).tolist() == [15, 15, 15, 15]


def test_queries_are_a_fifth_of_the_images(tmp_path: Path) -> None:
    release(tmp_path / "in", True)
    dataset, _ = script.prepare(tmp_path / "in", tmp_path / "out", SIZES)
    for name in ("valid", "test"):
        asks, answers = (
            set(rows[:, 0].tolist()) for rows in (dataset[name].queries, dataset[name].candidates)
        )
        assert len(asks) == SIZES[name] // 5 and len(asks | answers) == SIZES[name] and not asks & answers


def test_the_seed_decides(tmp_path: Path) -> None:
    release(tmp_path / "in", True)
    drawn = [script.prepare(tmp_path / "in", tmp_path / f"{i}", SIZES, s)[0] for i, s in enumerate((0, 0, 1))]
    names = [dataset["train"].filenames for dataset in drawn]
    assert names[0] == names[1] != names[2]
    for bad in ({**SIZES, "valid": 31}, {**SIZES, "test": 41}, {**SIZES, "train": 4}):
        with pytest.raises(ValueError, match="cannot draw"):
            script.prepare(tmp_path / "in", tmp_path / "x", bad)


def test_a_second_run_writes_only_what_is_not_there(tmp_path: Path) -> None:
    release(tmp_path / "in", True)
    whole, _ = script.prepare(tmp_path / "in", tmp_path / "out", SIZES)
    split = whole["train"]
    lost, spoilt, kept = (split.path(i) for i in range(3))
    data, times = spoilt.read_bytes(), {path: path.stat().st_mtime_ns for path in map(split.path, range(3))}
    lost.unlink()
    spoilt.write_bytes(data[:-1] + b"?")  # of the same size
    again, _ = script.prepare(tmp_path / "in", tmp_path / "out", SIZES)
    assert again["train"].filenames == split.filenames and lost.is_file() and spoilt.read_bytes() == data
    assert kept.stat().st_mtime_ns == times[kept] and not list((tmp_path / "out").rglob("*.partial"))


def test_what_the_checksums_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = IMAGES.format("train")
    release(tmp_path, packed=True)
    path = tmp_path / f"{stem}.gz"
    data = gzip.decompress(path.read_bytes())
    sums = hashlib.md5(path.read_bytes()).hexdigest(), hashlib.sha256(data).hexdigest()
    monkeypatch.setitem(script.PUBLISHED, stem, sums)
    assert f"{stem}.gz: as published (MD5)" in script.read_release(tmp_path, "train").notes
    path.write_bytes(gzip.compress(data, 1))
    told = "not the published .gz (MD5), but its content is as published (SHA-256)"
    assert f"{stem}.gz: {told}" in script.read_release(tmp_path, "train").notes
    (tmp_path / stem).write_bytes(data)
    assert f"{stem}: {told}" in script.read_release(tmp_path, "train").notes
    (tmp_path / stem).write_bytes(data[:-1] + b"?")
    assert script.read_release(tmp_path, "train").notes[0].startswith(f"{stem}: neither")


def test_no_more_is_unpacked_than_the_header_says(tmp_path: Path) -> None:
    """A bomb of 300 MB, behind a header of 7 bytes and behind one of 2**32."""
    path = tmp_path / "x.gz"
    for count, problem in (
        (7, "holds more bytes, where its header says 7"),
        (2**32 - 1, "would hold 4,294,967,295"),
    ):
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(struct.pack(">BBBBI", 0, 0, 8, 1, count))
            for _ in range(300):
                file.write(bytes(2**20))
        tracemalloc.start()
        with pytest.raises(DataError, match=problem) as caught:
            script.read_idx(path, 1)
        assert caught.value.path == path and tracemalloc.get_traced_memory()[1] < 4 * 2**20
        tracemalloc.stop()


BROKEN = {
    "missing": (IMAGES, lambda data: None),
    "gzip cut short": (IMAGES, lambda data: gzip.compress(data)[:-30]),
    "no gzip": (LABELS, lambda data: b"\x1f\x8b" + data),
    "data cut short": (IMAGES, lambda data: gzip.compress(data[:-1])),
    "data too long": (LABELS, lambda data: data + b"\x00"),
    "header cut short": (IMAGES, lambda data: data[:11]),
    "empty": (LABELS, lambda data: b""),
    "wrong magic": (IMAGES, lambda data: b"\x00\x00\x0d\x03" + data[4:]),
    "labels for images": (LABELS, lambda data: idx(np.zeros((4, 28, 28), np.uint8))),
    "another count": (LABELS, lambda data: idx(np.zeros(7, np.uint8))),
    "an eleventh article": (LABELS, lambda data: data[:-1] + b"\x0a"),
    "a header of 2**96": (IMAGES, lambda data: data[:4] + b"\xff" * 12),
}


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, what: str, part: str) -> None:
    release(tmp_path, packed=False)
    stem, damage = BROKEN[what]
    path = tmp_path / stem.format(part)
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        script.prepare(tmp_path, tmp_path / "out", SIZES)
    assert stem.format(part) in caught.value.path.name
    assert "dataset-fashion-mnist" in caught.value.remedy and not (tmp_path / "out").exists()


def test_command_line(tmp_path: Path) -> None:
    release(tmp_path / "in", True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent.parent)

    told = run("--help").stdout
    for word in ("MIT", "Zalando", "apt-get install dataset-fashion-mnist", "MD5", "60,000 images"):
        assert word in told
    done = run("--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--all")
    assert done.returncode == 0 and "train 75, valid 15, test 40 images" in done.stdout, done.stderr
    failed = run("--source", str(tmp_path / "no"), "--out", str(tmp_path / "out"))
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    release(tmp_path / "in", True)
    monkeypatch.setattr(script, "write_images", interrupt)
    with pytest.raises(SystemExit, match="^error: interrupted; the same command goes on from there$"):
        script.main(["--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--all"])


def test_debians_release(tmp_path: Path) -> None:
    if not script.DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    sizes = {"train": 400, "valid": 100, "test": 100}
    dataset, notes = script.prepare(script.DEBIAN, tmp_path, sizes)
    assert sum("its content is as published (SHA-256)" in note for note in notes) == 4
    for stem, (md5, _) in script.PUBLISHED.items():  # Zalando's name and date put back into the header
        date = struct.pack("<I", 1_504_176_606 if stem.startswith("train") else 1_504_176_627)
        data = (script.DEBIAN / f"{stem}.gz").read_bytes()
        whole = b"\x1f\x8b\x08\x08" + date + b"\x00\x03" + stem.encode() + b"\x00" + data[10:]
        assert hashlib.md5(whole).hexdigest() == md5, stem
    train = script.read_release(script.DEBIAN, "train")
    images, articles = train.images, train.articles
    assert images.shape == (60_000, 28, 28) and np.bincount(articles).tolist() == [6_000] * 10
    labels = dataset["train"].label_matrix()
    assert np.bincount(labels[:, 3]).tolist() == [100] * 4
    boots, trousers = (images[articles == label].mean(axis=0) for label in (9, 1))
    assert (
        boots[20:].mean() > trousers[20:].mean() and trousers[:8].mean() > boots[:8].mean()
    )  # names in order
