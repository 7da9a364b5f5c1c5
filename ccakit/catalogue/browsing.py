"""A catalogue as people look through it, without a widget: queries, filters, and pictures with their heat."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ccakit.catalogue.store import engine_errors, sql_text
from ccakit.data.images import read_image
from ccakit.disk import content_digest, leads_out
from ccakit.errors import DataError
from ccakit.show.heat import heatmap, overlay, view_of
from ccakit.show.switcher import MAX_BYTES, read_upload, reduced

if TYPE_CHECKING:
    import pandas as pd

    from ccakit.catalogue.search import Catalogue

SHOWN = 360  # pixels: the longer side of a picture as it is shown
KEPT = 400  # pictures of which maps and a small copy are kept in memory
SAMPLE = 10_000  # rows that are read for the filters
MOST_VALUES = 30  # of a column of text, up to which it becomes a choice
MOST_FILTERS = 16
HIDDEN = ("_confidence", "_nearest")  # what `ccakit tag` adds to a column


class Query(NamedTuple):
    """What is searched by: a name for people, its embeddings (K, E), its key among `pictures`, and its id.

    id: None for a picture that is not in the catalogue.
    """

    name: str
    spaces: np.ndarray
    key: str
    id: str | None


class Picture(NamedTuple):
    """A small copy of a picture, uint8 RGB, the transform's view of it, and its maps (K, h, w).

    maps: None where the system does not attend.
    """

    shown: np.ndarray
    view: Sequence[float]
    maps: np.ndarray | None


@dataclass(frozen=True)
class Filter:
    """A column that results can be filtered by: a choice of `values`, or a range from `low` to `high`."""

    column: str
    values: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    is_integer: bool = False

    def sql(self, chosen: Any) -> str:
        """Write the filter for a chosen value, or for a chosen (low, high); "" where all is chosen."""
        name = f"`{self.column}`"
        if self.values:
            return f"{name} = {sql_text(chosen)}" if chosen is not None else ""
        low, high = chosen
        parts = [f"{name} >= {low}"] * (low > self.low) + [f"{name} <= {high}"] * (high < self.high)
        return " AND ".join(parts)


class Browsing:
    """An opened catalogue, and the pictures that were looked at last."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.model = catalogue.model
        self.titles = [name.replace("_", " ") for name in catalogue.conditions]
        self._kept: OrderedDict[str, Picture] = OrderedDict()

    # ---- queries

    def by_id(self, id: str) -> Query:
        """Search by an item; ValueError where there is none of this id."""
        return Query(id, self.catalogue.spaces(id), f"id {id}", id)

    def by_upload(self, name: str, data: bytes, max_bytes: int = MAX_BYTES) -> Query:
        """Search by a picture of the user's, by its file's bytes; DataError where they are none."""
        try:
            picture = read_upload(name, data, max_bytes)
            spaces = self.catalogue.embed(picture)
        except DataError:
            raise
        except ValueError as error:  # the transform's: a picture too narrow
            raise DataError(name, str(error), "Take another one.") from None
        key = f"upload {content_digest(data)}"
        self._keep([key], [picture])
        return Query(name, spaces, key, None)

    def an_item(self, number: int) -> Query:
        """Search by one of the items, by a number of any size; ValueError for an empty catalogue."""
        total = len(self.catalogue)
        if not total:
            raise ValueError(f"{self.catalogue.uri} holds no item")
        with engine_errors(self.catalogue.uri):
            rows = self.catalogue.table.search().where("NOT missing").select(["id"])
            [row] = rows.offset(number % total).limit(1).to_list()
        return self.by_id(row["id"])

    def search(self, query: Query, weights: Mapping[int, float], where: str, k: int) -> pd.DataFrame:
        """Find the items nearest to the query, see `Catalogue.search`; ValueError where no weight is set."""
        weights = {condition: weight for condition, weight in weights.items() if weight > 0}
        if not weights:
            raise ValueError("all weights are 0: move a slider")
        what = {"picture": query.spaces} if query.id is None else {"id": query.id}
        return self.catalogue.search(conditions=weights, where=where or None, k=k, **what)

    # ---- filters

    def filters(self) -> list[Filter]:
        """List the columns to filter by: numbers, and text of 2 to 30 different values; at most 16.

        Values and limits are those of the first 10,000 items.
        """
        columns = self.catalogue.columns
        names = [name for name in columns if not name.endswith(HIDDEN)]
        if not names:
            return []
        with engine_errors(self.catalogue.uri):
            rows = self.catalogue.table.search().where("NOT missing").select(names).limit(SAMPLE).to_pandas()
        found = [_filter_of(name, rows[name]) for name in names]
        return [each for each in found if each is not None][:MOST_FILTERS]

    # ---- pictures

    def see(self, keys: Sequence[str]) -> list[Picture | DataError]:
        """Get pictures by their keys, "id ID" for an item; those not kept are read and encoded together.

        A DataError stands for one that cannot be read.
        """
        seen: dict[str, Picture | DataError] = {}
        missing, pictures = [], []
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
                seen[key] = self._kept[key]
                continue
            try:
                pictures.append(self._read(key.removeprefix("id ")))
                missing.append(key)
            except DataError as error:
                seen[key] = error
        if missing:
            seen |= self._keep(missing, pictures)
        return [seen[key] for key in keys]

    def draw(self, picture: Picture, condition: int | None, opacity: float = 0.8) -> np.ndarray:
        """Draw a picture under the heat of a condition; without heat for None: uint8 RGB."""
        if condition is None or picture.maps is None:
            return picture.shown
        heat = heatmap(picture.maps[condition], picture.shown.shape[:2], view=picture.view)
        return overlay(picture.shown, heat, opacity)

    def _read(self, id: str) -> np.ndarray:
        """Read an item's picture; none outside the folder of the catalogue's pictures."""
        path = self.catalogue.item(id)["path"]
        if leads_out(self.catalogue.images, path):
            raise DataError(path, "lies outside the catalogue's pictures", "Index it again.")
        picture = read_image(self.catalogue.images / path)
        try:
            self.model.transform(picture)
        except ValueError as error:
            raise DataError(path, str(error), "Make it wider.") from None
        return picture

    def _keep(self, keys: Sequence[str], pictures: Sequence[np.ndarray]) -> dict[str, Picture]:
        """Encode pictures, keep their maps under all conditions, and forget the oldest."""
        maps = [None] * len(pictures)
        if self.model.attends:
            maps = self.model.heatmaps(pictures, range(len(self.titles))).numpy()  # (n, K, h, w)
        kept = {
            key: Picture(reduced(each, SHOWN), view_of(self.model.transform, each.shape[:2]), its_maps)
            for key, each, its_maps in zip(keys, pictures, maps)
        }
        self._kept.update(kept)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept


def _filter_of(name: str, cells: pd.Series) -> Filter | None:
    """Make a filter of a column; None where it has one value, too many, or values of another kind."""
    known = cells.dropna()
    kind = known.infer_objects().dtype.kind if len(known) else ""
    if kind in "iuf" and known.min() < known.max():
        is_integer = bool((known == known.round()).all())
        return Filter(name, low=float(known.min()), high=float(known.max()), is_integer=is_integer)
    if kind in "OUT" and all(isinstance(cell, str) for cell in known):
        values = tuple(sorted(set(known)))
        if 1 < len(values) <= MOST_VALUES:
            return Filter(name, values)
    return None
