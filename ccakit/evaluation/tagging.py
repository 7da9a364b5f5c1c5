"""Name an image's value of an attribute by its neighbours in the attribute's own space, or leave it open.

The neighbours' vote gives a value and a share (`evaluation.neighbours`); a calibrator makes a confidence of
the share (`evaluation.calibration`). Both choices are made on known answers, by one rule for all attributes:
k is the one with the largest area under the curve of precision by coverage, the mean over all answers; the
calibrator is the one with the least expected calibration error, of all attributes' answers together, each by
a calibrator that has not seen it. A value is given where its confidence reaches the threshold from which on
the wanted share of known answers is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccakit.evaluation.calibration import (
    METHODS,
    Calibrator,
    area_under_precision,
    cross_fit,
    error_if_perfect,
    expected_calibration_error,
    threshold_for,
)
from ccakit.evaluation.embedding import Sides, embed_sides
from ccakit.evaluation.neighbours import Answers, Side, find_neighbours, vote
from ccakit.evaluation.run import Run
from ccakit.text_table import text_table

KS = (1, 3, 5, 10, 20, 50)  # numbers of neighbours to choose from
PRECISION = 0.9  # wanted of the values that are given
COLUMNS = ("shares", "right", "confidence", "frequent", "given")  # of answers that are scored
FEW = 50  # known answers below which an attribute is calibrated on all attributes together


@dataclass(frozen=True)
class Known:
    """Answers of one attribute that are known to be right or wrong: shares (n,), right (n,) bool, by k."""

    by_k: dict[int, tuple[np.ndarray, np.ndarray]]

    def __len__(self) -> int:
        return len(next(iter(self.by_k.values()))[0])


@dataclass(frozen=True)
class Confidence:
    """How the confidence of one attribute's answers is found, and from which on a value is given.

    own: whether it is calibrated on the attribute's own answers. confidence (n,) and right (n,): those
    answers, each by a calibrator that has not seen it.
    """

    calibrate: Calibrator
    threshold: float
    own: bool
    confidence: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Tagger:
    """The chosen k and method, with the scores that chose them, and a Confidence by condition."""

    k: int
    method: str
    area: dict[int, float]
    error: dict[str, float]
    precision: float
    confidences: dict[int, Confidence]


def ask(queries: Side, candidates: Side, ks=KS) -> dict[int, Answers]:
    """Answer by the candidates for every query, for each number of neighbours."""
    neighbours = find_neighbours(queries, candidates, max(ks))
    return {k: vote(neighbours, candidates.labels, k) for k in ks}


def distinct_queries(queries: Side) -> Side:
    """Take each image once; an image with several values has several rows."""
    _, first = np.unique(queries.images, return_index=True)
    return Side(*(each[first] for each in queries))


def are_right(images: np.ndarray, labels: np.ndarray, truth: Side) -> np.ndarray:
    """Tell whether each answer, (n,), is one of its image's values, (n,) bool."""
    values = max(truth.labels.max(initial=0), labels.max(initial=0)) + 1
    known = truth.images * values + truth.labels
    return (labels >= 0) & np.isin(images * values + labels, known)


def known_answers(queries: Side, candidates: Side, ks=KS) -> Known:
    """Answer for queries whose values are known, and tell which answers are right."""
    asked = distinct_queries(queries)
    answers = ask(asked, candidates, ks)
    return Known({k: (a.shares, are_right(asked.images, a.labels, queries)) for k, a in answers.items()})


def sides_by_condition(sides: Sides) -> dict[int, tuple[Side, Side]]:
    """Part the rows of a split's two sides by condition; those without queries or candidates are left out."""
    parts = {}
    for condition in np.unique(sides.queries[:, 1]):
        both = [(sides.queries, sides.query_embeddings), (sides.candidates, sides.candidate_embeddings)]
        rows = [(rows[:, 1] == condition, rows, embeddings) for rows, embeddings in both]
        queries, candidates = (Side(r[m, 0], e[m], r[m, 2]) for m, r, e in rows)
        if len(candidates.images):
            parts[int(condition)] = queries, candidates
    return parts


