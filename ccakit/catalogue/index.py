"""Fill a catalogue: embed pictures under every condition, and merge them by id, batch by batch.

Only new and changed pictures are embedded, which a digest of each file's content says. A commit holds whole
batches; after a kill, what was committed is there, and the same call goes on. Each process of torchrun embeds
and commits its share of the batches.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from ccakit import processes
from ccakit.catalogue.columns import add_columns, find_numbers_stored_as_text, fit_columns
from ccakit.catalogue.items import Items
from ccakit.catalogue.store import (
    About,
    create_table,
    engine_errors,
    exists,
    merge,
    open_table,
    space_columns,
    sql_text,
    table_columns,
    write_about,
)
from ccakit.data.images import decode_image, read_bytes
from ccakit.data.inputs import core_threads
from ccakit.disk import content_digest, leads_out
from ccakit.errors import DataError
from ccakit.hub.pretrained import PretrainedModel
from ccakit.models.saved import model_digest

AHEAD = 2  # batches of each thread that may wait for the commit before them
MARKED = 10_000  # rows of a commit that embeds nothing


@dataclass
class Report:
    """What `fill` did, in counts of items, and why pictures are unreadable, by path.

    updated: their picture is the same, but their row of the table changed, or they came back. missing: items
    of the catalogue that are not listed any more, or whose picture cannot be read any more. kept_columns:
    those of the catalogue that no table gave, so that their cells stay as they were. findings: what may be
    wrong with the columns that were given.
    """

    items: int = 0
    embedded: int = 0
    unchanged: int = 0
    updated: int = 0
    missing: int = 0
    pruned: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    kept_columns: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


@dataclass
class Work:
    """What there is to do: items to embed, items whose row alone is to be merged; what is unreadable, why."""

    embed: list[int] = field(default_factory=list)
    update: list[int] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)

    def joined(self) -> Work:
        """Join what all processes found, in order of the items."""
        parts = processes.gather_objects(self)
        embed, update = (sorted({i for part in parts for i in getattr(part, k)}) for k in ("embed", "update"))
        return Work(embed, update, {i: why for part in parts for i, why in part.unreadable.items()})


class Batch(NamedTuple):
    """An embedded batch: the items that could be read, the digests of their pictures, and (n, K, E) float16;
    why the others could not."""

    items: list[int]
    digests: list[str]
    spaces: np.ndarray
    unreadable: dict[int, str]


def fill(
    uri: str,
    model: PretrainedModel,
    run: str,
    items: Items,
    *,
    batch_size: int = 64,
    commit: int = 1024,
    prune: bool = False,
    progress: bool = False,
) -> Report:
    """Make the catalogue at `uri` hold `items`, embedded by `model`; all processes have to call this.

    run: the model's folder or name, by which searches load it. commit: images in a commit, which is what a
    kill can lose. prune: remove items that are not listed any more, instead of marking them. DataError where
    the catalogue is of another model, where no item has a file or columns do not fit, and where it cannot be
    written.
    """
    processes.start()
    processes.run_on_main(lambda: _check_pictures(items))
    processes.run_on_main(lambda: _open_or_create(uri, model, run, items))
    with processes.raise_in_all():
        filling = Filling(uri, model, items, progress and processes.is_main())
        filling.compare()
    filling.work = filling.work.joined()
    with processes.raise_in_all():
        embedded = filling.embed(batch_size, commit)
    embedded = sum(processes.gather_objects(embedded))
    filling.work = filling.work.joined()
    return processes.run_on_main(lambda: filling.finish(embedded, prune))


def _check_pictures(items: Items) -> None:
    """Raise DataError where no item has a file: by a wrong folder all of them would be missing."""
    if not any(os.path.lexists(items.file(item)) for item in range(len(items))):
        problem = f"names {items.paths[0]!r} and other files, none of which is in {items.root}"
        remedy = "Give the folder that the paths start from, --images, or the column of the paths, --image."
        raise DataError(items.table or items.root, problem, remedy)


def _open_or_create(uri: str, model: PretrainedModel, run: str, items: Items) -> None:
    """Make the catalogue where there is none; check that it takes this model and these columns."""
    digest, images = model_digest(model.saved), str(items.root.absolute())
    run = str(Path(run).absolute()) if Path(run).is_dir() else run
    if not exists(uri):
        about = About(digest, model.conditions, space_columns(model.conditions), images, run)
        create_table(uri, about, model.model.embed_dim)
    table, about = open_table(uri)
    if about.digest != digest:
        problem = f"holds the vectors of another model ({about.digest} of {about.run}; {run} is {digest})"
        raise DataError(uri, problem, "Give that model, or another folder.")
    if (about.images, about.run) != (images, run):
        write_about(uri, table, replace(about, images=images, run=run))
    if items.columns is not None:
        add_columns(uri, table, items.columns)


class Filling:
    """One filling of a catalogue: the engine's table, what it knows of each item, and what there is to do."""

    def __init__(self, uri: str, model: PretrainedModel, items: Items, progress: bool) -> None:
        self.uri, self.model, self.items, self.progress = uri, model, items, progress
        self.table, self.about = open_table(uri)
        self.columns, self.findings = None, list(items.findings)
        if items.columns is not None:
            self.findings += find_numbers_stored_as_text(items.columns, self.table.schema)
            self.columns = fit_columns(items.columns, self.table.schema, items.table, items.lines)
        self.row_hashes = items.row_hashes()
        with engine_errors(uri):
            facts = self.table.search().select(["id", "image_hash", "row_hash", "missing"]).to_arrow()
        ids, *facts = (facts[name].to_pylist() for name in ("id", "image_hash", "row_hash", "missing"))
        self.known = dict(zip(ids, zip(*facts)))
        self.work = Work()
        self.threads = min(torch.get_num_threads(), 16)
        if torch.cuda.is_available():
            model.to(f"cuda:{processes.variable('LOCAL_RANK')}")
            self.threads = max(4, self.threads)
        self.device = next(model.model.parameters()).device
        self.pool = core_threads(self.threads)

    def compare(self) -> None:
        """Find what is new, and, in this process's share of the known items, what has changed."""
        known = [item for item, name in enumerate(self.items.ids) if name in self.known]
        self.work.embed += [item for item, name in enumerate(self.items.ids) if name not in self.known]
        mine = processes.shard(np.array(known, int)).tolist()
        with self._bar("compare", len(mine)) as bar:
            for item, digest in zip(mine, _ahead(self.pool, self._digest, mine, 1000)):
                image_hash, row_hash, missing = self.known[self.items.ids[item]]
                if isinstance(digest, DataError):
                    self.work.unreadable[item] = digest.problem
                elif digest != image_hash:
                    self.work.embed.append(item)
                elif missing or (self.columns is not None and row_hash != self.row_hashes[item]):
                    self.work.update.append(item)
                bar.update()

    def embed(self, batch_size: int, commit: int) -> int:
        """Embed and commit this process's share of the batches; return how many items were embedded.

        Each thread reads, decodes and encodes a batch on one core, while another writes: decoding and writing
        hide behind the network, and the vectors do not depend on the number of cores or processes.
        """
        todo = self.work.embed
        batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
        batches = [batches[index] for index in processes.shard(np.arange(len(batches)))]
        depth, waiting, embedded = AHEAD * self.threads, [], 0
        with self._bar("index", sum(map(len, batches))) as bar, ThreadPoolExecutor(1) as writer:
            writing = None
            for batch in _ahead(self.pool, self._embed, batches, depth):
                waiting.append(batch)
                if sum(len(each.items) for each in waiting) >= commit:
                    writing = self._commit(writer, writing, waiting)
                    waiting = []
                embedded += len(batch.items)
                self.work.unreadable.update(batch.unreadable)
                bar.update(len(batch.items) + len(batch.unreadable))
            writing = self._commit(writer, writing, waiting)
            if writing is not None:
                writing.result()
        return embedded

    def _commit(self, writer: Executor, before: Future | None, batches: list[Batch]) -> Future | None:
        """Begin to commit some batches, once the commit before has ended; it raises that one's error."""
        if before is not None:
            before.result()
        if not any(batch.items for batch in batches):
            return None
        return writer.submit(self._write, batches)

    def _write(self, batches: list[Batch]) -> None:
        """Merge rows of embedded batches: whole ones of new items, of known ones what is given."""
        rows = self._rows(batches)
        known = pa.array([name in self.known for name in rows["id"].to_pylist()])
        new, again = rows.filter(pc.invert(known)), rows.filter(known)
        if len(new):
            given = {name: new[name] for name in new.column_names}
            merge(self.uri, self.table, self._table(given, len(new), self.table.schema.names))
        if len(again):
            merge(self.uri, self.table, again, insert=False)

    def finish(self, embedded: int, prune: bool) -> Report:
        """Merge the rows that changed alone, mark what is missing, or remove it; return what was done."""
        items, work = self.items, self.work
        self._merge_parts(self._updates(work.update))
        lost = {items.ids[item] for item in work.unreadable} | (self.known.keys() - set(items.ids))
        missing = sorted(name for name in lost if name in self.known and not self.known[name][2])
        marks = {"id": missing, "missing": [True] * len(missing)}
        self._merge_parts(self._table(marks, len(missing), list(marks)))
        pruned = 0
        with engine_errors(self.uri):
            gone = self.table.count_rows("missing")
            if prune and gone:
                self.table.delete(_but("missing", {items.ids[item] for item in work.unreadable}))
                left = self.table.count_rows("missing")
                gone, pruned = left, gone - left
            count = self.table.count_rows("NOT missing")
        unreadable = {items.paths[item]: why for item, why in sorted(work.unreadable.items())}
        unchanged = len(items) - embedded - len(work.update) - len(unreadable)
        unreadable = {**items.refused, **unreadable}
        given = [] if self.columns is None else self.columns.column_names
        kept = [name for name in table_columns(self.table.schema) if name not in given]
        done = (count, embedded, unchanged, len(work.update), gone, pruned)
        return Report(*done, unreadable, kept, self.findings)

    # --- one item, one batch

    def _digest(self, item: int) -> str | DataError:
        """Digest the content of an item's file; the error where it cannot be read."""
        try:
            return content_digest(self._data(item))
        except DataError as error:
            return error

    def _data(self, item: int) -> bytes:
        """Read an item's file; DataError where it lies elsewhere, by a link."""
        if leads_out(self.items.root, self.items.paths[item]):
            raise DataError(self.items.file(item), "is a link to outside the folder", "Put the file there.")
        return read_bytes(self.items.file(item))

    def _embed(self, batch: list[int]) -> Batch:
        """Read, decode and encode a batch, and embed it under every condition."""
        transform, network = self.model.transform, self.model.model
        inputs, kept, digests, unreadable = [], [], [], {}
        for item in batch:
            try:
                data = self._data(item)
                image = decode_image(self.items.file(item), data, at_least=transform.at_least)
                inputs.append(transform(image))
                kept.append(item)
                digests.append(content_digest(data))
            except ValueError as error:  # DataError is one; the transform's own is the other
                unreadable[item] = getattr(error, "problem", str(error))
        if not kept:
            return Batch([], [], np.zeros((0, network.conditions, network.embed_dim), np.float16), unreadable)
        with torch.inference_mode():
            spaces = network.spaces(network.encode(torch.stack(inputs).to(self.device)))
        return Batch(kept, digests, spaces.half().cpu().numpy(), unreadable)

    # --- rows

    def _rows(self, batches: list[Batch]) -> pa.Table:
        """Make the engine's rows of embedded batches."""
        taken = [item for batch in batches for item in batch.items]
        spaces = np.concatenate([batch.spaces for batch in batches])  # (n, K, E)
        rows = {
            **self._facts(taken),
            "image_hash": [digest for batch in batches for digest in batch.digests],
        }
        for k, name in enumerate(self.about.spaces):
            vectors = pa.array(np.ascontiguousarray(spaces[:, k]).reshape(-1))
            rows[name] = pa.FixedSizeListArray.from_arrays(vectors, spaces.shape[2])
        return self._table(rows, len(taken), list(rows))

    def _updates(self, items: list[int]) -> pa.Table:
        """Make the part of rows that does not come from the picture."""
        rows = self._facts(items)
        return self._table(rows, len(items), list(rows))

    def _facts(self, items: list[int]) -> dict[str, Any]:
        """Give the columns of some items that do not come from their pictures."""
        rows = {
            "id": [self.items.ids[item] for item in items],
            "path": [self.items.paths[item] for item in items],
            "missing": [False] * len(items),
        }
        if self.columns is not None:
            rows["row_hash"] = [self.row_hashes[item] for item in items]
            taken = self.columns.take(pa.array(items, pa.int64()))
            rows |= {name: taken[name] for name in taken.column_names}
        return rows

    def _table(self, rows: dict[str, Any], count: int, names: list[str]) -> pa.Table:
        """Make a table of the engine's types, with nulls where `rows` says nothing."""
        schema = pa.schema([self.table.schema.field(name).remove_metadata() for name in names])
        columns = [rows.get(field.name, pa.nulls(count, field.type)) for field in schema]
        return pa.table(columns, schema=schema)

    def _merge_parts(self, rows: pa.Table) -> None:
        """Merge parts of the rows of known items, so many in a commit."""
        for start in range(0, len(rows), MARKED):
            merge(self.uri, self.table, rows.slice(start, MARKED), insert=False)

    def _bar(self, name: str, total: int) -> tqdm:
        """Show rate and time left: on a terminal at each moment, in a log once a minute."""
        hidden = not (self.progress and total)
        seconds = 0.1 if sys.stderr.isatty() else 60
        return tqdm(desc=name, total=total, unit="img", disable=hidden, mininterval=seconds)


def _but(condition: str, ids: set[str]) -> str:
    """Write a filter in SQL that leaves some items out."""
    names = ", ".join(map(sql_text, sorted(ids)))
    return f"{condition} AND id NOT IN ({names})" if ids else condition


def _ahead(pool: Executor, work: Callable, tasks: Iterable, depth: int) -> Iterator:
    """Yield `work(task)` of each task in order, with at most `depth` begun ahead."""
    begun: deque[Future] = deque()
    try:
        for task in tasks:
            begun.append(pool.submit(work, task))
            if len(begun) > depth:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
