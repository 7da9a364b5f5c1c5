"""Hostile input: 10,000 damaged files of the layout end in valid data, or in a DataError with the file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from attacks import attack, damage, damaged, watched
from csn_lists import read_csn_triplets
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

from ccakit.attributes import Attributes
from ccakit.data.images import image_size, read_image
from ccakit.data.layout import read_dataset, rows_of, write_dataset
from ccakit.data.meta import MOST_VALUES, read_meta
from ccakit.data.rows import read_all_values, read_labels, read_regions
from ccakit.data.split import Split
from ccakit.data.text import CONTROL, leaves, read_filenames
from ccakit.data.triplet_lists import read_triplets, write_triplets
from ccakit.errors import DataError

ATTRIBUTES = Attributes(("sleeve", "tone"), (("none", "short", "long"), ("dark", "light")))
IMAGES = 8


def lists(root: Path) -> None:
    """A small data set in the layout, with every kind of file."""
    rng = np.random.default_rng(0)
    splits = []
    for name in ("train", "test"):
        rows = rows_of(np.column_stack([rng.integers(0, size, IMAGES) for size in ATTRIBUTES.sizes]))
        boxes = np.column_stack([rows[:, :2], np.sort(rng.random((len(rows), 2, 2)), axis=1).reshape(-1, 4)])
        names = [f"images/{name} {i} é.png" for i in range(IMAGES)]
        sides = {} if name == "train" else dict(candidates=rows[:10], queries=rows[10:])
        splits.append(Split(name, root, ATTRIBUTES, names, rows, regions=boxes, **sides))
        for i, each in enumerate(names):
            (root / each).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3 + i, 4)).save(root / each)
    write_dataset(root, "toy", ATTRIBUTES, splits, {"made": "here"})
    rows = splits[1].labels
    of = [rows[rows[:, 0] == i, 1:].ravel().tolist() for i in range(IMAGES)]
    (root / "label_test.txt").write_text(
        "".join(f"{i} {' '.join(map(str, each))}\t\r\n" for i, each in enumerate(of))
    )
    write_triplets(root, "train", rng.integers(0, 2, (12, 4)))
    (root / "csn.txt").write_text("".join(f"{a} {b} {c}\n" for a, b, c in rng.integers(0, IMAGES, (12, 3))))


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory) -> None:
    """What is imported late is imported before anything is watched."""
    root = tmp_path_factory.mktemp("imported")
    lists(root)
    (root / "label_train.txt").read_text("utf-8-sig")
    read_dataset(root, check_images=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "above" / "toy"
    folder.mkdir(parents=True)
    lists(folder)
    return folder


def check_split(split: Split) -> None:
    """All that those who use a split rely on."""
    n, sizes = len(split.filenames), np.array(split.attributes.sizes)
    assert n and not any(leaves(name) or CONTROL.search(name) or not name for name in split.filenames)
    for rows in (split.labels, split.queries, split.candidates):
        if rows is not None:
            assert (
                rows.dtype == np.int64
                and rows.ndim == 2
                and rows.shape[1] == 3
                and len(rows)
                and rows.min() >= 0
            )
            assert (
                (rows[:, 0] < n).all()
                and (rows[:, 1] < len(sizes)).all()
                and (rows[:, 2] < sizes[rows[:, 1]]).all()
            )
    if split.regions is not None:
        boxes = split.regions[:, 2:]
        assert (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 1
        assert (split.regions[:, 0] < n).all() and (split.regions[:, 1] < len(sizes)).all()


def whole_set(root: Path, splits: tuple[str, ...]) -> None:
    dataset = read_dataset(root, splits)
    assert dataset.splits or dataset.findings
    for split in dataset.splits.values():
        check_split(split)


def rows_only(root: Path) -> None:
    rows = read_labels(root / "label_train.txt", ATTRIBUTES, IMAGES).rows
    assert rows.shape == (len(rows), 3) and 0 <= rows.min() and (rows.max(axis=0) < [IMAGES, 2, 3]).all()


def meta_only(root: Path) -> None:
    attributes = read_meta(root).attributes
    assert sum(attributes.sizes) <= MOST_VALUES and "".join(attributes.names).encode()
    assert len(attributes) and min(attributes.sizes) >= 1


def regions_only(root: Path) -> None:
    table = read_regions(root / "regions_train.txt", ATTRIBUTES, IMAGES)
    rows = table.rows
    assert rows.shape == (len(table.lines), 6) and np.isfinite(rows).all() and rows.min() >= 0


def triplets_only(root: Path) -> None:
    rows = read_triplets(root / "triplets_train.txt", ATTRIBUTES, IMAGES)
    assert (
        rows.shape == (len(rows), 4) and len(rows) and (rows.max(axis=0) < [IMAGES, IMAGES, IMAGES, 2]).all()
    )


def csn_only(root: Path) -> None:
    rows = read_csn_triplets(root / "csn.txt", IMAGES)
    assert rows.shape == (len(rows), 3) and len(rows) and 0 <= rows.min() <= rows.max() < IMAGES


def values_only(root: Path) -> None:
    rows = read_all_values(root, "test")
    assert (rows[:, 0] < IMAGES).all() and (rows[:, 2] < np.array(ATTRIBUTES.sizes)[rows[:, 1]]).all()


def names_only(root: Path) -> None:
    assert not any(map(leaves, read_filenames(root / "filenames_train.txt").lines))


READERS = {  # name: file, reader, files to damage
    "labels": ("label_train.txt", rows_only, 1200),
    "regions": ("regions_train.txt", regions_only, 1200),
    "meta": ("meta.json", meta_only, 1200),
    "triplets": ("triplets_train.txt", triplets_only, 1200),
    "csn": ("csn.txt", csn_only, 1200),
    "names": ("filenames_train.txt", names_only, 1200),
    "all values": ("label_test.txt", values_only, 600),
    "set, labels": ("label_train.txt", lambda root: whole_set(root, ("train",)), 500),
    "set, names": ("filenames_train.txt", lambda root: whole_set(root, ("train",)), 500),
    "set, regions": ("regions_train.txt", lambda root: whole_set(root, ("train",)), 300),
    "set, meta": ("meta.json", lambda root: whole_set(root, ("train", "test")), 300),
    "set, queries": ("query_test.txt", lambda root: whole_set(root, ("test",)), 300),
    "set, candidates": ("candidate_test.txt", lambda root: whole_set(root, ("test",)), 300),
    "set, all values": ("label_test.txt", lambda root: whole_set(root, ("test",)), 300),
}


def test_there_are_ten_thousand_files() -> None:
    assert sum(files for _, _, files in READERS.values()) >= 10_000


@pytest.mark.parametrize("share", [0.1, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", READERS)
def test_damaged_files_are_read_or_refused(root: Path, what: str, share: float) -> None:
    name, reader, files = READERS[what]
    attack(root, name, reader, max(100, round(share * files)))


@pytest.mark.parametrize("place", ["toy", "sleeve", "short", "made"])
def test_half_a_character_is_refused(root: Path, place: str) -> None:
    """JSON can write half of a surrogate pair, which nothing can print or write again."""
    good = (root / "meta.json").read_text("utf-8")
    (root / "meta.json").write_text(good.replace(f'"{place}"', f'"{place}\\ud800"'))
    try:
        with watched(root), pytest.raises(DataError, match="meta.json: holds what is not text") as caught:
            read_meta(root)
        assert str(caught.value).encode()
    finally:
        (root / "meta.json").write_text(good, "utf-8")


def test_a_bomb_of_values_is_refused(root: Path) -> None:
    """Each attribute is within the limit, all of them are 10^9 values."""
    good, names = (root / "meta.json").read_bytes(), [str(i) for i in range(1000)]
    bomb = {"toy": {"ATTRIBUTES": names, "ATTRIBUTES_NUM": dict.fromkeys(names, MOST_VALUES)}}
    (root / "meta.json").write_text(json.dumps(bomb))
    try:
        with (
            watched(root, 1),
            pytest.raises(DataError, match="meta.json: .* counts 1000000000 values in all"),
        ):
            read_meta(root)
    finally:
        (root / "meta.json").write_bytes(good)


# --- images


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of broken EXIF
@pytest.mark.parametrize(
    "kind,mode",
    [
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("PNG", mode) for mode in ("RGB", "P", "L", "RGBA")),
        *(("WEBP", mode) for mode in ("RGB", "P", "L", "RGBA")),
    ],
)
def test_damaged_images_are_read_or_refused(tmp_path: Path, kind: str, mode: str) -> None:
    """500 files in all: array or DataError, with EXIF or without, whole or reduced; the header agrees."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer, path, counts = io.BytesIO(), tmp_path / "a", [0, 0]
    Image.fromarray(rng.integers(0, 256, (24, 32, 4)).astype(np.uint8)).convert("RGB").convert(mode).save(
        buffer, kind, exif=exif
    )
    good = buffer.getvalue()
    path.write_bytes(good)
    read_image(path)

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(damage())
    def feed(changes: list) -> None:
        path.write_bytes(damaged(good, changes))
        with watched(tmp_path):
            try:
                image = read_image(path, at_least=(4, 4))
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
                height, width = image_size(path)
                assert image.shape[0] in {height // n for n in (1, 2, 4, 8)} and image.shape[1] <= width
                counts[0] += 1
            except DataError as error:
                assert error.path == path and error.remedy and str(path) in str(error)
                counts[1] += 1

    feed()
    assert sum(counts) >= 50 and min(counts) > 0, counts


# --- names that lead elsewhere


NAMES = [
    "../secret.png",
    "/etc/hostname",
    "images/../../secret.png",
    "..\\secret.png",
    "C:\\secret.png",
    "\\\\host\\x",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_image_outside_the_root_is_opened(tmp_path: Path, name: str) -> None:
    root = tmp_path / "toy"
    root.mkdir()
    lists(root)
    Image.new("RGB", (3, 3)).save(tmp_path / "secret.png")
    path = root / "filenames_train.txt"
    path.write_text("\n".join([*path.read_text("utf-8").splitlines()[:-1], name]), "utf-8")
    with (
        watched(root),
        pytest.raises(DataError, match=f"filenames_train.txt, line {IMAGES}: .* outside the folder"),
    ):
        read_dataset(root, check_images=True)


def test_no_link_out_of_the_root_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    root.mkdir()
    lists(root)
    secret, image = tmp_path / "secret.png", read_dataset(root)["train"].path(2)
    Image.new("RGB", (3, 3)).save(secret)
    image.unlink()
    image.symlink_to(secret)
    with watched(root) as opened, pytest.raises(DataError, match="line 3: .* link to outside the folder"):
        read_dataset(root, check_images=True)
    assert any(path.endswith(".png") for path in opened) and not any("secret" in path for path in opened)


def test_the_folder_of_images_may_be_a_link_and_no_link_below_it(tmp_path: Path) -> None:
    root, store, secret = tmp_path / "toy", tmp_path / "store", tmp_path / "secret"
    root.mkdir()
    lists(root)
    (root / "images").rename(store)
    (root / "images").symlink_to(store)
    dataset = read_dataset(root, check_images=True)
    assert f"images/ is a link: its images are read from {store}" in dataset.findings
    secret.mkdir()
    image = Path(dataset["train"].filenames[2]).name
    (store / image).rename(secret / image)
    for target in (secret / image, Path("..") / "secret" / image):
        (store / image).symlink_to(target)
        with watched(tmp_path) as opened, pytest.raises(DataError, match="line 3: .* link to outside"):
            read_dataset(root, check_images=True)
        assert not any("secret" in path for path in opened)
        (store / image).unlink()
    (store / "deep").symlink_to(secret)  # a folder below it
    names = root / "filenames_train.txt"
    names.write_text(names.read_text("utf-8").replace(f"images/{image}", f"images/deep/{image}"), "utf-8")
    with pytest.raises(DataError, match="line 3: .* link to outside the folder"):
        read_dataset(root, check_images=True)


def test_the_watch_sees_what_it_must(tmp_path: Path) -> None:
    """A reader that looks elsewhere, or takes for ever, would be found."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out.txt").write_text("x")
    with pytest.raises(AssertionError, match="out.txt"):
        with watched(tmp_path / "in"):
            (tmp_path / "out.txt").read_text()
    with pytest.raises(AssertionError, match="out.txt"):
        with watched(tmp_path / "in"):
            np.fromfile(tmp_path / "out.txt", np.uint8)
    with pytest.raises(TimeoutError):
        with watched(tmp_path / "in", 0.05):
            while True:
                pass
