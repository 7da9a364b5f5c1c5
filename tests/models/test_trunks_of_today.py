"""CCA on the families of timm's vision transformers, small and random, each beside timm's own forward.

timm's own network is asked by a condition: whatever its last attention asks with is replaced by the
condition's query, and nothing else of its forward is touched.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from systems import close, spoil
from torch.nn import functional as F

from ccakit.cli import main
from ccakit.data.inputs import ImageInputs, keep_features
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.models.registry import create_model
from ccakit.models.trunks.families import FAMILIES, block_problem, network_problem
from ccakit.models.trunks.frozen import TrunkError

K = 3
SMALL = dict(embed_dim=48, depth=3, num_heads=3)
SIDES = {14: 56, 16: 64, 32: 96}  # of patches of so many pixels: 4 x 4 or 3 x 3 of them
TESTED = [name for family in FAMILIES for name in family.tested]
FIRST = [family.tested[0] for family in FAMILIES]
POOLED = [name for name in TESTED if "siglip" in name or "map" in name or "pe_core" in name]


def side_of(name):
    return SIDES[int(name.split("patch")[1][:2])] if "patch" in name else SIDES[32]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """source(name): timm's own small network with telling weights, and the file that holds them."""

    @cache
    def make(name):
        torch.manual_seed(1)
        vit = spoil(timm.create_model(name, num_classes=0, img_size=side_of(name), **SMALL))
        for parameter in (p for n, p in vit.named_parameters() if "gamma" in n or "ls" in n):
            torch.nn.init.normal_(parameter, 1, 0.1)  # LayerScale begins so small that little is heard
        file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
        save_file(vit.state_dict(), file)
        return vit, file

    return make


def make(name, file, system="cca-type2", **options):
    torch.manual_seed(2)
    shared = dict(conditions=K, trunk=name, image_size=side_of(name), weights=file, trunk_options=SMALL)
    model = create_model(system, **{**shared, **options}).eval()
    if hasattr(model, "token"):
        model.token.fc.weight.data.mul_(10)  # the conditions ask for different things
    return model


def images_of(name, count=2):
    return torch.randn(count, 3, side_of(name), side_of(name), generator=torch.Generator().manual_seed(3))


def asker(vit):
    """The module of timm's that asks last: its attention pool, or the attention of its last block."""
    return vit.attn_pool if vit.attn_pool is not None else vit.blocks[-1].attn


@contextmanager
def asked_with(attn, q):
    """Let all tokens ask with q (H*d,) in an attention of timm's, instead of its own query."""
    hooks, kept = [], None
    if getattr(attn, "q_bias", None) is not None and attn.qkv is not None:
        kept = attn.qkv.weight[: len(q)].clone(), attn.q_bias.clone()
        attn.qkv.weight.data[: len(q)], attn.q_bias.data[:] = 0, q
    else:
        query = next(m for m in (getattr(attn, n, None) for n in ("qkv", "q_proj", "q")) if m is not None)

        def replace(module, given, out):
            return torch.cat([q.expand(*out.shape[:-1], -1), out[..., len(q) :]], dim=-1)

        hooks.append(query.register_forward_hook(replace))
    yield
    for hook in hooks:
        hook.remove()
    if kept is not None:
        attn.qkv.weight.data[: len(q)], attn.q_bias.data[:] = kept


def timms_row(vit, images):
    """What timm's forward gives of an image: its pool's output, or its normed [CLS]."""
    tokens = vit.forward_features(images)
    if vit.attn_pool is not None:
        return vit.forward_head(tokens, pre_logits=True)
    return vit.fc_norm(tokens[:, 0])  # a trunk that averages its patches has its norm behind that


def asked_by(model, vit, images):
    """timm's own forward, asked by each condition: (B, K, E)."""
    spaces = []
    for condition in range(model.conditions):
        with asked_with(asker(vit), model.q_cond(torch.tensor([condition]))[0]):
            spaces.append(F.normalize(model.head.fc(timms_row(vit, images)), dim=-1))
    return torch.stack(spaces, dim=1)


@torch.inference_mode()
@pytest.mark.parametrize("name", TESTED)
def test_cca_is_timms_own_forward_asked_by_the_condition(source, name):
    vit, file = source(name)
    model, images = make(name, file), images_of(name)
    tokens, expected = model.encode(images), asked_by(model, vit, images)
    close(model.spaces(tokens), expected)
    each = [model.embed(tokens, torch.full((2,), condition)) for condition in range(K)]
    close(torch.stack(each, dim=1), expected)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3  # the condition is heard


@torch.inference_mode()
@pytest.mark.parametrize("name", FIRST)
def test_the_plain_systems_are_timms_own_forward(source, name):
    vit, file = source(name)
    images = images_of(name)
    expected = timms_row(vit, images)
    for system in ("triplet", "tf-csn"):
        model = make(name, file, system)
        close(model.pool(model.encode(images)), expected)
    asen = make(name, file, "tf-asen")
    tokens = vit.forward_features(images)
    if vit.attn_pool is None:
        tokens = vit.fc_norm(tokens)
    close(asen.encode(images), tokens)


@torch.inference_mode()
@pytest.mark.parametrize("name", FIRST)
def test_maps_are_the_softmax_of_timms_own_attention(source, name, monkeypatch):
    """What timm's last attention weighs its patches with, row by row of the picture."""
    vit, file = source(name)
    model, images, calls = make(name, file), images_of(name), []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v, **o: calls.append((q, k)) or fused(q, k, v)
    )
    condition = torch.tensor([2, 2])
    with asked_with(asker(vit), model.q_cond(condition)[0]):
        vit(images)
    q, k = calls[-1]
    weights = (q[:, :, 0, None] * k).sum(-1).div(q.shape[-1] ** 0.5).softmax(-1)  # (B, H, P+N)
    maps = model.attention(model.encode(images), condition)
    height, width = model.trunk.grid_size
    assert maps.shape == (2, q.shape[1], height, width) and height * width >= 9
    for row in range(height):
        first = weights.shape[-1] - (height - row) * width
        close(maps[:, :, row], weights[:, :, first : first + width])


@pytest.mark.parametrize("name", FIRST)
def test_features_are_kept_before_what_is_read(source, draw, tmp_path, name):
    vit, file = source(name)
    model = make(name, file, freeze="all").train()
    images = ImageInputs(read_dataset(draw(4, 4, 4))["test"], ImageTransform(model.trunk.image_size))
    kept, seen = keep_features(model, images, tmp_path, progress=False).load(np.arange(4)), []
    before = vit.norm if vit.attn_pool is not None else vit.blocks[-1]
    hook = before.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.inference_mode():
        vit(images.load(np.arange(4)))
    hook.remove()
    close(kept, seen[0], atol=5e-3, rtol=2e-3)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained <= {"block", "token", "norm", "head"} and "block" in trained
    model(kept, cached=True).square().sum().backward()
    assert all(p.grad is not None for p in model.block.parameters())


def test_every_family_is_asked_and_pools_are_pools(source):
    assert all(family.tested for family in FAMILIES)
    assert POOLED and all((source(name)[0].attn_pool is not None) == (name in POOLED) for name in TESTED)


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "vit_so150m_patch16_reg4_map_256"])
def test_a_pool_stands_behind_all_blocks(source, name):
    with pytest.raises(TrunkError, match="no .CLS. token, .*leave out --read-block 2$"):
        make(name, None, pretrained=False, read_block=2)
    model = make(name, source(name)[1])
    assert len(model.trunk.blocks) == SMALL["depth"] and model.block.latent is None
    assert make(name, source(name)[1], "triplet").block.latent is not None


@torch.inference_mode()
@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "vit_pe_core_tiny_patch16_384"]
)
def test_a_block_of_eva_can_be_read(source, name):
    """timm's own network, cut behind that block, is asked by the condition."""
    vit, file = source(name)
    model, images = make(name, file, read_block=2), images_of(name)
    blocks, pool = vit.blocks, vit.attn_pool
    vit.blocks, vit.attn_pool = blocks[:2], None
    try:
        close(model.spaces(model.encode(images)), asked_by(model, vit, images))
    finally:
        vit.blocks, vit.attn_pool = blocks, pool


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3_qkvb", "vit_base_patch16_siglip_224", "eva02_base_patch14_224"]
)
@pytest.mark.parametrize("options", [dict(query="fc-wq"), dict(wv="each", adapter=8), dict(residual=False)])
def test_options_keep_the_interface(source, name, options):
    model, images = make(name, source(name)[1], **options), images_of(name)
    tokens = model.encode(images)
    each = torch.stack([model.embed(tokens, torch.full((2,), k)) for k in range(K)], dim=1)
    close(model.spaces(tokens), each)


@pytest.mark.parametrize(
    "name,reason",
    [
        ("vit_base_patch16_siglip_gap_224", "averages its patches"),
        ("vit_small_patch16_rope_mixed_224", "rotary positions are learned"),
        ("beit_base_patch16_224", "a bias for each pair of positions"),
        ("swin_tiny_patch4_window7_224", "windows"),
        ("naflexvit_base_patch16_siglip", "of any shape"),
        ("deit_tiny_distilled_patch16_224", "two tokens"),
        ("vit_base_patch16_xp_224", "ParallelScalingBlock"),
    ],
)
def test_others_are_refused_with_their_reason(name, reason):
    with pytest.raises(TrunkError, match=f"{name} cannot be a trunk: .*{reason}.*ccakit trunks"):
        create_model("cca-type2", conditions=2, trunk=name, pretrained=False)


def test_a_block_that_norms_behind_itself_is_refused():
    with torch.device("meta"):
        vit = timm.create_model(
            "eva02_enormous_patch14_clip_224", num_classes=0, depth=1, embed_dim=64, num_heads=4
        )
    assert network_problem(vit) is None and "EvaBlockPostNorm" in block_problem(vit)


def test_the_command_says_what_can_be_read_and_why_not(capsys):
    assert main(["trunks", "--json"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in TESTED)
    assert list(json.loads(told.splitlines()[-1])["families"]) == [family.name for family in FAMILIES]
    assert main(["trunks", "--find", "patch32_siglip", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["found"]
    assert found["vit_base_patch32_siglip_256"] is None
    assert "averages" in found["vit_base_patch32_siglip_gap_256"]
    assert main(["trunks", "--find", "no-such"]) == 1
    assert "timm has no network with 'no-such'" in capsys.readouterr().err


def test_parameters_are_counted_of_each_family(capsys):
    """Type-1 takes the query away, Type-2 adds its table; also where W_q has no bias, or is a pool's."""
    for name in ("vit_small_patch16_dinov3", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224"):
        assert main(["params", "--trunk", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["match"], name
