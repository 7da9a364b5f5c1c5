"""Fashion-MNIST's four files -> photographs in ccakit's layout, under four attributes.

Where the data come from: Zalando Research's Fashion-MNIST, 70,000 grey photographs of 28 x 28 pixels, under
the MIT licence (Copyright 2017 Zalando SE; https://github.com/zalandoresearch/fashion-mnist). Debian and
Ubuntu have it as a package: `apt-get install dataset-fashion-mnist`. The same four files from any folder do
as well (--source), as .gz or unpacked: {train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte.

What is made of them: PNGs as they are, and four attributes. Only the article is a label of the release; the
others follow from it or from the pixels, and an image may lack some:
  article  the ten of the release
  worn     upper body, legs, whole body, feet; a bag is carried, not worn: no label
  sleeve   short (T-shirt/top; a few are sleeveless), long (pullover, coat); shirts and dresses have either,
           and trousers, shoes and bags have none: no label
  tone     four equal parts of the train split by the mean of the item's own pixels (those above 0), as
           stored: the release's pictures are negatives, so "light" is what was dark in the shop

Train and valid come from the release's train files, test from its t10k files, drawn by --seed. Of valid and
of test, 20% of the images are queries and 80% candidates.

Expected: 60,000 images in train and 10,000 in t10k, 6,000 and 1,000 of each article; the MD5 of Zalando's
four .gz, or, as Debian packs them again, the SHA-256 of their content. A difference is reported, and is no
error.

What is written: the images under OUT, the lists, meta.json and survival.json. Run again, it writes only the
images that are not there as they should be.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from common import Prepared, beside, guarded, keep, parser, tell, write_prepared
from tqdm import tqdm

from ccakit.attributes import Attributes
from ccakit.data.layout import rows_of
from ccakit.data.split import Dataset, Split
from ccakit.disk import file_digest
from ccakit.errors import DataError

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
PUBLISHED = {  # file: MD5 of Zalando's .gz, SHA-256 of what is in it
    "train-images-idx3-ubyte": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        "25c81989df183df01b3e8a0aad5dffbe",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        "bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        "bb300cfdad3c16e7a12a480ee83cd310",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
COUNTS = {"train": 60_000, "t10k": 10_000}
MOST = 60_000 * 28 * 28  # bytes, in the largest of the four files


@dataclass(frozen=True)
class Part:
    """One part, "train" or "t10k": (N, H, W) uint8 images, (N,) int64 articles, and notes on the files."""

    images: np.ndarray
    articles: np.ndarray
    notes: list[str]


def read_idx(path: Path, dimensions: int) -> tuple[np.ndarray, str]:
    """Read the uint8 array of an IDX file, gzipped or not, and the SHA-256 of the (unpacked) file.

    No more is unpacked than the header says, and at most MOST bytes. DataError if the file is cut short, is
    longer than its header says, or is of another kind.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            head = file.read(4 + 4 * dimensions)
            shape = _shape(path, head, dimensions)
            data = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, f"cannot be read ({error})", REMEDY) from None
    if len(data) != math.prod(shape):
        found = f"{len(data):,}" if len(data) < math.prod(shape) else "more"
        raise DataError(path, f"holds {found} bytes, where its header says {math.prod(shape):,}", REMEDY)
    return np.frombuffer(data, np.uint8).reshape(shape), hashlib.sha256(head + data).hexdigest()


def _shape(path: Path, head: bytes, dimensions: int) -> tuple[int, ...]:
    """Read the sizes from the first bytes of an IDX file."""
    if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < 4 + 4 * dimensions:
        raise DataError(path, f"is not an IDX file of bytes in {dimensions} dimensions", REMEDY)
    shape = tuple(int(n) for n in np.frombuffer(head, ">u4", dimensions, offset=4))
    if math.prod(shape) > MOST:
        problem = (
            f"would hold {math.prod(shape):,} bytes by its header, and none of the four has over {MOST:,}"
        )
        raise DataError(path, problem, REMEDY)
    return shape