def fit_tagger(known: dict[int, Known], precision: float = PRECISION) -> Tagger:
    """Choose k and the calibrator, and fit it for each attribute; ValueError where nothing is known."""
    known = {condition: each for condition, each in known.items() if len(each)}
    if not known:
        raise ValueError("no answer is known, so that no confidence can be calibrated")
    ks = list(next(iter(known.values())).by_k)
    area = {k: _mean_area(known, k) for k in ks}
    k = max(ks, key=area.__getitem__)
    crossed = {method: _cross_fit_all(known, k, method) for method in METHODS}
    error = {method: _error_together(pairs) for method, pairs in crossed.items()}
    method = min(METHODS, key=error.__getitem__)
    fits = {c: _fit(known, c, k, method, precision, crossed[method][c]) for c in known}
    return Tagger(k, method, area, error, precision, fits)


def _mean_area(known: dict[int, Known], k: int) -> float:
    """Compute the attributes' areas under the curve of precision by coverage: the mean over all answers."""
    areas = [area_under_precision(*each.by_k[k]) for each in known.values()]
    return float(np.average(areas, weights=[len(each) for each in known.values()]))


def _error_together(pairs: dict[int, tuple[np.ndarray, np.ndarray]]) -> float:
    """Compute the expected calibration error of all attributes' (confidence, right) together."""
    return expected_calibration_error(*map(np.concatenate, zip(*pairs.values())))


