"""Whether data are those that a run was trained on: digests of its lists, kept in the run's folder.

A run keeps `data.json`, digests of what it read of each split, and `train_images.txt`, its training images, a
path a line. A model that was exported keeps the digests in its config.json. Runs of 0.1 may lack either; they
open, and what cannot be said is None.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable
from pathlib import Path

from ccakit.data.layout import read_dataset
from ccakit.data.split import SPLITS, Dataset, Split
from ccakit.disk import read_json, read_text
from ccakit.errors import DataError

TRAIN_IMAGES = "train_images.txt"
PARTS = ("images", "lists")  # of a data record, by split
REMEDY = "Repair or delete it: what the run was trained on is then not known."


def data_facts(dataset: Dataset) -> dict:
    """Describe a data set, wherever it lies: its name, image counts, and a digest of lists and labels."""
    digest = hashlib.sha256(repr(dataset.attributes).encode())
    for split in dataset.splits.values():
        digest.update("\n".join(split.filenames).encode() + split.labels.tobytes())
    counts = {name: len(split.filenames) for name, split in dataset.splits.items()}
    return {"name": dataset.name, "images": counts, "digest": digest.hexdigest()[:16]}


def list_digest(split: Split) -> str:
    """Digest what training and validation take from a split, queries and candidates too.

    This is apart from `data_facts`, as finished benchmarks are recognised by its digest.
    """
    found = hashlib.sha256("\n".join(split.filenames).encode())
    for rows in (split.labels, split.queries, split.candidates):
        found.update(b"none" if rows is None else repr(rows.shape).encode() + rows.tobytes())
    return found.hexdigest()[:16]


def data_record(dataset: Dataset) -> dict:
    """Describe a data set for a run's data.json."""
    lists = {name: list_digest(split) for name, split in dataset.splits.items()}
    return {**data_facts(dataset), "lists": lists}


def read_record(folder: Path) -> dict:
    """Read what a run, or an exported model, keeps of its data; empty where it keeps nothing."""
    record, config = folder / "data.json", folder / "config.json"
    if record.is_file():
        kept = read_json(record, REMEDY)
    else:
        kept = read_json(config, REMEDY).get("trained_on") if config.is_file() else None
    if not isinstance(kept, dict):
        return {}
    return {key: value for key, value in kept.items() if key not in PARTS or isinstance(value, dict)}


def differences(before: dict, now: dict, splits: Iterable[str] | None = None) -> list[str]:
    """Say how two data records differ in some splits, by default in all, in words; [] if they do not."""
    differ = []
    if before.get("name") != now["name"]:
        differ.append(f"its name was {before.get('name')}, now {now['name']}")
    images, lists = (before[k] if isinstance(before.get(k), dict) else {} for k in PARTS)
    for split in {**images, **now["images"]} if splits is None else splits:
        was, is_now = images.get(split, 0), now["images"].get(split, 0)
        if was != is_now:
            differ.append(f"{split} had {was} images, now {is_now}")
        elif lists.get(split) != now["lists"].get(split):
            differ.append(f"{split} has other files, labels, queries or candidates")
    return differ


def changes_since(before: dict, dataset: Dataset) -> list[str]:
    """Say how a data set, read whole, differs from a run's record of it; [] if nothing is known to."""
    now = data_record(dataset)
    differ = differences(before, now, [split for split in now["lists"] if split in before.get("lists", {})])
    digest = before.get("digest", now["digest"])
    if not differ and digest != now["digest"] and {*before.get("images", {})} == {*now["images"]}:
        differ = ["other lists, attributes or values, by their digest"]
    return differ


def compare_data(folder: Path, split: Split, dataset: Dataset, attributes) -> dict:
    """Compare a split with the data that a run was trained on; for JSON.

    folder: the run's. attributes: those of its model. Out: name, split; same: True, False, or None where the
    run does not say; differs: in words; images: the split's; trained_on: how many of them, by path, are in
    the run's training list (None: not known, or the split is train).
    """
    before, name = read_record(folder), split.name
    now = {"name": dataset.name, "images": {name: len(split.filenames)}, "lists": {name: list_digest(split)}}
    same, differ = None, []
    if name in before.get("lists", {}):
        differ = differences(before, now, [name])
        same = not differ
    elif before.get("digest") and "lists" not in before:  # as some runs of 0.1 have it
        same = data_facts(_whole(dataset))["digest"] == before["digest"]
        differ = [] if same else ["its lists, labels or values are others, by their digest"]
    values = zip(attributes.names, attributes.values, dataset.attributes.values)
    if renamed := [attribute for attribute, was, is_now in values if was != is_now]:
        same, differ = False, [*differ, f"other values of {', '.join(renamed)}"]
    trained_on = None if name == "train" else _count_trained(folder, split, before, dataset, same)
    return {
        "name": dataset.name,
        "split": name,
        "same": same,
        "differs": differ,
        "images": len(split.filenames),
        "trained_on": trained_on,
    }


def _count_trained(
    folder: Path, split: Split, before: dict, dataset: Dataset, same: bool | None
) -> int | None:
    """Count the split's images that are in the run's training list, by path; None where it is not known."""
    file = folder / TRAIN_IMAGES
    if file.is_file():
        trained = read_text(file, REMEDY).split("\n")
    else:  # the data set's own list, if it is still the run's
        whole = _whole(dataset)
        train = whole.splits.get("train")
        kept = before.get("lists", {}).get("train")
        known = list_digest(train) == kept if train and kept else same and "lists" not in before
        if train is None or not known:
            return None
        trained = train.filenames
    trained = {posixpath.normpath(path) for path in trained if path}
    return sum(posixpath.normpath(path) in trained for path in split.filenames)


def _whole(dataset: Dataset) -> Dataset:
    """Read all splits, as training does; the data set as it is where that fails."""
    if set(dataset.splits) == set(SPLITS):
        return dataset
    try:
        return read_dataset(dataset.root)
    except DataError:
        return dataset


def remarks(found: dict) -> list[str]:
    """Say in words what is to be known of a result on data that `compare_data` compared; [] if nothing."""
    texts, n = [], found["trained_on"]
    if found["same"] is False:
        texts.append(f"other data than the run was trained with: {'; '.join(found['differs'])}")
    elif found["same"] is None:
        texts.append(
            f"whether {found['split']} is of the run's data is not known: the run keeps no digest of it"
        )
    if n:
        texts.append(
            f"{n} of the {found['images']} images of {found['split']} were in the run's training list"
        )
    elif n is None and found["same"] is False and found["split"] != "train":
        texts.append("how many of its images were in the run's training list is not known")
    return texts
