"""Fill the empty cells of a table by its filled ones: each attribute by neighbours in its own space.

Beside each attribute's column two others say how sure a given value is, `NAME_confidence`, and which pictures
say so, `NAME_nearest`: a JSON list of three paths at most. Both are empty where nothing was given, so that a
reader can tell a value of the table from one that was given.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from ccakit.data.gap_table import PARQUET, GapTable
from ccakit.data.inputs import ImageInputs, inputs_for
from ccakit.data.split import Split
from ccakit.errors import DataError
from ccakit.evaluation.calibration import expected_calibration_error
from ccakit.evaluation.embedding import embed_images
from ccakit.evaluation.neighbours import Answers, Side
from ccakit.evaluation.run import Run
from ccakit.evaluation.tagging import Known, Tagger, ask, fit_tagger, known_answers
from ccakit.models.saved import SavedModel
from ccakit.text_table import text_table

ADDED = ("confidence", "nearest")


@dataclass(frozen=True)
class Pictures:
    """Embedded pictures: embeddings (n, K, E), NaN for one that cannot be read; paths; reasons by number."""

    embeddings: np.ndarray
    paths: list[str]
    unreadable: dict[int, str]


@dataclass(frozen=True)
class Reference:
    """Pictures of a run's training that answer, too, and their rows (image, condition, label)."""

    pictures: Pictures
    rows: np.ndarray


@dataclass(frozen=True)
class Filled:
    """What became of one attribute's cells; the given values by row: value, confidence, the nearest paths."""

    given: dict[int, tuple[str, float, list[str]]]
    empty: int
    known: Known
    threshold: float
    error: float


def check_untagged(table: GapTable, names: tuple[str, ...]) -> None:
    """Raise DataError for a table that was tagged before: given values would then count as the table's."""
    added = [f"{names[condition]}_{each}" for condition in table.columns for each in ADDED]
    if there := [name for name in added if name in table.header]:
        problem = f"has a column {there[0]!r}: its gaps were filled before"
        raise DataError(table.path, problem, "Tag the table without such columns.", 1)


def embed_table(saved: SavedModel, table: GapTable, batch_size: int = 64) -> Pictures:
    """Embed the images of a table; those that cannot be read are left out, and kept with the reason."""
    rows = np.zeros((0, 3), np.int64)
    split = Split("table", table.root, saved.attributes, table.images, rows)
    return _embed(saved, ImageInputs(split, saved.transform, max_unreadable=1.0), table.images, batch_size)


def embed_reference(saved: SavedModel, run: Run, batch_size: int = 64) -> Reference:
    """Embed the training images of a run by this model; ValueError where its attributes are others."""
    if run.attributes.names != saved.attributes.names:
        known = ", ".join(run.attributes.names)
        raise ValueError(f"{run.folder}, the reference, has other attributes than the model: {known}")
    split = run.split.merged()
    inputs = inputs_for(saved.model, split, saved.transform, cache=False, max_unreadable=1.0)
    paths = [str(split.path(image)) for image in range(len(split.filenames))]
    pictures = _embed(saved, inputs, paths, batch_size)
    return Reference(pictures, split.without(pictures.unreadable).labels)


def _embed(saved: SavedModel, inputs: ImageInputs, paths: list[str], batch_size: int) -> Pictures:
    embeddings = embed_images(saved.model, inputs, batch_size=batch_size, progress="embedding")
    return Pictures(embeddings, paths, dict(inputs.unreadable))


def label_names(table: GapTable, condition: int, names: tuple[str, ...] = ()) -> list[str]:
    """List the values of an attribute: those of the table, and others that the reference has."""
    said = {word for words in table.words[condition] for word in words}
    return sorted(said | set(names))


def table_side(table: GapTable, pictures: Pictures, condition: int, names: list[str]) -> Side:
    """Take the filled cells of an attribute: a row for each different (image, value)."""
    index = {name: label for label, name in enumerate(names)}
    pairs = {
        (image, index[word])
        for image, words in zip(table.image_of_row, table.words[condition])
        for word in words
        if image not in pictures.unreadable
    }
    rows = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return Side(rows[:, 0], pictures.embeddings[rows[:, 0], condition], rows[:, 1])


def both_sides(
    table: GapTable, pictures: Pictures, condition: int, reference: Reference | None, values: tuple[str, ...]
) -> tuple[list[str], Side, Side]:
    """Return an attribute's values by label, the table's filled cells, and all that answer.

    values: those of the reference, by label. Its images have numbers behind the table's.
    """
    rows = np.zeros((0, 3), np.int64)
    if reference is not None:
        rows = reference.rows[reference.rows[:, 1] == condition]
    names = label_names(table, condition, tuple(values[label] for label in np.unique(rows[:, 2])))
    own = table_side(table, pictures, condition, names)
    if reference is None:
        return names, own, own
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[values[label]] for label in rows[:, 2]], np.int64)
    embeddings = reference.pictures.embeddings[rows[:, 0], condition]
    other = Side(rows[:, 0] + len(pictures.paths), embeddings, labels)
    return names, own, Side(*(np.concatenate(parts) for parts in zip(own, other)))