def _pool(known: dict[int, Known], condition: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Take the attribute's own known answers, or those of all attributes where it has few."""
    if len(known[condition]) >= FEW:
        return known[condition].by_k[k]
    shares, right = zip(*(each.by_k[k] for each in known.values()))
    return np.concatenate(shares), np.concatenate(right)


def _cross_fit_all(known: dict[int, Known], k: int, method: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Cross-fit the confidences of every attribute: {condition: (confidence, right)}."""
    pairs = {c: each.by_k[k] for c, each in known.items()}
    few = [condition for condition, each in known.items() if len(each) < FEW]
    crossed = {c: cross_fit(method, *pairs[c]) for c in known if c not in few}
    if few:
        together = cross_fit(method, *map(np.concatenate, zip(*pairs.values())))
        parts = np.split(together, np.cumsum([len(each) for each in known.values()])[:-1])
        crossed |= {condition: part for condition, part in zip(known, parts) if condition in few}
    return {condition: (crossed[condition], pairs[condition][1]) for condition in known}


def _fit(
    known: dict[int, Known],
    condition: int,
    k: int,
    method: str,
    precision: float,
    crossed: tuple[np.ndarray, np.ndarray],
) -> Confidence:
    shares, right = _pool(known, condition, k)
    calibrate = METHODS[method](shares, right)
    threshold = threshold_for(calibrate(shares), right, precision)
    return Confidence(calibrate, threshold, len(known[condition]) >= FEW, *crossed)


def fit_to_split(sides: Sides, precision: float = PRECISION) -> Tagger:
    """Fit a tagger to a split: its queries are answered by its candidates."""
    parts = sides_by_condition(sides)
    return fit_tagger({condition: known_answers(*part) for condition, part in parts.items()}, precision)


def score_tagging(run: Run, sides: Sides, *, batch_size: int = 64, precision: float = PRECISION) -> dict:
    """Measure how well neighbours tag: the split's queries by its candidates, with confidences from valid.

    sides: the split's, embedded. Out, in percent, for each attribute: accuracy of all answers, and of the
    candidates' most frequent value; the expected calibration error of the shares, of the confidences, and of
    so many perfect confidences, which is above 0 by chance; and of the values that are given, which share is
    right (precision) and how many of the queries they are (coverage). On valid itself confidences are
    cross-fitted. {"problem": ...} where valid cannot be read.
    """
    try:
        valid = sides
        if run.split.name != "valid":
            other = run.on("valid", progress=True)
            valid = embed_sides(other.model, other.inputs, batch_size=batch_size, progress="valid")
        tagger = fit_to_split(valid, precision)
    except ValueError as error:  # DataError is one
        return {"problem": str(error)}
    answers = {}
    for condition, part in sides_by_condition(sides).items():
        if condition in tagger.confidences:
            answers[condition] = _answer(tagger, condition, *part, crossed=run.split.name == "valid")
    if not answers:
        return {"problem": "valid and this split have no attribute in common that both sides know"}
    scores = {}
    for condition, each in answers.items():
        threshold = tagger.confidences[condition].threshold
        own = {"threshold": None if np.isinf(threshold) else threshold}  # JSON has no infinity
        scores[run.attributes.names[condition]] = {**_score(each), **own}
    together = {name: np.concatenate([each[name] for each in answers.values()]) for name in COLUMNS}
    return {**describe(tagger), "all": _score(together), "per_attribute": scores}


def describe(tagger: Tagger) -> dict:
    """Say what was chosen, and by which scores; for JSON."""
    return {
        "k": tagger.k,
        "calibration": tagger.method,
        "wanted_precision": 100 * tagger.precision,
        "area_by_k": {str(k): 100 * value for k, value in tagger.area.items()},
        "error_by_calibration": {method: 100 * value for method, value in tagger.error.items()},
    }


def _answer(
    tagger: Tagger, condition: int, queries: Side, candidates: Side, crossed: bool
) -> dict[str, np.ndarray]:
    """Answer one attribute's queries: arrays (n,) by the names of COLUMNS."""
    shares, right = known_answers(queries, candidates, (tagger.k,)).by_k[tagger.k]
    fitted = tagger.confidences[condition]
    confidence = fitted.confidence if crossed else fitted.calibrate(shares)
    frequent = np.full(len(right), np.bincount(candidates.labels).argmax())
    frequent = are_right(distinct_queries(queries).images, frequent, queries)
    return dict(zip(COLUMNS, (shares, right, confidence, frequent, confidence >= fitted.threshold)))


def _score(answers: dict[str, np.ndarray]) -> dict:
    """Score answers, in percent; see `score_tagging`."""
    shares, right, confidence, frequent, given = (answers[name] for name in COLUMNS)
    return {
        "queries": len(right),
        "accuracy": 100 * float(right.mean()),
        "most_frequent": 100 * float(frequent.mean()),
        "share_error": 100 * expected_calibration_error(shares, right),
        "error": 100 * expected_calibration_error(confidence, right),
        "error_if_perfect": 100 * error_if_perfect(confidence),
        "precision": 100 * float(right[given].mean()) if given.any() else None,
        "coverage": 100 * float(given.mean()),
    }


def tagging_table(tagging: dict, title: str) -> str:
    """Print what `score_tagging` measured as text: a line an attribute, then their mean."""
    if "problem" in tagging:
        return f"tagging is not measured, as its confidence is calibrated on valid: {tagging['problem']}"
    head = "attribute,queries,accuracy,most frequent,ECE of shares,ECE,ECE if perfect,precision,coverage"
    rows = [head.split(",")]
    keys = ("accuracy", "most_frequent", "share_error", "error", "error_if_perfect", "precision", "coverage")
    for name, each in {**tagging["per_attribute"], "all": tagging["all"]}.items():
        cells = ["none" if each[key] is None else f"{each[key]:.1f}" for key in keys]
        rows.append([name.replace("_", " "), str(each["queries"]), *cells])
    how = (
        f"{title}: tagging by {tagging['k']} neighbours, confidence by {tagging['calibration']}, chosen on "
        "valid\nin percent; ECE: the calibration error; precision and coverage of what is given, "
        f"for a precision of {tagging['wanted_precision']:g}"
    )
    return f"{how}\n{text_table(rows, rules=[len(rows) - 1])}"
