"""How well attribute j can be read from attribute i's space: the K x K matrix that t-SNE cannot show.

Row i is the space, column j the attribute that is read. M[i, j] is measured on the split's own rows:
attribute j's queries against attribute j's candidates, as in the tables, but all embedded in space i. There
are three probes, `map`, `knn` and `linear` (`ccakit.evaluation.probes`). Tables 2-4 print the diagonal of
`map`. The other two probes show whether a space *holds* an attribute although its distances are about another
one.

From M and chance c[j], the numbers that compare systems (see `normalise` and `Entanglement` for worked
examples):

    N[i, j] = (M[i, j] - c[j]) / (M[j, j] - c[j])       0: chance; 1: as well as from j's own space
    score   = mean_i N[i, i] - mean_{i != j} max(N[i, j], 0) = 1 - mean_{i != j} max(N[i, j], 0)

The score is 1 if no space holds another attribute, and 0 if all spaces hold the same, as in a system that
ignores the condition. It is below 0 if spaces hold more of another attribute than its own space does. Entries
below chance count as chance (a collapsed space falls below it, as ties count against it).

Labels are correlated: an image's collar says something about its lapel, and no space about collars can hide
that. So there are also I[i, j], the labels' normalised mutual information, and X[i, j], the score on
attribute j of an oracle that knows the label of i and nothing else. What goes beyond that is measured with
label i *held fixed*: each query meets only the candidates that share its value of i, among which that value
says nothing. G, H and g are the scores of space i, of space j, and of chance there (conditional probing:
Hewitt et al., EMNLP 2021):

    B[i, j] = (G[i, j] - g[i, j]) / (H[i, j] - g[i, j])
    score_beyond_labels = 1 - mean_{i != j} max(B[i, j], 0)

Holding the label fixed avoids two errors of subtracting X: a space that reads its own attribute badly cannot
hide a leak behind the oracle's surplus, and where H = g, B is unknown (NaN) rather than 0/0.

B is known only for pairs of attributes that many images carry both of (`compared`). So compare the scores
with and without the labels over those pairs: `score_beyond_labels` with `score_compared`.

Where an image carries only one of several attributes (a skirt's length or a coat's), M asks space i about
images that have no label of i, on which it was never trained. This is part of the score, as it is of Figure
5, but not of B.

This measure is ours; the paper shows Figures 5, 6 and A3 instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from ccakit.attributes import Attributes
from ccakit.data.split import label_matrix
from ccakit.evaluation.probes import PROBES, Probe, Task
from ccakit.metrics import check_unit_length

MIN_SHARED = 30  # queries, and candidates, that must carry both labels before two attributes are compared
MIN_GAIN = 0.01  # nothing is divided by a smaller gain over chance, nor by one below three standard errors


@dataclass(frozen=True)
class Entanglement:
    """The matrices of the module's formulas, (K, K) each: row i the space, column j the attribute read.

    matrix: M, 0..1. chance: c, (K,). normalised: N. label_information: I, symmetric, 0..1. explained: X, in
    units of M; explained_normalised: X on the scale of N, the entry of a space i that knows label i and
    nothing else. beyond: B. I, X and B are over images that carry both labels. findings: what could not be
    measured, in words. NaN means unknown: a column of N whose own space is at chance; I, X and B of
    attributes that hardly any image carries both of; B where nothing of j is left once i is known.

    >>> matrix, chance = np.array([[0.8, 0.3], [0.35, 0.7]]), np.array([0.2, 0.3])
    >>> normalised, unknown = normalise(matrix, chance), np.full((2, 2), np.nan)
    >>> result = Entanglement(("sleeve", "tone"), "map", matrix, chance, normalised, *4 * [unknown])
    >>> result.score == 1 - (0.25 + 0.0) / 2
    True
    >>> round(result.raw_gap, 3) == round((0.8 + 0.7) / 2 - (0.3 + 0.35) / 2, 3)
    True
    """

    names: tuple[str, ...]
    probe: str
    matrix: np.ndarray
    chance: np.ndarray
    normalised: np.ndarray
    label_information: np.ndarray
    explained: np.ndarray
    explained_normalised: np.ndarray
    beyond: np.ndarray
    findings: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """1 - mean_{i != j} max(N[i, j], 0): 1 disentangled, 0 entangled. NaN if no column is known."""
        return 1 - _mean(np.maximum(self.normalised[_others(len(self.names))], 0))  # np.maximum keeps NaN

    @property
    def score_beyond_labels(self) -> float:
        """1 - mean_{i != j} max(B[i, j], 0): the score without what label i itself says about j."""
        return 1 - _mean(np.maximum(self.beyond[self.compared], 0))

    @property
    def compared(self) -> np.ndarray:
        """(K, K) bool: the pairs i != j over which `score_beyond_labels` is the mean; often not all."""
        return _others(len(self.names)) & ~np.isnan(self.beyond) & ~np.isnan(self.normalised)

    @property
    def score_compared(self) -> float:
        """The score over the pairs `compared` alone, to be compared with `score_beyond_labels`."""
        return 1 - _mean(np.maximum(self.normalised[self.compared], 0))

    @property
    def raw_gap(self) -> float:
        """mean_j M[j, j] - mean_{i != j} M[i, j]: in units of the probe, without chance or clipping."""
        return _mean(np.diag(self.matrix)) - _mean(self.matrix[_others(len(self.names))])


def normalise(matrix: np.ndarray, chance: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Compute N[i, j] = (M[i, j] - c[j]) / (M[j, j] - c[j]); NaN in the columns that are not `known`.

    matrix (K, K), chance (K,). known (K,) bool: whose own space beats chance, by default by MIN_GAIN.
    Attribute 0, read in space 1, gains 0.35 - 0.2 of the 0.8 - 0.2 that its own space gains:

    >>> normalise(np.array([[0.8, 0.3], [0.35, 0.7]]), np.array([0.2, 0.3])).round(6).tolist()
    [[1.0, 0.0], [0.25, 1.0]]
    >>> normalise(np.array([[0.2, 0.3], [0.35, 0.7]]), np.array([0.2, 0.3])).round(6).tolist()
    [[nan, 0.0], [nan, 1.0]]
    """
    gain = np.diag(matrix) - chance
    known = gain > MIN_GAIN if known is None else known
    return np.where(known, (matrix - chance) / np.where(known, gain, 1), np.nan)


