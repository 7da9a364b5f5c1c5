"""The model against the paper's equations, written out slowly."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch.nn import functional as F

from ccakit.models.registry import create_model, list_models
from ccakit.models.trunks.frozen import TrunkError
from ccakit.models.trunks.lite import Halving, LiteBackbone, imagenet_file
from ccakit.models.trunks.vit import create_vit

TRUNKS = {
    "lite": dict(trunk="lite", image_size=64, trunk_options=dict(depth=3, width=32, num_heads=2)),
    "plain": dict(trunk="vit_tiny_patch16_224", image_size=64),
    "hybrid": dict(trunk="vit_tiny_r_s16_p8_224", image_size=128),
    "dinov2": dict(trunk="vit_small_patch14_dinov2", image_size=56),  # LayerScale
    "registers": dict(trunk="vit_small_patch14_reg4_dinov2", image_size=56),  # prefix tokens beside [CLS]
}
SYSTEMS = ["cca-type1", "cca-type2", "triplet"]


def make(system: str, trunk: str = "lite", conditions: int = 5, **options):
    model = create_model(system, conditions=conditions, pretrained=False, **TRUNKS[trunk], **options)
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        torch.nn.init.normal_(parameter, std=0.05)  # LayerScale and biases start at values that hide errors
    return model.eval()


def images_for(model, count: int = 3):
    return torch.randn(count, 3, *model.trunk.image_size)


def literal_eq4(model, tokens, condition):
    """Eq. 4-7 as printed: Q_c repeats q_c over all positions; all output rows are computed, [CLS] is read."""
    block, (batch, length, _) = model.block, tokens.shape
    q_cond = model.q_cond(condition)
    big_q = q_cond[:, None].expand(batch, length, -1)  # Eq. 4
    k, v = block.keys_values(tokens)
    attention = (block.heads(big_q) @ k.transpose(-2, -1) / math.sqrt(block.head_dim)).softmax(-1)  # Eq. 6
    out = block.proj((attention @ v).transpose(1, 2).reshape(batch, length, -1))
    x = tokens + block.ls1(out)
    x = x + block.ls2(block.mlp(block.norm2(x)))
    return F.normalize(model.head.fc(model.norm(x)[:, 0]), dim=-1)  # Eq. 7


def plain_loops(model, tokens, condition):
    """One image, one head, one position at a time, from the weights alone (no shared helper)."""
    block, fc, out = model.block, model.token.fc, []
    heads, d = block.num_heads, block.head_dim
    for x, c in zip(tokens, condition.tolist()):
        given = F.one_hot(torch.tensor(c), model.conditions).float()
        if model.token.mask is not None:
            given = torch.clamp(model.token.mask[c], min=0)  # Eq. 3
        q = fc.weight @ given + fc.bias  # Eq. 2, 3
        mu, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        normed = (x - mu) / torch.sqrt(var + block.norm1.eps) * block.norm1.weight + block.norm1.bias
        kv = normed @ block.kv.weight.T + block.kv.bias
        result = []
        for h in range(heads):
            k = kv[:, h * d : (h + 1) * d]
            v = kv[:, heads * d + h * d : heads * d + (h + 1) * d]
            scores = torch.stack([q[h * d : (h + 1) * d].dot(k[i]) / math.sqrt(d) for i in range(len(x))])
            weights = torch.exp(scores) / torch.exp(scores).sum()
            result.append(sum(w * row for w, row in zip(weights, v)))
        y = x[0] + block.ls1(block.proj.weight @ torch.cat(result) + block.proj.bias)
        y = y + block.ls2(block.mlp(block.norm2(y)))
        f = model.head.fc(model.norm(y))
        out.append(f / f.norm())
    return torch.stack(out)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("system", ["cca-type1", "cca-type2"])
def test_one_row_is_the_literal_equation(system, trunk):
    model = make(system, trunk)
    tokens = model.encode(images_for(model)).detach().requires_grad_()
    condition = torch.tensor([4, 0, 2])
    one_row, literal = model.embed(tokens, condition), literal_eq4(model, tokens, condition)
    torch.testing.assert_close(one_row, literal, atol=1e-5, rtol=0)
    weight = torch.randn_like(one_row)
    parameters = [tokens, *model.token.parameters(), *model.block.kv.parameters(), *model.head.parameters()]
    ours, theirs = (torch.autograd.grad((y * weight).sum(), parameters) for y in (one_row, literal))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trunk", ["lite", "plain"])
@pytest.mark.parametrize("system", ["cca-type1", "cca-type2"])
def test_one_row_is_the_plain_loop(system, trunk):
    model = make(system, trunk)
    tokens, condition = model.encode(images_for(model)), torch.tensor([1, 1, 3])
    torch.testing.assert_close(
        model.embed(tokens, condition), plain_loops(model, tokens, condition), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_spaces_is_embed_for_each_condition(system, trunk):
    model = make(system, trunk)
    tokens = model.encode(images_for(model)).detach().requires_grad_()
    spaces = model.spaces(tokens)
    each = torch.stack([model.embed(tokens, torch.full((3,), k)) for k in range(5)], dim=1)
    torch.testing.assert_close(spaces, each, atol=1e-5, rtol=0)
    torch.testing.assert_close(spaces.norm(dim=-1), torch.ones(3, 5), atol=1e-5, rtol=0)
    weight = torch.randn_like(spaces)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), tokens)[0] for y in (spaces, each))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_attention_is_the_softmax_that_was_used(system, trunk):
    model = make(system, trunk)
    tokens, condition = model.encode(images_for(model)), torch.tensor([0, 1, 2])
    rows = model.attention_rows(tokens, condition)
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:2]))
    k, v = model.block.keys_values(tokens)
    mixed = (rows[:, :, None] @ v).transpose(1, 2).flatten(2)  # (B, H, 1, d) -> (B, 1, D)
    x = tokens[:, :1] + model.block.ls1(model.block.proj(mixed))
    x = x + model.block.ls2(model.block.mlp(model.block.norm2(x)))
    used = model.head(model.norm(x))[:, 0]
    torch.testing.assert_close(used, model.embed(tokens, condition), atol=1e-5, rtol=0)
    maps = model.attention(tokens, condition)
    assert maps.shape == (3, model.block.num_heads, *model.trunk.grid_size)
    torch.testing.assert_close(maps.flatten(2), rows[..., model.trunk.num_prefix_tokens :])


@pytest.mark.parametrize("trunk", TRUNKS)
def test_triplet_network_is_the_plain_vit(trunk):
    torch.manual_seed(3)
    options = dict(TRUNKS[trunk])
    vit = create_vit(
        options.pop("trunk"),
        pretrained=False,
        image_size=options["image_size"],
        **options.get("trunk_options", {}),
    ).eval()
    torch.manual_seed(3)
    model = create_model("triplet", conditions=2, pretrained=False, **TRUNKS[trunk]).eval()
    images = images_for(model)
    expected = F.normalize(model.head.fc(vit.forward_features(images)[:, 0]), dim=-1)
    got = model(images, torch.tensor([0, 1, 1]))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_cca_with_the_vits_own_query_is_the_plain_vit():
    """Where q_c is W_q LN(x_[CLS]), Eq. 6 is Eq. 5: what the pre-trained weights mean is kept."""
    model = make("cca-type2", "plain", query="fc-wq")
    tokens = model.encode(images_for(model))
    q = model.block.q(model.block.norm1(tokens[:, :1]))
    k, v = model.block.keys_values(tokens)
    row = model.block.rows(tokens[:, :1], q, k, v)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    last = vit.blocks[-1]
    for part in ("norm1", "norm2", "mlp"):
        getattr(last, part).load_state_dict(getattr(model.block, part).state_dict())
    last.attn.proj.load_state_dict(model.block.proj.state_dict())
    last.attn.qkv.weight.data = torch.cat([model.block.q.weight, model.block.kv.weight])
    last.attn.qkv.bias.data = torch.cat([model.block.q.bias, model.block.kv.bias])
    torch.testing.assert_close(row, last(tokens)[:, :1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options", [dict(query="fc-wq"), dict(residual=False), dict(embed_dim=7), dict(head_norm="batchnorm")]
)
def test_options_keep_the_interface(options):
    model = make("cca-type1", **options)
    tokens = model.encode(images_for(model))
    each = torch.stack([model.embed(tokens, torch.full((3,), k)) for k in range(5)], dim=1)
    torch.testing.assert_close(model.spaces(tokens), each, atol=1e-5, rtol=0)
    assert each.shape[-1] == options.get("embed_dim", 32)
    plain = make("cca-type1")
    assert not torch.allclose(plain.spaces(tokens)[..., :7], each[..., :7])


def test_triplets_encode_each_image_once():
    model = make("cca-type2")
    images, calls = images_for(model, 4), []
    model.trunk.blocks[0].register_forward_hook(lambda m, i, o: calls.append(len(i[0])))
    gather, condition = torch.tensor([0, 1, 0, 3, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
    got = model(images, condition, gather=gather)
    assert calls == [4]
    torch.testing.assert_close(got, model(images[gather], condition), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "trunk,freeze",
    [
        ("lite", "backbone"),
        ("lite", "all"),
        ("plain", 0),
        ("plain", 5),
        ("plain", "all"),
        ("hybrid", "backbone"),
    ],
)
def test_frozen_stem_may_be_kept(trunk, freeze):
    model = make("cca-type1", trunk, freeze=freeze).train()
    images = images_for(model)
    features = model.trunk.stem(images)
    assert not features.requires_grad and model.trunk.frozen
    torch.testing.assert_close(model(features, cached=True), model(images), atol=1e-5, rtol=0)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    model(images).sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    frozen = {id(t) for m in model.trunk.frozen_modules() for t in m.state_dict(keep_vars=True).values()}
    changed = {
        n
        for n, t in model.state_dict(keep_vars=True).items()
        if id(t) in frozen and not torch.equal(t, before[n])
    }
    assert frozen and not changed
    key = model.trunk.stem_key()
    next(iter(model.trunk.frozen_modules()[0].parameters())).data.add_(1e-3)
    assert model.trunk.stem_key() != key


@pytest.mark.parametrize("trunk,freeze", [("lite", "backbone"), ("hybrid", "backbone"), ("plain", 3)])
def test_folded_batchnorms_leave_the_stem_as_it_is(trunk, freeze):
    model = create_model(
        "cca-type1", conditions=2, freeze=freeze, **TRUNKS[trunk], pretrained=trunk == "lite"
    ).eval()
    images, before = images_for(model), model.trunk.stem_key()
    folded = model.trunk.folded()
    torch.testing.assert_close(folded.stem(images), model.trunk.stem(images), atol=1e-3, rtol=1e-3)
    assert model.trunk.stem_key() == before
    norms = [
        sum(type(m).__name__.startswith("BatchNorm") for m in t.modules()) for t in (model.trunk, folded)
    ]
    assert (norms[0] > 0) == (trunk == "lite") and norms[1] == 0


@pytest.mark.parametrize("training", [False, True])
def test_lites_cnn_is_timms(training):
    """Its convolutions of stride 2 pad the kernel, not the picture: the same features and gradients."""
    mine = LiteBackbone().double().train(training)
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3))
    theirs.double().train(training).load_state_dict(mine.net.state_dict())
    assert sum(type(module) is Halving for module in mine.modules()) == 5
    for size in (32, 80):
        images = torch.randn(4, 3, size, size, dtype=torch.float64)
        fine, coarse = theirs(images)
        expected = torch.cat([torch.nn.functional.avg_pool2d(fine, 2), coarse], dim=1)
        torch.testing.assert_close(mine(images), expected, atol=1e-9, rtol=0)
        weight = torch.randn_like(expected)
        grads = [
            torch.autograd.grad((y * weight).sum(), list(net.parameters()), allow_unused=True)
            for y, net in ((mine(images), mine), (expected, theirs))
        ]
        largest = max(float(b.abs().max()) for b in grads[1] if b is not None)
        for a, b in zip(*grads):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, atol=1e-9 * largest, rtol=0)


@pytest.mark.parametrize(
    "name",
    [
        "swin_tiny_patch4_window7_224",
        "resnet18",
        "vit_base_patch16_siglip_gap_224",
        "beit_base_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "no_such_model",
    ],
)
def test_other_trunks_are_refused_with_what_works(name):
    with pytest.raises(TrunkError, match="vit_base_r50_s16_224"):
        create_vit(name, pretrained=False)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="triplet, .*cca-type1, cca-type2"):
        create_model("cca", conditions=2)
    with pytest.raises(ValueError, match="at least one"):
        make("cca-type1", conditions=0)
    for options in (dict(depth=0), dict(width=30, num_heads=4)):
        with pytest.raises(ValueError, match="width a multiple of heads"):
            create_vit("lite", pretrained=False, **options)
    with pytest.raises(TrunkError, match="2 blocks"):
        make("cca-type1", freeze=7)
    with pytest.raises(TrunkError, match="hybrid"):
        make("cca-type1", "plain", freeze="backbone")
    with pytest.raises(ValueError, match="one an image"):
        model = make("cca-type1")
        model.embed(model.encode(images_for(model)), torch.tensor([0]))
    assert [info.name for info in list_models()][-2:] == ["cca-type1", "cca-type2"]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_local_weights_stand_in_for_the_download(tmp_path, suffix):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(source.state_dict(), file)
    else:
        from safetensors.torch import save_file

        save_file(source.state_dict(), file)
    model = create_model("cca-type1", trunk="vit_tiny_patch16_224", weights=file, conditions=3)
    width = model.trunk.embed_dim
    assert torch.equal(model.trunk.blocks[3].attn.qkv.weight, source.blocks[3].attn.qkv.weight)
    assert torch.equal(model.block.kv.weight, source.blocks[-1].attn.qkv.weight[width:])
    smaller = create_model("triplet", trunk="vit_tiny_patch16_224", weights=file, conditions=3, image_size=96)
    assert smaller.trunk.grid_size == (6, 6)  # timm interpolates the position embedding
    with pytest.raises(TrunkError, match="no such weights file"):
        create_vit("vit_tiny_patch16_224", weights=tmp_path / "absent.pth")
    file.write_bytes(b"no weights at all")
    with pytest.raises(TrunkError, match="cannot be loaded from .*--no-pretrained"):
        create_vit("vit_tiny_patch16_224", weights=file)
    with pytest.raises(ValueError, match="weights cannot be read"):
        create_vit("lite", weights=file)


def test_lite_carries_the_imagenet_weights():
    """The pip file gives timm's EfficientNet-Lite0 its features: same output as the whole timm model."""
    vit = create_vit("lite")
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = torch.load(imagenet_file(), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values())))
    images = torch.randn(2, 3, 128, 128)
    features = vit.patch_embed.backbone.eval()(images)
    taken = whole.forward_intermediates(images, indices=[2, 3], intermediates_only=True)
    assert features.shape == (2, 152, 8, 8)
    torch.testing.assert_close(features[:, 40:], taken[-1], atol=1e-4, rtol=1e-4)


def test_parameter_counts_of_section_4_4():
    """97.89M; where FC stands for W_q, Type-2 adds 6,144 and Type-1 takes 583,680 away."""
    counts = {}
    for system in SYSTEMS:
        with torch.device("meta"):
            model = create_model(system, trunk="vit_base_r50_s16_224", conditions=8, pretrained=False)
        counts[system] = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("head."))
    assert counts["triplet"] == 97_890_112
    assert counts["cca-type2"] - counts["triplet"] == 6_144
    assert counts["cca-type1"] - counts["triplet"] == -583_680
