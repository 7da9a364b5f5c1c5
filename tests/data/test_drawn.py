"""The drawn default: same seed, same picture; FashionAI's shares; nuisances give no label away."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ccakit.data import drawn as write
from ccakit.data.drawn import redraw, write_garments
from ccakit.data.layout import read_dataset
from ccakit.data.triplet_lists import split_triplets
from ccakit.errors import DataError
from ccakit.garments.draw import draw_garment, draw_value, find_plan
from ccakit.garments.plan import ZONES
from ccakit.garments.sheet import contact_sheet
from ccakit.garments.values import COUNTS, GARMENTS, SHARES, SLEEVE, VERSION

K = len(GARMENTS)


@pytest.fixture(scope="module", params=[600, pytest.param(3000, marks=pytest.mark.slow)])
def garments(request):
    """Pictures, small: labels, regions and framing are the same at any size. The fast tests see a sample."""
    return [draw_garment(10_000 + seed, 32) for seed in range(request.param)]


@pytest.fixture(scope="module")
def labels(garments):
    return np.stack([garment.labels for garment in garments])


@pytest.fixture(scope="module", params=[3000, pytest.param(30_000, marks=pytest.mark.slow)])
def plans(request):
    """The labels of many more pictures, not drawn. The fast tests see a sample."""
    return [find_plan(seed, lambda plan: True)[0] for seed in range(request.param)]


def test_values_are_fashionais():
    assert GARMENTS.sizes == (6, 9, 8, 6, 5, 5, 10, 5) == tuple(len(counts) for counts in COUNTS)
    assert sum(GARMENTS.sizes) == 54 and all(values[0] == "Invisible" for values in GARMENTS.values)
    assert [sum(counts) for counts in COUNTS] == [17428, 24546, 20563, 17199, 13961, 12782, 26770, 11086]
    assert SHARES[1][0] == pytest.approx(0.0146, abs=1e-4) and SHARES[4][0] == pytest.approx(0.3197, abs=1e-4)


def test_same_seed_and_version_same_pixels():
    digest = hashlib.sha256()
    for seed in range(40):
        garment = draw_garment(seed)
        digest.update(garment.image.tobytes() + garment.labels.tobytes())
        assert all(np.array_equal(a, b) for a, b in zip((garment.image,), (draw_garment(seed).image,)))
    assert (VERSION, digest.hexdigest()[:16]) == (1, "3ebd88b11cc16de0"), (
        "raise VERSION with a change of the drawing"
    )


def test_seeds_differ():
    assert len({draw_garment(seed, 32).image.tobytes() for seed in range(50)}) == 50


@pytest.mark.parametrize("size", [64, 100, 256])
def test_another_size_is_the_same_picture(size):
    for seed in range(8):
        one, other = draw_garment(seed, 128), draw_garment(seed, size)
        assert other.image.shape == (size, size, 3) and other.image.dtype == np.uint8
        assert np.array_equal(one.labels, other.labels) and one.labels.dtype == np.int64
        assert one.regions == other.regions and one.framing == other.framing
        small = [
            cv2.resize(g.image, (32, 32), interpolation=cv2.INTER_AREA).astype(int) for g in (one, other)
        ]
        assert np.abs(small[0] - small[1]).mean() < 4  # of 255
    different = draw_garment(9, 128).image.astype(int) - draw_garment(8, 128).image
    assert np.abs(different).mean() > 20


def test_values_have_fashionais_shares(plans):
    labels = np.array([plan.labels for plan in plans])
    for c in range(K):
        labelled = labels[labels[:, c] >= 0, c]
        shares = np.bincount(labelled, minlength=len(SHARES[c])) / len(labelled)
        error = 4 * np.sqrt(SHARES[c] * (1 - SHARES[c]) / len(labelled)).max()  # four standard errors
        assert np.abs(shares - SHARES[c]).max() < error + 0.004, GARMENTS.names[c]
        assert len(labelled) > 0.2 * len(labels), GARMENTS.names[c]
    assert (labels >= 0).sum(1).mean() > 2.9 and (labels >= 0).any(1).all()


def test_a_random_ranking_scores_near_16(plans):
    """The expected precision of a random ranking is the share of the query's value: sum of squared shares."""
    labels = np.array([plan.labels for plan in plans])
    queries = [labels[labels[:, c] >= 0, c] for c in range(K)]
    chance = [((np.bincount(q) / len(q)) ** 2).sum() for q in queries]
    assert 100 * np.average(chance, weights=[len(q) for q in queries]) == pytest.approx(16, abs=0.6)


