"""`ccakit index`: embed one's own pictures under every condition into a catalogue."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from ccakit.settings import CommandConfig, Positive


@dataclass
class Config(CommandConfig):
    """Embed your own pictures under every condition into a catalogue that `search` searches."""

    run: str = "runs/demo"
    """The model: a run's folder, a folder that export wrote, or a name on the hub."""
    images: Path = Path("images")
    """The folder of the pictures."""
    table: Optional[Path] = None
    """A CSV or Parquet table with a row for each picture; its columns go into the catalogue."""
    image: Optional[str] = None
    """The table's column of paths, relative to --images; the first by default."""
    delimiter: Optional[str] = None
    """The character between a CSV table's cells, if it cannot be told."""
    id: Optional[str] = None
    """The table's column of the items' ids; by default an item's id is its path."""
    out: str = "catalogue"
    """The catalogue: a folder, or an address such as s3://bucket/folder."""
    prune: bool = False
    """Remove items that are not listed any more, instead of marking them as missing; unreadable ones stay."""
    batch_size: Positive = 64
    """Images in a forward pass."""
    commit: Positive = 1024
    """Images in a commit: what a kill can lose."""


def run(config: Config) -> dict:
    """Fill the catalogue; returns what was done."""
    from ccakit import processes
    from ccakit.catalogue.store import engine

    engine()  # before what needs it is imported
    from ccakit.catalogue.index import fill
    from ccakit.catalogue.items import items_of_folder, items_of_table
    from ccakit.data.text import count
    from ccakit.hub.pretrained import load

    processes.start()

    def list_items():
        if config.table is None:
            return items_of_folder(config.images)
        return items_of_table(config.table, config.images, config.image, config.id, config.delimiter)

    items = processes.run_on_main(list_items)
    model = load(config.run)
    print(f"{count(len(items), 'picture')} of {config.table or config.images}", flush=True)
    options = dict(batch_size=config.batch_size, commit=config.commit, prune=config.prune, progress=True)
    report = fill(config.out, model, config.run, items, **options)
    print_report(config.out, report)
    return {"catalogue": config.out, "conditions": list(model.conditions), **asdict(report)}


def print_report(out: str, report) -> None:
    """Print what was done, and on stderr what may be wrong, and each picture that cannot be read."""
    from ccakit.commands import note
    from ccakit.data.text import count

    print(
        f"{out}: {count(report.items, 'item')}; {report.embedded} embedded, {report.unchanged} unchanged, "
        f"{report.updated} with a changed row, {report.missing} missing, {report.pruned} removed"
    )
    if report.kept_columns:
        print(f"columns that were not given and keep their cells: {', '.join(report.kept_columns)}")
    for finding in report.findings:
        note(f"note: {finding}")
    for path, reason in report.unreadable.items():
        note(f"unreadable: {path}: {reason}")
    if report.unreadable:
        print(f"unreadable: {count(len(report.unreadable), 'picture')}, left out")