def read_release(source: Path, part: str) -> Part:
    """Read the images and articles of "train" or "t10k".

    DataError if a file is missing, broken or does not fit.
    """
    arrays, notes, paths = [], [], []
    for stem, dimensions in ((f"{part}-images-idx3-ubyte", 3), (f"{part}-labels-idx1-ubyte", 1)):
        plain, packed = Path(source) / stem, Path(source) / f"{stem}.gz"
        paths.append(plain if plain.is_file() else packed)
        if not paths[-1].is_file():
            raise DataError(packed, "is missing", REMEDY)
        array, content = read_idx(paths[-1], dimensions)
        arrays.append(array)
        notes.append(f"{paths[-1].name}: {compared(paths[-1], stem, content)}")
    images, articles = arrays[0], arrays[1].astype(np.int64)
    if len(images) != len(articles) or not images.size:
        raise DataError(paths[1], f"has {len(articles)} labels for {len(images)} images", REMEDY)
    if articles.max() >= len(ARTICLES):
        raise DataError(paths[1], f"has a label {articles.max()}, beyond the ten articles", REMEDY)
    counts = np.bincount(articles, minlength=len(ARTICLES))
    found = {
        f"{part} images": len(images),
        f"{part} images of the rarest article": int(counts.min()),
        f"pixels of a {part} image": math.prod(images.shape[1:]),
    }
    expected = dict(zip(found, (COUNTS[part], COUNTS[part] // len(ARTICLES), 28 * 28)))
    return Part(images, articles, notes + beside(found, expected))


def compared(path: Path, stem: str, content: str) -> str:
    """Compare a file's checksums with those of the published file `stem`, in words."""
    md5, sha256 = PUBLISHED[stem]
    if file_digest(path, "md5") == md5:
        return "as published (MD5)"
    if content == sha256:
        return "not the published .gz (MD5), but its content is as published (SHA-256)"
    return "neither the published .gz (MD5) nor its content (SHA-256): see its sizes and counts"


def brightness(images: np.ndarray) -> np.ndarray:
    """Return the mean (N,) of each image's pixels above 0; 0 for an image without any."""
    inside = (images > 0).sum(axis=(1, 2))
    return images.sum(axis=(1, 2)) / np.maximum(inside, 1)


def label_matrix(articles: np.ndarray, tones: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return labels (N, 4): article, worn, sleeve (-1: none), tone (how many of 3 edges it reaches)."""
    follows = np.full((len(ARTICLES), 2), -1)
    for article, values in enumerate(ARTICLES.values()):
        for column, value in enumerate(values):
            if value is not None:
                follows[article, column] = ATTRIBUTES.values[1 + column].index(value)
    tone = np.searchsorted(edges, tones, side="right")
    return np.column_stack([articles, follows[articles], tone])


def draw(n_train: int, n_test: int, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Draw the images of each split: train and valid without overlap, in random order."""
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
    """Write the chosen images as PNG if they are not there already; return their paths relative to `out`."""
    names = [f"images/{part}/{index:05d}.png" for index in chosen.tolist()]
    for name, index in zip(tqdm(names, desc=f"write images of {part}", unit="img", disable=None), chosen):
        keep(cv2.imencode(".png", images[index])[1].tobytes(), out / name)
    return names


def make_split(name: str, out: Path, filenames: list[str], labels: np.ndarray) -> Split:
    """Make a split of images and their labels (N, 4); of valid and test, the first 20% are the queries."""
    rows = rows_of(labels)
    if name == "train":
        return Split(name, out, ATTRIBUTES, filenames, rows)
    asks = rows[:, 0] < len(filenames) // 5
    return Split.from_tables(name, out, ATTRIBUTES, filenames, [rows[~asks], rows[asks]])


def prepare(
    source: Path, out: Path, sizes: dict[str, int] | None = None, seed: int = 0
) -> tuple[Dataset, list[str]]:
    """Read the release, write images and lists into `out`.

    Return data set and notes. sizes None: all 70,000.
    """
    release = {part: read_release(source, part) for part in COUNTS}
    n_train, n_test = (len(part.articles) for part in release.values())
    sizes = sizes or {"train": n_train - n_train // 6, "valid": n_train // 6, "test": n_test}
    chosen = draw(n_train, n_test, sizes, seed)
    edges = np.quantile(brightness(release["train"].images[chosen["train"]]), [0.25, 0.5, 0.75])
    prepared = Prepared([], f"drawn by seed {seed}: train and valid from the train files, test from t10k")
    for name, index in chosen.items():
        part = "t10k" if name == "test" else "train"
        images, articles = release[part].images, release[part].articles
        labels = label_matrix(articles[index], brightness(images[index]), edges)
        prepared.splits.append(make_split(name, out, write_images(out, part, images, index), labels))
    about = {**ABOUT, "seed": seed, "tone_edges": edges.tolist()}
    dataset = write_prepared(out, "fashion_mnist", ATTRIBUTES, prepared, about)
    return dataset, [note for part in release.values() for note in part.notes]


def main(argv: list[str] | None = None) -> None:
    made = parser(__doc__, "fashion_mnist", splits=False, by_content=False)
    made.add_argument("--source", type=Path, default=DEBIAN, help="folder of the four files (%(default)s)")
    for name, n in (("train", 10_000), ("valid", 2_000), ("test", 4_000)):
        made.add_argument(f"--{name}", type=int, default=n, metavar="N", help="images of it (%(default)s)")
    made.add_argument(
        "--all", action="store_true", help="all 70,000: train 50,000, valid 10,000, test 10,000"
    )
    given = made.parse_args(argv)
    sizes = None if given.all else {"train": given.train, "valid": given.valid, "test": given.test}
    guarded(lambda: tell(given.out, *prepare(given.source, given.out, sizes, given.seed)))


if __name__ == "__main__":
    main()
