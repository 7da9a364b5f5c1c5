"""Fashion-MNIST's four files -> photographs in ccakit's layout, under four attributes.

Where the data come from: Zalando Research's Fashion-MNIST, 70,000 grey photographs of 28 x 28 pixels, under
the MIT licence (Copyright 2017 Zalando SE; https://github.com/zalandoresearch/fashion-mnist). Debian and
Ubuntu have it as a package: `apt-get install dataset-fashion-mnist`. The same four files from any folder do
as well (--source), as .gz or unpacked: {train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte.

What is made of them: PNGs as they are, and four attributes. Only the article is a label of the release; the
others follow from it or from the pixels, and an image may be without one of them:
  article  the ten of the release
  worn     upper body, legs, whole body, feet; a bag is carried, not worn: no label
  sleeve   short (T-shirt/top; a few are sleeveless), long (pullover, coat); shirts and dresses have either,
           and trousers, shoes and bags have none: no label
  tone     four equal parts of the train split by the mean of the item's own pixels (those above 0), as
           stored: the release's pictures are negatives, so "light" is what was dark in the shop

Train and valid come from the release's train files, test from its t10k files, drawn by --seed. Of valid and
of test, 20% of the images are queries and 80% candidates.
"""

from __future__ import annotations

import argparse
import gzip
import math
import zlib
from pathlib import Path

import cv2
import numpy as np

from ccakit.attributes import Attributes
from ccakit.data.layout import DataError, Dataset, Split, read_dataset, rows_of, write_dataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
REMEDY = "Install Debian's package dataset-fashion-mnist, or give its four files' folder as --source."
ARTICLES = {  # article: (worn, sleeve), in the order of the release's labels
    "T-shirt/top": ("upper body", "short"),
    "trouser": ("legs", None),
    "pullover": ("upper body", "long"),
    "dress": ("whole body", None),
    "coat": ("upper body", "long"),
    "sandal": ("feet", None),
    "shirt": ("upper body", None),
    "sneaker": ("feet", None),
    "bag": (None, None),
    "ankle boot": ("feet", None),
}
ATTRIBUTES = Attributes(
    ("article", "worn", "sleeve", "tone"),
    (
        tuple(ARTICLES),
        ("upper body", "legs", "whole body", "feet"),
        ("short", "long"),
        ("dark", "medium dark", "medium light", "light"),
    ),
)
ABOUT = {
    "source": "Fashion-MNIST, Zalando Research, https://github.com/zalandoresearch/fashion-mnist",
    "licence": "MIT, Copyright 2017 Zalando SE",
    "notes": "worn and sleeve follow from the article; tone is measured on the pixels as stored (negatives)",
}


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped or not. DataError if it is cut short or of another kind."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, f"cannot be read ({error})", REMEDY) from None
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < start:
        raise DataError(path, f"is not an IDX file of bytes in {dimensions} dimensions", REMEDY)
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, offset=4))
    if len(data) - start != math.prod(shape):
        problem = f"holds {len(data) - start} bytes, where its header says {math.prod(shape)}"
        raise DataError(path, problem, REMEDY)
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_release(source: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W) uint8 images and (N,) int64 articles of "train" or "t10k"."""
    paths = []
    for stem in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        plain, packed = Path(source) / stem, Path(source) / f"{stem}.gz"
        paths.append(plain if plain.is_file() else packed)
        if not paths[-1].is_file():
            raise DataError(packed, "is missing", REMEDY)
    images, articles = read_idx(paths[0], 3), read_idx(paths[1], 1).astype(np.int64)
    if len(images) != len(articles) or not images.size:
        raise DataError(paths[1], f"has {len(articles)} labels for {len(images)} images", REMEDY)
    if articles.max() >= len(ARTICLES):
        raise DataError(paths[1], f"has a label {articles.max()}, beyond the ten articles", REMEDY)
    return images, articles


def brightness(images: np.ndarray) -> np.ndarray:
    """(N,) means of each image's own pixels, those above 0; 0 for an image without any."""
    inside = (images > 0).sum(axis=(1, 2))
    return images.sum(axis=(1, 2)) / np.maximum(inside, 1)


