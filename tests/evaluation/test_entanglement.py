"""Entanglement: on embeddings built disentangled, entangled or between; by plain loops; on a real model."""

from __future__ import annotations

import doctest
import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import mutual_info_score

from ccakit.attributes import Attributes
from ccakit.evaluation import entanglement as module
from ccakit.evaluation.entanglement import Entanglement, entanglement, normalise
from ccakit.evaluation.probes import NEIGHBOURS, PROBES, expected_ap_of_two
from ccakit.metrics import average_precision, expected_random_ap
from ccakit.show import plots, style

SIZES = (3, 4, 2)
THREE = Attributes.numbered(dict(zip(("sleeve_length", "tone", "neck"), SIZES)))


def independent(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, n) for size in SIZES], axis=1)


def correlated(n=900, seed=0, share=0.7):
    """The second label follows from the first in `share` of the images; the third is free."""
    labels = independent(n, seed)
    labels[:, 1] = np.where(np.random.default_rng(seed + 1).random(n) < share, labels[:, 0], labels[:, 1])
    return labels


def rows_of(labels):
    """Queries: the first third of the images; candidates: the others. Entries below 0 are not labels."""
    image, condition = np.nonzero(labels >= 0)
    rows = np.stack([image, condition, labels[image, condition]], axis=1)
    return rows[image < len(labels) // 3], rows[image >= len(labels) // 3]


def embed(labels, mixing, noise=0.1, seed=0):
    """(n, K, E): space i holds the one-hot of label j with the weight mixing[i, j], and noise of its own."""
    rng, blocks = (
        np.random.default_rng(seed),
        [np.eye(labels[:, j].max() + 1)[labels[:, j]] for j in range(3)],
    )
    spaces = [np.concatenate([w * block for w, block in zip(row, blocks)], axis=1) for row in mixing]
    out = np.stack(spaces, axis=1)
    out = out + rng.normal(0, noise, out.shape)
    return (out / np.linalg.norm(out, axis=2, keepdims=True)).astype(np.float32)


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_doctests():
    result = doctest.testmod(module)
    assert result.attempted > 15 and result.failed == 0


def test_importing_it_does_not_import_torch():
    code = "import sys, ccakit.evaluation.entanglement; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("probe", PROBES)
def test_a_disentangled_embedding_scores_one(probe):
    labels = independent()
    result = entanglement(embed(labels, np.eye(3)), *rows_of(labels), THREE, probe)
    assert result.score == pytest.approx(1, abs=0.06) and result.score <= 1
    assert result.score_beyond_labels == pytest.approx(1, abs=0.06)
    np.testing.assert_allclose(np.diag(result.matrix), 1, atol=0.01)
    np.testing.assert_allclose(
        result.matrix[~np.eye(3, dtype=bool)],
        np.tile(result.chance, (3, 1))[~np.eye(3, dtype=bool)],
        atol=0.12,
    )
    assert result.findings == ()


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("labels", [independent(), correlated()], ids=["independent", "correlated"])
def test_a_system_that_ignores_the_condition_is_entangled(probe, labels):
    one = embed(labels, np.ones((1, 3)))
    result = entanglement(np.repeat(one, 3, axis=1), *rows_of(labels), THREE, probe)
    np.testing.assert_allclose(result.normalised, 1)
    assert result.score == pytest.approx(0, abs=1e-9) and result.raw_gap == pytest.approx(0, abs=1e-9)
    assert result.score_beyond_labels == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("probe", PROBES)
def test_the_score_falls_with_every_bit_of_the_other_labels(probe):
    labels = independent()
    scores, gaps, beyond = [], [], []
    for weight in (0, 0.1, 0.2, 0.3, 0.5, 1):
        mixing = np.where(np.eye(3, dtype=bool), 1, weight)
        result = entanglement(embed(labels, mixing, noise=0.25), *rows_of(labels), THREE, probe)
        scores.append(result.score), gaps.append(result.raw_gap), beyond.append(result.score_beyond_labels)
    for series in (scores, gaps, beyond):
        assert (np.diff(series) < 0.02).all()  # two that hold all, or nothing, differ by noise alone
        assert sum(np.diff(series) < -0.02) >= 3
    assert scores[0] > 0.9 and abs(scores[-1]) < 0.05


def test_a_row_is_a_space_and_a_column_an_attribute():
    labels, mixing = independent(), np.eye(3)
    mixing[2, 0] = 1  # space 2 tells of attribute 0 as well
    result = entanglement(embed(labels, mixing), *rows_of(labels), THREE, "linear")
    assert result.normalised[2, 0] > 0.9 and result.normalised[0, 2] < 0.1 and result.normalised[2, 1] < 0.15
    assert result.beyond[2, 0] > 0.9


@pytest.mark.parametrize("probe", PROBES)
def test_what_correlated_labels_explain_is_no_entanglement(probe):
    labels = correlated()
    result = entanglement(embed(labels, np.eye(3)), *rows_of(labels), THREE, probe)
    assert result.normalised[0, 1] > 0.2 and result.score < 0.95
    assert result.normalised[0, 1] == pytest.approx(result.explained_normalised[0, 1], abs=0.1)
    np.testing.assert_allclose(result.matrix, result.explained, atol=0.1)
    assert result.score_beyond_labels > 0.96 and result.compared.sum() == 6
    assert result.score_compared == pytest.approx(result.score)


@pytest.mark.parametrize("probe", PROBES)
def test_a_leak_is_seen_under_the_correlation_even_where_the_space_hardly_knows_its_own_label(probe):
    labels, mixing = correlated(), np.eye(3)
    mixing[0] = [0.3, 0.6, 0]  # less of its own label than of the second
    result = entanglement(embed(labels, mixing, noise=0.15), *rows_of(labels), THREE, probe)
    assert result.beyond[0, 1] > 0.5 and abs(result.beyond[0, 2]) < 0.15


def test_map_equals_plain_loops():
    rng, labels = np.random.default_rng(1), correlated(150)
    embeddings = embed(labels, np.eye(3) + 0.3, noise=0.4)
    queries, candidates = rows_of(labels)
    result = entanglement(embeddings, rng.permutation(queries), rng.permutation(candidates), THREE)
    for i, j in np.ndindex(3, 3):
        q, c = queries[queries[:, 1] == j], candidates[candidates[:, 1] == j]
        aps, fixed = [], []
        for image, _, label in q:
            similarity = embeddings[c[:, 0], i] @ embeddings[image, i]
            own = embeddings[c[:, 0], j] @ embeddings[image, j]
            aps.append(average_precision((c[:, 2] == label)[np.argsort(-similarity)]))
            same = labels[c[:, 0], i] == labels[image, i]
            relevant = c[same, 2] == label
            chance = expected_random_ap(same.sum(), relevant.sum())
            fixed.append(
                [average_precision(relevant[np.argsort(-s[same])]) - chance for s in (similarity, own)]
            )
        assert result.matrix[i, j] == pytest.approx(np.mean(aps), abs=1e-6)
        gain, own_gain = np.mean(fixed, axis=0)
        if i != j:
            assert result.beyond[i, j] == pytest.approx(gain / own_gain, abs=1e-5)
    assert result.chance[0] == pytest.approx(
        np.mean([expected_random_ap(100, (labels[50:, 0] == label).sum()) for label in labels[:50, 0]])
    )


def test_probes_and_their_chance_equal_plain_loops():
    labels = correlated(150)
    embeddings = embed(labels, np.eye(3) + 0.3, noise=0.4)
    rows, knn = rows_of(labels), np.zeros((3, 3))
    linear = entanglement(embeddings, *rows, THREE, "linear")
    for i, j in np.ndindex(3, 3):
        x, y = embeddings[50:, i].astype(float), labels[50:, j]
        for image in range(50):
            distance = np.linalg.norm(embeddings[image, i] - x, axis=1)
            near = np.argsort(distance)[:NEIGHBOURS]
            votes = [np.sum(1 / distance[near[y[near] == value]]) for value in range(SIZES[j])]
            knn[i, j] += (np.argmax(votes) == labels[image, j]) / 50
        targets = np.where(np.eye(SIZES[j])[y] > 0, 1, -1)
        centred = x - x.mean(0)
        weights = np.linalg.solve(
            centred.T @ centred + np.eye(x.shape[1]), centred.T @ (targets - targets.mean(0))
        )
        answers = ((embeddings[:50, i] - x.mean(0)) @ weights + targets.mean(0)).argmax(1)
        assert linear.matrix[i, j] == pytest.approx(np.mean(answers == labels[:50, j]), abs=0.021)
    np.testing.assert_allclose(entanglement(embeddings, *rows, THREE, "knn").matrix, knn, atol=1e-9)
    most = [np.bincount(labels[50:, j]).argmax() for j in range(3)]
    np.testing.assert_allclose(linear.chance, (labels[:50] == most).mean(0))


def test_expected_ap_of_two_groups_by_all_their_orders():
    for n1, n2 in ((0, 3), (3, 0), (1, 2), (3, 2), (2, 3)):
        for r1, r2 in itertools.product(range(n1 + 1), range(n2 + 1)):
            first, second = [1] * r1 + [0] * (n1 - r1), [1] * r2 + [0] * (n2 - r2)
            aps = [
                average_precision(a + b)
                for a, b in itertools.product(itertools.permutations(first), itertools.permutations(second))
            ]
            assert expected_ap_of_two(n1, r1, n2, r2) == pytest.approx(np.mean(aps), abs=1e-12)
    assert expected_ap_of_two(0, 0, 500, 40) == pytest.approx(expected_random_ap(500, 40))


def test_explained_is_what_the_one_hot_of_the_label_scores():
    labels = correlated(450)
    queries, candidates = rows_of(labels)
    explained = entanglement(embed(labels, np.eye(3)), queries, candidates, THREE).explained
    tiny = [
        entanglement(embed(labels, np.eye(3), noise=0.01, seed=seed), queries, candidates, THREE).matrix
        for seed in range(8)
    ]  # noise that breaks ties, and nothing else
    np.testing.assert_allclose(np.mean(tiny, axis=0), explained, atol=0.01)
    frequent = entanglement(embed(labels, np.eye(3)), queries, candidates, THREE, "knn").explained
    best = [np.bincount(labels[150:, 1][labels[150:, 0] == v]).argmax() for v in range(3)]
    assert frequent[0, 1] == pytest.approx(np.mean(np.array(best)[labels[:150, 0]] == labels[:150, 1]))
    np.testing.assert_allclose(np.diag(frequent), 1)


def test_the_oracle_falls_back_on_all_candidates_for_a_value_that_none_of_them_has():
    table, given, asked = np.array([[0, 0], [3, 1], [0, 9]]), np.array([0, 1, 2]), np.array([1, 0, 0])
    assert PROBES["knn"].guess(table, given, asked).tolist() == [1, 1, 0]  # 10 of 13 candidates have value 1
    expected = [expected_random_ap(13, 10), expected_ap_of_two(4, 3, 9, 0), expected_ap_of_two(9, 0, 4, 3)]
    np.testing.assert_allclose(PROBES["map"].guess(table, given, asked), expected)


@pytest.mark.parametrize("probe", PROBES)
def test_a_query_that_is_a_candidate_does_not_read_its_own_label(probe):
    """Spaces of noise tell nothing, although each image lies nearest to itself; chance is the same."""
    labels, rng = independent(400), np.random.default_rng(0)
    every = np.concatenate(rows_of(labels))
    noise = unit(rng, 400, 3, 8)
    result = entanglement(noise, every, every, THREE, probe)
    np.testing.assert_allclose(result.matrix, np.tile(result.chance, (3, 1)), atol=0.09)
    assert any(f"{len(every)} of {len(every)} queries are candidates too" in text for text in result.findings)
    apart = entanglement(embed(labels, np.eye(3)), every, every, THREE, probe)
    assert np.diag(apart.matrix) == pytest.approx(1, abs=0.02) and apart.score == pytest.approx(1, abs=0.06)


def test_chance_leaves_the_own_image_out():
    table, given, asked = np.array([[2, 1], [0, 3]]), np.array([0, 1]), np.array([0, 1])
    own = np.array([[0, 0], [1, 1]])  # each query's own image is among the candidates
    expected = [expected_ap_of_two(2, 1, 3, 0), expected_ap_of_two(2, 2, 3, 1)]
    np.testing.assert_allclose(PROBES["map"].guess(table, given, asked, own), expected)
    alone = np.array([[1, 0], [0, 3]])
    assert PROBES["knn"].guess(alone, given, asked, own).tolist() == [0, 1]  # nobody else has its value of i


def test_of_several_values_of_one_attribute_the_first_row_counts_for_the_label():
    labels = correlated()
    queries, candidates = rows_of(labels)
    again = candidates.copy()
    again[:, 2] = (again[:, 2] + 1) % np.array(SIZES)[again[:, 1]]
    plain = entanglement(embed(labels, np.eye(3)), queries, candidates, THREE)
    twice = entanglement(embed(labels, np.eye(3)), queries, np.concatenate([candidates, again]), THREE)
    np.testing.assert_array_equal(twice.label_information, plain.label_information)


def test_label_information_is_normalised_mutual_information():
    labels = correlated()
    result = entanglement(embed(labels, np.eye(3)), *rows_of(labels), THREE)
    entropy = [mutual_info_score(labels[:, j], labels[:, j]) for j in range(3)]
    for i, j in np.ndindex(3, 3):
        expected = 2 * mutual_info_score(labels[:, i], labels[:, j]) / (entropy[i] + entropy[j])
        assert result.label_information[i, j] == pytest.approx(expected, abs=1e-9)
    assert result.label_information[0, 1] > 0.2 > 0.02 > result.label_information[0, 2]


def test_labels_that_determine_each_other_leave_nothing_to_compare():
    labels = independent()
    labels[:, 2] = labels[:, 0] % 2  # the neck follows from the sleeve
    result = entanglement(embed(labels, np.eye(3)), *rows_of(labels), THREE)
    assert np.isnan(result.beyond[0, 2]) and not result.compared[0, 2]
    assert result.explained[0, 2] > 0.9
    assert any("neck in the space of sleeve length" in f and "held fixed" in f for f in result.findings)
    assert result.score_beyond_labels == pytest.approx(1, abs=0.05)


def test_images_with_one_label_each_are_measured_and_the_rest_is_unknown():
    labels = np.full((900, 3), -1)
    which = np.random.default_rng(5).integers(0, 3, 900)
    labels[np.arange(900), which] = independent(900)[np.arange(900), which]
    result = entanglement(embed(np.maximum(labels, 0), np.eye(3)), *rows_of(labels), THREE)
    others = ~np.eye(3, dtype=bool)
    assert result.score == pytest.approx(1, abs=0.06)
    for matrix in (result.label_information, result.explained, result.explained_normalised, result.beyond):
        assert np.isnan(matrix[others]).all()
    assert (
        np.isnan(result.score_beyond_labels) and np.isnan(result.score_compared) and not result.compared.any()
    )
    assert len(result.findings) == 1 and "do not carry two labels" in result.findings[0]


def test_some_images_with_one_label_are_named():
    labels = correlated()
    labels[::3, 0] = -1
    result = entanglement(embed(np.maximum(labels, 0), np.eye(3)), *rows_of(labels), THREE)
    assert result.score_beyond_labels > 0.95
    both = labels[:, 0] >= 0
    whole = entanglement(embed(np.maximum(labels, 0), np.eye(3))[both], *rows_of_split(labels, both), THREE)
    assert result.explained[0, 1] == pytest.approx(whole.explained[0, 1])
    assert len(result.findings) == 1 and result.findings[0].startswith(
        "2 of 6 pairs, e.g. tone in the space of sleeve"
    )
    assert "not every image carries both labels" in result.findings[0]


def rows_of_split(labels, kept):
    """`rows_of` with the images that are not kept left out and the others numbered anew."""
    place = np.cumsum(kept) - 1
    sides = (rows[kept[rows[:, 0]]] for rows in rows_of(labels))
    return tuple(np.column_stack([place[rows[:, 0]], rows[:, 1:]]) for rows in sides)


@pytest.mark.parametrize("probe", PROBES)
def test_an_own_space_at_chance_is_said_and_not_divided_by(probe, recwarn):
    labels, mixing = independent(), np.eye(3)
    mixing[1, 1] = 0  # space 1 is noise
    result = entanglement(embed(labels, mixing), *rows_of(labels), THREE, probe)
    assert np.isnan(result.normalised[:, 1]).all() and not np.isnan(result.normalised[:, [0, 2]]).any()
    assert any(f.startswith("tone: its own space reads it no better than chance") for f in result.findings)
    assert result.score == pytest.approx(1, abs=0.06)
    assert not recwarn.list


@pytest.mark.parametrize("probe", PROBES)
def test_noise_alone_has_no_score(probe):
    labels = independent()
    result = entanglement(unit(np.random.default_rng(0), len(labels), 3, 16), *rows_of(labels), THREE, probe)
    assert np.isnan([result.score, result.score_beyond_labels]).all() and abs(result.raw_gap) < 0.03


def test_a_collapsed_space_earns_nothing():
    labels = independent()
    embeddings = embed(labels, np.eye(3))
    expected = entanglement(embeddings, *rows_of(labels), THREE)
    embeddings[:, 2] = embeddings[0, 2]  # one point: ties, all against it
    result = entanglement(embeddings, *rows_of(labels), THREE)
    assert (result.normalised[2, :2] < -0.05).all()
    assert expected.score - 0.02 < result.score <= 1


def test_an_attribute_without_queries_is_left_out():
    labels = independent()
    queries, candidates = rows_of(labels)
    result = entanglement(embed(labels, np.eye(3)), queries[queries[:, 1] != 1], candidates, THREE)
    assert np.isnan(result.matrix[:, 1]).all() and not np.isnan(result.matrix[:, [0, 2]]).any()
    assert result.score == pytest.approx(1, abs=0.06) and result.raw_gap > 0.3
    assert any(f.startswith("tone: no queries") for f in result.findings)


def test_normalise_by_hand():
    matrix, chance = np.array([[0.5, 0.4], [0.3, 0.9]]), np.array([0.1, 0.4])
    np.testing.assert_allclose(normalise(matrix, chance), [[1, 0], [0.5, 1]])
    np.testing.assert_allclose(normalise(matrix, chance, np.array([False, True])), [[np.nan, 0], [np.nan, 1]])


def test_without_images_that_carry_both_labels_nothing_beyond_them_is_known():
    labels = independent(300)
    labels[:, 1] = np.where(np.arange(300) % 2, labels[:, 1], -1)
    result = entanglement(unit(np.random.default_rng(0), 300, 3, 8), *rows_of(labels), THREE)
    assert result.names == THREE.names and np.isnan(result.score) and result.compared.sum() == 0
    assert np.isfinite(result.matrix).all() and np.isnan(result.beyond[0]).all()


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(probe="svm"), "no probe 'svm'"),
        (dict(embeddings=np.ones((600, 2, 4))), "not \\(n, 3, E\\)"),
        (dict(embeddings=np.ones((600, 3, 4))), "not L2-normalised"),
        (dict(queries=np.zeros((5, 2), int)), "queries"),
        (dict(queries=np.zeros((5, 3))), "queries: float64"),
        (dict(candidates=np.array([[600, 0, 0]])), "candidates have"),
        (dict(candidates=np.array([[0, 3, 0]])), "candidates have"),
        (dict(queries=np.array([[0, 0, -1]])), "queries have"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    labels = independent()
    queries, candidates = rows_of(labels)
    given = dict(
        embeddings=embed(labels, np.eye(3)), queries=queries, candidates=candidates, attributes=THREE
    )
    with pytest.raises(ValueError, match=words):
        entanglement(**{**given, **change})


def test_eight_attributes_and_2500_images_take_seconds():
    rng, eight = np.random.default_rng(0), Attributes.numbered({str(k): 6 for k in range(8)})
    labels = rng.integers(0, 6, (2500, 8))
    image, condition = np.divmod(np.arange(2500 * 8), 8)
    rows = np.stack([image, condition, labels.ravel()], axis=1)
    embeddings = unit(rng, 2500, 8, 128)
    start = time.process_time()
    entanglement(embeddings, rows[: 500 * 8], rows[500 * 8 :], eight)
    assert time.process_time() - start < 20  # 3 s are usual; work is counted, not waiting


def test_of_a_model_on_drawn_garments(tmp_path):
    from types import SimpleNamespace

    from ccakit.data.drawn import write_garments
    from ccakit.data.inputs import ImageInputs
    from ccakit.data.layout import read_dataset
    from ccakit.data.transform import ImageTransform
    from ccakit.evaluation.embedding import rank
    from ccakit.models.registry import create_model

    write_garments(tmp_path / "data", 2, 2, 200, size=64, workers=1, progress=False)
    split = read_dataset(tmp_path / "data")["test"]
    model = create_model("cca-type2", conditions=8, trunk="lite", pretrained=False, image_size=64)
    inputs = ImageInputs(split, ImageTransform(tuple(model.trunk.image_size)))
    run = SimpleNamespace(model=model, inputs=inputs, split=split)
    result = module.measure_run(run)
    expected = rank(model, inputs).map_per_attribute
    np.testing.assert_allclose(np.diag(result.matrix), expected, atol=1e-6)
    assert result.names == split.attributes.names and isinstance(result, Entanglement)
    split.queries = None
    with pytest.raises(ValueError, match="no queries"):
        module.measure_run(run)


def test_the_plot_says_what_rows_and_columns_are_and_every_number(tmp_path):
    labels, mixing = correlated(), np.eye(3)
    mixing[1, 1] = 0
    result = entanglement(embed(labels, mixing), *rows_of(labels), THREE)
    figure = plots.entanglement_matrix(result, "built by hand")
    axes, texts = figure.axes[0], [text.get_text() for text in figure.axes[0].texts]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("attribute read", "space of")
    assert [t.get_text() for t in axes.get_yticklabels()] == ["sleeve length", "tone", "neck"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["sleeve\nlength", "tone", "neck"]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown, result.normalised)
    assert texts.count("–") == 3 and texts.count("1.00") == 2
    assert f"({result.explained_normalised[1, 0]:.2f})" in texts
    title = figure.get_suptitle()
    assert title.startswith("built by hand, mAP\nscore") and f"{result.score_beyond_labels:.2f}" in title
    style.save(figure, tmp_path / "matrix.png")
    renderer, width = FigureCanvasAgg(figure).get_renderer(), figure.bbox.width
    words = [
        *axes.get_xticklabels(),
        *axes.get_yticklabels(),
        axes.xaxis.label,
        axes.yaxis.label,
        figure._suptitle,
    ]
    for box in (word.get_window_extent(renderer) for word in words):
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= figure.bbox.height
    noise = entanglement(unit(np.random.default_rng(0), 900, 3, 8), *rows_of(labels), THREE)
    assert "score unknown" in plots.entanglement_matrix(noise).get_suptitle()