def entanglement(
    embeddings: np.ndarray,
    queries: np.ndarray,
    candidates: np.ndarray,
    attributes: Attributes,
    probe: str = "map",
) -> Entanglement:
    """Read every attribute from every space; see the module for the formulas.

    embeddings (n, K, E): of each image under each condition, L2-normalised. queries (Q, 3), candidates (C,
    3): rows of image, condition, label; the image is an index into `embeddings` (`ccakit.data.layout.rows_of`
    makes rows of a label matrix). probe: "map", "knn" or "linear". If an image has several values of one
    attribute, I, X and B know that of the first row. ValueError if shapes, indices or the probe do not fit.

    The example has 400 images, each combination of two labels equally often; space i is the one-hot of label
    i, and noise. Then a system that ignores the condition: one space that holds both labels, twice.

    >>> labels = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (100, 1))
    >>> rows = np.array([[image, c, labels[image, c]] for image in range(400) for c in range(2)])
    >>> noise = np.random.default_rng(0).normal(0, 0.3, (400, 2, 2))
    >>> apart = np.eye(2)[labels] + noise  # (400, 2, 2): space i is about label i
    >>> apart /= np.linalg.norm(apart, axis=2, keepdims=True)
    >>> two = Attributes.numbered({"sleeve": 2, "tone": 2})
    >>> result = entanglement(apart, rows[:200], rows[200:], two)
    >>> round(result.score, 1), round(result.score_beyond_labels, 1)
    (1.0, 1.0)
    >>> result.label_information.round(6).tolist()  # the labels are independent
    [[1.0, 0.0], [0.0, 1.0]]
    >>> both = np.repeat(apart.reshape(400, 1, 4), 2, axis=1) / 2**0.5  # one space, twice
    >>> result = entanglement(both, rows[:200], rows[200:], two)
    >>> abs(round(result.score, 6)), abs(round(result.score_beyond_labels, 6))
    (0.0, 0.0)
    """
    if probe not in PROBES:
        raise ValueError(f"no probe {probe!r}; there are: {', '.join(PROBES)}")
    embeddings, queries, candidates = _checked(embeddings, queries, candidates, attributes)
    reader, tasks = PROBES[probe], [Task.of(queries, candidates, c) for c in range(len(attributes))]
    labels = label_matrix(np.concatenate([queries, candidates]), len(embeddings), len(attributes))
    matrix, chance, known, findings = _read_all(reader, embeddings, tasks, attributes)
    if own := sum(len(np.unique(task.own[:, 0])) for task in tasks):
        findings.append(
            f"{own} of {len(queries)} queries are candidates too, each left out of its own candidates"
        )
    normalised = normalise(matrix, chance, known)
    matrices, pair_findings = _given_labels(reader, embeddings, tasks, labels, attributes)
    findings += pair_findings
    return Entanglement(attributes.names, probe, matrix, chance, normalised, *matrices, tuple(findings))