def label_matrix(articles: np.ndarray, tones: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(N, 4) labels: article, worn, sleeve (-1 for none), tone (how many of the 3 edges it reaches)."""
    follows = np.full((len(ARTICLES), 2), -1)
    for article, values in enumerate(ARTICLES.values()):
        for column, value in enumerate(values):
            if value is not None:
                follows[article, column] = ATTRIBUTES.values[1 + column].index(value)
    tone = np.searchsorted(edges, tones, side="right")
    return np.column_stack([articles, follows[articles], tone])


def draw(n_train: int, n_test: int, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Which images of the release each split has: train and valid without overlap, in random order."""
    if min(sizes.values()) < 5 or sizes["train"] + sizes["valid"] > n_train or sizes["test"] > n_test:
        raise ValueError(
            f"cannot draw {sizes}: train and valid together have {n_train} images, test has {n_test}, "
            "and a split needs 5 or more"
        )
    rng = np.random.default_rng(seed)
    train, test = rng.permutation(n_train), rng.permutation(n_test)
    end = sizes["train"] + sizes["valid"]
    return {
        "train": train[: sizes["train"]],
        "valid": train[sizes["train"] : end],
        "test": test[: sizes["test"]],
    }


def write_images(out: Path, part: str, images: np.ndarray, chosen: np.ndarray) -> list[str]:
    """Write the chosen images as PNG; returns their paths relative to `out`."""
    (out / "images" / part).mkdir(parents=True, exist_ok=True)
    names = [f"images/{part}/{index:05d}.png" for index in chosen.tolist()]
    for name, index in zip(names, chosen):
        (out / name).write_bytes(cv2.imencode(".png", images[index])[1].tobytes())
    return names


def make_split(name: str, out: Path, filenames: list[str], labels: np.ndarray) -> Split:
    """A split of images and their (N, 4) labels; of valid and test, the first 20% are the queries."""
    rows = rows_of(labels)
    if name == "train":
        return Split(name, out, ATTRIBUTES, filenames, rows)
    asks = rows[:, 0] < len(filenames) // 5
    queries, candidates = rows[asks], rows[~asks]
    return Split(name, out, ATTRIBUTES, filenames, np.concatenate([candidates, queries]), queries, candidates)


def prepare(source: Path, out: Path, sizes: dict[str, int] | None, seed: int = 0) -> Dataset:
    """Read the release, write images and lists into `out`, and read them back. sizes None: all 70,000."""
    release = {part: read_release(source, part) for part in ("train", "t10k")}
    n_train, n_test = (len(articles) for _, articles in release.values())
    sizes = sizes or {"train": n_train - n_train // 6, "valid": n_train // 6, "test": n_test}
    chosen = draw(n_train, n_test, sizes, seed)
    edges = np.quantile(brightness(release["train"][0][chosen["train"]]), [0.25, 0.5, 0.75])
    splits = []
    for name, index in chosen.items():
        part = "t10k" if name == "test" else "train"
        images, articles = release[part]
        labels = label_matrix(articles[index], brightness(images[index]), edges)
        splits.append(make_split(name, out, write_images(out, part, images, index), labels))
    about = {**ABOUT, "seed": seed, "tone_edges": edges.tolist()}
    write_dataset(out, "fashion_mnist", ATTRIBUTES, splits, about)
    return read_dataset(out)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=DEBIAN, help="folder of the four files (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, e.g. data/fashion_mnist")
    for name, n in (("train", 10_000), ("valid", 2_000), ("test", 4_000)):
        parser.add_argument(f"--{name}", type=int, default=n, metavar="N", help="images of it (%(default)s)")
    parser.add_argument(
        "--all", action="store_true", help="all 70,000: train 50,000, valid 10,000, test 10,000"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    given = parser.parse_args(arguments)
    sizes = None if given.all else {"train": given.train, "valid": given.valid, "test": given.test}
    try:
        dataset = prepare(given.source, given.out, sizes, given.seed)
    except (ValueError, OSError) as error:  # a DataError is a ValueError
        raise SystemExit(f"error: {error}") from None
    counts = ", ".join(f"{name} {len(split.filenames)}" for name, split in dataset.splits.items())
    print(f"wrote {given.out}: {counts} images", *dataset.findings, sep="\n")


if __name__ == "__main__":
    main()
