"""Look after a catalogue: what it holds, its indexes and how exact they are, and its export to Parquet."""

from __future__ import annotations

import functools
import os
import time
import warnings
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ccakit.catalogue.search import Catalogue
from ccakit.catalogue.store import change, engine_errors, is_remote
from ccakit.disk import atomic_write

FROM_ROWS = 50_000  # items from which on an index is built: below, an exact search takes less than 0.05 s
ROOM = "Make room there, or make it writable; the catalogue is as it was."


@dataclass
class SpaceIndex:
    """An index of a space: its kind, the rows that it covers and does not, and what a measurement gave.

    recall: the share of the ten nearest, by exact search, that a search by the index gives. Milliseconds a
    search, medians: by the index, and exact.
    """

    condition: str
    kind: str
    rows: int
    left: int
    recall: float | None = None
    milliseconds: float | None = None
    exact_milliseconds: float | None = None


def info(catalogue: Catalogue) -> dict[str, Any]:
    """Count a catalogue's items, bytes, versions and columns, and list its indexes; for JSON."""
    table, about = catalogue.table, catalogue.about
    with engine_errors(catalogue.uri):
        stats = table.stats()
        missing = table.count_rows("missing")
        facts = {
            "items": stats["num_rows"] - missing,
            "missing": missing,
            "bytes": stats["total_bytes"],
            "bytes_on_disk": None if is_remote(catalogue.uri) else folder_bytes(Path(catalogue.uri)),
            "fragments": stats["fragment_stats"]["num_fragments"],
            "versions": len(table.list_versions()),
        }
    return {
        "catalogue": catalogue.uri,
        **facts,
        "conditions": list(catalogue.conditions),
        "columns": catalogue.columns,
        "model": about.digest,
        "run": about.run,
        "images": about.images,
        "ccakit": about.ccakit,
        "indexes": [asdict(index) for index in indexes(catalogue)],
    }


def folder_bytes(folder: Path) -> int:
    """Add up the sizes of the files below a folder."""
    sizes = 0
    for here, _, files in os.walk(folder):
        sizes += sum(os.path.getsize(Path(here, name)) for name in files if Path(here, name).is_file())
    return sizes


def indexes(catalogue: Catalogue) -> list[SpaceIndex]:
    """List the indexes of a catalogue's spaces."""
    found = []
    with engine_errors(catalogue.uri):
        for each in catalogue.table.list_indices():
            [column] = each.columns
            if column in catalogue.about.spaces:
                stats = catalogue.table.index_stats(each.name)
                condition = catalogue.conditions[catalogue.about.spaces.index(column)]
                covered = stats.num_indexed_rows, stats.num_unindexed_rows
                found.append(SpaceIndex(condition, stats.index_type, *covered))
    return found


def optimize(
    catalogue: Catalogue,
    *,
    from_rows: int = FROM_ROWS,
    keep_days: float = 7.0,
    queries: int = 100,
    seed: int = 0,
) -> list[SpaceIndex]:
    """Compact a catalogue, build its indexes, and measure them; return the indexes.

    from_rows: items from which on each space gets an index; it is built from the beginning. keep_days: older
    versions are removed, and with them the files that only they need. queries: items, drawn by seed, by which
    each index is measured.
    """
    table, uri = catalogue.table, catalogue.uri
    with engine_errors(uri, ROOM):
        if table.count_rows() >= from_rows:
            wanted = dict.fromkeys(catalogue.about.spaces, space_index())
            wanted |= {"id": id_index(), "missing": missing_index()}
            for column, config in wanted.items():
                build = functools.partial(table.create_index, column, config=config, replace=True)
                change(uri, build, ROOM)
        compact = functools.partial(table.optimize, cleanup_older_than=timedelta(days=keep_days))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of 0 days, which --help explains
            change(uri, compact, ROOM)
    found = indexes(catalogue)
    sample = catalogue.sample(queries, seed) if found else []
    for index in found if sample else ():
        measure(catalogue, index, sample)
    return found


def space_index():
    """Make the settings of a space's index."""
    from lancedb.index import IvfSq

    return IvfSq(distance_type="cosine")


def id_index():
    """Make the settings of the index by which items are found by their ids, and merged."""
    from lancedb.index import BTree

    return BTree()


def missing_index():
    """Make the settings of the index by which a search leaves out missing items."""
    from lancedb.index import Bitmap

    return Bitmap()


def measure(catalogue: Catalogue, index: SpaceIndex, sample: list[tuple[str, np.ndarray]]) -> None:
    """Measure an index by a sample of the items: each one's ten nearest others, against an exact search."""
    recalls, seconds = [], {False: [], True: []}
    for name, spaces in sample:
        found = {}
        for exact in (False, True):
            started = time.perf_counter()
            found[exact] = catalogue.nearest(spaces, index.condition, 11, exact=exact)
            seconds[exact].append(time.perf_counter() - started)
        true, by_index = ([id for id in found[exact] if id != name][:10] for exact in (True, False))
        recalls.append(len(set(true) & set(by_index)) / len(true) if true else 1.0)
    index.recall = float(np.mean(recalls))
    index.milliseconds = 1000 * float(np.median(seconds[False]))
    index.exact_milliseconds = 1000 * float(np.median(seconds[True]))


def export(catalogue: Catalogue, out: Path, vectors: bool = True) -> int:
    """Write the items that are not missing to a Parquet file; return how many there are."""
    from pyarrow import parquet

    columns = ["id", "path", *catalogue.columns, "image_hash", *(catalogue.about.spaces if vectors else ())]
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with engine_errors(catalogue.uri, "Make room, or give another --to."), atomic_write(out) as partial:
        reader = catalogue.table.search().where("NOT missing").select(columns).to_batches()
        with parquet.ParquetWriter(partial, reader.schema.remove_metadata()) as writer:
            for batch in reader:
                writer.write_batch(batch.replace_schema_metadata(None))
                count += batch.num_rows
    return count
