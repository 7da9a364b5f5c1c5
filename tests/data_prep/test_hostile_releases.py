"""Hostile input: damaged raw releases and tables end in valid rows or in a DataError that names the file."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

import darn  # noqa: E402
import deepfashion  # noqa: E402
import download  # noqa: E402
import fashion_mnist  # noqa: E402
import fashionai  # noqa: E402
import numpy as np
import pytest
import table as tables  # noqa: E402
import zappos50k  # noqa: E402
from attacks import attack

from ccakit.data import table_files
from ccakit.data.text import CONTROL, leaves

IMAGES, VALUES = 8, 10


def releases(root: Path) -> None:
    """Of each raw release the files that data_prep/ reads, in small."""
    keys = {
        f"{name}_labels": size for name, size in zip(fashionai.ATTRIBUTES.names, fashionai.ATTRIBUTES.sizes)
    }
    label = [
        f"Images/{k}/{i}.jpg,{k},{'n' * i}y{'m' * (size - 1 - i)}" for k, size in keys.items() for i in (0, 3)
    ]
    cloth = [f"{'a-line ' * (i % 3)}value {i:<20}{i % 5 + 1}" for i in range(VALUES)]
    names = [f"img/Blouse_{i}/img_{i:08d}.jpg" for i in range(IMAGES)]
    image = [
        f"{name:<40}" + " ".join(str((i + v) % 3 - 1) for v in range(VALUES)) for i, name in enumerate(names)
    ]
    part = [f"{name:<40}{('train', 'val', 'test')[i % 3]}" for i, name in enumerate(names)]
    counted = {"list_attr_cloth": cloth, "list_attr_img": image, "list_eval_partition": part}
    values = np.array(darn.ATTRIBUTES.sizes) // 2 - 2  # at least 1, of which 2 is taken: -1 is none
    shoe = '{0}-{0},Shoes,Oxfords,"{1}in - {1} 3/4in",Leather,Lace up;Zipper,Men,Suede,"Round, Toe"'
    table = ['image,sleeve,tone,"part, of it"'] + [
        f'"{i} é.png",{i % 3},"da""rk",train' for i in range(IMAGES)
    ]
    files = {
        "label.csv": label,
        "table.csv": table,
        "meta-data.csv": [
            "CID,Category,SubCategory,HeelHeight,Insole,Closure,Gender,Material,ToeStyle",
            *(shoe.format(i, i % 5) for i in range(IMAGES)),
        ],
        "darn_url.txt": [f"pic/{i}/{i}_1.jpg\thttp://a.cn/衣 {i}.jpg" for i in range(IMAGES)],
        "darn_labels.txt": [
            f"pic/{i}.jpg {' '.join(map(str, (values - i % 3).tolist()))}" for i in range(IMAGES)
        ],
        **{f"{name}.txt": [str(len(lines)), "name  kind", *lines] for name, lines in counted.items()},
    }
    for name, lines in files.items():
        (root / name).write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    idx = bytes([0, 0, 8, 1, 0, 0, 0, IMAGES]) + bytes(range(IMAGES))
    (root / "labels-idx1-ubyte").write_bytes(idx)
    (root / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx, mtime=0))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "above" / "raw"
    folder.mkdir(parents=True)
    releases(folder)
    return folder


def check_rows(rows: np.ndarray, names: Iterable[str], sizes: tuple[int, ...]) -> None:
    """What a reader of a raw release gives: rows (R, 3) of named images, and no name that leads elsewhere."""
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
    assert order.shape == (sum(attributes.sizes), 2) and len({tuple(row) for row in order.tolist()}) == len(
        order
    )


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
    header, rows = table_files.read_csv(root / "table.csv", None)
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


@pytest.mark.parametrize("kind", RAW)
def test_a_sample_of_damaged_raw_releases(root: Path, kind: str) -> None:
    """The first files of the slow test below, 200 in all."""
    name, reader, _ = RAW[kind]
    attack(root, name, reader, files=20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RAW)
def test_damaged_raw_releases_are_read_or_refused(root: Path, kind: str) -> None:
    attack(root, *RAW[kind])
