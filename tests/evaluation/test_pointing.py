"""Heatmaps against torch's interpolation; pointing scores against plain loops and constructed cases."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from ccakit.attributes import Attributes
from ccakit.evaluation import pointing
from ccakit.show.heat import heatmap, outline, overlay, view_of

TWO = Attributes.numbered({"sleeve": 3, "tone": 4})


def bump(x, y, h=14, w=14, width=0.08):
    """A map with one round hill at (x, y)."""
    gx, gy = (np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h
    return np.exp(-((gx - x) ** 2 + (gy[:, None] - y) ** 2) / (2 * width**2)).astype(np.float32)


def rows(pairs, value=0):
    return np.array([(*pair, value) for pair in pairs])


def test_doctests():
    result = doctest.testmod(pointing)
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize("size", [(56, 40), (224, 223), (9, 5), (7, 5)])
def test_upsample_is_torch_bicubic(size):
    maps = torch.rand(3, 7, 5)
    expected = torch.nn.functional.interpolate(maps[None], size=size, mode="bicubic")[0]
    for each, wanted in zip(maps.numpy(), expected.numpy()):
        np.testing.assert_allclose(pointing.upsample(each, size), wanted, atol=2e-6)


def test_heatmap_is_the_mean_over_heads_or_one_head_scaled():
    maps = torch.rand(4, 7, 7, requires_grad=True)
    for head, chosen in ((None, maps.mean(0)), (2, maps[2])):
        expected = torch.nn.functional.interpolate(chosen[None, None], size=(30, 20), mode="bicubic")[0, 0]
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        heat = heatmap(maps, (30, 20), head)
        assert heat.dtype == np.float32 and heat.shape == (30, 20) and heat.min() == 0 and heat.max() == 1
        np.testing.assert_allclose(heat, expected.detach().numpy(), atol=1e-5)
    single = maps.detach().numpy()[0]
    np.testing.assert_array_equal(heatmap(single, (8, 8)), heatmap(maps, (8, 8), 0))


def test_heatmap_of_a_flat_map_is_zero_and_wrong_input_is_refused():
    assert not heatmap(np.full((2, 7, 7), 1 / 50), (31, 33)).any()
    for maps, head, message in (
        (np.ones((1, 2, 7, 7)), None, "not .1, 2, 7, 7"),
        (np.ones((2, 7, 7)), 2, "no head 2: there are 2"),
    ):
        with pytest.raises(ValueError, match=message):
            heatmap(maps, (8, 8), head)


def test_overlay_blends_picture_and_heat():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    heat = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    np.testing.assert_array_equal(overlay(image, heat, 0), image)
    drawn = overlay(image, heat, 0.7)
    assert drawn.dtype == np.uint8
    for y, x in np.ndindex(6, 8):
        color = 255 * np.array(colormaps["inferno"](float(heat[y, x]))[:3])
        expected = image[y, x] + 0.7 * heat[y, x] * (color - image[y, x])
        assert np.abs(drawn[y, x] - expected).max() < 3  # 256 colours, rounded
    with pytest.raises(ValueError, match="do not match"):
        overlay(image, heat.T)


def test_outline_draws_the_border_of_the_union():
    image = np.zeros((20, 20, 3), np.uint8)
    boxes = [[0.1, 0.1, 0.6, 0.5], [0.4, 0.3, 0.9, 0.9]]
    drawn = outline(image, boxes, (255, 0, 0), width=1)[..., 0] == 255
    mask = pointing.region_mask(boxes, (20, 20))
    for y in range(20):
        for x in range(20):
            around = [
                mask[j, i] if 0 <= i < 20 and 0 <= j < 20 else False
                for i, j in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))
            ]
            assert drawn[y, x] == (mask[y, x] and not all(around))
            px, py = (x + 0.5) / 20, (y + 0.5) / 20
            assert mask[y, x] == any(x0 <= px <= x1 and y0 <= py <= y1 for x0, y0, x1, y1 in boxes)
    assert not image.any()


def test_region_area_is_that_of_a_fine_mask():
    rng = np.random.default_rng(1)
    for _ in range(10):
        boxes = np.sort(rng.random((3, 2, 2)), axis=1).reshape(3, 4)  # x0 < x1, y0 < y1
        covered = pointing.region_mask(boxes, (800, 800)).mean()
        assert pointing.region_area(boxes) == pytest.approx(covered, abs=4e-3)
    assert pointing.region_area(np.empty((0, 4))) == 0


def test_peak_lies_between_patches_where_the_hill_is():
    rng = np.random.default_rng(2)
    for x, y in rng.uniform(0.1, 0.9, (20, 2)):
        px, py = pointing.peak(np.stack([bump(x, y, 14, 10), bump(x, y, 14, 10)]))
        assert abs(px - x) < 0.25 / 10 and abs(py - y) < 0.25 / 14  # a quarter of a patch
    assert pointing.peaks(rng.random((5, 3, 7, 7))).shape == (5, 3, 2)
    assert pointing.peaks(np.empty((0, 3, 7, 7))).shape == (0, 3, 2)


def test_peaks_are_the_maxima_of_torchs_upsampling():
    maps = torch.rand(4, 6, 5)
    fine = torch.nn.functional.interpolate(maps[None], scale_factor=8, mode="bicubic")[0].flatten(1).argmax(1)
    expected = torch.stack([(fine % 40 + 0.5) / 40, (fine // 40 + 0.5) / 48], 1)
    np.testing.assert_allclose(pointing.peaks(maps), expected.numpy(), atol=1e-6)


def loop_scores(maps, regions, labels, conditions):
    """Every score, pair by pair."""

    def inside(place, image, condition):
        return any(
            x0 <= place[0] <= x1 and y0 <= place[1] <= y1
            for i, c, x0, y0, x1, y1 in regions
            if (i, c) == (image, condition)
        )

    scores = []
    for image in range(len(maps)):
        for condition in range(conditions):
            own = regions[(regions[:, 0] == image) & (regions[:, 1] == condition)]
            if len(own) and ((labels[:, 0] == image) & (labels[:, 1] == condition)).any():
                others = [
                    inside(pointing.peak(maps[image, c]), image, condition)
                    for c in range(conditions)
                    if c != condition
                ]
                scores.append(
                    (
                        inside(pointing.peak(maps[image, condition]), image, condition),
                        pointing.region_mask(own[:, 2:], (400, 400)).mean(),
                        np.mean(others),
                        inside(pointing.peak(maps[:, condition].mean(0)), image, condition),
                    )
                )
    return np.array(scores, float)


def test_pointing_scores_equal_plain_loops():
    rng = np.random.default_rng(3)
    three = Attributes.numbered({"a": 2, "b": 2, "c": 2})
    maps = np.array([[bump(*rng.random(2)) for _ in range(3)] for _ in range(40)])
    boxes = np.sort(rng.random((100, 2, 2)), axis=1).reshape(100, 4)
    regions = np.column_stack([rng.integers(0, 40, 100), rng.integers(0, 3, 100), boxes])  # some pairs twice
    labels = np.array([(i, c, 0) for i in range(40) for c in range(3) if rng.random() < 0.8])
    result = pointing.pointing_scores(maps, regions, labels, three)
    expected = loop_scores(maps, regions, labels, 3)
    found = np.stack([result.game, result.chance, result.other, result.fixed], 1)
    np.testing.assert_allclose(found, expected, atol=6e-3)
    np.testing.assert_array_equal(found[:, [0, 3]], expected[:, [0, 3]])
    assert 0 < result.game.mean() < 1
    low, high = result.interval()
    assert low < result.means()["pointing_game"] < high
    one = result.means(1)
    assert one["pointing_other"] == pytest.approx(expected[result.conditions == 1, 2].mean())


def test_maps_that_peak_in_their_region_score_one_and_a_fixed_place_does_not():
    rng = np.random.default_rng(4)
    places = rng.uniform(0.1, 0.9, (60, 2, 2))
    maps = np.array([[bump(*place) for place in pair] for pair in places])
    corners = np.concatenate([places - 0.05, places + 0.05], axis=-1)
    regions = np.array([(i, c, *corners[i, c]) for i in range(60) for c in range(2)])
    means = pointing.pointing_scores(maps, regions, rows(regions[:, :2].astype(int)), TWO).means()
    assert means["pointing_game"] == 1 and means["pointing_chance"] == pytest.approx(0.01)
    assert means["pointing_other"] < 0.2 and means["pointing_fixed"] < 0.2
    swapped = pointing.pointing_scores(maps[:, ::-1], regions, rows(regions[:, :2].astype(int)), TWO)
    assert swapped.means()["pointing_other"] == 1  # the other condition's map points here


def test_one_map_for_every_condition_scores_as_the_others_do():
    rng = np.random.default_rng(5)
    maps = np.repeat(np.array([[bump(*rng.random(2))] for _ in range(50)]), 2, axis=1)
    regions = np.array([(i, c, 0.2, 0.2, 0.8, 0.6) for i in range(50) for c in range(2)])
    result = pointing.pointing_scores(maps, regions, rows(regions[:, :2].astype(int)), TWO)
    np.testing.assert_array_equal(result.game, result.other)
    assert 0 < result.game.mean() < 1


def test_maps_that_do_not_look_at_the_image_score_as_the_fixed_place():
    maps = np.repeat(np.array([[bump(0.3, 0.3), bump(0.7, 0.7)]]), 20, axis=0)
    rng = np.random.default_rng(6)
    regions = np.array([(i, c, 0, 0, *rng.uniform(0.2, 1, 2)) for i in range(20) for c in range(2)])
    result = pointing.pointing_scores(maps, regions, rows(regions[:, :2].astype(int)), TWO)
    np.testing.assert_array_equal(result.game, result.fixed)
    assert 0 < result.game.mean() < 1


def test_maps_of_a_choice_of_images():
    maps = np.array([[bump(0.2, 0.2), bump(0.8, 0.8)]] * 2)
    regions = np.array([(5, 0, 0, 0, 0.5, 0.5), (9, 1, 0, 0, 0.5, 0.5), (7, 1, 0, 0, 1, 1)])
    result = pointing.pointing_scores(maps, regions, rows([(5, 0), (7, 1), (9, 1)]), TWO, image_ids=[9, 5])
    assert result.images.tolist() == [5, 9]
    assert result.game.tolist() == [1, 0] and result.other.tolist() == [0, 1]


class Cropping:
    def view(self, height, width):
        return 0.1, 0.2, 0.6, 0.9


def test_a_map_of_a_crop_lies_where_the_crop_was():
    maps = torch.rand(2, 7, 7).numpy()
    view = view_of(Cropping(), (40, 50))
    heat = heatmap(maps, (40, 50), view=view)
    np.testing.assert_array_equal(heat[8:36, 5:30], heatmap(maps, (28, 25)))
    heat[8:36, 5:30] = 0
    assert not heat.any() and view_of(np.asarray, (40, 50)) == pointing.FULL_VIEW


def test_pointing_in_a_crop_equals_pointing_with_its_places_in_the_picture():
    rng = np.random.default_rng(7)
    maps = np.array([[bump(*rng.random(2)) for _ in range(2)] for _ in range(80)])
    boxes = np.sort(rng.random((160, 2, 2)), axis=1).reshape(160, 4)
    regions = np.column_stack([np.repeat(np.arange(80), 2), np.tile([0, 1], 80), boxes])
    low = rng.uniform(0, 0.3, (80, 2))
    views = np.concatenate([low, low + 0.6], axis=1)
    result = pointing.pointing_scores(maps, regions, rows(regions[:, :2].astype(int)), TWO, views=views)
    for i, (image, condition, *box) in enumerate(regions):
        x0, y0, x1, y1 = box
        x, y = views[int(image), :2] + 0.6 * np.array(pointing.peak(maps[int(image), int(condition)]))
        assert result.game[i] == (x0 <= x <= x1 and y0 <= y <= y1)
        left, top, right, bottom = views[int(image)]
        area = max(0, min(x1, right) - max(x0, left)) * max(0, min(y1, bottom) - max(y0, top))
        assert result.chance[i] == pytest.approx(area / 0.36)
    assert 0.1 < result.game.mean() < 0.5 and result.chance.min() == 0


def test_wrong_input_is_refused():
    maps, region = np.ones((2, 2, 7, 7)), np.array([(0, 0, 0, 0, 1, 1)])
    with pytest.raises(ValueError, match="no labelled"):
        pointing.pointing_scores(maps, region, rows([(1, 0)]), TWO)
    with pytest.raises(ValueError, match="2 images and 1 attributes"):
        pointing.pointing_scores(maps, region, rows([(0, 0)]), Attributes.numbered({"tone": 2}))
    single = pointing.pointing_scores(maps[:, :1], region, rows([(0, 0)]), Attributes.numbered({"tone": 2}))
    assert np.isnan(single.other).all() and np.isnan(single.means()["pointing_other"])
