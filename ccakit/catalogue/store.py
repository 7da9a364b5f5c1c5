"""A catalogue on disk: one LanceDB table, what it says of itself, and one door for the engine's errors."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ccakit.errors import DataError, first_line
from ccakit.settings import from_dict
from ccakit.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

FORMAT = 1  # of the catalogue; another one is refused
ITEMS = "items"  # the name of the engine's table
OWN = ("id", "path", "image_hash", "row_hash", "missing", "cosine")  # columns that are ours
OWN_PREFIXES = ("space_", "cosine_", "label_", "_")
ABOUT = "ccakit"  # the key, in the metadata of the column "id", of what the catalogue says of itself
KEY = "lance-schema:unenforced-primary-key:position"  # with it, two writers never add the same item twice
INDEX_CACHE, METADATA_CACHE = 192 << 20, 64 << 20  # bytes that the engine keeps in memory
ATTEMPTS = 10  # at a change of the table, while other writers' commits come between
CONFLICTS = ("commit conflict", "Incompatible transaction", "already exists in the dataset")
SOURCE_LINE = re.compile(r",? ?/\S+\.rs:\d+:\d+")  # where in the engine's code an error was raised
REMEDY = "Make it again, into another folder: ccakit index."
IF_DAMAGED = "Where it is damaged, make it again, into another folder: ccakit index."


@dataclass(frozen=True)
class About:
    """What a catalogue says of itself.

    digest: of the model that embedded the items. conditions: their names; spaces: the column of each.
    images: the folder that paths are relative to. run: the model's folder, or its name on the hub.
    """

    digest: str
    conditions: tuple[str, ...]
    spaces: tuple[str, ...]
    images: str
    run: str
    format: int = FORMAT
    ccakit: str = __version__


def engine():
    """Import LanceDB; ValueError says how to install it."""
    try:
        import lancedb
    except ImportError:
        raise ValueError("a catalogue needs LanceDB: pip install 'ccakit[catalogue]'") from None
    return lancedb


@contextmanager
def engine_errors(uri: str, remedy: str = IF_DAMAGED) -> Iterator[None]:
    """Raise the engine's errors, of many types, as DataError: the catalogue, one line, and the remedy."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise DataError(uri, _problem(error), remedy) from error


def in_short(error: Exception) -> str:
    """Give the first line of an engine's message, without the places in its code."""
    return SOURCE_LINE.sub("", first_line(error)).removeprefix("lance error: ")[:300]


def _problem(error: Exception) -> str:
    text = in_short(error)
    if "No space left" in text or "os error 28" in text or "os error 27" in text:
        return f"cannot be written: the disk is full ({text[:120]})"
    return f"the engine says: {text}"


def space_columns(conditions: tuple[str, ...]) -> tuple[str, ...]:
    """Name the column of each condition's space; the engine takes no dots in names.

    >>> space_columns(("neck design", "neck.design", "tone"))
    ('space_neck_design', 'space_neck_design_2', 'space_tone')
    """
    names: list[str] = []
    for condition in conditions:
        name = plain = "space_" + re.sub(r"\W+", "_", condition)
        while name in names:
            name = f"{plain}_{len(names) + 1}"
        names.append(name)
    return tuple(names)


def sql_text(text: str) -> str:
    """Write a text as SQL does.

    >>> sql_text("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def connect(uri: str):
    """Connect to the engine in a folder, or at an address such as s3://bucket/folder, with bounded caches."""
    if not uri.strip():
        raise ValueError(
            "the catalogue's name is empty; give a folder, or an address such as s3://bucket/folder"
        )
    lancedb = engine()
    session = lancedb.Session(INDEX_CACHE, METADATA_CACHE)
    with engine_errors(uri, "Give a folder, or an address such as s3://bucket/folder."):
        return lancedb.connect(uri, read_consistency_interval=timedelta(0), session=session)


