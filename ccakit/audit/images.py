"""What the files tell: images missing, broken or twice there, and splits that share images.

A file is read, checked and decoded by one thread and then forgotten: what is kept is a digest of its bytes
and one of its pixels. Paths are compared after `normpath`, so that "a/./b.png" and "a/b.png" are one image.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, combinations, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ccakit.data.images import cut_short, kind_of
from ccakit.data.split import Dataset, Split
from ccakit.errors import DataError

Places = dict[str, list[tuple[str, int]]]  # a path, normalised -> the splits and indices where it is listed
MOST_BYTES = 1 << 30  # of a file; a thread holds one
PROBLEMS = ("missing", "outside", "empty", "truncated", "unreadable")


@dataclass(frozen=True)
class Seen:
    """What one look at a file gave: a problem (of PROBLEMS) with its words, or digests, kind and size."""

    path: str
    problem: str = ""
    words: str = ""
    content: bytes = b""
    pixels: bytes = b""
    kind: str = ""
    size: tuple[int, int] = (0, 0)


def places(dataset: Dataset) -> Places:
    """Every path of the lists, normalised, with the splits and indices (from 0) that list it."""
    found: Places = defaultdict(list)
    for name, split in dataset.splits.items():
        for image, path in enumerate(split.filenames):
            found[posixpath.normpath(path)].append((name, image))
    return dict(found)


def look(root: Path, path: str) -> Seen:
    """Read, check and decode one file. `root`: the data set's folder, links resolved."""
    from ccakit.data.images import read_image  # OpenCV and torch: only when images are opened

    file = root / path
    if not Path(os.path.realpath(file)).is_relative_to(root):
        return Seen(path, "outside", "is a link to outside the folder")
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            return Seen(path, "unreadable", "is not a regular file")
        if status.st_size > MOST_BYTES:
            return Seen(
                path, "unreadable", f"has {status.st_size} bytes, more than the limit of {MOST_BYTES}"
            )
        data = file.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        words = "is missing" if missing else f"cannot be read ({error.strerror})"
        return Seen(path, "missing" if missing else "unreadable", words)
    if not data:
        return Seen(path, "empty", "is empty")
    digest = blake2b(data, digest_size=16).digest()
    if words := cut_short(data):
        return Seen(path, "truncated", words, digest)
    try:
        pixels = read_image(file)
    except DataError as error:
        return Seen(path, "unreadable", error.problem, digest)
    drawn = blake2b(np.ascontiguousarray(pixels), digest_size=16, key=str(pixels.shape).encode()).digest()
    return Seen(path, content=digest, pixels=drawn, kind=kind_of(data), size=pixels.shape[:2])


def look_at_all(root: Path, paths: Iterable[str], threads: int = 0, progress: bool = False) -> Iterator[Seen]:
    """`look` at every path, in order, by some threads (0: one a core, at most 8); few files are held at a time."""
    root, paths = Path(os.path.realpath(root)), list(paths)
    threads = threads or min(8, os.cpu_count() or 1)
    bar = tqdm(
        total=len(paths),
        desc="looking at images",
        unit="img",
        disable=None if progress else True,
        leave=False,
    )
    with bar, ThreadPoolExecutor(threads) as pool:
        rest, waiting = iter(paths), deque()
        while True:
            waiting += [pool.submit(look, root, path) for path in islice(rest, 4 * threads - len(waiting))]
            if not waiting:
                return
            yield waiting.popleft().result()
            bar.update()


