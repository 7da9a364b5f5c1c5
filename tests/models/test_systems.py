"""Every compared system: one interface, trunks, saving, what is refused."""

from __future__ import annotations

import json
import math

import pytest
import timm
import torch
from places import ROOT
from systems import (
    CLS_ATTENDS,
    INFO,
    NAMES,
    ON_MAP,
    ON_PLACES,
    ON_TOKENS,
    TRUNKS,
    VALUES,
    B,
    K,
    close,
    make,
    pictures,
    saved_and_loaded,
    spoil,
)

from ccakit.models.asen_pp import FIRST_STAGE, SLOW
from ccakit.models.registry import create_model
from ccakit.models.trunks.cnn import create_map_trunk
from ccakit.models.trunks.frozen import TrunkError

# ---------------------------------------------------------------------------------------------- the interface

EVERYWHERE = [
    *(
        pytest.param(name, "lite", freeze, {}, id=f"{name}-lite-{freeze}")
        for name in NAMES
        for freeze in ("none", "backbone")
    ),
    *(
        pytest.param(name, "resnet18", "none", {}, id=f"{name}-resnet18")
        for name in [*ON_MAP, "triplet"]
        if name != "asen-pp"
    ),
    pytest.param("asen-pp", "resnet18", "none", dict(crop="image"), id="asen-pp-resnet18-image"),
    *(pytest.param(name, "vit", "none", {}, id=f"{name}-vit") for name in ON_TOKENS),
    pytest.param("csn", "lite", "none", dict(mask="preset", embed_dim=10), id="csn-options"),
    pytest.param("asen-pp", "lite", "backbone", dict(crop="image"), id="asen-pp-lite-backbone-image"),
    pytest.param("asen-pp", "resnet18", "none", dict(crop="map"), id="asen-pp-resnet18-map"),
    pytest.param("tf-csn", "lite", "all", dict(mask="fixed"), id="tf-csn-fixed-all"),
    *(
        pytest.param(name, "lite", "none", dict(head_norm="batchnorm"), id=f"{name}-batchnorm")
        for name in ("networks", "csn", "asen-v2", "asen-pp", "adde")
    ),
    *(
        pytest.param(name, "lite", "none", dict(head="each", head_norm="batchnorm"), id=f"{name}-each")
        for name in NAMES
        if "head" in INFO[name].options
    ),
]


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
    ours, theirs = (
        torch.autograd.grad((y * weight).sum(), trained, retain_graph=True, allow_unused=True)
        for y in (spaces, each)
    )
    assert sum(g is not None for g in ours) > 1
    for a, b in zip(ours, theirs):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b, atol=1e-5 * max(1.0, float(b.abs().max())), rtol=1e-4)


@pytest.mark.parametrize(
    "name,trunk",
    [*((name, "lite") for name in NAMES), *((name, "resnet18") for name in [*ON_MAP, "triplet"])],
)
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
    for wrong in (
        torch.tensor([0]),
        torch.zeros(B, 1, dtype=torch.long),
        torch.zeros(B + 1, dtype=torch.long),
    ):
        with pytest.raises(ValueError, match="one an image"):
            model.embed(tokens, wrong)


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


# ---------------------------------------------------------------------------- trunks, saving, what is refused


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
    features = model.trunk.stem(images)
    assert features.shape == (B, 152, 4, 4) and not features.requires_grad
    model.advance(1.0)
    close(model.encode_features(features), model.encode(images))
    close(model(features, cached=True), model(images))
    close(model(features, condition, cached=True), model(images, condition))
    gather = torch.tensor([0, 1, 1])
    close(
        model(features, condition[gather], gather=gather, cached=True),
        model(images[gather], condition[gather]),
    )
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
    keys = {
        name: create_model(
            name, conditions=2, values=(2, 2) if INFO[name].system.classifies else None, **source
        ).trunk.stem_key()
        for name in names
    }
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


