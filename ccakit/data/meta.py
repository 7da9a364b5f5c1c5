"""meta.json: a data set's attributes and their values, as ASEN has it, and our optional VALUES and ABOUT."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccakit.attributes import Attributes
from ccakit.disk import read_json
from ccakit.errors import DataError

MOST_VALUES = 1_000_000
FORM = 'The form is {"NAME": {"ATTRIBUTES": ["a", ...], "ATTRIBUTES_NUM": {"a": 3, ...}}}.'


@dataclass(frozen=True)
class Meta:
    """What a meta.json says of one data set."""

    name: str
    attributes: Attributes
    about: dict[str, Any]


def read_meta(root: Path) -> Meta:
    """Read the meta.json of `root`, else of its parent; its key is the folder's name, or the only key.

    DataError if the file is missing, is not JSON, lacks a key, or its counts do not fit its names.
    """
    root = Path(root)
    folder = root.resolve()
    if not folder.is_dir():
        raise DataError(root, "is not a folder", "Give the folder that holds the lists filenames_*.txt.")
    own, above = root / "meta.json", folder.parent / "meta.json"
    path = above if above.is_file() and not own.is_file() else own
    entries = _read_entries(path)
    name = folder.name if folder.name in entries or len(entries) != 1 else next(iter(entries))
    entry = entries.get(name)
    if not isinstance(entry, dict):
        remedy = "Name the folder as the entry is named, or keep one entry only."
        raise DataError(path, f"has no entry {name!r} (it has: {', '.join(entries) or 'none'})", remedy)
    about = entry.get("ABOUT", {})
    if not isinstance(about, dict):
        raise DataError(path, f"ABOUT of {name!r} is not an object", 'Write "ABOUT": {...}, or leave it out.')
    return Meta(name, _check_attributes(path, entry), about)


def meta_json(meta: Meta) -> str:
    """Write a meta.json as text, with the names of the values and what is known about the data."""
    names, sizes, values = meta.attributes.names, meta.attributes.sizes, meta.attributes.values
    entry = {
        "ATTRIBUTES": names,
        "ATTRIBUTES_NUM": dict(zip(names, sizes)),
        "VALUES": dict(zip(names, values)),
        "ABOUT": meta.about,
    }
    return json.dumps({meta.name: entry}, indent=1, ensure_ascii=False) + "\n"


def _read_entries(path: Path) -> dict[str, Any]:
    entries = read_json(path, f"The file names the attributes and counts their values. {FORM}")
    try:
        json.dumps(entries, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # half a surrogate pair, which cannot be printed or written
        problem = f"holds what is not text ({type(error).__name__})"
        raise DataError(path, problem, "Save it as UTF-8.") from None
    return entries


def _check_attributes(path: Path, entry: dict[str, Any]) -> Attributes:
    """Check every key and count of an entry, and return its attributes."""
    names, sizes, values = (entry.get(key) for key in ("ATTRIBUTES", "ATTRIBUTES_NUM", "VALUES"))
    if not _is_names(names):
        raise DataError(path, "ATTRIBUTES is not a list of different names", FORM)
    if not isinstance(sizes, dict) or set(sizes) != set(names):
        raise DataError(path, "ATTRIBUTES_NUM does not count the values of every attribute", FORM)
    for name, size in sizes.items():
        if type(size) is not int or not 1 <= size <= MOST_VALUES:
            raise DataError(path, f"ATTRIBUTES_NUM of {name!r} is {size!r:.40}", "Count its values.")
    if sum(sizes.values()) > MOST_VALUES:
        problem = f"ATTRIBUTES_NUM counts {sum(sizes.values())} values in all"
        raise DataError(path, problem, "Count its values.")
    if values is None:
        return Attributes.numbered({name: sizes[name] for name in names})
    if not isinstance(values, dict) or set(values) != set(names):
        raise DataError(path, "VALUES does not name the values of every attribute", "Name all, or none.")
    for name in names:
        if not _is_names(values[name]) or len(values[name]) != sizes[name]:
            remedy = "Give as many names as ATTRIBUTES_NUM counts, or leave VALUES out."
            raise DataError(path, f"VALUES of {name!r} are not {sizes[name]} different names", remedy)
    return Attributes(tuple(names), tuple(tuple(values[name]) for name in names))


def _is_names(names: Any) -> bool:
    """Say whether this is a list of different names, at least one."""
    if not isinstance(names, list) or not names:
        return False
    return all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
