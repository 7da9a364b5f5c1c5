"""Explain a search: query and results as pictures, and where the model looks in them under each condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccakit.catalogue.search import Catalogue
from ccakit.data.images import read_image

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ccakit.hub.pretrained import Picture


def explain(
    catalogue: Catalogue, found: pd.DataFrame, picture: Picture | None = None, id: str | None = None
) -> Figure:
    """Draw what `Catalogue.search` found by a picture, or by the item `id`.

    found: the frame that it gave. DataError for a result whose picture is gone.
    """
    from ccakit.show.found import found_grid

    names = [name.removeprefix("cosine_") for name in found if name.startswith("cosine_")]
    conditions = [catalogue.condition(name) for name in names]
    query = picture if id is None else catalogue.picture(id)
    pictures = [read_image(query), *(read_image(catalogue.file(path)) for path in found["path"])]
    model = catalogue.model
    maps = model.heatmaps(pictures, conditions).numpy() if model.attends else None
    titles = ["query", *(f"cosine {cosine:.3f}" for cosine in found["cosine"])]
    texts = []
    for name in names:
        labels = [label or "" for label in found[f"label_{name}"]]
        cosines = [f"{cosine:.3f}" for cosine in found[f"cosine_{name}"]] if len(names) > 1 else labels
        several = [f"{label} {cosine}".strip() for label, cosine in zip(labels, cosines)]
        texts.append(["", *(several if len(names) > 1 else labels)])
    return found_grid(pictures, titles, model.attributes, conditions, texts, maps, model.transform)
