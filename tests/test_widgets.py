"""The condition switcher without a browser: what its controls do to its picture, and what it costs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ccakit import attention
from ccakit.attributes import Attributes
from ccakit.widgets import ConditionSwitcher

FOUR = Attributes.numbered({"sleeve_length": 3, "tone": 4, "neck": 2, "coat": 2})


class FakeModel(torch.nn.Module):
    """A model whose maps depend on image, condition and head; counts its calls."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(4, 2, 7, 7))
        self.encoded, self.attended, self.trouble = 0, [], None

    def encode(self, images):
        self.encoded += 1
        assert images.shape == (1, 3, 14, 14) and not torch.is_grad_enabled()
        return torch.nn.functional.avg_pool2d(images, 2).mean(1)  # (1, 7, 7)

    def attention(self, tokens, condition):
        if self.trouble:
            raise self.trouble
        self.attended.append(condition.tolist())
        return self.weight[condition] + tokens[:, None]


@pytest.fixture
def switcher():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (56, 42, 3), np.uint8) for _ in range(4)]
    def transform(image):
        return torch.from_numpy(cv2.resize(image, (14, 14)).astype(np.float32) / 255).permute(2, 0, 1)
    regions = np.array([(10, 3, 0.1, 0.1, 0.5, 0.6), (11, 0, 0.2, 0.2, 0.9, 0.9)])
    return ConditionSwitcher(FakeModel(), images, transform, FOUR, regions, image_ids=[10, 11, 12, 13], keep=2)


def pixels(png):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_the_first_picture_is_there_at_once(switcher):
    assert switcher.picture.value == switcher.render(0, 0) and switcher.message.value == ""
    assert switcher.condition.options[0] == ("sleeve length", 0)
    assert pixels(switcher.picture.value).shape == (56, 42, 3)


def test_render_is_what_the_static_grid_draws(switcher):
    tokens = torch.nn.functional.avg_pool2d(switcher.transform(switcher.images[0])[None], 2).mean(1)
    for condition, head in ((3, None), (3, 1), (1, 0)):
        maps = (switcher.model.weight[condition] + tokens[0]).detach().numpy()
        heat = attention.heatmap(maps.mean(0) if head is None else maps[head], (56, 42))
        expected = attention.overlay(switcher.images[0], heat, 0.5)
        if condition == 3:  # the only one of image 10 with a region
            expected = attention.outline(expected, [[0.1, 0.1, 0.5, 0.6]])
        np.testing.assert_array_equal(pixels(switcher.render(0, condition, head, 0.5)), expected)


def test_the_heat_lies_where_the_transform_crops(switcher):
    class Cropping:
        def __call__(self, image, inner=switcher.transform):
            return inner(image)

        def view(self, height, width):
            return 0.0, 0.25, 1.0, 0.75
    cropped = ConditionSwitcher(FakeModel(), switcher.images, Cropping(), FOUR)
    drawn = pixels(cropped.render(0, 1, opacity=1))
    np.testing.assert_array_equal(drawn[:14], switcher.images[0][:14])
    assert (drawn[14:42] != switcher.images[0][14:42]).any()


def test_switching_the_condition_changes_the_picture_and_encodes_nothing(switcher):
    seen = {switcher.picture.value}
    for condition in (3, 1, 2):
        switcher.model.attended.clear()
        switcher.condition.value = condition
        assert switcher.model.attended == [[condition]]
        assert switcher.picture.value == switcher.render(0, condition)
        seen.add(switcher.picture.value)
    assert len(seen) == 4 and switcher.model.encoded == 1


def test_head_opacity_and_image_change_the_picture(switcher):
    assert [value for _, value in switcher.head.options] == [None, 0, 1]
    for name, value, expected in (("head", 1, (0, 0, 1, 0.8)), ("opacity", 0.3, (0, 0, 1, 0.3)),
                                  ("image", 2, (2, 0, 1, 0.3)), ("opacity", 0.0, (2, 0, 1, 0.0))):
        before = switcher.picture.value
        getattr(switcher, name).value = value
        assert switcher.picture.value != before and switcher.picture.value == switcher.render(*expected)
    np.testing.assert_array_equal(pixels(switcher.picture.value), switcher.images[2])  # opacity 0, no region


def test_the_tokens_of_the_last_pictures_are_kept(switcher):
    for image in (1, 0, 1, 0):
        switcher.image.value = image
    assert switcher.model.encoded == 2
    switcher.image.value = 2  # the third: the least recently seen, picture 1, goes
    switcher.image.value = 0
    assert switcher.model.encoded == 3
    switcher.image.value = 1
    assert switcher.model.encoded == 4 and len(switcher._tokens) == 2


def test_an_error_is_shown_in_place_and_goes_when_it_is_over(switcher):
    switcher.model.trouble = RuntimeError("no <map> today")
    before = switcher.picture.value
    switcher.condition.value = 2
    assert "RuntimeError: no &lt;map&gt; today" in switcher.message.value and switcher.picture.value == before
    switcher.model.trouble = None
    switcher.condition.value = 1
    assert switcher.message.value == "" and switcher.picture.value == switcher.render(0, 1)


def test_an_error_at_the_start_is_shown_and_heads_are_offered_later(switcher):
    model = FakeModel()
    model.trouble = NotImplementedError("Triplet does not attend")
    late = ConditionSwitcher(model, switcher.images, switcher.transform, FOUR)
    assert "does not attend" in late.message.value and late.picture.value == b""
    model.trouble = None
    late.condition.value = 1
    assert late.message.value == "" and len(late.head.options) == 3
