"""Triplet prediction, as Table 5 measures it on UT-Zappos50K: is the anchor nearer to its positive?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccakit.evaluation.embedding import embed_images
from ccakit.metrics import triplet_accuracy

BLOCK = 8192  # triplets whose embeddings are gathered at a time


def evaluate_triplets(
    model,
    inputs,
    triplets: np.ndarray,
    conditions: Sequence[str],
    *,
    batch_size: int = 64,
    repeats: int = 1000,
    seed: int = 0,
    progress: str | None = "embedding",
) -> dict:
    """Accuracy on (T, 4) triplets (anchor, positive, negative, condition), for JSON; accuracies in percent.

    `conditions`: the attributes' names. Each distinct image is embedded once, under all conditions. The keys:

        triplet_accuracy                  over all triplets (a condition with more of them weighs more)
        triplet_accuracy_macro            the plain mean of the conditions'
        triplet_accuracy_per_attribute    {name: accuracy}, of the conditions that have triplets
        triplets                          {name: count}
        triplets_left_out                 those with an image that `inputs` could not read, where it may skip them
        triplet_intervals                 95% bootstrap intervals of the three, see `bootstrap`

    ValueError if there is no triplet, or one of an unknown condition, or an embedding is not of length 1.
    """
    triplets = np.asarray(triplets)
    if not len(triplets) or triplets[:, 3].min() < 0 or triplets[:, 3].max() >= len(conditions):
        raise ValueError(
            f"{len(triplets)} triplets for {len(conditions)} conditions, or one of another condition"
        )
    images, place = np.unique(triplets[:, :3], return_inverse=True)
    embeddings = embed_images(model, inputs, images, batch_size=batch_size, progress=progress)  # (U, K, E)
    skipped = np.isin(images, list(getattr(inputs, "unreadable", ())))
    place = place.reshape(-1, 3)
    kept = ~skipped[place].any(axis=1)
    if not kept.any():
        raise ValueError(f"every one of {len(triplets)} triplets has an image that cannot be read")
    off = ~(np.abs(np.linalg.norm(embeddings[~skipped], axis=2) - 1) < 1e-2)  # ~(<): NaN counts as off
    if off.any():
        raise ValueError(f"{off.sum()} embeddings are not L2-normalised")
    d_ap, d_an = triplet_distances(embeddings, np.column_stack([place, triplets[:, 3]])[kept])
    scores = score_triplets(d_ap, d_an, triplets[kept], conditions, repeats=repeats, seed=seed)
    return {**scores, "triplets_left_out": int((~kept).sum())}


def triplet_distances(embeddings: np.ndarray, triplets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine distances to the positive and to the negative, each (T,) float32, of L2-normalised (U, K, E)."""
    distances = np.empty((2, len(triplets)), np.float32)
    for start in range(0, len(triplets), BLOCK):
        anchor, positive, negative, condition = triplets[start : start + BLOCK].T
        a = embeddings[anchor, condition]  # (b, E)
        for row, other in enumerate((positive, negative)):
            distances[row, start : start + BLOCK] = 1 - np.einsum("be,be->b", a, embeddings[other, condition])
    return distances[0], distances[1]


def score_triplets(
    d_ap: np.ndarray,
    d_an: np.ndarray,
    triplets: np.ndarray,
    conditions: Sequence[str],
    *,
    repeats: int = 1000,
    seed: int = 0,
) -> dict:
    """The dictionary of `evaluate_triplets`, from the triplets' distances.

    >>> triplets = np.array([[0, 1, 2, 0], [1, 0, 2, 0], [0, 2, 1, 1]])
    >>> scores = score_triplets([0.1, 0.3, 0.2], [0.2, 0.1, 0.3], triplets, ("class", "gender"))
    >>> round(scores["triplet_accuracy"], 2), scores["triplet_accuracy_macro"]
    (66.67, 75.0)
    """
    d_ap, d_an = np.asarray(d_ap), np.asarray(d_an)
    of = {c: np.flatnonzero(triplets[:, 3] == c) for c in range(len(conditions))}
    of = {c: rows for c, rows in of.items() if len(rows)}
    each = {c: 100 * triplet_accuracy(d_ap[rows], d_an[rows]) for c, rows in of.items()}
    samples = {c: bootstrap(triplets[r, 0], (d_ap < d_an)[r], repeats, (seed, c)) for c, r in of.items()}
    counts = np.array([len(rows) for rows in of.values()])
    drawn = 100 * np.stack(list(samples.values()))  # (conditions with triplets, repeats)
    ends = lambda values: np.quantile(values, [0.025, 0.975]).tolist()  # noqa: E731
    return {
        "triplet_accuracy": 100 * triplet_accuracy(d_ap, d_an),
        "triplet_accuracy_macro": float(np.mean(list(each.values()))),
        "triplet_accuracy_per_attribute": {conditions[c]: value for c, value in each.items()},
        "triplets": {conditions[c]: len(rows) for c, rows in of.items()},
        "triplet_intervals": {
            "triplet_accuracy": ends(counts @ drawn / counts.sum()),
            "triplet_accuracy_macro": ends(drawn.mean(axis=0)),
            "triplet_accuracy_per_attribute": {conditions[c]: ends(row) for c, row in zip(of, drawn)},
        },
    }


def bootstrap(
    anchors: np.ndarray, correct: np.ndarray, repeats: int = 1000, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """(repeats,) accuracies, 0..1, of samples of anchors drawn with replacement, each with all its triplets.

    Triplets of one anchor stand or fall together, so they are drawn together; positives and negatives, which
    triplets share as well, are not redrawn. The model is held fixed: the spread is not that of training.
    """
    _, place = np.unique(anchors, return_inverse=True)
    sizes = np.bincount(place)
    hits = np.bincount(place, np.asarray(correct, float))
    rng, out = np.random.default_rng(seed), np.empty(repeats)
    for repeat in range(repeats):
        drawn = rng.integers(0, len(sizes), len(sizes))
        out[repeat] = hits[drawn].sum() / sizes[drawn].sum()
    return out


def triplet_table(metrics: dict, title: str) -> str:
    """The metrics as text: a line an attribute, then all triplets and the macro mean; chance is 50."""
    each, intervals = metrics["triplet_accuracy_per_attribute"], metrics["triplet_intervals"]
    lines = [title, f"{'attribute':<18}{'triplets':>10}{'accuracy':>10}{'95% interval':>16}"]
    for name, value in each.items():
        interval = intervals["triplet_accuracy_per_attribute"][name]
        lines.append(_line(name.replace("_", " "), metrics["triplets"][name], value, interval))
    total = sum(metrics["triplets"].values())
    lines.append("-" * len(lines[1]))
    lines.append(_line("all triplets", total, metrics["triplet_accuracy"], intervals["triplet_accuracy"]))
    macro = metrics["triplet_accuracy_macro"], intervals["triplet_accuracy_macro"]
    return "\n".join([*lines, _line("macro", total, *macro)])


def _line(name: str, triplets: int, value: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{name:<18}{triplets:>10}{value:>10.2f}{f'{low:.1f} - {high:.1f}':>16}"