def image_facts(
    dataset: Dataset, listed: Places, threads: int = 0, progress: bool = False
) -> tuple[dict, dict]:
    """What is wrong with the images, and which are there twice; and {path: digest of content} of what is there.

    When not one image is there, none is named as missing: the lists stand alone, which `none_here` says.
    """
    problems, kinds, sizes = {name: [] for name in PROBLEMS}, Counter(), []
    content, pixels = {}, {}
    there = [path for path in listed if os.path.lexists(dataset.root / path)]
    gone = [Seen(path, "missing", "is missing") for path in listed.keys() - set(there)]
    for seen in chain(gone, look_at_all(dataset.root, there, threads, progress)):
        if seen.problem:
            problems[seen.problem].append(
                {"path": seen.path, "listed": _lines(listed[seen.path]), "what": seen.words}
            )
        else:
            kinds[seen.kind] += 1
            sizes.append(seen.size)
            pixels[seen.path] = seen.pixels
        if seen.content:
            content[seen.path] = seen.content
    problems["missing"].sort(key=lambda each: each["listed"])
    none_here = len(problems["missing"]) == len(listed)
    counts = {f"n_{name}": len(found) for name, found in problems.items()}
    same_content = groups(content)
    facts = {
        "checked": len(listed),
        "none_here": none_here,
        **counts,
        **({} if none_here else problems),
        "kinds": dict(kinds),
        "sizes": _sizes(sizes),
        "same_content": same_content,
        "same_pixels": _others(groups(pixels), content),
        "conflicts": [group for group in same_content if _conflict(dataset, listed, group)],
    }
    return facts, content


def groups(digests: dict[str, bytes]) -> list[list[str]]:
    """Paths that share a digest, each group in the order of the paths."""
    same = defaultdict(list)
    for path, digest in digests.items():
        same[digest].append(path)
    return [paths for paths in same.values() if len(paths) > 1]


def _others(same_pixels: list[list[str]], content: dict[str, bytes]) -> list[list[str]]:
    """Of the groups with equal pixels, those whose bytes are not all equal."""
    return [group for group in same_pixels if len({content[path] for path in group}) > 1]


def _lines(at: list[tuple[str, int]]) -> list[list]:
    """Split and line (from 1) of every place."""
    return [[split, image + 1] for split, image in at]


def _sizes(sizes: list[tuple[int, int]]) -> dict:
    """Smallest, median and largest (height, width), by the shorter side."""
    ordered = sorted(sizes, key=lambda size: (min(size), max(size)))
    if not ordered:
        return {}
    return {"min": list(ordered[0]), "median": list(ordered[len(ordered) // 2]), "max": list(ordered[-1])}


def _conflict(dataset: Dataset, listed: Places, group: list[str]) -> bool:
    """Whether equal images are labelled differently: both labelled in an attribute, with other values."""
    seen: dict[int, set] = {}
    for split, image in (place for path in group for place in listed[path]):
        labels = dataset.splits[split].labels
        rows = labels[labels[:, 0] == image]
        for condition in np.unique(rows[:, 1]).tolist():
            values = set(rows[rows[:, 1] == condition, 2].tolist())
            if seen.setdefault(condition, values) != values:
                return True
    return False


def leakage(
    names: Iterable[str], listed: Places, same: dict[str, list[list[str]]]
) -> dict[str, dict[str, list]]:
    """Images of a later split that an earlier one has too, for every two splits: {"train/test": {...}}.

    "path": paths in both lists. For every kind of `same` ("content", "pixels": groups of equal images): [path
    in the earlier, path in the later], the later's each once, and each under the first of these that has it.
    """
    of = {path: {split for split, _ in at} for path, at in listed.items()}
    found = {}
    for one, other in combinations(names, 2):
        shared = [path for path, splits in of.items() if {one, other} <= splits]
        here, known = {"path": shared}, set(shared)
        for kind, equal in same.items():
            here[kind] = []
            for group in equal:
                earlier = [path for path in group if one in of[path]]
                later = [path for path in group if other in of[path] and path not in known]
                here[kind] += [[earlier[0], path] for path in later] if earlier else []
            known |= {path for _, path in here[kind]}
        found[f"{one}/{other}"] = here
    return found


def own_candidates(split: Split, content: dict[str, bytes]) -> list[dict]:
    """Queries that find their own image, or a byte-identical copy, among the candidates of their attribute."""
    names = [posixpath.normpath(path) for path in split.filenames]
    identity = [content.get(name, name) for name in names]
    ranked = {}
    for image, condition, _ in split.candidates.tolist():
        ranked.setdefault((identity[image], condition), names[image])
    return [
        {"query": names[image], "candidate": ranked[key], "attribute": split.attributes.names[condition]}
        for image, condition, _ in split.queries.tolist()
        if (key := (identity[image], condition)) in ranked
    ]
