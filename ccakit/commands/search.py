"""`ccakit search`: the items of a catalogue nearest to a picture, under one condition or several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

from tyro.conf import arg

from ccakit.settings import CommandConfig, Positive


@dataclass
class Config(CommandConfig):
    """Search a catalogue by a picture, under one condition or several, with a filter on its columns."""

    catalogue: str = "catalogue"
    """What index wrote: a folder, or an address such as s3://bucket/folder."""
    image: Optional[Path] = None
    """The picture to search by."""
    id: Optional[str] = None
    """The item to search by, instead of a picture."""
    condition: tuple[str, ...] = ()
    """A condition, or several with weights: sleeve_length=2 neckline_design=1 (a weight is 1 by default)."""
    not_like: tuple[str, ...] = ()
    """What results shall not be like: FILE:CONDITION=WEIGHT, whose weighted cosine is subtracted."""
    where: Optional[str] = None
    """A filter in SQL on the columns: "price < 50 AND brand = 'x'"; a name with spaces in backticks."""
    k: Annotated[Positive, arg(aliases=["-k"])] = 10
    """Results to give."""
    explain: Optional[Path] = None
    """Draw query and results, and where the model looks, into this file (.png, .pdf or .svg)."""
    run: Optional[str] = None
    """The model, if it has moved since `index` ran."""
    images: Optional[Path] = None
    """The folder of the catalogue's pictures, if it has moved."""


def run(config: Config) -> dict:
    """Search, and print the results; returns them."""
    from ccakit.catalogue.explain import explain
    from ccakit.catalogue.search import open_catalogue
    from ccakit.show.style import check_picture, save

    if config.explain is not None:
        check_picture(config.explain)
    catalogue = open_catalogue(config.catalogue, run=config.run, images=config.images)
    pairs = [_weighted(text) for text in config.condition]
    weights = dict(pairs)
    if len(weights) < len(pairs):
        raise ValueError(f"--condition {' '.join(config.condition)}: a condition is given twice")
    unlike = []
    for text in config.not_like:
        file, separator, condition = text.rpartition(":")
        if not separator:
            raise ValueError(f"--not-like {text}: write FILE:CONDITION=WEIGHT")
        unlike.append((Path(file), *_weighted(condition)))
    options = dict(id=config.id, not_like=unlike, where=config.where, k=config.k)
    found = catalogue.search(config.image, weights, **options)
    names = [catalogue.conditions[catalogue.condition(name)] for name in weights] or list(
        catalogue.conditions
    )
    print(table(found, names))
    if config.explain is not None:
        save(explain(catalogue, found, config.image, config.id), config.explain)
        print(f"wrote {config.explain}")
    return {
        "query": config.id if config.image is None else str(config.image),
        "conditions": dict(zip(names, weights.values() or [1.0])),
        "results": results(found, catalogue.columns),
    }


def _weighted(text: str) -> tuple[str, float]:
    """Read CONDITION or CONDITION=WEIGHT."""
    name, separator, weight = text.rpartition("=")
    if not separator:
        return text, 1.0
    try:
        return name, float(weight)
    except ValueError:
        problem = f"{text}: {weight!r} is not a weight"
        raise ValueError(f"{problem}; write CONDITION=WEIGHT, such as tone=2") from None


def table(found, names: list[str]) -> str:
    """Write the results as text: id, cosine, and for each condition the label, with its cosine if several."""
    from ccakit.text_table import text_table

    head = ["item", "cosine"]
    for name in names:
        head += [name.replace("_", " ")] if len(names) == 1 else [name.replace("_", " "), "cosine"]
    rows = [head]
    for _, row in found.iterrows():
        cells = [row["id"], f"{row['cosine']:.3f}"]
        for name in names:
            cells.append(row[f"label_{name}"] or "-")
            if len(names) > 1:
                cells.append(f"{row[f'cosine_{name}']:.3f}")
        rows.append(cells)
    return text_table(rows, left=(0, *range(2, len(head), 2))) if len(found) else "no item found"


def results(found, columns: list[str]) -> list[dict]:
    """Make plain values of the results, for JSON."""
    import json

    rows = json.loads(found.to_json(orient="records", date_format="iso"))  # NaN becomes null
    return [
        {**{name: row[name] for name in ("id", "path", "cosine")}, "columns": {c: row[c] for c in columns}}
        for row in rows
    ]
