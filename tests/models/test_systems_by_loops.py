"""Every compared system against its definition, written as plain loops."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from systems import TRUNKS, B, K, a_map, close, make, pictures, pillow_crop, plain_box, plain_crop
from torch.nn import functional as F

from ccakit.models.csn import ConditionMask
from ccakit.models.registry import create_model


def fc(layer, x):
    """A Linear, row by row."""
    rows = (
        [float(w @ x) for w in layer.weight]
        if layer.bias is None
        else [float(w @ x) + float(b) for w, b in zip(layer.weight, layer.bias)]
    )
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
    close(
        maps,
        torch.stack([wheres[b][c] for b, c in enumerate(rows)]).view(len(rows), 1, *model.trunk.grid_size),
    )


@pytest.mark.parametrize("mask", ["learned", "preset", "fixed"])
@torch.no_grad()
def test_csn_is_the_plain_loop(mask):
    model = make("csn", mask=mask)
    tokens = a_map(model)
    expected = torch.stack(
        [torch.stack([plain_csn(model, mean_of_places(x), c) for c in range(K)]) for x in tokens]
    )
    close(model.spaces(tokens), expected)
    same = create_model(
        f"csn-{mask}" if mask != "learned" else "csn",
        conditions=K,
        pretrained=False,
        image_size=64,
        **TRUNKS["lite"],
    )
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
    patches = F.layer_norm(model.block(patches), (192,), model.norm.weight, model.norm.bias, model.norm.eps)[
        :, 1:
    ]
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
    model = create_model(
        "tf-asen", conditions=2, trunk="vit_tiny_patch16_224", image_size=64, pretrained=False
    ).eval()
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
    return x + block.mlp(
        F.layer_norm(x, x.shape, block.norm2.weight, block.norm2.bias, block.norm2.eps)
    ), weights


@pytest.mark.parametrize("mask", ["learned", "preset", "fixed"])
@torch.no_grad()
def test_tf_csn_is_the_plain_loop(mask):
    model = make("tf-csn", mask=mask)
    tokens = torch.randn(B, 17, 32)
    rows = [plain_cls_row(model.block, x) for x in tokens]
    general = [
        F.layer_norm(row, (32,), model.norm.weight, model.norm.bias, model.norm.eps) for row, _ in rows
    ]
    expected = torch.stack([torch.stack([plain_csn(model, g, c) for c in range(K)]) for g in general])
    close(model.spaces(tokens), expected)
    maps = torch.stack([torch.stack(weights)[:, 1:].view(-1, 4, 4) for _, weights in rows])
    close(model.attention(tokens, torch.tensor([1, 2])), maps)


@torch.no_grad()
def test_asen_v2_is_the_plain_loop():
    model = make("asen-v2")
    tokens, condition = a_map(model), torch.tensor([2, 0])
    found = [
        [plain_scaled_attention(model.attend, x, model.condition.weight[c]) for c in range(K)] for x in tokens
    ]
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
            if crop == "image":
                part = pillow_crop(image, left, top, side, 32)
            else:
                part = plain_crop(x, left / 64, top / 64, side / 64, x.shape[-1] // 2)
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
            scores = [
                float((seen[:, i : i + 7, j : j + 7] * model.score.weight[0]).sum() + model.score.bias[0])
                for i in range(height)
                for j in range(width)
            ]
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
        alone = create_model(
            "triplet", conditions=1, pretrained=False, image_size=64, freeze=freeze, **TRUNKS["lite"]
        )
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
