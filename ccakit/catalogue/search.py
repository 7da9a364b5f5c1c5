"""Search a catalogue: the items nearest to a picture, or to an item, under one condition or several.

Each condition's space gives its nearest items; on the union of these, the score is computed exactly: the
weighted mean of the cosines, less those of what the results shall not be like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ccakit.catalogue.store import engine_errors, in_short, open_table, sql_text, table_columns
from ccakit.disk import leads_out
from ccakit.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ccakit.hub.pretrained import Picture, PretrainedModel

PROBES, REFINE = 20, 4  # of an index: partitions searched; candidates compared exactly, for each result
POOL = 200  # items that each space gives, at least, where several conditions are weighed
Conditions = str | int | Sequence[str | int] | Mapping[str | int, float]
Unlike = tuple[Any, str | int, float]


class Part(NamedTuple):
    """A part of a score: the space's column, what items are compared with in it, (E,), and its weight."""

    space: str
    vector: np.ndarray
    weight: float


def open_catalogue(
    uri: str | Path, *, run: str | Path | None = None, images: str | Path | None = None
) -> Catalogue:
    """Open a catalogue that `ccakit index` wrote: a folder, or an address such as s3://bucket/folder.

    run: the model, where it is not any more where the catalogue says; images: likewise the folder of
    the pictures. DataError where there is no catalogue, or it is damaged or of another version.
    """
    return Catalogue(str(uri), run, images)


