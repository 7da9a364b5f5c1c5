"""Hostile input: over ten thousand damaged files end in valid data or in a DataError that names the file.

Damaged are valid files, at random places: bytes changed, cut, doubled, lines repeated or swapped, and things put in
that readers stumble over. A reader may not raise anything else, take long, or open a file outside the data's folder.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from ccakit.attributes import Attributes
from ccakit.data.files import CONTROL, leaves, read_filenames
from ccakit.data.images import image_size, read_image
from ccakit.data.layout import DataError, Split, read_all_values, read_dataset, read_rows, rows_of, write_dataset
from ccakit.data.meta import MOST_VALUES, read_meta
from ccakit.data.rows import read_regions
from ccakit.data.triplet_files import read_csn_triplets, read_triplets, write_triplets

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data_prep"))

import darn  # noqa: E402
import deepfashion  # noqa: E402
import download  # noqa: E402
import fashion_mnist  # noqa: E402
import fashionai  # noqa: E402
import table as tables  # noqa: E402
import zappos50k  # noqa: E402

ATTRIBUTES = Attributes(("sleeve", "tone"), (("none", "short", "long"), ("dark", "light")))
IMAGES, VALUES = 8, 10
SECONDS = 5  # of processor time, for one file
A_BATCH = 10  # files an example of hypothesis damages
STUMBLING = [
    b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\n\n", b"\x00", b"\t", b" ", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\xc2\xa0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\xed\xa0\x80", b"\xc3", "٣".encode(),
    "²".encode(), "½".encode(), b"-1", b"+1", b"1_0", b"0x1", b"007", b"1.0", b"1e9", b"1e999", b"-1e-999", b"nan",
    b"Infinity", b"NaN", b"9" * 19, b"9" * 40, b"9" * 5000, str(2**63).encode(), str(2**64 + 1).encode(), b"0 " * 300,
    b"../", b"/etc/passwd", b"..\\..\\", b"C:\\x", b"~/x", b"file:///x", b"%2e%2e/", b"a/" * 2000, b"\"", b"'", b",",
    b";", b"|", b"{", b"}", b"[" * 3000, b"]", b":", b"null", b"true", b'"a": ', b"\\u0000", b"\\ud800", b"#", b"\\",
]  # fmt: skip


# --- the valid files


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
    (root / "label_test.txt").write_text("".join(f"{i} {' '.join(map(str, each))}\t\r\n" for i, each in enumerate(of)))
    write_triplets(root, "train", rng.integers(0, 2, (12, 4)))
    (root / "csn.txt").write_text("".join(f"{a} {b} {c}\n" for a, b, c in rng.integers(0, IMAGES, (12, 3))))
    table = ['image,sleeve,tone,"part, of it"'] + [f'"{i} é.png",{i % 3},"da""rk",train' for i in range(IMAGES)]
    (root / "table.csv").write_text("\r\n".join(table) + "\r\n")


def releases(root: Path) -> None:
    """Of each raw release the files that data_prep/ reads, in small."""
    keys = {f"{name}_labels": size for name, size in zip(fashionai.ATTRIBUTES.names, fashionai.ATTRIBUTES.sizes)}
    label = [f"Images/{k}/{i}.jpg,{k},{'n' * i}y{'m' * (size - 1 - i)}" for k, size in keys.items() for i in (0, 3)]
    cloth = [f"{'a-line ' * (i % 3)}value {i:<20}{i % 5 + 1}" for i in range(VALUES)]
    names = [f"img/Blouse_{i}/img_{i:08d}.jpg" for i in range(IMAGES)]
    image = [f"{name:<40}" + " ".join(str((i + v) % 3 - 1) for v in range(VALUES)) for i, name in enumerate(names)]
    part = [f"{name:<40}{('train', 'val', 'test')[i % 3]}" for i, name in enumerate(names)]
    counted = {"list_attr_cloth": cloth, "list_attr_img": image, "list_eval_partition": part}
    values = np.array(darn.ATTRIBUTES.sizes) // 2 - 2  # at least 1, of which 2 is taken: -1 is none
    shoe = '{0}-{0},Shoes,Oxfords,"{1}in - {1} 3/4in",Leather,Lace up;Zipper,Men,Suede,"Round, Toe"'
    files = {
        "label.csv": label,
        "meta-data.csv": ["CID,Category,SubCategory,HeelHeight,Insole,Closure,Gender,Material,ToeStyle",
                          *(shoe.format(i, i % 5) for i in range(IMAGES))],
        "darn_url.txt": [f"pic/{i}/{i}_1.jpg\thttp://a.cn/衣 {i}.jpg" for i in range(IMAGES)],
        "darn_labels.txt": [f"pic/{i}.jpg {' '.join(map(str, (values - i % 3).tolist()))}" for i in range(IMAGES)],
        **{f"{name}.txt": [str(len(lines)), "name  kind", *lines] for name, lines in counted.items()},
    }  # fmt: skip
    for name, lines in files.items():
        (root / name).write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    idx = bytes([0, 0, 8, 1, 0, 0, 0, IMAGES]) + bytes(range(IMAGES))
    (root / "labels-idx1-ubyte").write_bytes(idx)
    (root / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx, mtime=0))


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
    releases(folder)
    return folder


# --- damage


@st.composite
def damage(draw) -> list[tuple[int, float, bytes | int]]:
    """One to three changes: kind, place as a share of the file, and what goes there or how much is taken."""
    kind, place = st.integers(0, 7), st.floats(0, 1, exclude_max=True, width=32)
    what = st.one_of(st.sampled_from(STUMBLING), st.binary(min_size=1, max_size=6), st.integers(1, 40))
    return draw(st.lists(st.tuples(kind, place, what), min_size=1, max_size=3))


SCALARS = st.sampled_from([0, 1, 2, 3, -1, 1.5, 10**6, 10**12, None, True, "", "sleeve", "tone", "\ud800", "a\0b"])
KEYS = st.sampled_from(["toy", "ATTRIBUTES", "ATTRIBUTES_NUM", "VALUES", "ABOUT", "sleeve", "tone", ""])
NUMBERS = [*"0 1 2 3 7 8 -1 0.5 0.9 1.0 2.5 1e-300 1e300 nan inf é , \t".split(" "), str(2**63 - 1), str(2**63)]
MADE_UP = {  # files made of what belongs into them, at random
    ".json": st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
                          max_leaves=12).map(lambda made: json.dumps(made).encode()),
    ".txt": st.lists(st.lists(st.sampled_from(NUMBERS), max_size=8), max_size=5).map(
        lambda lines: "\n".join(map(" ".join, lines)).encode()),
    ".csv": st.lists(st.lists(st.sampled_from(["a", "b.png", '"', '""', '"x"', "../b", "", "|", "1|2", "train", ";"]),
                              max_size=5), max_size=5).map(lambda lines: "\n".join(map(",".join, lines)).encode()),
    "": st.tuples(st.sampled_from([0, 1, 8]), st.integers(0, 9), st.binary(max_size=9)).map(
        lambda made: bytes([0, 0, 8, 1, made[0], 0, 0, made[1]]) + made[2]),
}  # fmt: skip
MADE_UP[".gz"] = MADE_UP[""].map(gzip.compress)


def damaged(data: bytes, changes: list[tuple[int, float, bytes | int]]) -> bytes:
    """The file with its changes, one after the other."""
    for kind, place, what in changes:
        at, amount = int(place * (len(data) + 1)), what if isinstance(what, int) else len(what)
        inserted = what if isinstance(what, bytes) else bytes([what])
        lines = data.splitlines(keepends=True)
        line = int(place * len(lines))
        if kind in (0, 1):
            data = data[:at] + inserted + data[at:]
        elif kind == 2:
            data = data[:at] + inserted + data[at + len(inserted) :]
        elif kind == 3:
            data = data[:at] + data[at + amount :]
        elif kind == 4:
            data = data[:at]
        elif kind == 5:
            data = data[:at] + data[max(0, at - amount) : at] * 2 + data[at:]
        elif kind == 6:  # a line as often as it takes, or gone
            lines[line : line + 1] = lines[line : line + 1] * (amount % 4)
            data = b"".join(lines)
        elif data:  # a bit
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << amount % 8]) + data[at + 1 :]
    return data


# --- what a reader may do


OPENED: list[str] | None = None


def _hook(event: str, args: tuple) -> None:
    if OPENED is not None and event in ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir"):
        if isinstance(args[0], (str, bytes, os.PathLike)):
            OPENED.append(os.fsdecode(args[0]))


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(root: Path, seconds: float = SECONDS):
    """Everything opened must lie in `root` (or be the meta.json above it), and the time is limited."""
    global OPENED

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    OPENED = opened = []
    try:
        yield opened
    finally:
        OPENED = None
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    allowed, above = os.path.realpath(root), os.path.realpath(root.parent / "meta.json")
    for path in map(os.path.realpath, opened):
        assert path.startswith(allowed + os.sep) or path == above, path


def check_error(error: DataError, root: Path, path: Path, data: bytes) -> None:
    """It names the file (or one that now does not fit it), a line that there is, and what to do."""
    assert type(error) is DataError and error.problem and error.remedy
    assert error.path.parent == root or error.path == root.parent / "meta.json" or error.path == root
    assert str(error).startswith(str(error.path)) and str(error).encode()
    if error.path == path and error.line is not None:
        text = data.decode("utf-8", "replace").replace("\r\n", "\n")
        assert 1 <= error.line <= 1 + text.count("\n") + text.count("\r")


def check_split(split: Split) -> None:
    """All that those who use a split rely on."""
    n, sizes = len(split.filenames), np.array(split.attributes.sizes)
    assert n and not any(leaves(name) or CONTROL.search(name) or not name for name in split.filenames)
    for rows in (split.labels, split.queries, split.candidates):
        if rows is not None:
            assert rows.dtype == np.int64 and rows.ndim == 2 and rows.shape[1] == 3 and len(rows) and rows.min() >= 0
            assert (rows[:, 0] < n).all() and (rows[:, 1] < len(sizes)).all() and (rows[:, 2] < sizes[rows[:, 1]]).all()
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
    rows = read_rows(root / "label_train.txt", ATTRIBUTES, IMAGES)
    assert rows.shape == (len(rows), 3) and 0 <= rows.min() and (rows.max(axis=0) < [IMAGES, 2, 3]).all()


def meta_only(root: Path) -> None:
    attributes = read_meta(root).attributes
    assert sum(attributes.sizes) <= MOST_VALUES and "".join(attributes.names).encode()
    assert len(attributes) and min(attributes.sizes) >= 1


def regions_only(root: Path) -> None:
    rows, lines, _ = read_regions(root / "regions_train.txt", ATTRIBUTES, IMAGES)
    assert rows.shape == (len(lines), 6) and np.isfinite(rows).all() and rows.min() >= 0


def triplets_only(root: Path) -> None:
    rows = read_triplets(root / "triplets_train.txt", ATTRIBUTES, IMAGES)
    assert rows.shape == (len(rows), 4) and len(rows) and (rows.max(axis=0) < [IMAGES, IMAGES, IMAGES, 2]).all()


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


def check_rows(rows: np.ndarray, names: Iterable[str], sizes: tuple[int, ...]) -> None:
    """What a reader of a raw release gives: rows (R, 3) of the images named, and no name that leads elsewhere."""
    names = list(names)
    assert rows.dtype == np.int64 and rows.shape == (len(rows), 3) and rows.min(initial=0) >= 0
    assert (rows[:, 0] < len(names)).all() and (rows[:, 2] < np.array(sizes)[rows[:, 1]]).all()
    assert not any(not name or leaves(name) or CONTROL.search(name) for name in names)


def fashionai_labels(root: Path) -> None:
    release = fashionai.Release()
    fashionai.read_labels(root / "label.csv", "", release)
    check_rows(release.rows(), release.names, fashionai.ATTRIBUTES.sizes)


def deepfashion_attributes(root: Path) -> None:
    attributes, order = deepfashion.read_attributes(root / "list_attr_cloth.txt", [])
    assert order.shape == (sum(attributes.sizes), 2) and len({tuple(row) for row in order.tolist()}) == len(order)


def deepfashion_images(root: Path) -> None:
    order = np.array([(i % 5, i // 5) for i in range(VALUES)])
    names, rows = deepfashion.read_images(root / "list_attr_img.txt", order, [])
    check_rows(rows, names, (2,) * 5)


def deepfashion_partition(root: Path) -> None:
    names = [f"img/Blouse_{i}/img_{i:08d}.jpg" for i in range(IMAGES)]
    part = deepfashion.read_partition(root / "list_eval_partition.txt", names, [])
    assert part.shape == (IMAGES,) and set(part.tolist()) <= {-1, 0, 1, 2}


def zappos_table(root: Path) -> None:
    path = root / "meta-data.csv"
    cells, _ = zappos50k.read_meta_csv(path)
    made = zappos50k.join({f"{i}.{i}": f"Shoes/A./{i}.{i}.jpg" for i in range(IMAGES)}, cells, path)
    check_rows(made.rows, made.filenames, made.attributes.sizes)


def darn_addresses(root: Path) -> None:
    urls = download.read_urls([root / "darn_url.txt"])
    assert urls and all(urls.values())
    check_rows(np.zeros((0, 3), np.int64), urls, (1,))


def darn_labels(root: Path) -> None:
    names, rows = darn.read_labels(root / "darn_labels.txt")
    check_rows(rows, names, darn.ATTRIBUTES.sizes)


def any_table(root: Path) -> None:
    header, rows = tables.read_csv(root / "table.csv", None)
    table = tables.Table(root / "table.csv", header, tables.Columns(several="|"))
    for line, cells in rows:
        table.add(line, cells)
    attributes, labels, _ = table.labels()
    check_rows(labels, table.names, attributes.sizes)


def idx_file(name: str) -> Callable[[Path], None]:
    def read(root: Path) -> None:
        array, _ = fashion_mnist.read_idx(root / name, 1)
        assert array.dtype == np.uint8 and array.ndim == 1

    return read


RAW = {  # of the raw releases: name: file, reader, files to damage
    "FashionAI, labels": ("label.csv", fashionai_labels, 160),
    "DeepFashion, attributes": ("list_attr_cloth.txt", deepfashion_attributes, 160),
    "DeepFashion, images": ("list_attr_img.txt", deepfashion_images, 160),
    "DeepFashion, partition": ("list_eval_partition.txt", deepfashion_partition, 160),
    "Zappos50K, table": ("meta-data.csv", zappos_table, 160),
    "DARN, addresses": ("darn_url.txt", darn_addresses, 160),
    "DARN, labels": ("darn_labels.txt", darn_labels, 160),
    "any table": ("table.csv", any_table, 800),
    "Fashion-MNIST": ("labels-idx1-ubyte", idx_file("labels-idx1-ubyte"), 160),
    "Fashion-MNIST, packed": ("labels-idx1-ubyte.gz", idx_file("labels-idx1-ubyte.gz"), 160),
}


def attack(root: Path, name: str, reader, files: int, refused_share: float = 0.2) -> None:
    """Feed so many damaged versions of a file to its reader; a fair share has to be refused, and some to pass."""
    path, counts = root / name, {"refused": 0, "read": 0}
    good = path.read_bytes()
    reader(root)  # the whole file is read

    @settings(max_examples=files // A_BATCH, deadline=None, derandomize=True, database=None,
              phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(damage(), min_size=A_BATCH - 2, max_size=A_BATCH - 2), st.tuples(*2 * [MADE_UP[path.suffix]]))
    def feed(batch: list, made_up: tuple[bytes, ...]) -> None:
        for data in [*(damaged(good, changes) for changes in batch), *made_up]:
            path.write_bytes(data)
            with watched(root):
                try:
                    reader(root)
                    counts["read"] += 1
                except DataError as error:
                    counts["refused"] += 1
                    check_error(error, root, path, data)

    try:
        feed()
    finally:
        path.write_bytes(good)
    total = sum(counts.values())
    assert total >= files and counts["refused"] > refused_share * total and counts["read"] > 0, counts


def test_there_are_ten_thousand_files() -> None:
    assert sum(files for _, _, files in [*READERS.values(), *RAW.values()]) >= 10_000


@pytest.mark.parametrize("what", READERS)
def test_damaged_files_are_read_or_refused(root: Path, what: str) -> None:
    attack(root, *READERS[what])


@pytest.mark.parametrize("what", RAW)
def test_damaged_raw_releases_are_read_or_refused(root: Path, what: str) -> None:
    attack(root, *RAW[what])


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
        with watched(root, 1), pytest.raises(DataError, match="meta.json: .* counts 1000000000 values in all"):
            read_meta(root)
    finally:
        (root / "meta.json").write_bytes(good)


# --- images


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of broken EXIF
@pytest.mark.parametrize("kind,mode", [
    *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")), *(("PNG", mode) for mode in ("RGB", "P", "L", "RGBA")),
    *(("WEBP", mode) for mode in ("RGB", "P", "L", "RGBA")),
])  # fmt: skip
def test_damaged_images_are_read_or_refused(tmp_path: Path, kind: str, mode: str) -> None:
    """500 files in all: an array or DataError, with EXIF or without, whole or reduced, and the header agrees."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer, path, counts = io.BytesIO(), tmp_path / "a", [0, 0]
    Image.fromarray(rng.integers(0, 256, (24, 32, 4)).astype(np.uint8)).convert("RGB").convert(mode).save(
        buffer, kind, exif=exif)  # fmt: skip
    good = buffer.getvalue()
    path.write_bytes(good)
    read_image(path)

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink),
              suppress_health_check=list(HealthCheck))  # fmt: skip
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


NAMES = ["../secret.png", "/etc/hostname", "images/../../secret.png", "..\\secret.png", "C:\\secret.png", "\\\\host\\x"]


@pytest.mark.parametrize("name", NAMES)
def test_no_image_outside_the_root_is_opened(tmp_path: Path, name: str) -> None:
    root = tmp_path / "toy"
    root.mkdir()
    lists(root)
    Image.new("RGB", (3, 3)).save(tmp_path / "secret.png")
    path = root / "filenames_train.txt"
    path.write_text("\n".join([*path.read_text("utf-8").splitlines()[:-1], name]), "utf-8")
    with watched(root), pytest.raises(DataError, match=f"filenames_train.txt, line {IMAGES}: .* outside the folder"):
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
