"""Our outputs against recorded figures of the authors' code, and ASEN++'s crop against its rule."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from conftest import ROOT
from systems import close, plain_box, plain_crop
from torch.nn import functional as F

from ccakit.models.asen_pp import attended_boxes, cut_out


@pytest.fixture(scope="module")
def authors():
    spec = importlib.util.spec_from_file_location("authors_code", ROOT / "benchmarks" / "authors_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def our_outputs(authors, name):
    """What `their_outputs` compares with their code, of ours: name -> output."""
    x, local, condition = authors.inputs()
    if name.startswith("csn"):
        model = authors.ours("csn", mask=name.removeprefix("csn-"))
        masked, general, table = model.masked(x, condition[:, None])
        return {f"{name} (ASEN's)": model.embed(x, condition), f"{name} (CSN's), before the L2": masked[:, 0],
                f"{name} (CSN's), two norms": torch.stack([table.abs().sum(), general.norm()])}  # fmt: skip
    model = authors.ours(name)
    if name != "asen-pp":
        return {name: model.embed(x, condition), f"{name}, map": model.attention(x, condition)[:, 0]}
    given = model.condition(condition)[:, None]
    whole = model.head(model.attend(x, given)[0])[:, 0]
    part = model.local_head(model.local_attend(local, given)[0])[:, 0]
    return {
        "asen-pp, both branches": torch.cat([0.6**0.5 * whole, 0.4**0.5 * part], dim=1),
        "asen-pp, map": model.attention(x, condition)[:, 0],
        "asen-pp, crop (pixels of 224)": 224 * attended_boxes(authors._peaked(), 224),
    }


@pytest.mark.parametrize("name", ["csn-learned", "csn-preset", "csn-fixed", "asen", "asen-v2", "asen-pp"])
def test_our_outputs_are_the_authors_codes(authors, name):
    figures = json.loads((ROOT / "tests" / "authors_figures.json").read_text())
    outputs = our_outputs(authors, name)
    assert set(outputs) == {key for key in figures if key == name or key.startswith((f"{name} ", f"{name},"))}
    for key, output in outputs.items():
        first = output.flatten()[:: max(1, output.numel() // 16)][:16]
        theirs, norm = torch.tensor(figures[key]["first"]), figures[key]["norm"]
        assert len(first) == len(theirs) and theirs.abs().max() > 1e-3
        if "crop" in key:  # an enlarged map may fall on either side of the threshold at one pixel
            close(first, theirs, atol=1.0)
            assert float(output.norm()) == pytest.approx(norm, rel=1e-2)
            continue
        close(first, theirs, atol=1e-5, rtol=1e-5 if "norms" in key else 0)
        assert float(output.norm()) == pytest.approx(norm, rel=1e-5)


def test_all_of_the_authors_figures_are_compared(authors):
    figures = json.loads((ROOT / "tests" / "authors_figures.json").read_text())
    assert len(figures) == 3 * 3 + 2 + 2 + 3


def test_the_crop_is_the_bounding_square_of_the_attended_places(authors):
    maps = authors._peaked()
    boxes = attended_boxes(maps, 224) * 224
    expected = torch.tensor([plain_box(m.numpy(), 224) for m in maps], dtype=torch.float32)
    close(boxes, expected, atol=1.0)
    assert ((boxes - expected).abs() < 1e-3).float().mean() > 0.95  # nearly all to the pixel
    assert (boxes >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 224 + 1).all()  # inside, but for an odd side
    assert (boxes[:, 2] < 200).any() and (boxes[:, 2] > 100).any()
    close(attended_boxes(maps[:6].view(2, 3, 14, 14), 224).view(6, 3) * 224, boxes[:6])
    close(attended_boxes(torch.ones(1, 14, 14), 224), torch.tensor([[0.0, 0.0, 1.0]]))  # nowhere: everything


def test_cut_out_samples_the_square():
    picture = torch.randn(2, 3, 64, 64)
    whole = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, -1)
    close(cut_out(picture, whole, 64), picture, atol=5e-5)  # places in 64 pixels, in float32
    close(cut_out(picture, whole, 32), F.interpolate(picture, 32, mode="bilinear"))
    boxes = torch.tensor([[8, 16, 32], [32, 0, 16]]) / 64  # x, y, side
    found = cut_out(picture, boxes, 16)
    close(found[0], F.interpolate(picture[:1, :, 16:48, 8:40], 16, mode="bilinear")[0])
    close(found[1], picture[1, :, 0:16, 32:48])
    larger = cut_out(picture, boxes, 64)[0]
    inside = F.interpolate(picture[:1, :, 16:48, 8:40], 64, mode="bilinear")[0]
    close(larger[:, 1:-1, 1:-1], inside[:, 1:-1, 1:-1])  # at its border, the square's neighbours are seen
    shifted = torch.tensor([[5.3, 1.7, 20.9], [0.0, 40.0, 24.0]]) / 64
    found = cut_out(picture, shifted, 8)
    close(found, torch.stack([plain_crop(p, *map(float, box), 8) for p, box in zip(picture, shifted)]))
