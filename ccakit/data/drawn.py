"""The drawn data set on disk, in the layout that every data set of ours has."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ccakit.data.layout import rows_of, write_dataset
from ccakit.data.meta import read_meta
from ccakit.data.split import SPLITS, Split
from ccakit.errors import DataError
from ccakit.garments.draw import Garment, draw_garment, draw_labelled
from ccakit.garments.values import COUNTS, GARMENTS, VERSION

QUERY_SHARE = 0.2  # of the images of valid and of test; the others are candidates, as in ASEN's protocol


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

    train, valid, test: the number of images of each. size: of an image's sides, in pixels. labels: "all", or
    "one" as in FashionAI, where each image carries one label (and its region alone) and conditions occur with
    FashionAI's frequencies. workers: processes, by default one a core.

    The pictures are drawn in a folder beside `root` and moved there when all is done, so that what was broken
    off leaves nothing behind. Raises DataError if `root` holds something else.
    """
    if labels not in ("all", "one"):
        raise ValueError(f"labels is 'all' or 'one', not {labels!r}")
    if min(train, valid, test) < 1 or min(valid, test) < 2:
        raise ValueError("train needs an image at least, valid and test two: a query and a candidate")
    root = Path(root)
    counts = dict(zip(SPLITS, (train, valid, test)))
    about = {
        "drawn": "garments",
        "version": VERSION,
        "seed": seed,
        "size": size,
        "labels": labels,
        "images": counts,
    }
    if _present(root, about):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    half_done = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        splits = _draw_splits(half_done, counts, size, seed, labels, workers, progress)
        write_dataset(half_done, "garments", GARMENTS, splits, about)
        half_done.chmod(0o755)
        if root.exists():
            root.rmdir()  # it is empty, else _present had refused it
        os.replace(half_done, root)
    finally:
        shutil.rmtree(half_done, ignore_errors=True)


def _present(root: Path, about: dict) -> bool:
    """Whether `root` holds this very data set; False if nothing is there; DataError if something else is."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = read_meta(root).about if (root / "meta.json").exists() else None
    except DataError:
        found = None
    if found == about:
        return True
    what = f"holds other data ({json.dumps(found)})" if found else "holds files that are no drawn data set"
    raise DataError(root, what, f"Give another folder, or delete this one to draw {json.dumps(about)}.")


def _draw_splits(
    root: Path, counts: dict, size: int, seed: int, labels: str, workers: int | None, progress: bool
) -> list[Split]:
    """Draw all images and gather their labels and regions."""
    for name in counts:
        (root / "images" / name).mkdir(parents=True)
    jobs = [(name, i) for name, count in counts.items() for i in range(count)]
    task = partial(_draw_one, root=root, size=size, seed=seed, labels=labels)
    facts: dict[str, list] = {name: [] for name in counts}
    results = _map(task, jobs, workers or _cores())
    hide = None if progress else True  # None: shown on a terminal, not in a log
    for (name, _), fact in zip(jobs, tqdm(results, "drawing garments", len(jobs), disable=hide)):
        facts[name].append(fact)
    return [_split(root, name, facts[name]) for name in counts]


def _map(task, jobs: list, workers: int) -> Iterator:
    """The tasks' results in order, from as many processes as are worth starting."""
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
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _draw_one(job: tuple[str, int], root: Path, size: int, seed: int, labels: str) -> tuple:
    """Draw and write one image; returns its file, its labels (8,), its regions."""
    name, index = job
    garment = _garment(name, index, seed, size, labels)
    file = f"images/{name}/{index:06d}.png"
    done, data = cv2.imencode(".png", garment.image[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1))
    (root / file).write_bytes(data.tobytes())
    return file, garment.labels, list(garment.regions)


def _garment(split: str, index: int, seed: int, size: int, labels: str) -> Garment:
    own = seed_of(split, index, seed)
    return draw_garment(own, size) if labels == "all" else _one_label(own, size)


def redraw(about: dict, split: str, index: int, size: int) -> np.ndarray:
    """Picture `index` of a data set's split at another size: (size, size, 3) uint8 RGB, the same outfit, for figures.

    about: what `read_dataset` tells of the data set. ValueError if another version drew it.
    """
    if about.get("drawn") != "garments" or about["version"] != VERSION:
        raise ValueError(f"garments of version {VERSION} can be redrawn, not {about}")
    return _garment(split, index, about["seed"], size, about["labels"]).image


def seed_of(split: str, index: int, seed: int) -> int:
    """The seed of one picture of a data set."""
    sequence = np.random.SeedSequence((VERSION, seed, SPLITS.index(split), index))
    return int(sequence.generate_state(1, np.uint64)[0])


def _one_label(seed: int, size: int) -> Garment:
    """A garment drawn for one attribute, and labelled with it alone, as FashionAI's photographs are."""
    totals = np.cumsum([sum(counts) for counts in COUNTS])
    condition = int(np.searchsorted(totals, seed % int(totals[-1]), side="right"))
    garment = draw_labelled(condition, seed, size)
    labels = np.where(np.arange(len(GARMENTS)) == condition, garment.labels, -1)
    regions = tuple(region for region in garment.regions if region[0] == condition)
    return Garment(garment.image, labels, regions, garment.framing)


def _split(root: Path, name: str, facts: list) -> Split:
    """A split of the drawn images; of valid and test, every fifth image is a query."""
    files = [file for file, _, _ in facts]
    matrix = np.stack([labels for _, labels, _ in facts])
    boxes = [(i, *box) for i, (_, _, regions) in enumerate(facts) for box in regions]
    regions = np.array(boxes, np.float64).reshape(-1, 6)
    rows = rows_of(matrix)
    if name == "train":
        return Split(name, root, GARMENTS, files, rows, regions=regions)
    query = rows[:, 0] % round(1 / QUERY_SHARE) == 0
    sides = rows[~query], rows[query]
    return Split(name, root, GARMENTS, files, np.concatenate(sides), sides[1], sides[0], regions)
