"""Our outputs against recorded figures of the authors' code, and ASEN++'s crop against its rule."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest
import torch
from places import ROOT
from systems import close, pillow_crop, plain_box, plain_crop
from torch.nn import functional as F

from ccakit.models.crops import attended_boxes, crop_squares


@pytest.fixture(scope="module")
def authors():
    spec = importlib.util.spec_from_file_location("authors_code", ROOT / "benchmarks" / "authors_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def maps(authors):
    """What the CNNs make of the pictures."""
    steps = {"resnet50": 1, "resnet18": 2}
    with torch.no_grad():
        return {
            name: authors.cnn(name, authors.images(step))(authors.images(step))
            for name, step in steps.items()
        }


@torch.no_grad()
def from_maps(authors, name):
    """What `their_outputs` compares with their code, of ours, from feature maps: name -> output."""
    x, local, condition = authors.inputs()
    model = authors.ours(name)
    if name.startswith("csn"):
        begins = [] if name == "csn" else [f"{name}, masks", f"{name} (CSN's), masks"]
        return {name: model(x, condition), **{key: authors.begun(name) for key in begins}}
    where = {f"{name}, map": model.attention(x, condition)[:, 0]}
    if name != "asen-pp":
        return {name: model(x, condition), **where}
    return {
        "asen-pp, both branches": authors.branches(model, x, local, condition),
        **where,
        "asen-pp, crop (pixels of 224)": 224 * attended_boxes(authors.peaked(), 224),
    }


@torch.no_grad()
def from_pictures(authors, name, maps):
    """The same from pictures: from what the CNNs make of them."""
    x, condition, model = maps["resnet50"], authors.inputs()[-1], authors.ours(name)
    if name.startswith("csn"):
        original = authors.ours(name, authors.given_map(256, 112), embed_dim=64)
        return {
            f"{name} from pictures": model(x, condition),
            **authors.csn_outputs(name, original, maps["resnet18"]),
        }
    if name == "asen-pp":
        whole, _ = authors.looking(model, x).attend(x, model.condition(condition)[:, None])
        found = {"asen-pp from pictures, global": 0.6**0.5 * model.head(whole)[:, 0]}
    else:
        found = {f"{name} from pictures": model(x, condition)}
    return {**found, f"{name} from pictures, map": model.attention(x, condition)[:, 0]}


def hold(outputs, figures):
    """Our outputs are the recorded ones, each of them."""
    assert set(outputs) == set(figures)
    for key, output in outputs.items():
        first = output.flatten()[:: max(1, output.numel() // 16)][:16]
        theirs, norm = torch.tensor(figures[key]["first"]), figures[key]["norm"]
        assert len(first) == len(theirs) and theirs.abs().max() > 1e-3
        if "crop" in key:  # an enlarged map may fall on either side of the threshold at one pixel
            close(first, theirs, atol=1.0)
            assert float(output.norm()) == pytest.approx(norm, rel=1e-2)
            continue
        close(first, theirs, atol=1e-5, rtol=1e-5)
        assert float(output.detach().norm()) == pytest.approx(norm, rel=1e-5)


def recorded(name, pictures):
    """Their figures of one system, from pictures or not."""
    figures = json.loads((ROOT / "tests/support/authors_figures.json").read_text())
    return {
        key: value
        for key, value in figures.items()
        if re.match(rf"{name}( |,|$)", key) and ("from pictures" in key) == pictures
    }


NAMES = ["csn", "csn-preset", "csn-fixed", "asen", "asen-v2", "asen-pp"]


@pytest.mark.parametrize("name", NAMES)
def test_our_outputs_are_the_authors_codes(authors, name):
    hold(from_maps(authors, name), recorded(name, pictures=False))


@pytest.mark.parametrize("name", NAMES)
def test_our_outputs_from_pictures_are_the_authors_codes(authors, name, maps):
    hold(from_pictures(authors, name, maps), recorded(name, pictures=True))


def test_all_of_the_authors_figures_are_compared(authors):
    figures = json.loads((ROOT / "tests/support/authors_figures.json").read_text())
    assert (
        sum(len(recorded(name, pictures)) for name in NAMES for pictures in (False, True))
        == len(figures)
        == 29
    )


def test_pre_set_masks_meet_the_authors_code_as_they_begin(authors):
    for name, elsewhere in (("csn-preset", 0.1), ("csn-fixed", 0.0)):
        table = authors.ours(name).mask.table
        for condition, row in enumerate(table):
            part = row[128 * condition : 128 * (condition + 1)]
            assert (part == 1).all() and float(row.detach().sum()) == pytest.approx(128 + 896 * elsewhere)


def test_the_crop_is_the_bounding_square_of_the_attended_places(authors):
    maps = authors.peaked()
    boxes = attended_boxes(maps, 224) * 224
    expected = torch.tensor([plain_box(m.numpy(), 224) for m in maps], dtype=torch.float32)
    close(boxes, expected, atol=1.0)
    assert ((boxes - expected).abs() < 1e-3).float().mean() > 0.95  # nearly all to the pixel
    assert (boxes >= 0).all() and (
        boxes[:, :2] + boxes[:, 2:] <= 224 + 1
    ).all()  # inside, but for an odd side
    assert (boxes[:, 2] < 200).any() and (boxes[:, 2] > 100).any()
    close(attended_boxes(maps[:6].view(2, 3, 14, 14), 224).view(6, 3) * 224, boxes[:6])
    close(attended_boxes(torch.ones(1, 14, 14), 224), torch.tensor([[0.0, 0.0, 1.0]]))  # nowhere: everything


def test_a_pictures_square_is_resized_as_pillow_does():
    picture = torch.randn(3, 64, 64)
    for left, top, d in ((0, 0, 64), (8, 16, 32), (31, 2, 33), (20, 40, 7), (63, 63, 1), (0, 1, 63)):
        boxes = torch.tensor([[left, top, d]]) / 64
        for side in (16, 32, 48):
            close(
                crop_squares(picture[None], boxes, side, antialias=True)[0],
                pillow_crop(picture, left, top, d, side),
                atol=5e-5,
            )


def test_without_antialias_the_square_is_sampled():
    picture = torch.randn(2, 3, 64, 64)
    whole = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, -1)
    unchanged = crop_squares(picture, whole, 64, antialias=False)
    close(unchanged, picture, atol=5e-5)  # places in 64 pixels, in float32
    close(crop_squares(picture, whole, 32, antialias=False), F.interpolate(picture, 32, mode="bilinear"))
    boxes = torch.tensor([[8, 16, 32], [32, 0, 16]]) / 64  # x, y, side
    found = crop_squares(picture, boxes, 16, antialias=False)
    close(found[0], F.interpolate(picture[:1, :, 16:48, 8:40], 16, mode="bilinear")[0])
    close(found[1], picture[1, :, 0:16, 32:48])
    larger = crop_squares(picture, boxes, 64, antialias=False)[0]
    inside = F.interpolate(picture[:1, :, 16:48, 8:40], 64, mode="bilinear")[0]
    close(larger[:, 1:-1, 1:-1], inside[:, 1:-1, 1:-1])  # at its border, the square's neighbours are seen
    shifted = torch.tensor([[5.3, 1.7, 20.9], [0.0, 40.0, 24.0]]) / 64
    found = crop_squares(picture, shifted, 8, antialias=False)
    close(found, torch.stack([plain_crop(p, *map(float, box), 8) for p, box in zip(picture, shifted)]))