def is_remote(uri: str) -> bool:
    """Whether a catalogue has an address, and no folder of this machine."""
    return "://" in uri


def exists(uri: str) -> bool:
    """Whether there is a catalogue, or what looks like one."""
    if is_remote(uri):
        return ITEMS in connect(uri).table_names()
    return (Path(uri) / f"{ITEMS}.lance").is_dir()


def open_table(uri: str) -> tuple[Table, About]:
    """Open a catalogue's table, and read what it says of itself; DataError where this is none of ours."""
    if not exists(uri):
        remedy = f"Make one: ccakit index --run RUN --images FOLDER --out {uri}"
        raise DataError(uri, "is not a catalogue", remedy)
    with engine_errors(uri):
        table = connect(uri).open_table(ITEMS)
        metadata = table.schema.field("id").metadata or {} if "id" in table.schema.names else {}
    try:
        values = json.loads(metadata.get(ABOUT.encode(), b"null"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise DataError(uri, "is a LanceDB table, but no catalogue of ccakit", REMEDY)
    if values.get("format") != FORMAT:
        writer = f"ccakit {values.get('ccakit', 'of another version')}"
        problem = f"was written by {writer} in format {values.get('format')}; this one reads {FORMAT}"
        raise DataError(uri, problem, REMEDY)
    try:
        return table, from_dict(About, values)
    except ValueError as error:
        raise DataError(uri, f"does not say what it is ({error})", REMEDY) from None


def create_table(uri: str, about: About, embed_dim: int) -> None:
    """Make an empty catalogue; where another process makes one at this moment, leave it at that one."""
    import pyarrow as pa

    vector = pa.list_(pa.float16(), embed_dim)
    key = pa.field("id", pa.string(), nullable=False, metadata={ABOUT: json.dumps(asdict(about)), KEY: "1"})
    own = [pa.field(name, pa.string()) for name in ("path", "image_hash", "row_hash")]
    spaces = [pa.field(name, vector) for name in about.spaces]
    schema = pa.schema([key, *own, pa.field("missing", pa.bool_()), *spaces])
    with engine_errors(uri, "Make room there, or make it writable; then give the command again."):
        try:
            connect(uri).create_table(ITEMS, schema=schema)
        except (ValueError, OSError, RuntimeError):
            if not exists(uri):
                raise


def change(uri: str, work: Callable[[], None], remedy: str = IF_DAMAGED) -> None:
    """Change a table's columns, metadata or indexes: call `work` again where another writer came between.

    The engine itself does so for rows alone. work: reads the table as it is now, and does what is left to do.
    """
    with engine_errors(uri, remedy):
        for attempt in range(ATTEMPTS):
            try:
                return work()
            except (ValueError, OSError, RuntimeError) as error:
                if attempt == ATTEMPTS - 1 or not any(sign in str(error) for sign in CONFLICTS):
                    raise
                time.sleep(random.uniform(0, 0.05 * 2**attempt))  # two writers do not meet again


def write_about(uri: str, table: Table, about: About) -> None:
    """Keep in the table what the catalogue says of itself."""
    values = {"path": "id", "metadata": {ABOUT: json.dumps(asdict(about))}}
    change(uri, lambda: table.update_field_metadata(values))


def merge(uri: str, table: Table, rows: pa.Table, insert: bool = True) -> None:
    """Merge rows by id in one commit: all of them, or none.

    rows: with all columns, or with some of those of items that are there (insert=False).
    """
    remedy = "Make room there; what was committed is kept, and the same command goes on."
    with engine_errors(uri, remedy):
        merging = table.merge_insert("id").when_matched_update_all()
        if insert:
            merging = merging.when_not_matched_insert_all()
        merging.execute(rows)


def table_columns(schema: pa.Schema) -> list[str]:
    """List the columns of a catalogue that are the user's, those of the table that it was made with."""
    return [name for name in schema.names if name not in OWN and not name.startswith(OWN_PREFIXES)]