def embed_split(run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embed each query and candidate image of a run's split once, under all conditions.

    run: a `ccakit.evaluation.run.Run`. Out: embeddings (n, K, E), queries (Q, 3), candidates (C, 3), whose
    rows index them: the first three arguments of `entanglement`. ValueError for a split without queries
    (train).
    """
    from ccakit.evaluation.embedding import embed_images  # imports torch

    split = run.split
    if split.queries is None or split.candidates is None:
        raise ValueError(f"split {split.name!r} has no queries and candidates; use valid or test")
    queries, candidates = split.sides()
    images, rows = np.unique(np.concatenate([queries, candidates])[:, 0], return_inverse=True)
    queries[:, 0], candidates[:, 0] = np.split(rows, [len(queries)])
    return embed_images(run.model, run.inputs, images), queries, candidates


def measure_run(run, probe: str = "map") -> Entanglement:
    """Measure the entanglement of a run. For several probes, call `embed_split` once instead."""
    return entanglement(*embed_split(run), run.split.attributes, probe)


def _read_all(probe: Probe, embeddings: np.ndarray, tasks: Sequence[Task], attributes: Attributes):
    """Measure M (K, K), c (K,), and whose own space beats chance, (K,) bool; and findings."""
    k, findings = len(tasks), []
    matrix, chance, known = np.full((k, k), np.nan), np.full(k, np.nan), np.zeros(k, bool)
    for j, task in enumerate(tasks):
        if not len(task):
            findings.append(f"{attributes.title(j)}: no queries or no candidates, so it cannot be read")
            continue
        guessed = task.guess(probe)
        scores = [task.read(probe, embeddings[:, i]) for i in range(k)]
        matrix[:, j], chance[j] = np.mean(scores, axis=1), guessed.mean()
        known[j] = _beats(scores[j] - guessed)
        if not known[j]:
            findings.append(
                f"{attributes.title(j)}: its own space reads it no better than chance ({matrix[j, j]:.3f}, "
                f"chance {chance[j]:.3f}), so other spaces cannot be compared with it"
            )
    return matrix, chance, known, findings


def _given_labels(
    probe: Probe, embeddings: np.ndarray, tasks: Sequence[Task], labels: np.ndarray, attributes: Attributes
):
    """Measure I, X, X on the scale of N, and B, (K, K) each; and findings."""
    k = len(tasks)
    information, explained, explained_normalised, beyond = matrices = np.full((4, k, k), np.nan)
    unshared, unreadable, partial = [], [], []  # pairs of attributes, in words
    for i, j in np.ndindex(k, k):
        information[i, j] = _information(labels[:, i], labels[:, j])
        task = tasks[j].keep(labels[tasks[j].query, i] >= 0, labels[tasks[j].candidate, i] >= 0)
        pair = f"{attributes.title(j)} in the space of {attributes.title(i)}"
        if len(task) < MIN_SHARED:
            if i != j:
                unshared.append(pair)
            continue
        oracle, chance = task.guess(probe, labels[:, i]), task.guess(probe)
        explained[i, j] = oracle.mean()
        explained_normalised[i, j] = _ratio(oracle - chance, task.read(probe, embeddings[:, j]) - chance)
        if i == j:
            continue
        beyond[i, j] = _beyond(probe, embeddings[:, i], embeddings[:, j], list(task.parts(labels[:, i])))
        if np.isnan(beyond[i, j]):
            unreadable.append(pair)
        if len(task) < len(tasks[j]):
            partial.append(pair)
    return matrices, _pair_findings(unshared, unreadable, partial, k * (k - 1))


def _beyond(probe: Probe, space: np.ndarray, own_space: np.ndarray, parts: Sequence[Task]) -> float:
    """Measure B[i, j] from space i and j's own, (n, E) each, and the tasks of j that hold label i fixed."""
    if not parts:
        return np.nan
    guessed = np.concatenate([part.guess(probe) for part in parts])
    scores = np.concatenate([part.read(probe, space) for part in parts])
    own_scores = np.concatenate([part.read(probe, own_space) for part in parts])
    return _ratio(scores - guessed, own_scores - guessed)


def _ratio(gain: np.ndarray, own_gain: np.ndarray) -> float:
    return float(gain.mean() / own_gain.mean()) if _beats(own_gain) else np.nan


def _beats(gains: np.ndarray) -> bool:
    """Tell whether the mean of the queries' gains over chance is above MIN_GAIN and three standard errors."""
    return bool(gains.mean() > max(MIN_GAIN, 3 * gains.std() / len(gains) ** 0.5))


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """Compute I[i, j] = 2 MI / (H_i + H_j) over images with both labels; NaN if few, or of one value."""
    both = (a >= 0) & (b >= 0)
    a, b = a[both], b[both]
    if len(a) < MIN_SHARED or min(len(np.unique(a)), len(np.unique(b))) < 2:
        return np.nan
    return float(normalized_mutual_info_score(a, b))


def _pair_findings(unshared: list[str], unreadable: list[str], partial: list[str], pairs: int) -> list[str]:
    """Say what was not measured of pairs of attributes, a sentence a reason."""
    if len(unshared) == pairs:
        unknown = "their correlation and the score beyond labels are unknown"
        return [f"images do not carry two labels each: {unknown}"]
    too_few = f"fewer than {MIN_SHARED} queries or candidates carry both labels, so they are not compared"
    reasons = {
        too_few: unshared,
        "with that label held fixed the own space reads no better than chance; not compared": unreadable,
        "not every image carries both labels; explained and beyond are over those that do": partial,
    }
    return [
        f"{len(found)} of {pairs} pairs, e.g. {found[0]}: {text}" for text, found in reasons.items() if found
    ]


def _checked(
    embeddings, queries, candidates, attributes: Attributes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check and convert the arguments of `entanglement`; ValueError if they do not fit."""
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 3 or embeddings.shape[1] != len(attributes):
        raise ValueError(f"embeddings {embeddings.shape} are not (n, {len(attributes)}, E)")
    check_unit_length(embeddings, "embeddings (image, space)")
    sides = []
    for name, rows in (("queries", queries), ("candidates", candidates)):
        rows = np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iu":
            raise ValueError(f"{name}: {rows.dtype} of shape {rows.shape}, not integers (R, 3)")
        limits = np.array([len(embeddings), len(attributes), max(attributes.sizes)])
        if ((rows < 0) | (rows >= limits)).any():
            raise ValueError(f"{name} have an image, condition or label outside 0..{(limits - 1).tolist()}")
        sides.append(rows.astype(np.int64))
    return embeddings, *sides


def _others(k: int) -> np.ndarray:
    return ~np.eye(k, dtype=bool)


def _mean(values: np.ndarray) -> float:
    """Average the values that are known; NaN if none is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan
