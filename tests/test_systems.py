"""Every compared system against its definition: plain loops, its authors' figures, one interface, what is refused."""

from __future__ import annotations

import importlib.util
import json
import math

import cv2
import numpy as np
import pytest
import timm
import torch
from conftest import ROOT
from torch.nn import functional as F

from ccakit.attributes import Attributes
from ccakit.checkpoint import SavedModel, load_model, save_model
from ccakit.data.images import ImageTransform
from ccakit.models import TrunkError, create_model, list_models
from ccakit.models.asen_pp import FIRST_STAGE, SLOW, attended_boxes, cut_out
from ccakit.models.csn import ConditionMask
from ccakit.models.feature_map import create_map_trunk

K, B = 3, 2
VALUES = (3, 2, 4)
NAMES = [info.name for info in list_models()]
INFO = {info.name: info for info in list_models()}
ON_MAP = [name for name in NAMES if INFO[name].reads == "map"]
ON_TOKENS = [name for name in NAMES if INFO[name].reads == "tokens"]
ON_PLACES = ["asen", "asen-v2", "asen-pp", "camnet", "m2fashion", "tf-asen"]  # a softmax over places
CLS_ATTENDS = ["triplet", "networks", "tf-csn", "cca-type1", "cca-type2"]  # a softmax over [CLS] and patches
TRUNKS = {
    "lite": dict(trunk="lite", trunk_options=dict(width=32, num_heads=2)),
    "resnet18": dict(trunk="resnet18"),
    "vit": dict(trunk="vit_tiny_patch16_224"),
}


def spoil(model):
    """Biases and norms start at values that hide errors: move every parameter and running statistic a little."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() < 2 else 0.02))
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None and module.weight.requires_grad:
                module.running_mean.normal_(0, 0.1), module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def make(name, trunk="lite", conditions=K, **options):
    options = {"image_size": 64, **TRUNKS[trunk], **options}
    if INFO[name].classifies:
        options["values"] = VALUES[:conditions]
    if name == "asen-pp" and trunk != "lite" and options.get("crop") == "image":
        options["local"] = "resnet18"
    return spoil(create_model(name, conditions=conditions, pretrained=False, **options))


def pictures(count=B):
    return torch.randn(count, 3, 64, 64)


def a_map(model, count=B):
    """A random feature map, for what a system does with it."""
    return torch.randn(count, model.trunk.embed_dim, *model.trunk.grid_size)


def close(a, b, atol=1e-5, rtol=0.0):
    torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


# ---------------------------------------------------------------------------------------------------- the interface

EVERYWHERE = [
    *(pytest.param(name, "lite", freeze, {}, id=f"{name}-lite-{freeze}") for name in NAMES
      for freeze in ("none", "backbone")),
    *(pytest.param(name, "resnet18", "none", {}, id=f"{name}-resnet18") for name in [*ON_MAP, "triplet"]
      if name != "asen-pp"),
    pytest.param("asen-pp", "resnet18", "none", dict(crop="image"), id="asen-pp-resnet18-image"),
    *(pytest.param(name, "vit", "none", {}, id=f"{name}-vit") for name in ON_TOKENS),
    pytest.param("csn", "lite", "none", dict(mask="preset", embed_dim=10), id="csn-options"),
    pytest.param("asen-pp", "lite", "backbone", dict(crop="image"), id="asen-pp-lite-backbone-image"),
    pytest.param("asen-pp", "resnet18", "none", dict(crop="map"), id="asen-pp-resnet18-map"),
    pytest.param("tf-csn", "lite", "all", dict(mask="fixed"), id="tf-csn-fixed-all"),
    *(pytest.param(name, "lite", "none", dict(head_norm="batchnorm"), id=f"{name}-batchnorm")
      for name in ("networks", "csn", "asen-v2", "asen-pp", "adde")),
]  # fmt: skip


@pytest.mark.parametrize("name,trunk,freeze,options", EVERYWHERE)
def test_spaces_is_embed_for_each_condition(name, trunk, freeze, options):
    model = make(name, trunk, freeze=freeze, **options)
    model.advance(1.0)
    tokens = model.encode(pictures())
    spaces = model.spaces(tokens)
    each = torch.stack([model.embed(tokens, torch.full((B,), k)) for k in range(K)], dim=1)
    assert spaces.shape == (B, K, model.embed_dim)
    close(spaces, each)
    close(spaces.norm(dim=-1), torch.ones(B, K))
    mixed = torch.tensor([2, 0])
    close(model.embed(tokens, mixed), spaces[torch.arange(B), mixed])
    apart = (spaces[0] - spaces[1]).norm(dim=-1)
    assert (apart > 1e-4).all()  # images differ in every space
    if not name.startswith("triplet"):
        assert (spaces[:, 0] - spaces[:, 1]).norm(dim=-1).min() > 1e-4
    trained = [p for p in model.parameters() if p.requires_grad]
    weight = torch.randn_like(spaces)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), trained, retain_graph=True, allow_unused=True)
                    for y in (spaces, each))  # fmt: skip
    assert sum(g is not None for g in ours) > 1
    for a, b in zip(ours, theirs):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b, atol=1e-5 * max(1.0, float(b.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("name,trunk", [*((name, "lite") for name in NAMES),
                                        *((name, "resnet18") for name in [*ON_MAP, "triplet"])])  # fmt: skip
def test_attention_is_a_softmax_or_is_said_to_be_none(name, trunk):
    model = make(name, trunk)
    tokens, condition = model.encode(pictures()), torch.tensor([2, 1])
    if name not in ON_PLACES and not (name in CLS_ATTENDS and trunk == "lite"):
        with pytest.raises(NotImplementedError, match="does not attend"):
            model.attention(tokens, condition)
        return
    maps = model.attention(tokens, condition)
    heads = 1 if name in ON_PLACES else 2
    assert maps.shape == (B, heads, *model.trunk.grid_size) and (maps > 0).all()
    mass = maps.sum((2, 3))
    if name in ON_PLACES:
        close(mass, torch.ones(B, heads))
    else:
        assert (mass < 1).all()  # the rest is [CLS]'s own
    alone = torch.cat([model.attention(tokens[i : i + 1], condition[i : i + 1]) for i in range(B)])
    close(maps, alone)
    with pytest.raises(ValueError, match="one an image"):
        model.attention(tokens, condition[:1])


@pytest.mark.parametrize("name", NAMES)
def test_a_condition_an_image(name):
    model = make(name)
    tokens = model.encode(pictures())
    for wrong in (torch.tensor([0]), torch.zeros(B, 1, dtype=torch.long), torch.zeros(B + 1, dtype=torch.long)):
        with pytest.raises(ValueError, match="one an image"):
            model.embed(tokens, wrong)


# ------------------------------------------------------------------------------------------------------ plain loops


def fc(layer, x):
    """A Linear, row by row."""
    rows = [float(w @ x) for w in layer.weight] if layer.bias is None else [
        float(w @ x) + float(b) for w, b in zip(layer.weight, layer.bias)]  # fmt: skip
    return torch.tensor(rows)


def one_by_one(conv, x):
    """A 1x1 convolution at one place: x (C,)."""
    return conv.weight[:, :, 0, 0] @ x + conv.bias


def unit(x):
    return x / math.sqrt(float((x * x).sum()))


def softmax(scores):
    exp = [math.exp(s - max(scores)) for s in scores]
    return [e / sum(exp) for e in exp]


def batchnorm(norm, x):
    return (x - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias


def plain_csn(model, features, c):
    """features (C,) -> the masked embedding."""
    table = model.mask.table[c]
    mask = [float(v) if model.mask.kind == "fixed" or v > 0 else 0.0 for v in table]
    return unit(fc(model.head.fc, features) * torch.tensor(mask))


def mean_of_places(x):
    """x (C, h, w) -> (C,)."""
    places = [x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])]
    return sum(places) / len(places)


def plain_asen_attention(attend, x, c):
    """x (C, h, w) -> the attended vector (C,) and the weights of the places."""
    places = [x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])]
    one_hot = torch.zeros(attend.spatial_condition.in_features)
    one_hot[c] = 1
    given = torch.tanh(fc(attend.spatial_condition, one_hot))
    images = [torch.tanh(one_by_one(attend.spatial_image, place)) for place in places]
    scores = [math.tanh(float(one_by_one(attend.spatial_score, given * image))) for image in images]
    where = softmax(scores)
    pooled = sum(w * p for w, p in zip(where, places))
    given = torch.clamp(fc(attend.channel_condition, one_hot), min=0)
    hidden = torch.clamp(fc(attend.channel_in, torch.cat([pooled, given])), min=0)
    return pooled / (1 + torch.exp(-fc(attend.channel_out, hidden))), torch.tensor(where)


def plain_scaled_attention(attend, x, given):
    """x (C, h, w), the condition's embedding (A,) -> (C,) and the weights of the places."""
    places = [x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])]
    query, scores = torch.tanh(fc(attend.spatial_condition, given)), []
    for place in places:
        image = one_by_one(attend.spatial_image, place)
        if isinstance(attend.spatial_norm, torch.nn.BatchNorm2d):
            image = batchnorm(attend.spatial_norm, image)
        scores.append(float(query @ torch.tanh(image)) / math.sqrt(len(query)))
    where = softmax(scores)
    pooled = sum(w * p for w, p in zip(where, places))
    second = torch.clamp(fc(attend.channel_condition, given), min=0)
    hidden = torch.clamp(fc(attend.channel_in, torch.cat([pooled, second])), min=0)
    return pooled / (1 + torch.exp(-fc(attend.channel_out, hidden))), torch.tensor(where)


def check_maps(model, tokens, rows, wheres, condition):
    """`wheres` of each image's condition is what `attention` gives."""
    maps = model.attention(tokens, condition)
    close(maps, torch.stack([wheres[b][c] for b, c in enumerate(rows)]).view(len(rows), 1, *model.trunk.grid_size))


@pytest.mark.parametrize("mask", ["learned", "preset", "fixed"])
@torch.no_grad()
def test_csn_is_the_plain_loop(mask):
    model = make("csn", mask=mask)
    tokens = a_map(model)
    expected = torch.stack([torch.stack([plain_csn(model, mean_of_places(x), c) for c in range(K)]) for x in tokens])
    close(model.spaces(tokens), expected)
    same = create_model(f"csn-{mask}" if mask != "learned" else "csn", conditions=K, pretrained=False, image_size=64,
                        **TRUNKS["lite"])  # fmt: skip
    assert same.mask.kind == mask


@torch.no_grad()
def test_csn_masks_begin_as_csns():
    torch.manual_seed(5)
    learned = ConditionMask("learned", 3, 5000)
    assert abs(float(learned.table.mean()) - 0.9) < 0.03 and abs(float(learned.table.std()) - 0.7) < 0.03
    assert (learned.table < 0).any() and (learned(torch.arange(3)) >= 0).all() and learned.table.requires_grad
    for kind, off in (("preset", 0.1), ("fixed", 0.0)):
        mask = ConditionMask(kind, 3, 11)  # parts of 3, and two dimensions left over
        expected = torch.full((3, 11), off)
        for condition in range(3):
            for dimension in range(3 * condition, 3 * condition + 3):
                expected[condition, dimension] = 1.0
        assert torch.equal(mask.table, expected) and torch.equal(mask(torch.arange(3)), expected)
        assert mask.table.requires_grad == (kind == "preset")
    assert (expected.sum(0) <= 1).all() and torch.equal(expected[:, 9:], torch.zeros(3, 2))  # disjoint


@pytest.mark.parametrize("name", ["asen", "m2fashion"])
@torch.no_grad()
def test_asen_is_the_plain_loop(name):
    model = make(name)
    tokens, condition = a_map(model), torch.tensor([2, 0])
    found = [[plain_asen_attention(model.attend, x, c) for c in range(K)] for x in tokens]
    expected = torch.stack([torch.stack([unit(fc(model.head.fc, out)) for out, _ in of]) for of in found])
    close(model.spaces(tokens), expected)
    check_maps(model, tokens, condition.tolist(), [[w for _, w in of] for of in found], condition)


@torch.no_grad()
def test_tf_asen_is_asen_on_the_transformers_patches():
    model = make("tf-asen", "vit")
    images = pictures()
    patches = model.trunk(images)  # blocks 1 .. L-1, which test_models compares with timm's
    patches = F.layer_norm(model.block(patches), (192,), model.norm.weight, model.norm.bias, model.norm.eps)[:, 1:]
    expected, wheres = [], []
    for rows in patches:
        x = torch.zeros(192, 4, 4)
        for n, row in enumerate(rows):
            x[:, n // 4, n % 4] = row
        found = [plain_asen_attention(model.attend, x, c) for c in range(2)]
        expected.append(torch.stack([unit(fc(model.head.fc, out)) for out, _ in found]))
        wheres.append([where for _, where in found])
    tokens = model.encode(images)
    close(model.spaces(tokens)[:, :2], torch.stack(expected))
    check_maps(model, tokens, [1, 0], wheres, torch.tensor([1, 0]))


@torch.no_grad()
def test_tf_asen_reads_the_whole_transformer():
    torch.manual_seed(7)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).eval()
    torch.manual_seed(7)
    model = create_model("tf-asen", conditions=2, trunk="vit_tiny_patch16_224", image_size=64, pretrained=False).eval()
    images = pictures()
    close(model.encode(images), vit.forward_features(images))


def plain_cls_row(block, tokens):
    """A pre-norm block's output at [CLS], a head and a position at a time: tokens (N, D) -> (D,)."""
    normed = F.layer_norm(tokens, tokens.shape[1:], block.norm1.weight, block.norm1.bias, block.norm1.eps)
    q = fc(block.q, normed[0])
    kv = torch.stack([fc(block.kv, row) for row in normed])
    d, width, out, weights = block.head_dim, block.num_heads * block.head_dim, [], []
    for h in range(block.num_heads):
        part = slice(h * d, (h + 1) * d)
        where = softmax([float(q[part] @ row[part]) / math.sqrt(d) for row in kv])
        out.append(sum(w * row[width:][part] for w, row in zip(where, kv)))
        weights.append(torch.tensor(where))
    x = tokens[0] + fc(block.proj, torch.cat(out))
    return x + block.mlp(F.layer_norm(x, x.shape, block.norm2.weight, block.norm2.bias, block.norm2.eps)), weights


@pytest.mark.parametrize("mask", ["learned", "preset", "fixed"])
@torch.no_grad()
def test_tf_csn_is_the_plain_loop(mask):
    model = make("tf-csn", mask=mask)
    tokens = torch.randn(B, 17, 32)
    rows = [plain_cls_row(model.block, x) for x in tokens]
    general = [F.layer_norm(row, (32,), model.norm.weight, model.norm.bias, model.norm.eps) for row, _ in rows]
    expected = torch.stack([torch.stack([plain_csn(model, g, c) for c in range(K)]) for g in general])
    close(model.spaces(tokens), expected)
    maps = torch.stack([torch.stack(weights)[:, 1:].view(-1, 4, 4) for _, weights in rows])
    close(model.attention(tokens, torch.tensor([1, 2])), maps)


@torch.no_grad()
def test_asen_v2_is_the_plain_loop():
    model = make("asen-v2")
    tokens, condition = a_map(model), torch.tensor([2, 0])
    found = [[plain_scaled_attention(model.attend, x, model.condition.weight[c]) for c in range(K)] for x in tokens]
    close(model.spaces(tokens), torch.stack([torch.stack([unit(out) for out, _ in of]) for of in found]))
    check_maps(model, tokens, condition.tolist(), [[w for _, w in of] for of in found], condition)


def give_peaks(model, x):
    """Make the global branch attend to the few places where one direction of the map is largest."""
    attend, direction = model.attend, torch.randn(x.shape[1])
    along = torch.einsum("c,bchw->bhw", direction, x)
    sign = torch.randn(attend.spatial_image.out_channels).sign()
    attend.spatial_image.weight.copy_(2 * (sign[:, None] * direction / along.std())[..., None, None])
    attend.spatial_image.bias.copy_(-2 * sign * (along.mean() / along.std() + 1.5))
    attend.spatial_condition.bias.copy_(2 * sign)


@pytest.mark.parametrize("crop", ["image", "map"])
@torch.no_grad()
def test_asen_pp_is_the_plain_loop(crop):
    trunk = "resnet18" if crop == "image" else "lite"
    model = make("asen-pp", trunk, conditions=2, crop=crop)
    images = pictures()
    give_peaks(model, model.trunk(images))
    condition, tokens = torch.tensor([1, 0]), model.encode(images)
    x_all = model.trunk(images)
    first, second, wheres = [], [], []
    for image, x in zip(images, x_all):
        of_first, of_second, of_where = [], [], []
        for c in range(2):
            given = model.condition.weight[c]
            out, where = plain_scaled_attention(model.attend, x, given)
            whole = unit(fc(model.head.fc, out))
            left, top, side = plain_box(where.view(4, 4).numpy(), 64)
            picture = image if crop == "image" else x
            part = plain_crop(picture, left / 64, top / 64, side / 64, picture.shape[-1] // 2)
            seen = model.local(part[None])[0]
            out, _ = plain_scaled_attention(model.local_attend, seen, given)
            local = unit(fc(model.local_head.fc, out))
            of_first.append(torch.cat([whole, torch.zeros_like(whole)]))
            of_second.append(torch.cat([math.sqrt(0.6) * whole, math.sqrt(0.4) * local]))
            of_where.append(where)
        first.append(torch.stack(of_first))
        second.append(torch.stack(of_second))
        wheres.append(of_where)
    model.advance(0.0)
    close(model.spaces(tokens), torch.stack(first))
    model.advance(1.0)
    close(model.spaces(tokens), torch.stack(second))
    check_maps(model, tokens, condition.tolist(), wheres, condition)
    assert len(set(plain_box(w.view(4, 4).numpy(), 64) for of in wheres for w in of)) > 1  # places differ


def plain_crop(picture, left, top, share, side):
    """Bilinear samples, one at a time: the pixel (i, j) of `side` x `side` sees the square's (i + 0.5) / side."""
    channels, height, width = picture.shape
    out = torch.zeros(channels, side, side)
    for i in range(side):
        for j in range(side):
            y = (top + share * (i + 0.5) / side) * height - 0.5
            x = (left + share * (j + 0.5) / side) * width - 0.5
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            up = (1 - (x - x0)) * picture[:, y0, x0] + (x - x0) * picture[:, y0, x1]
            down = (1 - (x - x0)) * picture[:, y1, x0] + (x - x0) * picture[:, y1, x1]
            out[:, i, j] = (1 - (y - y0)) * up + (y - y0) * down
    return out


@torch.no_grad()
def test_camnet_is_the_plain_loop():
    model = make("camnet")
    tokens, condition = a_map(model), torch.tensor([2, 0])
    height, width = model.trunk.grid_size
    expected, wheres = [], []
    for x in tokens:
        of, of_where = [], []
        for c in range(K):
            masked = x * torch.clamp(model.mask[c], min=0)
            seen = torch.zeros(2, height + 6, width + 6)  # zeros around, for the 7x7 convolution
            for i in range(height):
                for j in range(width):
                    seen[:, i + 3, j + 3] = torch.stack([masked[:, i, j].mean(), masked[:, i, j].max()])
            scores = [float((seen[:, i : i + 7, j : j + 7] * model.score.weight[0]).sum() + model.score.bias[0])
                      for i in range(height) for j in range(width)]  # fmt: skip
            where = softmax(scores)
            pooled = sum(w * masked[:, n // width, n % width] for n, w in enumerate(where))
            of.append(unit(fc(model.head.fc, pooled)))
            of_where.append(torch.tensor(where))
        expected.append(torch.stack(of))
        wheres.append(of_where)
    close(model.spaces(tokens), torch.stack(expected))
    check_maps(model, tokens, condition.tolist(), wheres, condition)


@torch.no_grad()
def test_adde_is_the_plain_loop():
    model = make("adde", embed_dim=12)
    tokens, expected = a_map(model), []
    for x in tokens:
        pooled, of = mean_of_places(x), []
        for c in range(K):
            first, _, last, _ = model.mlps[c]
            of.append(unit(fc(last, torch.clamp(fc(first, pooled), min=0))))
        expected.append(torch.stack(of))
    close(model.spaces(tokens), torch.stack(expected))
    assert model.spaces(tokens).shape == (B, K, 12)


@torch.no_grad()
def test_the_triplet_network_on_a_map_is_the_plain_loop():
    model = make("triplet", "resnet18")
    tokens = a_map(model)
    expected = torch.stack([unit(fc(model.head.fc, mean_of_places(x))) for x in tokens])
    close(model.spaces(tokens), expected[:, None].expand(-1, K, -1))


@pytest.mark.parametrize("freeze", ["none", "backbone"])
@torch.no_grad()
def test_networks_are_triplet_networks_on_their_own(freeze):
    model = make("networks", freeze=freeze)
    images, spaces = pictures(), []
    for net in model.nets:
        alone = create_model("triplet", conditions=1, pretrained=False, image_size=64, freeze=freeze, **TRUNKS["lite"])
        alone.load_state_dict(net.state_dict())
        spaces.append(alone.eval()(images)[:, 0])
    close(model.spaces(model.encode(images)), torch.stack(spaces, dim=1))
    condition = torch.tensor([2, 0])
    maps = model.attention(model.encode(images), condition)
    for image, c, m in zip(images, condition, maps):
        net = model.nets[c]
        close(m, net.attention(net.encode(image[None]), torch.tensor([0]))[0])
    shared = {id(p) for p in model.nets[0].parameters()} & {id(p) for p in model.nets[1].parameters()}
    assert not shared


# ----------------------------------------------------------------------------------------------- the authors' figures


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


# ------------------------------------------------------------------------------------------------------ ASEN++'s crop


def plain_box(weights, side):
    """The authors' rule by OpenCV: left, top and side of the square in pixels."""
    large = cv2.resize(weights.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    grey = np.uint8(255 * (large - large.min()) / (large.max() - large.min()))
    _, inside = cv2.threshold(grey, int(255 * 0.1), 255, cv2.THRESH_BINARY)
    left, top, width, height = cv2.boundingRect(inside)
    d = max(width, height)
    corner = []
    for start, length in ((left, width), (top, height)):
        centre = start + length // 2
        at = side - d if centre + d // 2 > side else max(0, centre - d // 2)
        corner.append(at)
    return (*corner, d)


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


@pytest.mark.parametrize("crop", ["image", "map"])
def test_asen_pp_has_two_stages(crop, tmp_path):
    model = make("asen-pp", crop=crop)
    images = pictures()
    tokens = model.encode(images)
    half = model.embed_dim // 2
    model.advance(FIRST_STAGE - 0.01)
    first = model.spaces(tokens)
    assert (first[..., half:] == 0).all() and model.slow_parameters()[1] == 1.0
    model.advance(FIRST_STAGE)
    second = model.spaces(tokens)
    assert abs(FIRST_STAGE - 50 / 70) < 1e-9 and (second[..., half:].norm(dim=-1) > 0.5).all()
    close(second[..., :half], math.sqrt(0.6) * first[..., :half])
    slow, part = model.slow_parameters()
    assert part == SLOW == 0.1
    names = {name for name, p in model.named_parameters() if any(p is q for q in slow)}
    rest = {name for name, p in model.named_parameters() if p.requires_grad} - names
    assert all(name.startswith("local") for name in rest) and len(rest) > 5
    assert all(name.startswith(("trunk.", "condition.", "attend.", "head.")) for name in names)
    again = saved_and_loaded(model, tmp_path, "asen-pp", dict(crop=crop))
    assert bool(again.second_stage)
    close(again(images), model(images))
    model.advance(0.0)
    close(model.spaces(tokens), first)
    frozen = make("asen-pp", crop=crop, freeze="backbone")
    assert all(p.requires_grad for p in frozen.slow_parameters()[0])


def test_asen_pp_keeps_features_only_without_pictures():
    kept, not_kept = make("asen-pp", freeze="backbone"), make("asen-pp", freeze="backbone", crop="image")
    assert kept.crop == "map" and kept.keeps_features and kept.shares_trunk
    assert not not_kept.keeps_features and not not_kept.shares_trunk
    default = make("asen-pp")
    assert default.crop == "image" and default.local.grid_size == (2, 2)
    for options in (dict(crop="half"), dict(crop="map", local="resnet18")):
        with pytest.raises(ValueError, match='"image" with a local trunk, or "map" without'):
            create_model("asen-pp", conditions=2, pretrained=False, image_size=64, **options)


# ---------------------------------------------------------------------------------- trunks, saving, what is refused


def saved_and_loaded(model, folder, name, options):
    recipe = {"name": name, "conditions": K, "image_size": 64, **TRUNKS["lite"], **options}
    if INFO[name].classifies:
        recipe["values"] = list(VALUES)
    attributes = Attributes(tuple("abc"), tuple(tuple(map(str, range(n))) for n in VALUES))
    save_model(folder, SavedModel(model, attributes, ImageTransform((64, 64)), recipe))
    return load_model(folder).model


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_gives_the_same_spaces(name, tmp_path):
    options = dict(freeze="backbone", head_norm="batchnorm")
    model = make(name, **options)
    model.advance(1.0)
    images = pictures()
    again = saved_and_loaded(model, tmp_path, name, options)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


@pytest.mark.parametrize("name", NAMES)
def test_kept_features_stand_for_images(name):
    model = make(name, freeze="backbone").train()
    images, condition = pictures(), torch.tensor([2, 0])
    model.eval()
    assert model.keeps_features
    features = model.stem(images)
    assert features.shape == (B, 152, 4, 4) and not features.requires_grad
    model.advance(1.0)
    close(model.encode_features(features), model.encode(images))
    close(model(features, cached=True), model(images))
    close(model(features, condition, cached=True), model(images, condition))
    gather = torch.tensor([0, 1, 1])
    close(model(features, condition[gather], gather=gather, cached=True), model(images[gather], condition[gather]))
    assert not make(name, freeze="none").keeps_features


@pytest.mark.parametrize("name", ON_MAP)
def test_a_frozen_cnn_stays_as_it_is(name):
    model = make(name, "resnet18", freeze="backbone").train()
    model.advance(1.0)
    frozen = {n: t.clone() for n, t in model.trunk.state_dict().items()}
    assert model.keeps_features and not any(p.requires_grad for p in model.trunk.parameters())
    model(pictures()).sum().backward()
    assert all(torch.equal(frozen[n], t) for n, t in model.trunk.state_dict().items())  # BatchNorms too


def test_lites_two_trunks_share_kept_features():
    source = dict(image_size=64, freeze="backbone", **TRUNKS["lite"])
    names = ("csn", "adde", "asen-pp", "cca-type2", "networks")
    keys = {name: create_model(name, conditions=2, values=(2, 2) if INFO[name].classifies else None, **source)
            .trunk.stem_key() for name in names}  # fmt: skip
    assert len(set(keys.values())) == 1
    other = create_model("csn", conditions=2, pretrained=False, **source)
    assert other.trunk.stem_key() not in keys.values()
    wider = create_model("csn", conditions=2, **{**source, "trunk_options": dict(width=64, num_heads=2)})
    assert wider.trunk.stem_key() == keys["csn"]  # what comes after the stem does not matter


@torch.no_grad()
def test_local_weights_are_read_into_the_map_trunk(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(11)
    whole = spoil(timm.create_model("resnet18"))
    file = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), file)
    model = create_model("csn", conditions=2, trunk="resnet18", weights=file, image_size=64).eval()
    images = pictures()
    x = whole.maxpool(whole.act1(whole.bn1(whole.conv1(images))))
    expected = whole.layer3(whole.layer2(whole.layer1(x)))  # stride 16
    assert model.trunk.grid_size == (4, 4) and model.trunk.embed_dim == 256
    close(model.encode(images), expected)
    with pytest.raises(TrunkError, match="no such weights file for resnet18"):
        create_map_trunk("resnet18", weights=tmp_path / "absent.safetensors")
    file.write_bytes(b"no weights at all")
    with pytest.raises(TrunkError, match="cannot be loaded from .*--no-pretrained"):
        create_map_trunk("resnet18", weights=file)


@pytest.mark.parametrize("name,channels", [
    ("resnet50", 1024), ("lite", 128),
    ("efficientnet_b0", 112),
])  # fmt: skip
def test_the_map_is_where_the_stride_is_16(name, channels):
    with torch.device("meta"):
        trunk, settings = create_map_trunk(name, pretrained=False)
    side = settings["input_size"][1]
    assert trunk.embed_dim == channels and trunk.grid_size == (side // 16, side // 16)
    assert side == (128 if name == "lite" else 224)


WORKS = "what works: resnet50 .the paper's., resnet34"


@pytest.mark.parametrize("name,options,message", [
    ("csn", dict(trunk="no_such_trunk"), f"no trunk 'no_such_trunk'; {WORKS}"),
    ("triplet", dict(trunk="no_such_trunk"), f"no trunk 'no_such_trunk'; {WORKS}"),
    ("cca-type1", dict(trunk="no_such_trunk"), "no trunk 'no_such_trunk'; what works: vit_base_r50_s16_224"),
    ("networks", dict(trunk="resnet18", image_size=None), "what works: vit_base_r50_s16_224"),
    ("asen", dict(trunk="vit_tiny_patch16_224"), f"reads a CNN's feature map; {WORKS}"),
    ("camnet", dict(trunk="vit_tiny_r_s16_p8_224"), f"reads a CNN's feature map; {WORKS}"),
    ("csn", dict(trunk="swin_tiny_patch4_window7_224"), f"channels last; {WORKS}"),
    ("triplet", dict(trunk="swin_tiny_patch4_window7_224"), f"channels last; {WORKS}"),
    ("asen", dict(freeze=2), "as a whole .backbone. or not at all .none."),
    ("asen", dict(query="fc"), "asen has no option query; it has: none"),
    ("csn", dict(query="fc"), "csn has no option query; it has: mask, without"),
    ("csn-fixed", dict(mask="learned"), "csn-fixed has no option mask; it has: without"),
    ("cca-type2", dict(without=("x",)), "cca-type2 has no option without; it has: query, residual"),
    ("csn", dict(mask="random"), "one of .'learned', 'preset', 'fixed'."),
    ("csn-fixed", dict(embed_dim=2), "3 disjoint parts do not fit into 2 dimensions"),
    ("csn", dict(without=("norm",)), "no loss norm to leave out; this system has: embedding_norm, mask_norm"),
    ("m2fashion", {}, "give values, how many each of the 3 attributes has"),
    ("adde", dict(values=(2, 3)), "give values, how many each of the 3 attributes has"),
    ("asen-v2", dict(embed_dim=7), "asen-v2 has no FC, its embedding has the map's 32 channels"),
    ("asen", dict(head_norm="layer"), "one of .'none', 'batchnorm'."),
    ("adde", dict(head_norm="layer", values=VALUES), "one of .'none', 'batchnorm'."),
    ("csn", dict(conditions=0), "at least one is needed"),
    ("networks", dict(conditions=0), "at least one is needed"),
    ("csn", dict(image_size=70), "take a multiple of 16"),
])  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(name, options, message):
    given = {"conditions": K, "image_size": 64, **(TRUNKS["lite"] if "trunk" not in options else {}), **options}
    with pytest.raises(ValueError, match=message) as caught:
        create_model(name, pretrained=False, **given)
    assert len(str(caught.value).splitlines()) == 1
    if "trunk" in options or "freeze" in options:
        assert isinstance(caught.value, TrunkError)


def test_an_unknown_name_is_told_all_there_are():
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        create_model("cam", conditions=2)


@pytest.mark.parametrize("name", NAMES)
def test_every_system_is_described(name):
    info = INFO[name]
    assert info.title and info.source and len(info.faithfulness) > 15 and info.reads in ("map", "tokens")
    millions = info.parameters() / 1e6
    assert 8 < millions / (8 if name == "networks" else 1) < 120  # ResNet-50 to its third stage has 8.5M, the ViT 98M
    if info.reads == "map":
        model = make(name, "resnet18", image_size=224)
        assert info.parameters("resnet18", VALUES) == sum(p.numel() for p in model.parameters()) > 2.7e6
    assert info.shares_trunk == (name not in ("asen-pp", "networks"))
    model = make(name)
    assert model.shares_trunk == info.shares_trunk
    assert info.parameters("lite", (2, 3)) > 0


def test_the_systems_are_those_of_the_benchmark():
    asked = ["triplet", "csn", "asen", "asen-v2", "asen-pp", "camnet", "m2fashion", "adde", "tf-csn", "tf-asen",
             "networks", "cca-type1", "cca-type2"]  # fmt: skip
    assert set(asked) <= set(NAMES)
    order = [name for name in NAMES if name in ("triplet", "csn", "asen", "camnet", "tf-csn", "tf-asen", "cca-type1")]
    assert order == ["triplet", "csn", "asen", "camnet", "tf-csn", "tf-asen", "cca-type1"]  # Table 2's