def test_attributes_an_outfit_lacks_are_unlabelled(plans):
    for plan in plans[:3000]:
        labelled = {c for c in range(K) if plan.labels[c] >= 0}
        assert labelled <= set(plan.wears) and not {0, 3} <= labelled
        assert len(labelled & {4, 6, 7}) <= 1 and (5 not in labelled or 2 in plan.wears)


def test_invisible_is_out_of_frame_or_covered(plans):
    """A hidden zone that the framing would show is covered, and nothing that is seen is covered with it."""
    shows = {
        "full": {"neck", "sleeve", "hem"},
        "upper": {"neck", "sleeve"},
        "close": {"neck"},
        "lower": {"hem"},
        "legs": {"hem"},
    }
    for plan in plans[:3000]:
        hidden = {ZONES[c] for c in range(K) if plan.labels[c] == 0}
        seen = {ZONES[c] for c in range(K) if plan.labels[c] > 0}
        assert set(plan.covers) == hidden & shows[plan.framing] and seen <= shows[plan.framing]
        for zone in seen & set(plan.covers):  # a scarf inside lapels, or a counter below a short coat's hem
            seen_there = [c for c in range(K) if ZONES[c] == zone and plan.labels[c] > 0]
            assert seen_there == [5] if zone == "neck" else seen_there == [2] and plan.labels[2] <= 3


def test_regions_are_boxes_in_the_frame_of_what_is_visible(garments):
    areas = []
    for garment in garments:
        assert {c for c, *_ in garment.regions} == set(np.flatnonzero(garment.labels > 0))
        for _, x0, y0, x1, y1 in garment.regions:
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
            areas.append((x1 - x0) * (y1 - y0))
    assert 0.02 < np.mean(areas) < 0.10 and min(areas) > 0.001


def test_no_fixed_patch_hits_the_regions(garments, labels):
    """The best cell of a 32 x 32 grid, chosen in hindsight, is in the region at most 45% of the time."""
    centre = (np.arange(32) + 0.5) / 32
    hits = np.zeros((K, 32, 32))
    for garment in garments:
        inside = np.zeros((K, 32, 32), bool)
        for c, x0, y0, x1, y1 in garment.regions:
            inside[c] |= np.outer((y0 <= centre) & (centre < y1), (x0 <= centre) & (centre < x1))
        hits += inside
    best = hits.max((1, 2)) / (labels > 0).sum(0)
    assert best.mean() < 0.45 and best.max() < 0.65


