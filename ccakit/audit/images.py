"""What the image files show: images missing, broken or twice there, and splits that share images.

A file is read, checked and decoded by one thread and then forgotten: a digest of its bytes and one of its
pixels are kept. Paths are compared after `normpath`, so that "a/./b.png" and "a/b.png" are one image.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import combinations
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ccakit.data.images import cut_short, decode_image, kind_of, read_bytes
from ccakit.data.split import Dataset, Split
from ccakit.disk import content_digest, leads_out
from ccakit.errors import DataError

Listed = dict[str, list[tuple[str, int]]]  # a path, normalised -> the splits and indices where it is listed
PROBLEMS = ("missing", "outside", "empty", "truncated", "unreadable")
KINDS = {"is missing": "missing", "is empty": "empty"}  # of the errors of `ccakit.data.images`


@dataclass(frozen=True)
class Seen:
    """The result of a look at a file: a problem (of PROBLEMS) in words, or digests, kind, (height, width)."""

    path: str
    problem: str = ""
    words: str = ""
    content: str = ""
    pixels: bytes = b""
    kind: str = ""
    size: tuple[int, int] = (0, 0)


def listed_paths(dataset: Dataset) -> Listed:
    """Collect every path of the lists, normalised, with the splits and indices (from 0) that list it."""
    listed: Listed = defaultdict(list)
    for name, split in dataset.splits.items():
        for image, path in enumerate(split.filenames):
            listed[posixpath.normpath(path)].append((name, image))
    return dict(listed)


def look(root: Path, path: str) -> Seen:
    """Read, check and decode one file. root: the data set's folder."""
    file = root / path
    if leads_out(root, path):
        return Seen(path, "outside", "is a link to outside the folder")
    content = ""
    try:
        data = read_bytes(file)
        if data:
            content = content_digest(data)
            if words := cut_short(data):
                return Seen(path, "truncated", words, content)
        image = decode_image(file, data)
    except DataError as error:
        return Seen(path, KINDS.get(error.problem, "unreadable"), error.problem, content)
    pixels = blake2b(np.ascontiguousarray(image), digest_size=16, key=str(image.shape).encode()).digest()
    return Seen(path, content=content, pixels=pixels, kind=kind_of(data), size=image.shape[:2])


def look_at_all(root: Path, paths: Sequence[str], threads: int = 0, progress: bool = False) -> Iterator[Seen]:
    """`look` at every path, in order, by some threads (0: one a core, at most 8); each holds one file."""
    hidden = None if progress else True  # None: shown in a terminal
    with ThreadPool(threads or min(8, os.cpu_count() or 1)) as pool:
        looks = pool.imap(partial(look, root), paths, chunksize=16)
        yield from tqdm(looks, "looking at images", len(paths), unit="img", disable=hidden, leave=False)


def image_facts(
    dataset: Dataset, listed: Listed, threads: int = 0, progress: bool = False
) -> tuple[dict, dict[str, bytes]]:
    """Find what is wrong with the images and which are there twice; also {path: digest of its content}.

    When not one image is there, none is listed as missing: the lists stand alone, which "none_here" says.
    """
    looks = list(look_at_all(dataset.root, list(listed), threads, progress))
    problems: dict[str, list] = {name: [] for name in PROBLEMS}
    for seen in looks:
        if seen.problem:
            lines = [[split, image + 1] for split, image in listed[seen.path]]
            problems[seen.problem].append({"path": seen.path, "listed": lines, "what": seen.words})
    good = [seen for seen in looks if not seen.problem]
    none_here = len(problems["missing"]) == len(listed)
    content = {seen.path: seen.content for seen in looks if seen.content}
    same_content = groups(content)
    same_pixels = groups({seen.path: seen.pixels for seen in good})
    facts = {
        "checked": len(listed),
        "none_here": none_here,
        **{f"n_{name}": len(paths) for name, paths in problems.items()},
        **({} if none_here else problems),
        "kinds": dict(Counter(seen.kind for seen in good)),
        "sizes": _sizes([seen.size for seen in good]),
        "same_content": same_content,
        "same_pixels": [paths for paths in same_pixels if len({content[path] for path in paths}) > 1],
        "conflicts": [paths for paths in same_content if _conflict(dataset, listed, paths)],
    }
    return facts, content


def groups(digests: dict[str, bytes]) -> list[list[str]]:
    """Group the paths that share a digest, each group in the order of the paths."""
    same = defaultdict(list)
    for path, digest in digests.items():
        same[digest].append(path)
    return [paths for paths in same.values() if len(paths) > 1]


def _sizes(sizes: list[tuple[int, int]]) -> dict:
    """The smallest, median and largest (height, width), by the shorter side."""
    if not sizes:
        return {}
    ordered = sorted(sizes, key=lambda size: (min(size), max(size)))
    return {"min": list(ordered[0]), "median": list(ordered[len(ordered) // 2]), "max": list(ordered[-1])}


def _conflict(dataset: Dataset, listed: Listed, paths: list[str]) -> bool:
    """Whether equal images are labelled differently: both labelled in an attribute, with other values."""
    seen: dict[int, set] = {}
    for split, image in (entry for path in paths for entry in listed[path]):
        labels = dataset.splits[split].labels
        values = defaultdict(set)
        for _, condition, label in labels[labels[:, 0] == image].tolist():
            values[condition].add(label)
        if any(seen.setdefault(condition, own) != own for condition, own in values.items()):
            return True
    return False


def leakage(names: Iterable[str], listed: Listed, same: dict[str, list[list[str]]]) -> dict[str, dict]:
    """Find the images of a later split that an earlier one has, for every two splits: {"train/test": {...}}.

    "path": the paths in both lists. For every kind in `same` ("content", "pixels": groups of equal images):
    pairs [path in the earlier, path in the later], each later path once, beside the first earlier one of its
    group.
    """
    splits = {path: {split for split, _ in entries} for path, entries in listed.items()}
    found = {}
    for earlier, later in combinations(names, 2):
        shared = [path for path in splits if {earlier, later} <= splits[path]]
        pair, known = {"path": shared}, set(shared)
        for kind, equal in same.items():
            pair[kind] = []
            for group in equal:
                first = next((path for path in group if earlier in splits[path]), None)
                if first is not None:
                    pair[kind] += [[first, p] for p in group if later in splits[p] and p not in known]
            known |= {path for _, path in pair[kind]}
        found[f"{earlier}/{later}"] = pair
    return found


def own_candidates(split: Split, content: dict[str, str]) -> list[dict]:
    """Find queries whose own image, or a byte-identical copy, is a candidate of their attribute."""
    names = [posixpath.normpath(path) for path in split.filenames]
    identity = [content.get(name, name) for name in names]
    candidates, found = {}, []
    for image, condition, _ in split.candidates.tolist():
        candidates.setdefault((identity[image], condition), names[image])
    for image, condition, _ in split.queries.tolist():
        if candidate := candidates.get((identity[image], condition)):
            attribute = split.attributes.names[condition]
            found.append({"query": names[image], "candidate": candidate, "attribute": attribute})
    return found