class Catalogue:
    """Items, each with its embedding under every condition, and the columns of the table they came with.

    uri: its folder or address. conditions: their names. columns: the names of the user's columns. images: the
    folder of the pictures. len(catalogue): its items, without those that are missing.
    """

    def __init__(self, uri: str, run: str | Path | None = None, images: str | Path | None = None) -> None:
        self.uri = uri
        self.table, self.about = open_table(uri)
        self.conditions = self.about.conditions
        self.run = str(run or self.about.run)
        self.images = Path(images or self.about.images)

    def __len__(self) -> int:
        with engine_errors(self.uri):
            return self.table.count_rows("NOT missing")

    @property
    def columns(self) -> list[str]:
        """List the names of the user's columns, which `where` may name, beside id and path."""
        with engine_errors(self.uri):
            return table_columns(self.table.schema)

    @cached_property
    def model(self) -> PretrainedModel:
        """Load the model that the items were embedded by; DataError where it is another one."""
        from ccakit.hub.pretrained import load
        from ccakit.models.saved import model_digest

        if Path(self.run).is_absolute() and not Path(self.run).exists():
            problem = f"is not there any more; it is the model that embedded {self.uri}"
            raise DataError(self.run, problem, "Say where it lies now: --run (run= in Python).")
        model = load(self.run)
        if (digest := model_digest(model.saved)) != self.about.digest:
            problem = (
                f"is another model ({digest}) than the one that embedded {self.uri} ({self.about.digest})"
            )
            raise DataError(self.run, problem, "Give that model: --run.")
        return model

    def condition(self, condition: str | int) -> int:
        """Find the index of a condition by its name, as "neck design" or "neck_design", or by its index."""
        from ccakit.hub.pretrained import find_condition

        if not isinstance(condition, str | int | np.integer):
            raise ValueError(f"a condition is a name or an index, not {condition!r}")
        return find_condition(self.conditions, condition)

    def embed(self, picture: Picture) -> np.ndarray:
        """Embed a picture of any kind under every condition: (K, E) float32, of length 1."""
        return self.model.spaces(picture).numpy()

    def spaces(self, id: str) -> np.ndarray:
        """Read an item's embeddings: (K, E) float32, of length 1; ValueError where there is no such item."""
        row = self._row(id, list(self.about.spaces))
        return np.stack([_unit(row[name]) for name in self.about.spaces])

    def item(self, id: str) -> dict[str, Any]:
        """Read an item: id, path, and the user's columns; ValueError where there is no such item."""
        return self._row(id, ["id", "path", *self.columns])

    def picture(self, id: str) -> Path:
        """Name the file of an item's picture, as `file` does."""
        return self.file(self._row(id, ["path"])["path"])

    def file(self, path: str) -> Path:
        """Name the file of a picture by its path; DataError where it lies outside the pictures' folder."""
        if leads_out(self.images, path):
            problem = f"the picture {path[:80]!r} lies outside the folder {self.images}"
            raise DataError(self.uri, problem, "Index that folder again.")
        return self.images / path

    def _row(self, id: str, columns: list[str]) -> dict[str, Any]:
        named = f"id = {sql_text(id)}"
        with engine_errors(self.uri):
            rows = self.table.search().where(named).select(columns).limit(1).to_list()
        if not rows:
            raise ValueError(f"{self.uri} has no item {id!r}")
        return rows[0]

    def search(
        self,
        picture: Picture | np.ndarray | None = None,
        conditions: Conditions = (),
        *,
        id: str | None = None,
        not_like: Iterable[Unlike] = (),
        where: str | None = None,
        k: int = 10,
        pool: int = POOL,
        exact: bool = False,
    ) -> pd.DataFrame:
        """Find the `k` items nearest to a picture, or to the item `id`, best first.

        picture: of any kind, or what `embed` and `spaces` give of one, (K, E). conditions: one, several, or
        {condition: weight}; a catalogue of one condition needs none. not_like: (picture, condition, weight)
        each: items like that picture move down. where: SQL on the columns, such as "price < 50 AND brand =
        'x'"; names with spaces or capitals in backticks. pool: items that each space gives where the score
        has several parts; all items, and the result is that of brute force. exact: use no index.

        Out: a row a result with id, path, cosine (the score: the weighted mean of the cosines, those of
        `not_like` with a minus), cosine_CONDITION and label_CONDITION for each condition, and the user's
        columns. A label is that of the column with the condition's name, with " (tagged)" behind where
        `ccakit tag` filled the cell, as the column CONDITION_confidence says. An item is not its own result.
        ValueError for an unknown condition, item or column, and for what is no SQL.
        """
        weights = self._weights(conditions)
        query = self._vectors(picture, id)
        parts = [Part(self.about.spaces[c], query[c], weight) for c, weight in weights.items()]
        for other, condition, weight in not_like:
            c = self.condition(condition)
            parts.append(Part(self.about.spaces[c], self._vectors(other)[c], -_positive(weight)))
        where = self.check_where(where)
        k = min(_whole(k), max(1, self.table.count_rows()))
        size = (max(pool, k) if len(parts) > 1 else k) + (id is not None)
        columns = self.columns
        found = self._candidates(parts, where, ["id", "path", *columns], size, exact)
        cosines = np.stack([_cosines(found, part) for part in parts])  # (parts, n)
        shares = np.array([part.weight for part in parts])
        score = shares @ cosines / np.abs(shares).sum()
        best = _best(found["id"].to_pylist(), score, id, k)
        return self._frame(found.take(best), score[best], dict(zip(weights, cosines[:, best])), columns)

    def check_where(self, where: str | None) -> str | None:
        """Check that a text is one filter in SQL, no more; ValueError names the columns that there are."""
        if where is None or (isinstance(where, str) and not where.strip()):
            return None
        if not isinstance(where, str):
            raise ValueError(f"where is a filter in SQL, not {where!r}")
        problem = self._parse_problem(where)
        # The engine's parser stops where an expression may end, and leaves the rest unread: with an AND
        # after it, a text that was read to its end is an error.
        if problem is None and self._parse_problem(where + "\nAND") is None:
            problem = "it is not one filter: something after its end was left unread"
        if problem is None:
            problem = self._parse_problem(_passes(where))
        if problem is None:
            return where
        columns = ", ".join(_quoted(name) for name in ["id", "path", *self.columns])
        raise ValueError(f"--where {where!r}: {problem}; the columns are: {columns}")

    def _parse_problem(self, where: str) -> str | None:
        """Say why the engine's parser does not take a filter; None where it does."""
        try:
            self.table.search().where(where).explain_plan()
        except (ValueError, RuntimeError) as error:
            return in_short(error).split(" Valid fields are")[0].split("Schema error: ")[-1].rstrip(".")
        return None

    def _weights(self, conditions: Conditions) -> dict[int, float]:
        """Give the weight of each condition, by its index."""
        if isinstance(conditions, str | int):
            conditions = [conditions]
        pairs = (
            conditions.items() if isinstance(conditions, Mapping) else [(c, 1.0) for c in conditions or ()]
        )
        if not pairs and len(self.conditions) == 1:
            pairs = [(0, 1.0)]
        if not pairs:
            raise ValueError(f"give a condition; there are: {', '.join(self.conditions)}")
        weights: dict[int, float] = {}
        for name, weight in pairs:
            if (condition := self.condition(name)) in weights:
                raise ValueError(f"the condition {self.conditions[condition]!r} is given twice")
            weights[condition] = _positive(weight)
        return weights

    def _vectors(self, picture: Any, id: str | None = None) -> np.ndarray:
        """Give the (K, E) embeddings of a picture, of an item, or those that are given."""
        if (picture is None) == (id is None):
            raise ValueError("give a picture, or the id of an item")
        if id is not None:
            if not isinstance(id, str):
                raise ValueError(f"an id is text, not {id!r}")
            return self.spaces(id)
        if isinstance(picture, np.ndarray) and picture.dtype.kind == "f":
            shape = len(self.conditions), self.table.schema.field(self.about.spaces[0]).type.list_size
            if picture.shape != shape:
                raise ValueError(f"embeddings {picture.shape} are not (K, E) = {shape} of this catalogue")
            if not np.isfinite(picture).all() or not picture.any(axis=1).all():
                raise ValueError("embeddings with NaN, infinity, or nothing but zeros have no direction")
            return np.stack([_unit(vector) for vector in picture])
        return self.embed(picture)

    def _candidates(
        self, parts: list[Part], where: str | None, columns: list[str], size: int, exact: bool
    ) -> pa.Table:
        """Give the union of the items nearest in the space of each part, with the vectors of all parts."""
        import pyarrow as pa

        columns = [*columns, *dict.fromkeys(part.space for part in parts)]
        where = "NOT missing" if where is None else _passes(where)
        found = [
            self._near(part.space, part.vector, where, columns, size, exact)
            for part in parts
            if part.weight > 0
        ]
        return _distinct(pa.concat_tables(found))

    def _near(
        self, space: str, vector: np.ndarray, where: str, columns: list[str], size: int, exact: bool
    ) -> pa.Table:
        """Ask the engine for the rows nearest to a vector in a space, among those that pass a filter."""
        with engine_errors(self.uri):
            query = self.table.search(vector, vector_column_name=space).distance_type("cosine")
            query = query.where(where, prefilter=True).select([*columns, "_distance"]).limit(size)
            query = query.bypass_vector_index() if exact else query.nprobes(PROBES).refine_factor(REFINE)
            return query.to_arrow().drop_columns("_distance")

    def nearest(self, spaces: np.ndarray, condition: str | int, k: int, exact: bool = False) -> list[str]:
        """Find the ids of the `k` items nearest to a picture's embeddings, (K, E), under one condition."""
        c = self.condition(condition)
        found = self._near(self.about.spaces[c], spaces[c], "NOT missing", ["id"], k, exact)
        return found["id"].to_pylist()

    def sample(self, count: int, seed: int = 0) -> list[tuple[str, np.ndarray]]:
        """Draw items at random: the id and the embeddings (K, E) of each."""
        with engine_errors(self.uri):
            rows = self.table.count_rows()
            drawn = np.random.default_rng(seed).choice(rows, min(count, rows), replace=False)
            taken = self.table.take_offsets(np.sort(drawn).tolist())
            found = taken.select(["id", *self.about.spaces]).to_list()
        return [(row["id"], np.stack([_unit(row[name]) for name in self.about.spaces])) for row in found]

    def _frame(
        self, found: pa.Table, score: np.ndarray, cosines: dict[int, np.ndarray], columns: list[str]
    ) -> pd.DataFrame:
        """Make the frame of the results, in their order; cosines: of each condition."""
        import pandas as pd

        rows = found.select(columns).to_pandas()
        frame = {"id": found["id"].to_pylist(), "path": found["path"].to_pylist(), "cosine": score}
        for condition, cosine in cosines.items():
            name = self.conditions[condition]
            frame[f"cosine_{name}"] = cosine
            frame[f"label_{name}"] = pd.Series(self.labels(rows, condition), dtype=object)
        return pd.DataFrame({**frame, **{name: rows[name] for name in columns}})

    def labels(self, rows: pd.DataFrame, condition: int) -> list[str | None]:
        """Give each row's label, None for an empty cell, and " (tagged)" behind what `ccakit tag` filled."""
        from ccakit.hub.pretrained import words_of_name

        words = words_of_name(self.conditions[condition])
        own = next((name for name in rows if words_of_name(name) == words), None)
        sure = next((name for name in rows if words_of_name(name) == [*words, "confidence"]), None)
        if own is None:
            return [None] * len(rows)
        labels = [None if cell is None or cell != cell else str(cell) for cell in rows[own]]
        if sure is None:
            return labels
        return [
            f"{label} (tagged)" if label and known else label
            for label, known in zip(labels, rows[sure].notna())
        ]


