"""Triplet prediction, as Table 5 measures it on UT-Zappos50K: is the anchor nearer to its positive?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccakit.evaluation.embedding import embed_images, is_unreadable
from ccakit.metrics import bootstrap_means, check_unit_length, mean_intervals, triplet_accuracy
from ccakit.text_table import text_table

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
    """Measure accuracy on (T, 4) triplets (anchor, positive, negative, condition), in percent, for JSON.

    `conditions`: the attributes' names. Each distinct image is embedded once, under all conditions. The keys:

        triplet_accuracy                  over all triplets (a condition with more of them weighs more)
        triplet_accuracy_macro            the plain mean of the conditions' accuracies
        triplet_accuracy_per_attribute    {name: accuracy}, of the conditions that have triplets
        triplets                          {name: count}
        triplets_left_out                 count of those with an image that cannot be read
        triplet_intervals                 95% bootstrap intervals of the three

    Samples are of anchors, each with all its triplets of a condition, as these depend on each other;
    positives and negatives, which triplets share as well, are not drawn again. The model is held fixed: the
    spread is not that of training.

    ValueError if there is no triplet, a condition is unknown, or an embedding does not have length 1.
    """
    triplets = np.asarray(triplets)
    if not len(triplets) or triplets[:, 3].min() < 0 or triplets[:, 3].max() >= len(conditions):
        count = f"{len(triplets)} triplets for {len(conditions)} conditions"
        raise ValueError(f"{count}: at least one triplet, and none of another condition")
    kept = ~is_unreadable(triplets[:, :3], inputs).any(axis=1)
    if not kept.any():
        raise ValueError(f"every one of {len(triplets)} triplets has an image that cannot be read")
    triplets = triplets[kept]
    images, rows = np.unique(triplets[:, :3], return_inverse=True)
    rows = rows.reshape(-1, 3)  # of the embeddings: anchor, positive, negative
    embeddings = embed_images(model, inputs, images, batch_size=batch_size, progress=progress)  # (U, K, E)
    check_unit_length(embeddings, "embeddings")
    d_ap, d_an = triplet_distances(embeddings, np.column_stack([rows, triplets[:, 3]]))
    scores = score_triplets(d_ap, d_an, triplets, conditions, repeats=repeats, seed=seed)
    return {**scores, "triplets_left_out": int((~kept).sum())}


def triplet_distances(embeddings: np.ndarray, triplets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute cosine distances to positive and negative, each (T,) float32, of L2-normalised (U, K, E)."""
    distances = np.empty((2, len(triplets)), np.float32)
    for start in range(0, len(triplets), BLOCK):
        anchor, positive, negative, condition = triplets[start : start + BLOCK].T
        anchors = embeddings[anchor, condition]  # (b, E)
        for row, other in enumerate((positive, negative)):
            cosine = np.einsum("be,be->b", anchors, embeddings[other, condition])
            distances[row, start : start + BLOCK] = 1 - cosine
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
    """Give the dictionary of `evaluate_triplets`, from the triplets' distances.

    >>> triplets = np.array([[0, 1, 2, 0], [1, 0, 2, 0], [0, 2, 1, 1]])
    >>> scores = score_triplets([0.1, 0.3, 0.2], [0.2, 0.1, 0.3], triplets, ("class", "gender"))
    >>> round(scores["triplet_accuracy"], 2), scores["triplet_accuracy_macro"]
    (66.67, 75.0)
    """
    d_ap, d_an = np.asarray(d_ap), np.asarray(d_an)
    present, counts = np.unique(triplets[:, 3], return_counts=True)
    names, accuracies, samples = [conditions[c] for c in present], [], []
    for condition in present:
        rows = triplets[:, 3] == condition
        accuracies.append(100 * triplet_accuracy(d_ap[rows], d_an[rows]))
        correct, anchors = (d_ap < d_an)[rows], triplets[rows, 0]
        samples.append(100 * bootstrap_means(correct, anchors, repeats, (seed, condition)))
    per_attribute, weighted, macro = (ends.tolist() for ends in mean_intervals(np.stack(samples, 1), counts))
    return {
        "triplet_accuracy": 100 * triplet_accuracy(d_ap, d_an),
        "triplet_accuracy_macro": float(np.mean(accuracies)),
        "triplet_accuracy_per_attribute": dict(zip(names, accuracies)),
        "triplets": dict(zip(names, counts.tolist())),
        "triplet_intervals": {
            "triplet_accuracy": weighted,
            "triplet_accuracy_macro": macro,
            "triplet_accuracy_per_attribute": dict(zip(names, per_attribute)),
        },
    }


def triplet_table(metrics: dict, title: str) -> str:
    """Print the metrics as text: a line an attribute, then all triplets and the macro mean; chance is 50."""
    counts, intervals = metrics["triplets"], metrics["triplet_intervals"]
    rows = [["attribute", "triplets", "accuracy", "95% interval"]]
    for name, value in metrics["triplet_accuracy_per_attribute"].items():
        interval = intervals["triplet_accuracy_per_attribute"][name]
        rows.append(score_row(name, counts[name], value, interval))
    for key, name in (("triplet_accuracy", "all triplets"), ("triplet_accuracy_macro", "macro")):
        rows.append(score_row(name, sum(counts.values()), metrics[key], intervals[key]))
    return f"{title}\n{text_table(rows, rules=[len(rows) - 2])}"


def score_row(name: str, count: int, value: float, interval: Sequence[float]) -> list[str]:
    """Print a score in percent as cells: its name, of how many it is the mean, its value and interval."""
    low, high = interval
    return [name.replace("_", " "), str(count), f"{value:.2f}", f"{low:.1f} - {high:.1f}"]