def balanced_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean recall over values of a linear classifier, each image predicted by one that has not seen it."""
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", C=1.0))
    guess = cross_val_predict(model, features, labels, cv=4)
    return float(np.mean([(guess[labels == v] == v).mean() for v in np.unique(labels)]))


@pytest.mark.parametrize("condition", range(K), ids=GARMENTS.names)
def test_nuisances_do_not_tell_the_value(garments, labels, condition):
    """Within 7 points of chance; three standard errors are 3 to 6 points at this many images."""
    seen = np.flatnonzero(labels[:, condition] > 0)
    colour = np.stack([garments[i].image.mean((0, 1)) for i in seen])
    names = sorted({garment.framing.name for garment in garments})
    place = np.array(
        [
            [f.cx, f.cy, f.scale, f.cx**2, f.cy**2, f.scale**2, *(f.name == name for name in names)]
            for f in (garments[i].framing for i in seen)
        ]
    )
    chance = 1 / (GARMENTS.sizes[condition] - 1)
    assert balanced_accuracy(colour, labels[seen, condition]) < chance + 0.07
    assert balanced_accuracy(place, labels[seen, condition]) < chance + 0.07


def test_the_nuisance_test_can_fail(garments):
    """The same classifier does see what is there: how bright a picture is, from its mean colour."""
    colour = np.stack([garment.image.mean((0, 1)) for garment in garments[:600]])
    assert balanced_accuracy(colour, (colour[:, 1] > np.median(colour[:, 1])).astype(int)) > 0.9


def test_an_example_shows_its_value():
    for condition, values in enumerate(GARMENTS.values):
        for label in range(len(values)):
            garment = draw_value(condition, label, 3, 32)
            assert garment.labels[condition] == label
            assert any(c == condition for c, *_ in garment.regions) == (label > 0)


def test_values_look_different():
    """A linear classifier on the edges in the region tells collars apart well above chance (0.25)."""
    crops, names = [], []
    for label in range(1, 5):
        for seed in range(40):
            garment = draw_value(4, label, 100 + seed, 96)
            x0, y0, x1, y1 = (
                int(v * 96) for v in garment.regions[[r[0] for r in garment.regions].index(4)][1:]
            )
            grey = cv2.cvtColor(garment.image[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY)
            edges = cv2.Canny(cv2.resize(grey, (48, 48)), 40, 120)
            crops.append(cv2.resize(edges, (12, 12), interpolation=cv2.INTER_AREA).ravel() / 255)
            names.append(label)
    assert balanced_accuracy(np.array(crops), np.array(names)) > 0.6


def test_contact_sheet_holds_all_values():
    sheet = contact_sheet(32)
    assert sheet.dtype == np.uint8 and sheet.shape[1] >= 10 * 32 and sheet.shape[0] >= 8 * 32
    assert np.array_equal(sheet, contact_sheet(32)) and not np.array_equal(sheet, contact_sheet(32, seed=1))


def test_written_data_come_back(tmp_path):
    root = tmp_path / "garments"
    write_garments(root, 30, 10, 20, size=32, seed=4, workers=2, progress=False)
    data = read_dataset(root, check_images=True)
    assert [len(data[name].filenames) for name in ("train", "valid", "test")] == [30, 10, 20]
    assert data.attributes == GARMENTS and data.about["size"] == 32 and data.about["version"] == VERSION
    test = data["test"]
    asked, ranked = set(test.queries[:, 0]), set(test.candidates[:, 0])
    assert len(asked) == 4 and asked | ranked == set(range(20)) and not asked & ranked
    image = cv2.imread(str(test.path(7)))[..., ::-1]
    drawn = draw_garment(write.seed_of("test", 7, 4), 32)
    assert np.array_equal(image, drawn.image) and np.array_equal(test.label_matrix()[7], drawn.labels)
    assert [tuple(row[1:]) for row in test.regions if row[0] == 7] == list(drawn.regions)
    assert np.array_equal(redraw(data.about, "test", 7, 32), drawn.image)
    assert np.array_equal(
        redraw(data.about, "test", 7, 64), draw_garment(write.seed_of("test", 7, 4), 64).image
    )
    with pytest.raises(ValueError, match="version"):
        redraw({**data.about, "version": 0}, "test", 7, 32)


def test_several_processes_draw_the_same(tmp_path):
    """Also after OpenCV has started threads of its own in this process."""
    cv2.setNumThreads(2)
    draw_garment(0, 256)
    for workers in (1, 2):
        write_garments(tmp_path / str(workers), 150, 5, 5, size=16, workers=workers, progress=False)
    paths = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(paths) > 160
    for path in paths:
        assert (tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes()
    assert cv2.getNumThreads() == 2


def test_one_label_an_image(tmp_path):
    write_garments(tmp_path / "one", 200, 5, 5, size=16, labels="one", workers=1, progress=False)
    train = read_dataset(tmp_path / "one", ["train"])["train"]
    matrix = train.label_matrix()
    assert ((matrix >= 0).sum(1) == 1).all()
    assert (matrix >= 0).any(0).all()
    for image, condition, *_ in train.regions:
        assert matrix[int(image), int(condition)] > 0


def test_rare_labels(tmp_path):
    """The pictures of "all"; in train, sleeve length as it is, the others on their share of the images."""
    for labels in ("all", "rare"):
        write_garments(tmp_path / labels, 150, 30, 40, size=16, labels=labels, progress=False)
    full, rare = (read_dataset(tmp_path / labels) for labels in ("all", "rare"))
    assert rare.name == "garments_rare"
    for name in ("valid", "test"):
        assert np.array_equal(rare[name].labels, full[name].labels)
        assert np.array_equal(rare[name].regions, full[name].regions)
    before, after = full["train"].label_matrix(), rare["train"].label_matrix()
    assert np.array_equal(after[:, SLEEVE], before[:, SLEEVE])
    shares = {0: 0.24, 2: 0.20, 3: 0.10, 4: 0.05, 5: 0.04, 6: 0.03, 7: 0.02}
    for condition, share in shares.items():
        kept = after[:, condition] >= 0
        assert kept.sum() == round(150 * share)
        assert np.array_equal(after[kept, condition], before[kept, condition])
    for image, condition, *_ in rare["train"].regions:
        assert after[int(image), int(condition)] > 0
    image = full["train"].path(3).read_bytes()
    assert rare["train"].path(3).read_bytes() == image


def test_triplets_of_test_are_drawn_also_for_data_that_were_there(tmp_path):
    write_garments(tmp_path / "set", 4, 4, 60, size=16, workers=1, progress=False)
    file = tmp_path / "set/triplets_test.txt"
    before, test = file.read_bytes(), read_dataset(tmp_path / "set")["test"]
    file.unlink()
    write_garments(tmp_path / "set", 4, 4, 60, size=16, workers=1, progress=False)
    assert file.read_bytes() == before
    triplets, labels = split_triplets(test), test.label_matrix()
    assert set(np.bincount(triplets[:, 3], minlength=K)) <= {0, 10_000} and len(triplets) >= 60_000
    anchor, positive, negative, condition = triplets.T
    values = [labels[image, condition] for image in (anchor, positive, negative)]
    assert (values[0] == values[1]).all() and (values[0] != values[2]).all()
    assert (anchor != positive).all() and (np.stack(values) >= 0).all()


def test_data_of_the_same_facts_are_kept(tmp_path, monkeypatch):
    write_garments(tmp_path / "set", 3, 5, 5, size=16, workers=1, progress=False)
    monkeypatch.setattr(write, "_draw_one", lambda *_, **__: pytest.fail("drawn again"))
    write_garments(tmp_path / "set", 3, 5, 5, size=16, workers=1, progress=False)
    with pytest.raises(DataError, match="another folder"):
        write_garments(tmp_path / "set", 3, 5, 5, size=16, seed=1, workers=1, progress=False)


def test_foreign_files_are_not_touched(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match="holds files, and not drawn data"):
        write_garments(tmp_path, 3, 5, 5, size=16, workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    original, done = write._draw_one, []

    def interrupted(job, **facts):
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(job)
        return original(job, **facts)

    monkeypatch.setattr(write, "_draw_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_garments(tmp_path / "set", 10, 5, 5, size=16, workers=1, progress=False)
    assert len(done) == 6 and not list(tmp_path.iterdir())


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one of .'all', 'one', 'rare'."):
        write_garments(tmp_path / "set", 3, 5, 5, labels="some")
    with pytest.raises(ValueError, match="a query and a candidate"):
        write_garments(tmp_path / "set", 3, 1, 5)