@pytest.mark.parametrize(
    "name,channels",
    [
        ("resnet50", 1024),
        ("lite", 128),
        ("efficientnet_b0", 112),
    ],
)
def test_the_map_is_where_the_stride_is_16(name, channels):
    with torch.device("meta"):
        trunk = create_map_trunk(name, pretrained=False)
    side = trunk.image_size[1]
    assert trunk.embed_dim == channels and trunk.grid_size == (side // 16, side // 16)
    assert side == (128 if name == "lite" else 224)


WORKS = "what works: resnet50 .the paper's., resnet34"


@pytest.mark.parametrize(
    "name,options,message",
    [
        ("csn", dict(trunk="no_such_trunk"), f"no trunk 'no_such_trunk'; {WORKS}"),
        ("triplet", dict(trunk="no_such_trunk"), f"no trunk 'no_such_trunk'; {WORKS}"),
        (
            "cca-type1",
            dict(trunk="no_such_trunk"),
            "no trunk 'no_such_trunk'; what works: vit_base_r50_s16_224",
        ),
        ("networks", dict(trunk="resnet18", image_size=None), "what works: vit_base_r50_s16_224"),
        ("asen", dict(trunk="vit_tiny_patch16_224"), f"reads a CNN's feature map; {WORKS}"),
        ("camnet", dict(trunk="vit_tiny_r_s16_p8_224"), f"reads a CNN's feature map; {WORKS}"),
        ("csn", dict(trunk="swin_tiny_patch4_window7_224"), f"channels last; {WORKS}"),
        ("triplet", dict(trunk="swin_tiny_patch4_window7_224"), f"channels last; {WORKS}"),
        ("asen", dict(freeze=2), "as a whole .backbone. or not at all .none."),
        ("asen", dict(query="fc"), "asen has no option query; it has: head"),
        ("csn", dict(query="fc"), "csn has no option query; it has: head, mask, without"),
        ("csn-fixed", dict(mask="learned"), "csn-fixed has no option mask; it has: head, without"),
        ("cca-type2", dict(without=("x",)), "cca-type2 has no option without; it has: head, query, residual"),
        ("csn", dict(mask="random"), "one of .'learned', 'preset', 'fixed'."),
        ("csn-fixed", dict(embed_dim=2), "3 disjoint parts do not fit into 2 dimensions"),
        (
            "csn",
            dict(without=("norm",)),
            "no loss norm to leave out; this system has: embedding_norm, mask_norm",
        ),
        ("m2fashion", {}, "give values, how many each of the 3 attributes has"),
        ("adde", dict(values=(2, 3)), "give values, how many each of the 3 attributes has"),
        ("asen-v2", dict(embed_dim=7), "asen-v2 has no FC, its embedding has the map's 32 channels"),
        ("asen", dict(head_norm="layer"), "one of .'none', 'batchnorm'."),
        ("adde", dict(head_norm="layer", values=VALUES), "one of .'none', 'batchnorm'."),
        ("csn", dict(conditions=0), "at least one is needed"),
        ("networks", dict(conditions=0), "at least one is needed"),
        ("csn", dict(image_size=70), "take --image-size 64 or 80"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(name, options, message):
    given = {
        "conditions": K,
        "image_size": 64,
        **(TRUNKS["lite"] if "trunk" not in options else {}),
        **options,
    }
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
    assert (
        info.title
        and info.system.source
        and len(info.faithfulness) > 15
        and info.system.reads in ("map", "tokens")
    )
    millions = info.parameters() / 1e6
    assert (
        8 < millions / (8 if name == "networks" else 1) < 120
    )  # ResNet-50 to its third stage has 8.5M, the ViT 98M
    if info.system.reads == "map":
        model = make(name, "resnet18", image_size=224)
        assert info.parameters("resnet18", VALUES) == sum(p.numel() for p in model.parameters()) > 2.7e6
    assert info.system.shares_trunk == (name not in ("asen-pp", "networks"))
    model = make(name)
    assert model.shares_trunk == info.system.shares_trunk
    assert info.parameters("lite", (2, 3)) > 0


def test_the_systems_are_those_of_the_benchmark():
    asked = [
        "triplet",
        "csn",
        "asen",
        "asen-v2",
        "asen-pp",
        "camnet",
        "m2fashion",
        "adde",
        "tf-csn",
        "tf-asen",
        "networks",
        "cca-type1",
        "cca-type2",
    ]
    assert set(asked) <= set(NAMES)
    titles, tables = (
        [INFO[name].title for name in NAMES],
        json.loads((ROOT / "ccakit/audit/paper.json").read_text()),
    )
    for dataset in ("FashionAI", "DARN", "DeepFashion", "Zappos50K"):
        printed = [title for title in tables[dataset]["rows"] if title != "Random baseline"]
        assert [title for title in titles if title in printed] == printed, dataset


def test_what_shares_the_trunk_though_its_source_does_not_says_what_it_is():
    apart = {name for name in NAMES if not INFO[name].system.shares_trunk}
    assert apart == {"networks", "asen-pp"}
    for name in NAMES:
        shared = name not in apart
        kept = make(name, freeze="backbone")
        assert bool(INFO[name].system.if_shared) == (kept.shares_trunk and not shared)


@pytest.mark.parametrize("name", [name for name in NAMES if name in ON_PLACES + CLS_ATTENDS])
def test_the_attention_of_all_conditions_is_that_of_each(name):
    model = make(name)
    tokens = model.encode(pictures())
    each = [model.attention(tokens, torch.full((B,), condition)) for condition in range(K)]
    close(model.attention_spaces(tokens), torch.stack(each, dim=1))
