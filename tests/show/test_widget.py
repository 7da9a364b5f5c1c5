"""The condition switcher without a browser: what its controls do to its picture, and what it costs."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from ccakit.attributes import Attributes
from ccakit.data.drawn import redraw, write_garments
from ccakit.data.inputs import ImageInputs
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.errors import DataError
from ccakit.evaluation.embedding import embed_images
from ccakit.evaluation.run import Run
from ccakit.models.registry import create_model, list_models
from ccakit.show.heat import heatmap, outline, overlay
from ccakit.show.switcher import SIDE, Candidates, SwitcherEngine, encode_png, read_upload
from ccakit.show.widget import ConditionSwitcher, show

FOUR = Attributes.numbered({"sleeve_length": 3, "tone": 4, "neck": 2, "coat": 2})
IDS = [10, 11, 12, 13]


class FakeModel(torch.nn.Module):
    """A model whose maps and embeddings depend on image, condition and head; counts its calls."""

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

    def embed(self, tokens, condition):
        return torch.nn.functional.normalize((self.weight[condition, 0] * tokens).flatten(1), dim=1)


def transform(image):
    return torch.from_numpy(cv2.resize(image, (14, 14)).astype(np.float32) / 255).permute(2, 0, 1)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (56, 42, 3), np.uint8) for _ in range(4)]


@pytest.fixture
def candidates():
    """30 candidates, of which rows 7 and 8 are the images 10 and 11."""
    rng = np.random.default_rng(1)
    embeddings = rng.random((30, 4, 49), np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return Candidates(
        embeddings, [rng.integers(0, 256, (30, 20, 3), np.uint8) for _ in range(30)], np.arange(3, 33)
    )


@pytest.fixture
def switcher(images, candidates):
    regions = np.array([(10, 3, 0.1, 0.1, 0.5, 0.6), (11, 0, 0.2, 0.2, 0.9, 0.9)])
    labels = np.random.default_rng(2).integers(-1, 2, (40, 4))
    labels[10] = (2, -1, 0, 1)
    return ConditionSwitcher(
        FakeModel(),
        images,
        transform,
        FOUR,
        regions,
        IDS,
        candidates=candidates,
        labels=labels,
        keep=2,
        max_bytes=100_000,
    )


def pixels(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def rendered(switcher, image, condition, *settings):
    return switcher.engine.render(switcher.engine.look(image, condition), *settings)


def upload(switcher, name, data):
    switcher.upload.value = (
        {
            "name": name,
            "type": "image/png",
            "size": len(data),
            "content": memoryview(data),
            "last_modified": datetime.now(),
        },
    )


def test_the_first_picture_is_there_at_once(switcher):
    assert switcher.picture.value == rendered(switcher, 0, 0) and switcher.message.value == ""
    assert switcher.condition.options[0] == ("1 · sleeve length", 0)
    assert pixels(switcher.picture.value).shape == (56, 42, 3)
    assert len(switcher.thumbs) == 4 and [image.value[:2] for image in switcher.near_pictures] == 5 * [
        b"\xff\xd8"
    ]


def test_what_is_drawn_is_the_heat_over_the_picture_and_the_region(switcher):
    tokens = torch.nn.functional.avg_pool2d(transform(switcher.engine.images[0])[None], 2).mean(1)
    switcher.engine.labels[10, 1] = 0  # without a label it would be faded
    for condition, head in ((3, None), (3, 1), (1, 0)):
        maps = (switcher.engine.model.weight[condition] + tokens[0]).detach().numpy()
        heat = heatmap(maps.mean(0) if head is None else maps[head], (56, 42))
        expected = overlay(switcher.engine.images[0], heat, 0.5)
        np.testing.assert_array_equal(pixels(rendered(switcher, 0, condition, head, 0.5, False)), expected)
        if condition == 3:  # the only one of image 10 with a region
            expected = outline(expected, [[0.1, 0.1, 0.5, 0.6]])
        np.testing.assert_array_equal(pixels(rendered(switcher, 0, condition, head, 0.5)), expected)


@pytest.mark.parametrize("head", [None, 1])
def test_the_static_grid_draws_the_same_pixels(switcher, head):
    assert switcher.engine.labels[10, 1] == -1  # so that one is faded, here as there
    figure = switcher.static([0, 2], head=head, opacity=0.6)
    for row, image in enumerate((0, 2)):
        axes = figure.axes[5 * row : 5 * row + 5]
        np.testing.assert_array_equal(axes[0].images[0].get_array(), switcher.engine.images[image])
        for condition, ax in enumerate(axes[1:]):
            expected = switcher.engine.draw(switcher.engine.look(image, condition), head, 0.6)
            np.testing.assert_array_equal(ax.images[0].get_array(), expected)


def test_what_has_no_label_is_faded_unless_it_is_not_known(switcher):
    def mean(condition):
        return switcher.engine.draw(switcher.engine.look(0, condition), outlined=False).astype(float)

    faded, switcher.engine.labels = mean(1), None
    np.testing.assert_allclose(faded, 0.3 * mean(1) + 0.7 * 255, atol=1)


def test_show_gives_the_grid_first_and_a_text_where_widgets_are_not_shown(switcher, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show(switcher)
    assert len(shown[0].axes) == 3 * 5 and shown[1] is switcher
    bundle = switcher._repr_mimebundle_()
    assert "run this cell" in bundle["text/plain"] and "application/vnd.jupyter.widget-view+json" in bundle


def test_the_heat_lies_where_the_transform_crops(images):
    class Cropping:
        def __call__(self, image):
            return transform(image)

        def view(self, height, width):
            return 0.0, 0.25, 1.0, 0.75

    engine = SwitcherEngine(FakeModel(), images, Cropping(), FOUR)
    drawn = engine.draw(engine.look(0, 1), opacity=1)
    np.testing.assert_array_equal(drawn[:14], images[0][:14])
    assert (drawn[14:42] != images[0][14:42]).any()


def test_a_large_picture_is_displayed_smaller_and_encoded_whole():
    seen, picture = [], np.zeros((3 * SIDE, SIDE, 3), np.uint8)

    def noting(image):
        seen.append(image.shape)
        return transform(image)

    engine = SwitcherEngine(FakeModel(), [picture], noting, FOUR)
    assert engine.draw(engine.look(0, 0)).shape == (SIDE, SIDE // 3, 3) and seen == [picture.shape]


def test_switching_the_condition_changes_the_picture_and_encodes_nothing(switcher):
    model, seen = switcher.engine.model, {switcher.picture.value}
    first = switcher.picture.value
    for condition in (3, 1, 2):
        model.attended.clear()
        switcher.condition.value = condition
        assert model.attended == [[condition]] and switcher.number.value == condition + 1
        assert switcher.picture.value == rendered(switcher, 0, condition)
        seen.add(switcher.picture.value)
    assert len(seen) == 4 and model.encoded == 1
    switcher.number.value = 1
    assert switcher.condition.value == 0 and switcher.picture.value == first


def test_head_opacity_outline_and_image_change_the_picture(switcher):
    model = switcher.engine.model
    assert list(switcher.head.options) == [("mean", "mean"), ("0", 0), ("1", 1)] and switcher.head.index == 0
    switcher.condition.value = 3
    model.attended.clear()
    for name, value, expected in (
        ("head", 1, (0, 3, 1)),
        ("opacity", 0.3, (0, 3, 1, 0.3)),
        ("outlined", False, (0, 3, 1, 0.3, False)),
    ):
        before = switcher.picture.value
        getattr(switcher, name).value = value
        assert switcher.picture.value != before and not model.attended  # drawn anew, not computed anew
        assert switcher.picture.value == rendered(switcher, *expected)
        model.attended.clear()
    switcher.thumbs[2].click()
    assert switcher.image == 2 and switcher.picture.value == rendered(switcher, 2, 3, 1, 0.3, False)
    switcher.opacity.value = 0
    np.testing.assert_array_equal(pixels(switcher.picture.value), switcher.engine.images[2])
    assert ["cca-chosen" in thumb._dom_classes for thumb in switcher.thumbs] == [False, False, True, False]


def test_the_last_pictures_are_kept(switcher):
    model = switcher.engine.model
    for image in (1, 0, 1, 0):
        switcher.image = image
    assert model.encoded == 2
    switcher.image = 2  # the third: the least recently seen, picture 1, goes
    switcher.image = 0
    assert model.encoded == 3
    switcher.image = 1
    assert model.encoded == 4 and switcher.engine.encoded.cache_info().currsize == 2


def test_neighbours_are_the_largest_cosines_in_the_space_without_the_picture_itself(switcher, candidates):
    engine = switcher.engine
    for image, condition in ((0, 0), (0, 2), (1, 3), (2, 2)):
        look = engine.look(image, condition)
        cosines = {
            row: float(candidates.embeddings[row, condition] @ look.embedding)
            for row in range(30)
            if candidates.ids[row] != IDS[image]
        }
        expected = sorted(cosines, key=lambda row: -cosines[row])[:5]
        assert [near.row for near in engine.nearest(look)] == expected
        assert [near.id for near in engine.nearest(look)] == [row + 3 for row in expected]
        np.testing.assert_allclose(
            [n.cosine for n in engine.nearest(look)], [cosines[r] for r in expected], rtol=1e-5
        )
        switcher.image, switcher.condition.value = image, condition
        assert [view.value for view in switcher.near_pictures] == [engine.thumbnail(row) for row in expected]


def test_few_equal_or_unreadable_candidates(images):
    rows = np.zeros((4, 4, 49), np.float32)
    rows[0], rows[1:] = np.nan, 1 / 7
    engine = SwitcherEngine(
        FakeModel(), images, transform, FOUR, candidates=Candidates(rows, images, [0, 7, 8, 9])
    )
    assert [near.row for near in engine.nearest(engine.look(0, 1))] == [
        1,
        2,
        3,
    ]  # in their order, without row 0
    assert [near.row for near in engine.nearest(engine.look(0, 1), 2)] == [1, 2]
    engine = SwitcherEngine(FakeModel(), images, transform, FOUR, candidates=Candidates(rows[:1], images[:1]))
    assert engine.nearest(engine.look(1, 1)) == []
    switcher = ConditionSwitcher(FakeModel(), images, transform, FOUR)
    assert switcher.engine.nearest(engine.look(1, 1)) == [] and switcher.near.layout.display == "none"


def test_labels_are_named_and_those_not_known_are_not(switcher):
    assert (
        f"sleeve length</b>: {FOUR.value(0, 2)}." in switcher.note.value and "Red" not in switcher.note.value
    )
    switcher.condition.value = 1
    assert switcher.note.value == "<b>tone</b>: no label."
    switcher.condition.value = 3
    assert "Red: its region" in switcher.note.value


def test_an_upload_is_shown_with_its_heat_and_neighbours(switcher):
    own = np.random.default_rng(5).integers(0, 256, (40, 40, 3), np.uint8)
    upload(switcher, "mine.png", encode_png(own))
    assert switcher.image == 4 and len(switcher.thumbs) == 5 and switcher.message.value == ""
    assert switcher.thumbs[4] in switcher.gallery.children and switcher.upload.value == ()
    assert switcher.picture.value == rendered(switcher, 4, 0) and "neck" not in switcher.note.value
    look = switcher.engine.look(4, 0)
    cosines = switcher.engine.candidates.embeddings[:, 0] @ look.embedding
    assert [near.row for near in switcher.engine.nearest(look)] == np.argsort(-cosines)[:5].tolist()
    assert len(switcher.static().axes) == 5
    encoded = switcher.engine.model.encoded
    upload(switcher, "other.png", encode_png(255 - own))  # takes the first one's place
    assert switcher.image == 4 and len(switcher.thumbs) == 5 and switcher.engine.model.encoded == encoded + 1
    switcher.opacity.value = 0
    np.testing.assert_array_equal(pixels(switcher.picture.value), 255 - own)


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("<b>.png", b"this is not a picture", "&lt;b&gt;.png: is broken, or no image"),
        ("empty.png", b"", "empty.png: is empty"),
        ("large.png", bytes(100_001), "large.png: has 0.1 MiB, more than the limit"),
        ("cut.png", encode_png(np.zeros((60, 60, 3), np.uint8))[:70], "cut.png: is broken, or no image"),
    ],
)
def test_a_file_that_cannot_be_shown_is_said_in_place(switcher, name, data, reason):
    before = switcher.picture.value
    upload(switcher, name, data)
    assert reason in switcher.message.value and switcher.picture.value == before
    assert len(switcher.engine.images) == 4 and switcher.image == 0 and switcher.upload.value == ()
    switcher.condition.value = 1
    assert switcher.message.value == ""


def test_a_picture_of_too_many_pixels_or_too_narrow_is_refused(images, switcher):
    with pytest.raises(DataError, match=r"mine.png: has 20 x 10 pixels, more than the limit of 199"):
        read_upload("mine.png", encode_png(np.zeros((10, 20, 3), np.uint8)), max_pixels=199)

    def refusing(image):
        raise ValueError("is too narrow")

    switcher.engine.transform = refusing
    upload(switcher, "mine.png", encode_png(images[0]))
    assert "mine.png: is too narrow" in switcher.message.value and len(switcher.engine.images) == 4


def test_an_error_is_shown_in_place_and_goes_when_it_is_over(switcher):
    switcher.engine.model.trouble = RuntimeError("no <map> today")
    before = switcher.picture.value
    switcher.condition.value = 2
    assert "RuntimeError: no &lt;map&gt; today" in switcher.message.value and switcher.picture.value == before
    switcher.engine.model.trouble = None
    switcher.condition.value = 1
    assert switcher.message.value == "" and switcher.picture.value == rendered(switcher, 0, 1)


def test_a_system_that_does_not_attend_says_so_and_has_neighbours(images, candidates):
    model = FakeModel()
    model.trouble = NotImplementedError("does not attend")
    blind = ConditionSwitcher(model, images, transform, FOUR, image_ids=IDS, candidates=candidates)
    assert "No heatmap: FakeModel does not attend." in blind.note.value and blind.message.value == ""
    np.testing.assert_array_equal(pixels(blind.picture.value), images[0])
    near = [view.value for view in blind.near_pictures]
    blind.condition.value = 2
    assert [view.value for view in blind.near_pictures] != near and blind.head_row.layout.display == "none"
    pictures = [ax.images[0].get_array() for ax in blind.static().axes if ax.images]
    assert len(pictures) == 1 + 3 * 4
    best = blind.engine.nearest(blind.engine.look(0, 0))[0].row
    assert any(np.array_equal(picture, candidates.picture(best)) for picture in pictures)


def test_a_run_gives_gallery_candidates_regions_and_labels(tmp_path):
    write_garments(tmp_path, 1, 2, 12, size=64, workers=1, progress=False)
    dataset = read_dataset(tmp_path, splits=("test",))
    model = create_model("cca-type2", conditions=8, trunk="lite", pretrained=False, image_size=64)
    transform = ImageTransform(tuple(model.trunk.image_size))
    saved = SimpleNamespace(model=model.eval(), attributes=dataset.attributes, transform=transform)
    run = Run(tmp_path, saved, dataset, ImageInputs(dataset["test"], transform))
    switcher = ConditionSwitcher.of_run(run, [3, 5], width=300)
    assert switcher.engine.image_ids == [3, 5] and switcher.picture.layout.width == "300px"
    embeddings = embed_images(model, run.inputs)
    np.testing.assert_array_equal(switcher.engine.candidates.embeddings, embeddings)
    for image, shown in zip((3, 5), switcher.engine.images):
        np.testing.assert_array_equal(shown, run.picture(image))
    np.testing.assert_array_equal(switcher.engine.labels, run.split.label_matrix())
    assert 3 not in [near.id for near in switcher.engine.nearest(switcher.engine.look(0, 0), 11)]

    names = dataset["test"].filenames  # read when they are used
    names[8], names[9], names[10] = f"./{names[3]}", names[10], names[9]
    listed_twice = ConditionSwitcher.of_run(run, [8, 9])
    near = listed_twice.engine.nearest(listed_twice.engine.look(0, 0), 12)
    assert len(near) == 10 and not {3, 8} & {each.row for each in near}
    assert listed_twice.engine.image_ids == [3, 9]
    for image, shown in zip((3, 10), listed_twice.engine.images):  # garments are drawn again by name
        np.testing.assert_array_equal(shown, redraw(dataset.about, "test", image, 256))


def test_wrong_arguments_are_refused(images, candidates):
    for wrong in (
        dict(image_ids=[1]),
        dict(candidates=Candidates(np.zeros((2, 5, 3)), images)),
        dict(images=[]),
    ):
        with pytest.raises(ValueError):
            SwitcherEngine(
                **{**dict(model=FakeModel(), images=images, transform=transform, attributes=FOUR), **wrong}
            )
    with pytest.raises(ValueError, match="not .n, K, E."):
        Candidates(np.zeros((2, 5)), images)
    with pytest.raises(ValueError, match="ids"):
        Candidates(np.zeros((2, 5, 3)), images, [1])


EACH = [pytest.param(info, dict(head="each"), id=f"{info.name}-each") for info in list_models()[-1:]]


@pytest.mark.parametrize(
    "info,options", [*(pytest.param(info, {}, id=info.name) for info in list_models()), *EACH]
)
def test_every_system_is_looked_at_as_itself(info, options, images):
    """Maps and embeddings are those of the model's own methods; of CCA, tokens are not kept but K and V."""
    given = {"values": (2, 3, 2)} if info.system.classifies else {}
    model = create_model(info.name, conditions=3, pretrained=False, **given, **options).eval()
    to_model = ImageTransform(size=tuple(model.trunk.image_size))
    engine = SwitcherEngine(model, images, to_model, Attributes.numbered({"a": 2, "b": 3, "c": 2}))
    with torch.inference_mode():
        tokens = model.encode(to_model(images[1])[None])
        for condition in range(3):
            chosen, look = torch.tensor([condition]), engine.look(1, condition)
            torch.testing.assert_close(torch.from_numpy(look.embedding), model.embed(tokens, chosen)[0])
            try:
                maps = model.attention(tokens, chosen)[0]
            except NotImplementedError:
                assert look.maps is None
            else:
                torch.testing.assert_close(torch.from_numpy(look.maps), maps)
    if info.name.startswith("cca"):
        kept = engine.encoded(1)
        assert kept.tokens.shape[1] == 1 and len(kept.keys_values) == 2
