"""meta.json: a data set's attributes and their values, as ASEN has it, plus our optional VALUES and ABOUT."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccakit.attributes import Attributes
from ccakit.data.text import read_utf8
from ccakit.errors import DataError

MOST_VALUES = 1_000_000
FORM = '{"NAME": {"ATTRIBUTES": ["a", ...], "ATTRIBUTES_NUM": {"a": 3, ...}}}'


@dataclass(frozen=True)
class Meta:
    """What a meta.json says of one data set."""

    name: str
    attributes: Attributes
    about: dict[str, Any]


def read_meta(root: Path) -> Meta:
    """The meta.json of `root`, else of its parent; its key is the folder's name, or the only key.

    DataError if there is none, or it is not JSON, or lacks a key, or its counts do not fit its names.
    """
    root = Path(root)
    folder = root.resolve()
    if not folder.is_dir():
        raise DataError(root, "is not a folder", "Give the folder that holds the lists filenames_*.txt.")
    own, above = root / "meta.json", folder.parent / "meta.json"
    path = above if above.is_file() and not own.is_file() else own
    everything = _load(path)
    name = folder.name if folder.name in everything or len(everything) != 1 else next(iter(everything))
    if not isinstance(everything.get(name), dict):
        remedy = "Name the folder as the entry is named, or keep one entry only."
        raise DataError(path, f"has no entry {name!r} (it has: {', '.join(everything) or 'none'})", remedy)
    entry, about = everything[name], everything[name].get("ABOUT", {})
    if not isinstance(about, dict):
        raise DataError(path, f"ABOUT of {name!r} is not an object", 'Write "ABOUT": {...}, or leave it out.')
    return Meta(name, _attributes(path, entry), about)


def meta_lines(meta: Meta) -> list[str]:
    """The lines of a meta.json, with the names of the values and what is known about the data."""
    names, attributes = list(meta.attributes.names), meta.attributes
    entry = {
        "ATTRIBUTES": names,
        "ATTRIBUTES_NUM": dict(zip(names, attributes.sizes)),
        "VALUES": {name: list(values) for name, values in zip(names, attributes.values)},
        "ABOUT": meta.about,
    }
    return json.dumps({meta.name: entry}, indent=1, ensure_ascii=False).split("\n")


def _load(path: Path) -> dict[str, Any]:
    text = read_utf8(path, f"The file names the attributes and counts their values: {FORM}.")
    try:
        everything = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise DataError(path, f"is not JSON ({error})", f"The form is {FORM}.", line) from None
    if not isinstance(everything, dict):
        raise DataError(path, "is not a JSON object", f"The form is {FORM}.")
    try:
        json.dumps(everything, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # half a surrogate pair, which cannot be printed or written
        raise DataError(
            path, f"holds what is not text ({type(error).__name__})", "Save it as UTF-8."
        ) from None
    return everything


def _attributes(path: Path, entry: dict[str, Any]) -> Attributes:
    """The attributes of an entry, every key and count checked."""
    names, sizes, values = (entry.get(key) for key in ("ATTRIBUTES", "ATTRIBUTES_NUM", "VALUES"))
    form = f"The form is {FORM}."
    if not _is_names(names):
        raise DataError(path, "ATTRIBUTES is not a list of different names", form)
    if not isinstance(sizes, dict) or set(sizes) != set(names):
        raise DataError(path, "ATTRIBUTES_NUM does not count the values of every attribute", form)
    for name, size in sizes.items():
        if type(size) is not int or not 1 <= size <= MOST_VALUES:
            raise DataError(path, f"ATTRIBUTES_NUM of {name!r} is {size!r:.40}", "Count its values.")
    if sum(sizes.values()) > MOST_VALUES:
        raise DataError(
            path, f"ATTRIBUTES_NUM counts {sum(sizes.values())} values in all", "Count its values."
        )
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
    return (
        isinstance(names, list)
        and bool(names)
        and all(isinstance(n, str) and n for n in names)
        and len(set(names)) == len(names)
    )
