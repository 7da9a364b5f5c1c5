"""How well attribute j can be read from attribute i's space: the K x K matrix that t-SNE cannot show.

Row i is the space, column j the attribute read. M[i, j] is found on the split's own rows: attribute j's queries
against attribute j's candidates, as in the tables, but with everybody's embedding in space i. Three probes read:
`map`, `knn` and `linear` (`ccakit.evaluation.probes`). The diagonal of `map` is what Tables 2-4 print. The last two answer what
the first cannot: whether the space *holds* the attribute, though its distances are about another one.

From M, the numbers that compare systems, for chance c[j] (see `normalise` and `Entanglement` for worked examples):

    N[i, j] = (M[i, j] - c[j]) / (M[j, j] - c[j])       0: chance; 1: as well as from j's own space
    score   = mean_i N[i, i] - mean_{i != j} max(N[i, j], 0) = 1 - mean_{i != j} max(N[i, j], 0)

The score is 1 if no space tells of another attribute, and 0 if all tell the same, as those of a system do that
ignores the condition; below 0 if spaces tell more of another attribute than its own does. Entries below chance (a
collapsed space: ties count against it) earn nothing more.

Labels are correlated: who knows the collar knows something of the lapel, and no space about collars can hide that.
So beside M stand I[i, j], the labels' normalised mutual information, and X[i, j], what an oracle scores on
attribute j that knows the label of i and nothing else. What goes beyond that is measured with label i *held fixed*:
each query meets only the candidates that share its value of i, among which that value tells nothing. G, H and g are
the scores of space i, of space j, and of chance there (conditional probing: Hewitt et al., EMNLP 2021):

    B[i, j] = (G[i, j] - g[i, j]) / (H[i, j] - g[i, j])        score_beyond_labels = 1 - mean_{i != j} max(B[i, j], 0)

Holding the label fixed rather than subtracting X keeps two errors out: a space that knows its own attribute badly
may not hide a leak behind the oracle's surplus, and where H = g nothing is left to be told (NaN), rather than 0/0.

B is known only of pairs of attributes that many images carry both of (`compared`), so the scores with and without
the labels are to be compared over those pairs: `score_beyond_labels` with `score_compared`.

Where an image carries one of several attributes (a skirt's length or a coat's), M asks space i about images that
have no label of i, on which it was never trained. That is part of the score, as it is of Figure 5, but not of B.

This measure is ours; the paper shows Figures 5, 6 and A3 in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from ccakit.attributes import Attributes
from ccakit.evaluation.probes import PROBES, Probe, Task

SHARED = 30  # queries, and candidates, that must carry both labels before two attributes are compared
LEAST_GAIN = (
    0.01  # of an own space over chance, and three standard errors of it: below, nothing is divided by it
)


@dataclass(frozen=True)
class Entanglement:
    """The matrices of the module's formulas, (K, K) each: row i the space, column j the attribute read.

    matrix: M, 0..1. chance: c, (K,). normalised: N. label_information: I, symmetric, 0..1. explained: X, in units of
    M; explained_normalised: X on the scale of N, what an entry would be, did space i know label i and nothing else.
    beyond: B. I, X and B are over images that carry both labels. findings: what could not be measured, in words.
    NaN is what is unknown: a column of N whose own space is at chance; I, X and B of attributes that hardly any
    image carries both of; B where nothing of j is left once i is known.

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
        """1 - mean_{i != j} max(B[i, j], 0): the same, with what label i itself tells of j taken out."""
        return 1 - _mean(np.maximum(self.beyond[self.compared], 0))

    @property
    def compared(self) -> np.ndarray:
        """(K, K) bool: the pairs i != j over which `score_beyond_labels` is the mean; often not all."""
        return _others(len(self.names)) & ~np.isnan(self.beyond) & ~np.isnan(self.normalised)

    @property
    def score_compared(self) -> float:
        """The score over the pairs `compared` alone: what to hold `score_beyond_labels` against."""
        return 1 - _mean(np.maximum(self.normalised[self.compared], 0))

    @property
    def raw_gap(self) -> float:
        """mean_j M[j, j] - mean_{i != j} M[i, j]: in units of the probe, without chance or clipping."""
        return _mean(np.diag(self.matrix)) - _mean(self.matrix[_others(len(self.names))])

    def to_dict(self) -> dict:
        """For JSON: lists of rows, None for NaN."""
        arrays = (
            "matrix",
            "chance",
            "normalised",
            "label_information",
            "explained",
            "explained_normalised",
            "beyond",
        )
        scores = ("score", "score_beyond_labels", "score_compared", "raw_gap")
        return {
            "names": list(self.names),
            "probe": self.probe,
            **{s: _plain(getattr(self, s)) for s in scores},
            "pairs_compared": int(self.compared.sum()),
            **{a: _plain(getattr(self, a).tolist()) for a in arrays},
            "findings": list(self.findings),
        }


