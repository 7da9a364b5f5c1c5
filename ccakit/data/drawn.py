"""The drawn data set on disk, in the layout that all data sets here have."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ccakit.data.layout import read_dataset, rows_of, write_dataset
from ccakit.data.meta import read_meta
from ccakit.data.split import SPLITS, Split
from ccakit.data.triplet_lists import triplets_path, write_drawn_triplets
from ccakit.errors import DataError
from ccakit.garments.draw import Garment, draw_garment, draw_labelled
from ccakit.garments.values import (
    COAT,
    COLLAR,
    COUNTS,
    GARMENTS,
    LAPEL,
    NECK,
    NECKLINE,
    PANT,
    SKIRT,
    VERSION,
)

# of valid and test: each fifth image is a query, the others are candidates, as in ASEN's protocol
QUERY_EVERY = 5
DRAWN = re.compile(rf"images/({'|'.join(SPLITS)})/([0-9]{{6,}})\.png")
LABELS = ("all", "one", "rare")
# of labels "rare": the share of training images that keep their label; sleeve length stays as it is
RARE = {SKIRT: 0.24, COAT: 0.20, PANT: 0.10, COLLAR: 0.05, LAPEL: 0.04, NECKLINE: 0.03, NECK: 0.02}


def write_garments(
    root: str | Path,
    train: int,
    valid: int,
    test: int,
    size: int = 128,
    seed: int = 0,
    labels: str = "all",
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Draw a data set into `root`, unless it is there already.

    train, valid, test: the number of images of each. size: the side of an image, in pixels. labels: "all";
    "one" as in FashionAI, where each image carries one label (and the regions of this label only) and
    conditions occur with FashionAI's frequencies; or "rare": the pictures of "all", with few training images
    that keep their labels (RARE). workers: processes, by default one a core.

    Triplets of test are drawn beside the lists, for Table 5's measure. The pictures are drawn in a folder
    beside `root` that is moved there when all is done: an interruption leaves nothing behind. Raises
    DataError if `root` holds something else.
    """
    if labels not in LABELS:
        raise ValueError(f"labels is one of {LABELS}, not {labels!r}")
    if min(train, valid, test) < 1 or min(valid, test) < 2:
        raise ValueError("train needs at least one image, valid and test two: a query and a candidate")
    root = Path(root)
    counts = dict(zip(SPLITS, (train, valid, test)))
    about = {"drawn": "garments", "version": VERSION, "seed": seed, "size": size, "labels": labels}
    about["images"] = counts
    if not _is_present(root, about):
        _draw_data(root, about, workers or _cores(), progress)
    if not triplets_path(root, "test").exists():
        write_drawn_triplets(read_dataset(root, ["test"])["test"], seed=seed)


def _draw_data(root: Path, about: dict, workers: int, progress: bool) -> None:
    """Draw a data set aside, and move it to `root`."""
    root.parent.mkdir(parents=True, exist_ok=True)
    partial_root = Path(tempfile.mkdtemp(prefix=".drawing-", dir=root.parent))
    try:
        splits, labels = _draw_splits(partial_root, about, workers, progress), about["labels"]
        name = "garments" if labels == "all" else f"garments_{labels}"
        write_dataset(partial_root, name, GARMENTS, splits, about)
        partial_root.chmod(0o755)
        if root.exists():
            root.rmdir()  # it is empty, or _is_present would have refused it
        os.replace(partial_root, root)
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)


