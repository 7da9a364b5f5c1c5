"""`ccakit catalogue info|optimize|export`: look after a catalogue."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Le

from ccakit.settings import CommandConfig, NotNegative, Positive


@dataclass
class Config(CommandConfig):
    """Look after a catalogue: info counts, optimize builds and measures indexes, export writes Parquet."""

    positional: ClassVar[str] = "action"

    action: Literal["info", "optimize", "export"] = "info"
    """info, optimize or export; the flag's name may be left out."""
    catalogue: str = "catalogue"
    """What index wrote: a folder, or an address such as s3://bucket/folder."""
    from_rows: Positive = 50_000
    """optimize: items from which on each space gets an index; fewer are searched exactly, one by one."""
    keep_days: Annotated[NotNegative, Le(36_500)] = 7.0
    """optimize: remove versions older than this; 0 while others read the catalogue makes them fail."""
    to: Path = Path("catalogue.parquet")
    """export: the Parquet file to write."""
    vectors: bool = True
    """export: write the vectors, too."""
    overwrite: bool = False
    """export: replace the file if it exists."""


def run(config: Config) -> dict:
    """Do the action; returns what it found or did."""
    from ccakit.catalogue.search import open_catalogue

    catalogue = open_catalogue(config.catalogue)
    return {"info": _info, "optimize": _optimize, "export": _export}[config.action](config, catalogue)


def _info(config: Config, catalogue) -> dict:
    from ccakit.catalogue.upkeep import info

    facts = info(catalogue)
    size = facts["bytes"] if facts["bytes_on_disk"] is None else facts["bytes_on_disk"]
    print(
        f"{facts['catalogue']}: {facts['items']:,} items, {facts['missing']:,} missing; {size / 1e6:,.1f} MB"
    )
    print(f"{facts['fragments']:,} fragments, {facts['versions']:,} versions, by ccakit {facts['ccakit']}")
    print(f"conditions: {', '.join(facts['conditions'])}")
    print(f"columns: {', '.join(facts['columns']) or 'none'}")
    print(f"model: {facts['model']}, of {facts['run']}; pictures: {facts['images']}")
    print(_table(facts["indexes"]))
    return facts


def _optimize(config: Config, catalogue) -> dict:
    from ccakit.catalogue.upkeep import optimize

    found = optimize(catalogue, from_rows=config.from_rows, keep_days=config.keep_days)
    rows = [asdict(index) for index in found]
    print(_table(rows))
    return {"catalogue": config.catalogue, "items": len(catalogue), "indexes": rows}


def _export(config: Config, catalogue) -> dict:
    from ccakit.catalogue.upkeep import export
    from ccakit.disk import check_output, refuse_existing

    if config.to.suffix != ".parquet":
        raise ValueError(f"--to {config.to}: what is written is Parquet; name a file that ends in .parquet")
    if not config.overwrite:
        refuse_existing(config.to)
    check_output(config.to)
    count = export(catalogue, config.to, config.vectors)
    print(f"{count:,} items in {config.to}")
    return {"catalogue": config.catalogue, "items": count, "to": str(config.to)}


def _table(rows: list[dict]) -> str:
    """Write the indexes as text."""
    from ccakit.text_table import text_table

    if not rows:
        return "no index: every search is exact; ccakit catalogue optimize builds one where it pays"
    cells = [["index of", "kind", "rows", "not in it", "recall@10", "ms", "exact ms"]]
    for row in rows:
        recall = "" if row["recall"] is None else f"{row['recall']:.3f}"
        times = ["" if row[k] is None else f"{row[k]:.1f}" for k in ("milliseconds", "exact_milliseconds")]
        counts = [f"{row['rows']:,}", f"{row['left']:,}"]
        cells.append([row["condition"].replace("_", " "), row["kind"], *counts, recall, *times])
    return text_table(cells, left=(0, 1))
