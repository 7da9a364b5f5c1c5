"""`ccakit tag`: fill the empty cells of a table of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from ccakit.commands.evaluate import RunConfig, check_outputs
from ccakit.settings import Share


@dataclass
class Config(RunConfig):
    """Fill the empty cells of a table by its filled ones, where the model is sure enough."""

    table: Path = Path("shop.csv")
    """The CSV or Parquet file; its columns of attributes are named as the model's."""
    images: Path = Path("photos")
    """The folder that the table's image paths are relative to; nothing outside it is read."""
    out: Path = Path("tagged.csv")
    """The table to write, of the same kind: with filled cells, their confidence, and the nearest pictures."""
    image: Optional[str] = None
    """The column of image paths; the first by default."""
    several: Optional[str] = None
    """The sign between several values in a cell, such as "|"."""
    delimiter: Optional[str] = None
    """The sign between the cells of a CSV; found from its first line by default."""
    reference: Optional[Path] = None
    """A run whose training images answer, too."""
    precision: Share = 0.9
    """The precision to reach: at least so much of the filled cells should be right. Where it cannot be
    reached, cells stay empty."""
    calibrate: Literal["valid", "table"] = "valid"
    """What confidences are fitted to: the run's valid split, or the table's own filled cells."""
    plot: Optional[Path] = None
    """Draw the reliability diagram of each attribute to this file (PNG, PDF or SVG)."""


def run(config: Config) -> dict:
    """Write the table, and print what became of its gaps."""
    from ccakit.data.gap_table import check_same_kind, read_gap_table, write_gap_table
    from ccakit.disk import writing
    from ccakit.evaluation.tag_table import (
        check_untagged,
        embed_reference,
        embed_table,
        fill_table,
        summary,
        summary_table,
    )
    from ccakit.evaluation.tagging import describe
    from ccakit.models.saved import load_model
    from ccakit.text_table import text_table

    if config.plot is not None:
        from ccakit.show.style import check_picture

        check_picture(config.plot)
    check_same_kind(config.table, config.out)
    check_outputs(config, config.out, *([] if config.plot is None else [config.plot]))
    saved = load_model(config.run)
    options = dict(image=config.image, several=config.several, delimiter=config.delimiter)
    table = read_gap_table(config.table, config.images, saved.attributes, **options)
    check_untagged(table, saved.attributes.names)
    tagger = _fit_on_valid(config) if config.calibrate == "valid" else None
    pictures = embed_table(saved, table, config.batch_size)
    reference = None
    if config.reference is not None:
        from ccakit.evaluation.run import open_run

        opened = open_run(config.reference, "train", progress=True)
        reference = embed_reference(saved, opened, config.batch_size)
    tagger, filled = fill_table(table, pictures, saved, tagger, config.precision, reference)
    with writing(config.out, "then give the command again"):
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_gap_table(table, config.out, config.delimiter)
    summaries = summary(filled, tagger, saved.attributes.names)
    if config.plot is not None:
        _plot(config, tagger, saved.attributes)
    names = [saved.attributes.title(condition) for condition in filled]
    print(f"{config.table}: {len(table.rows)} rows, {len(table.images)} images, {', '.join(names)}")
    print(_choices(tagger, config.calibrate, text_table))
    print(summary_table(summaries))
    print(f"known cells: each answered without its own image; the table is {config.out}")
    unreadable = [{"file": table.images[i], "reason": why} for i, why in sorted(pictures.unreadable.items())]
    for each in unreadable:
        print(f"unreadable: {each['file']} {each['reason']}")
    return {
        "table": str(config.table),
        "out": str(config.out),
        "rows": len(table.rows),
        "images": len(table.images),
        "unreadable": unreadable,
        "calibrated_on": config.calibrate,
        **describe(tagger),
        "attributes": summaries,
    }


def _fit_on_valid(config: Config):
    """Fit k, calibrator and thresholds on the run's valid split."""
    from ccakit.errors import DataError
    from ccakit.evaluation.embedding import embed_sides
    from ccakit.evaluation.run import open_run
    from ccakit.evaluation.tagging import fit_to_split

    options = dict(data=config.data, skip_unreadable=config.skip_unreadable)
    try:
        valid = open_run(config.run, "valid", progress=True, **options)
    except DataError as error:
        remedy = f"{error.remedy} Or calibrate on the table's filled cells: --calibrate table."
        raise DataError(error.path, error.problem, remedy, error.line) from None
    sides = embed_sides(valid.model, valid.inputs, batch_size=config.batch_size, progress="valid")
    return fit_to_split(sides, config.precision)


def _choices(tagger, calibrated_on: str, text_table) -> str:
    """Say which k and which calibrator were chosen, beside those that were not."""
    area = [
        ["neighbours", *map(str, tagger.area)],
        ["precision, mean over coverage, percent", *(f"{100 * v:.1f}" for v in tagger.area.values())],
    ]
    error = [
        ["calibrator", *tagger.error],
        ["calibration error, percent", *(f"{100 * v:.1f}" for v in tagger.error.values())],
    ]
    chosen = f"chosen on {calibrated_on}: {tagger.k} neighbours, confidence by {tagger.method}"
    wanted = f"{100 * tagger.precision:g}% of what is filled should be right"
    return "\n".join([f"{chosen}; {wanted}", text_table(area), text_table(error)])


def _plot(config: Config, tagger, attributes) -> None:
    from ccakit.show.reliability import reliability_grid
    from ccakit.show.style import save

    answers = {c: (each.confidence, each.right) for c, each in tagger.confidences.items()}
    save(reliability_grid(answers, attributes), config.plot)
    print(f"reliability of each attribute: {config.plot}")