def _is_present(root: Path, about: dict) -> bool:
    """Say whether `root` holds this very data set; DataError if it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = read_meta(root).about if (root / "meta.json").exists() else None
    except DataError:
        found = None
    if found == about:
        return True
    problem = f"holds other data ({json.dumps(found)})" if found else "holds files, and not drawn data"
    raise DataError(root, problem, f"Give another folder, or delete this one to draw {json.dumps(about)}.")


def _draw_splits(root: Path, about: dict, workers: int, progress: bool) -> list[Split]:
    """Draw all images, and collect their labels and regions."""
    for name in about["images"]:
        (root / "images" / name).mkdir(parents=True)
    jobs = [(name, index) for name, n in about["images"].items() for index in range(n)]
    results = _map(partial(_draw_one, root=root, about=about), jobs, workers)
    hide = None if progress else True  # None: shown on a terminal, not in a log
    drawn: dict[str, list] = {name: [] for name in about["images"]}
    for (name, _), result in zip(jobs, tqdm(results, "drawing garments", len(jobs), disable=hide)):
        drawn[name].append(result)
    if about["labels"] == "rare":
        drawn["train"] = _thinned(drawn["train"], about["seed"])
    return [_make_split(root, name, results) for name, results in drawn.items()]


def _thinned(results: list, seed: int) -> list:
    """Take labels, and their regions, from training images, until RARE's shares of them are left."""
    files, labels, regions = zip(*results)
    labels = np.stack(labels)
    for condition, share in RARE.items():
        labelled = np.random.default_rng([VERSION, seed, condition]).permutation(
            np.flatnonzero(labels[:, condition] >= 0)
        )
        labels[labelled[round(share * len(labels)) :], condition] = -1
    kept = [tuple(box for box in boxes if own[box[0]] >= 0) for own, boxes in zip(labels, regions)]
    return list(zip(files, labels, kept))


def _map(task, jobs: list, workers: int) -> Iterator:
    """Yield the results of the tasks in order, from as many processes as are worth starting."""
    workers = min(workers, 1 + len(jobs) // 64)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # before any fork: a child of a process with OpenCV threads would wait for ever
    try:
        if workers == 1:
            yield from map(task, jobs)
            return
        with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            yield from pool.map(task, jobs, chunksize=16)
    finally:
        cv2.setNumThreads(threads)


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _draw_one(job: tuple[str, int], root: Path, about: dict) -> tuple[str, np.ndarray, tuple]:
    """Draw and write one image; return its file, its labels (8,), its regions."""
    split, index = job
    garment = _draw(about, split, index, about["size"])
    file = f"images/{split}/{index:06d}.png"
    _, data = cv2.imencode(".png", garment.image[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1))
    (root / file).write_bytes(data.tobytes())
    return file, garment.labels, garment.regions


def redraw(about: dict, split: str, index: int, size: int) -> np.ndarray:
    """Draw picture `index` of a split at another size: (size, size, 3) uint8 RGB, the same outfit, for
    figures.

    about: that of the data set, as `read_dataset` returns it. ValueError if another version drew it.
    """
    if about.get("drawn") != "garments" or about["version"] != VERSION:
        raise ValueError(f"garments of version {VERSION} can be redrawn, not {about}")
    return _draw(about, split, index, size).image


def redraw_file(about: dict, name: str, size: int) -> np.ndarray | None:
    """Draw the picture of a file again, as `redraw` does, wherever lists name it; None for other files."""
    drawn = DRAWN.fullmatch(posixpath.normpath(name))
    if drawn is None or about.get("drawn") != "garments" or about["version"] != VERSION:
        return None
    return redraw(about, drawn[1], int(drawn[2]), size)


def _draw(about: dict, split: str, index: int, size: int) -> Garment:
    """Draw a picture of a data set. Of labels "one", it carries one label, as FashionAI's photographs do."""
    seed = seed_of(split, index, about["seed"])
    if about["labels"] != "one":
        return draw_garment(seed, size)
    totals = np.cumsum([sum(counts) for counts in COUNTS])
    condition = int(np.searchsorted(totals, seed % int(totals[-1]), side="right"))
    garment = draw_labelled(condition, seed, size)
    labels = np.where(np.arange(len(GARMENTS)) == condition, garment.labels, -1)
    regions = tuple(region for region in garment.regions if region[0] == condition)
    return Garment(garment.image, labels, regions, garment.framing)


def seed_of(split: str, index: int, seed: int) -> int:
    """Return the seed of one picture of a data set."""
    sequence = np.random.SeedSequence((VERSION, seed, SPLITS.index(split), index))
    return int(sequence.generate_state(1, np.uint64)[0])


def _make_split(root: Path, name: str, results: list) -> Split:
    """Make a split of the files, labels and regions of its images."""
    files, labels, regions = zip(*results)
    boxes = [(image, *box) for image, found in enumerate(regions) for box in found]
    rows = rows_of(np.stack(labels))
    query = rows[:, 0] % QUERY_EVERY == 0
    tables = [rows] if name == "train" else [rows[~query], rows[query]]
    return Split.from_tables(name, root, GARMENTS, list(files), tables, np.array(boxes, float).reshape(-1, 6))