def normalise(matrix: np.ndarray, chance: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """N[i, j] = (M[i, j] - c[j]) / (M[j, j] - c[j]); NaN in the columns that are not `known`.

    matrix (K, K), chance (K,). known (K,) bool: whose own space beats chance, by default those by LEAST_GAIN.
    Attribute 0, read in space 1, gains 0.35 - 0.2 of the 0.8 - 0.2 that its own space gains:

    >>> normalise(np.array([[0.8, 0.3], [0.35, 0.7]]), np.array([0.2, 0.3])).round(6).tolist()
    [[1.0, 0.0], [0.25, 1.0]]
    >>> normalise(np.array([[0.2, 0.3], [0.35, 0.7]]), np.array([0.2, 0.3])).round(6).tolist()
    [[nan, 0.0], [nan, 1.0]]
    """
    gain = np.diag(matrix) - chance
    known = gain > LEAST_GAIN if known is None else known
    return np.where(known, (matrix - chance) / np.where(known, gain, 1), np.nan)


def entanglement(
    embeddings: np.ndarray,
    queries: np.ndarray,
    candidates: np.ndarray,
    attributes: Attributes,
    probe: str = "map",
) -> Entanglement:
    """Read every attribute from every space; see the module for the formulas.

    embeddings (n, K, E): of each image under each condition, L2-normalised. queries (Q, 3), candidates (C, 3): rows
    of image, condition, label; the image is an index into `embeddings` (a label matrix becomes rows by
    `ccakit.data.layout.rows_of`). probe: "map", "knn" or "linear". Of an image with several values of one attribute
    the first row's is what I, X and B know. ValueError if shapes, indices or the probe do not fit.

    400 images, each combination of two labels equally often; space i is the one-hot of label i, and noise. Then a
    system that ignores the condition: one space that tells of both labels, twice.

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
    >>> both = np.repeat(apart.reshape(400, 1, 4), 2, axis=1) / 2**0.5  # one space that tells of both, twice
    >>> result = entanglement(both, rows[:200], rows[200:], two)
    >>> abs(round(result.score, 6)), abs(round(result.score_beyond_labels, 6))
    (0.0, 0.0)
    """
    if probe not in PROBES:
        raise ValueError(f"no probe {probe!r}; there are: {', '.join(PROBES)}")
    embeddings, queries, candidates = _checked(embeddings, queries, candidates, attributes)
    how, tasks = PROBES[probe], [Task.of(queries, candidates, c) for c in range(len(attributes))]
    labels = _label_matrix(np.concatenate([queries, candidates]), len(embeddings), len(attributes))
    matrix, chance, known, notes = _read_all(how, embeddings, tasks, attributes)
    given, more = _given_labels(how, embeddings, tasks, labels, attributes)
    return Entanglement(
        attributes.names, probe, matrix, chance, normalise(matrix, chance, known), *given, tuple(notes + more)
    )


def embedded(run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All spaces of a split's query and candidate images, each embedded once, and the rows that index them.

    run: a `ccakit.evaluation.run.Run`. Out: embeddings (n, K, E), queries (Q, 3), candidates (C, 3):
    the first three arguments of `entanglement`. ValueError for a split without queries (train).
    """
    from ccakit.evaluation.embedding import embed_images  # imports torch

    split = run.split
    if split.queries is None or split.candidates is None:
        raise ValueError(f"split {split.name!r} has no queries and candidates; use valid or test")
    images, place = np.unique(np.concatenate([split.queries, split.candidates])[:, 0], return_inverse=True)
    queries, candidates = split.queries.copy(), split.candidates.copy()
    queries[:, 0], candidates[:, 0] = np.split(place, [len(queries)])
    return embed_images(run.model, run.inputs, images), queries, candidates


def of_model(run, probe: str = "map") -> Entanglement:
    """`entanglement` of a run. For several probes, call `embedded` once and that for each."""
    return entanglement(*embedded(run), run.split.attributes, probe)


def _read_all(how: Probe, embeddings: np.ndarray, tasks: Sequence[Task], attributes: Attributes):
    """M (K, K), c (K,), whose own space beats chance (K,) bool, and findings."""
    k = len(tasks)
    matrix, chance, known, notes = np.full((k, k), np.nan), np.full(k, np.nan), np.zeros(k, bool), []
    for j, task in enumerate(tasks):
        if not len(task):
            notes.append(f"{attributes.title(j)}: no queries or no candidates, so it cannot be read")
            continue
        guessed = task.guess(how)
        scores = [task.read(how, embeddings[:, i]) for i in range(k)]
        matrix[:, j], chance[j] = np.mean(scores, axis=1), guessed.mean()
        known[j] = _beats(scores[j] - guessed)
        if not known[j]:
            notes.append(
                f"{attributes.title(j)}: its own space reads it no better than chance ({matrix[j, j]:.3f}, "
                f"chance {chance[j]:.3f}), so other spaces cannot be compared with it"
            )
    return matrix, chance, known, notes


def _given_labels(
    how: Probe, embeddings: np.ndarray, tasks: Sequence[Task], labels: np.ndarray, attributes: Attributes
):
    """(4, K, K): I, X, X on the scale of N, and B; and findings."""
    k = len(tasks)
    information, explained, share, beyond = out = np.full((4, k, k), np.nan)
    apart, alone, partial = [], [], []
    for i, j in np.ndindex(k, k):
        information[i, j] = _information(labels[:, i], labels[:, j])
        task = tasks[j].keep(labels[tasks[j].query, i] >= 0, labels[tasks[j].candidate, i] >= 0)
        pair = f"{attributes.title(j)} in the space of {attributes.title(i)}"
        if len(task) < SHARED:
            apart += [pair] if i != j else []
            continue
        oracle, chance = task.guess(how, labels[:, i]), task.guess(how)
        explained[i, j] = oracle.mean()
        share[i, j] = _ratio(oracle - chance, task.read(how, embeddings[:, j]) - chance)
        if i != j:
            beyond[i, j] = _beyond(how, embeddings[:, i], embeddings[:, j], list(task.parts(labels[:, i])))
            alone += [pair] if np.isnan(beyond[i, j]) else []
            partial += [pair] if len(task) < len(tasks[j]) else []
    return out, _pair_findings(apart, alone, partial, k * (k - 1))


def _beyond(how: Probe, space: np.ndarray, own: np.ndarray, parts: Sequence[Task]) -> float:
    """B[i, j], from space i and j's own, (n, E) each, and the tasks of j that hold label i fixed."""
    if not parts:
        return np.nan
    guessed = np.concatenate([part.guess(how) for part in parts])
    gain, own_gain = (np.concatenate([part.read(how, z) for part in parts]) - guessed for z in (space, own))
    return _ratio(gain, own_gain)


def _ratio(gain: np.ndarray, own_gain: np.ndarray) -> float:
    return float(gain.mean() / own_gain.mean()) if _beats(own_gain) else np.nan


def _beats(gains: np.ndarray) -> bool:
    """Whether the mean of the queries' gains over chance is above LEAST_GAIN and three standard errors."""
    return bool(gains.mean() > max(LEAST_GAIN, 3 * gains.std() / len(gains) ** 0.5))


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """I[i, j] = 2 MI / (H_i + H_j) over the images that carry both; NaN if few do, or either has one value only."""
    both = (a >= 0) & (b >= 0)
    a, b = a[both], b[both]
    if len(a) < SHARED or min(len(np.unique(a)), len(np.unique(b))) < 2:
        return np.nan
    return float(normalized_mutual_info_score(a, b))


def _pair_findings(apart: list[str], alone: list[str], partial: list[str], pairs: int) -> list[str]:
    """What was not measured of pairs of attributes, a sentence a reason."""
    if len(apart) == pairs:
        return [
            "images do not carry two labels each: how far the labels are correlated, and with it the score "
            "beyond labels, is unknown"
        ]
    texts = (
        (apart, f"fewer than {SHARED} queries or candidates carry both labels, so nothing is said of them"),
        (alone, "with that label held fixed the own space reads no better than chance; not compared"),
        (partial, "not every image carries both labels; explained and beyond are over those that do"),
    )
    return [f"{len(found)} of {pairs} pairs, e.g. {found[0]}: {text}" for found, text in texts if found]


def _checked(
    embeddings, queries, candidates, attributes: Attributes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 3 or embeddings.shape[1] != len(attributes):
        raise ValueError(f"embeddings {embeddings.shape} are not (n, {len(attributes)}, E)")
    off = ~(np.abs(np.linalg.norm(embeddings, axis=2) - 1) < 1e-2)  # ~(<): NaN counts as off; 1e-2: float16
    if off.any():
        raise ValueError(
            f"{off.sum()} embeddings are not L2-normalised, the first (image, space): "
            f"{np.argwhere(off)[0].tolist()}"
        )
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


def _label_matrix(rows: np.ndarray, images: int, conditions: int) -> np.ndarray:
    """(n, K) labels, -1 where there is none; of several values the first row's."""
    matrix = np.full((images, conditions), -1)
    _, first = np.unique(rows[:, :2] @ [conditions, 1], return_index=True)
    matrix[rows[first, 0], rows[first, 1]] = rows[first, 2]
    return matrix


def _others(k: int) -> np.ndarray:
    return ~np.eye(k, dtype=bool)


def _mean(values: np.ndarray) -> float:
    """Of those that are known; NaN if none is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan


def _plain(value):
    """Numbers for JSON: NaN becomes None."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if np.isnan(value) else float(value)