def _unit(vector: Sequence[float]) -> np.ndarray:
    """Scale a vector to length 1, as float32."""
    vector = np.asarray(vector, np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _passes(where: str) -> str:
    """Write the filter of items that are there, and pass the user's."""
    return f"NOT missing AND ({where}\n)"


def _positive(weight: float) -> float:
    try:
        fits = 0 < float(weight) <= 1e6
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"a weight is more than 0 and at most 1000000, not {weight}; --not-like moves items down"
        )
    return float(weight)


def _whole(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k is a whole number from 1 on, not {k!r}")
    return int(k)


def _quoted(name: str) -> str:
    return name if name.isidentifier() and name.islower() else f"`{name}`"


def _best(ids: list[str], score: np.ndarray, own: str | None, k: int) -> np.ndarray:
    """Find the rows of the `k` best scores, equal ones in order of their ids; the item `own` is left out."""
    names = np.array(ids, str)
    order = np.lexsort((names, -score))
    return order[names[order] != own][:k] if own is not None else order[:k]


def _distinct(rows: pa.Table) -> pa.Table:
    """Keep the first row of each id."""
    first: dict[str, int] = {}
    for row, name in enumerate(rows["id"].to_pylist()):
        first.setdefault(name, row)
    import pyarrow as pa

    return rows.take(pa.array(first.values(), pa.int64()))


def _cosines(rows: pa.Table, part: Part) -> np.ndarray:
    """Compute the cosine of each row's vector with a part's, from what is stored: (n,) float64."""
    vectors = rows[part.space].combine_chunks()
    vectors = (
        vectors.values.to_numpy(zero_copy_only=False).reshape(len(rows), len(part.vector)).astype(np.float64)
    )
    cosines = vectors @ part.vector / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    return np.clip(cosines, -1, 1)  # float32's last digits