def fill_table(
    table: GapTable,
    pictures: Pictures,
    saved: SavedModel,
    tagger: Tagger | None,
    precision: float,
    reference: Reference | None = None,
) -> tuple[Tagger, dict[int, Filled]]:
    """Fill the gaps of a table, in place, and add its columns.

    tagger: fitted on valid; None: it is fitted here to the table's own filled cells, each answered without
    its own image. DataError where the table has no filled cell to answer by.
    """
    values = saved.attributes.values
    sides = {c: both_sides(table, pictures, c, reference, values[c]) for c in table.columns}
    sides = {c: side for c, side in sides.items() if len(side[2].images)}
    if not sides:
        raise DataError(table.path, "has no filled cell in any attribute's column", "Fill in some cells.")
    if tagger is None:
        tagger = fit_tagger({c: known_answers(own, all_) for c, (_, own, all_) in sides.items()}, precision)
        crossed = {c: each.confidence for c, each in tagger.confidences.items()}
    else:
        crossed = {}
    filled = {}
    for condition in table.columns:
        if condition in sides and condition in tagger.confidences:
            filled[condition] = _fill(
                table, pictures, condition, sides[condition], tagger, reference, crossed
            )
    for condition, each in filled.items():
        _write_into(table, saved.attributes.names[condition], condition, each)
    return tagger, filled


def _fill(
    table: GapTable,
    pictures: Pictures,
    condition: int,
    sides: tuple[list[str], Side, Side],
    tagger: Tagger,
    reference: Reference | None,
    crossed: dict[int, np.ndarray],
) -> Filled:
    """Answer for the gaps of one attribute; nothing is written yet, so that no answer depends on another."""
    names, own, all_ = sides
    fitted = tagger.confidences[condition]
    gaps = [row for row, words in enumerate(table.words[condition]) if not words]
    rows = [row for row in gaps if table.image_of_row[row] not in pictures.unreadable]
    images = np.array([table.image_of_row[row] for row in rows], np.int64)
    answers = ask(Side(images, pictures.embeddings[images, condition], images), all_, (tagger.k,))[tagger.k]
    confidence = fitted.calibrate(answers.shares)
    paths = pictures.paths + (reference.pictures.paths if reference else [])
    given = {
        row: (names[answers.labels[at]], float(confidence[at]), _reasons(answers, at, all_, paths))
        for at, row in enumerate(rows)
        if answers.labels[at] >= 0 and confidence[at] >= fitted.threshold
    }
    known = known_answers(own, all_, (tagger.k,))
    shares, right = known.by_k[tagger.k]
    checked = crossed.get(condition, fitted.calibrate(shares))
    return Filled(given, len(gaps), known, fitted.threshold, expected_calibration_error(checked, right))


def _reasons(answers: Answers, at: int, candidates: Side, paths: list[str]) -> list[str]:
    """Name the nearest pictures that say so; one with several rows is named once."""
    rows = answers.reasons[at]
    return list(dict.fromkeys(paths[candidates.images[row]] for row in rows if row >= 0))


def _write_into(table: GapTable, name: str, condition: int, filled: Filled) -> None:
    typed = table.path.suffix.lower() in PARQUET
    confidences, nearest = ([None if typed else ""] * len(table.rows) for _ in range(2))
    for row, (value, confidence, paths) in filled.given.items():
        table.fill(row, condition, value)
        confidences[row] = round(confidence, 4)
        nearest[row] = json.dumps(paths, ensure_ascii=False)
    table.add_column(f"{name}_confidence", confidences)
    table.add_column(f"{name}_nearest", nearest)


def summary(filled: dict[int, Filled], tagger: Tagger, names: tuple[str, ...]) -> dict[str, dict]:
    """Say for each attribute, for JSON, what became of its gaps, and how its filled cells would be tagged.

    error and accuracy, in percent, are of filled cells, each answered without its own image.
    """
    summaries = {}
    for condition, each in filled.items():
        _, right = each.known.by_k[tagger.k]
        summaries[names[condition]] = {
            "empty": each.empty,
            "given": len(each.given),
            "left_empty": each.empty - len(each.given),
            "mean_confidence": float(np.mean([c for _, c, _ in each.given.values()])) if each.given else None,
            "threshold": None if np.isinf(each.threshold) else each.threshold,
            "known": len(right),
            "accuracy": 100 * float(right.mean()) if len(right) else None,
            "error": 100 * each.error if len(right) else None,
        }
    return summaries


def summary_table(summaries: dict[str, dict]) -> str:
    """Print the summary as text: a line an attribute."""
    head = "attribute,empty,filled,left empty,mean confidence,known cells,accuracy,calibration error"
    rows = [head.split(",")]
    for name, each in summaries.items():
        counts = [str(each[key]) for key in ("empty", "given", "left_empty")]
        mean = "" if each["mean_confidence"] is None else f"{each['mean_confidence']:.2f}"
        scores = ["" if each[key] is None else f"{each[key]:.1f}" for key in ("accuracy", "error")]
        rows.append([name.replace("_", " "), *counts, mean, str(each["known"]), *scores])
    return text_table(rows)
