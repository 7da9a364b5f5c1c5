"""A block before a trunk's last one, read in its place: timm's own blocks up to it, and nothing behind it."""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import pytest
import timm
import tiny_vit  # noqa: F401 - registers `vit_for_tests`, of two blocks
import torch
from safetensors.torch import save_file
from systems import INFO, ON_MAP, ON_TOKENS, VALUES, K, close, spoil
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ccakit.attributes import Attributes
from ccakit.cli import main
from ccakit.data.inputs import ImageInputs, keep_depths, keep_features
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.errors import DataError
from ccakit.models.registry import count_parameters, create_model
from ccakit.models.saved import SavedModel, load_model, save_model
from ccakit.models.trunks import timm_weights
from ccakit.models.trunks.frozen import TrunkError
from ccakit.models.trunks.vit import create_vit
from ccakit.training.config import TrainConfig
from ccakit.training.run_folder import _check_same
from ccakit.training.trainer import train

SIZES = {
    "vit_tiny_patch16_224": 64,
    "vit_tiny_r_s16_p8_224": 64,  # a hybrid
    "vit_small_patch14_dinov2": 56,  # LayerScale
    "vit_small_patch14_reg4_dinov2": 56,  # tokens beside [CLS], and no position for them
}
PLAIN = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """source(trunk): timm's own network with telling weights, and the file that holds them."""

    @cache
    def make(trunk):
        torch.manual_seed(1)
        vit = spoil(timm.create_model(trunk, num_classes=0, img_size=SIZES[trunk]))
        file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
        save_file(vit.state_dict(), file)
        return vit, file

    return make


def make(system, trunk=PLAIN, read_block=None, **options):
    if options.get("weights") is None:
        options["pretrained"] = False
    model = create_model(
        system, conditions=K, trunk=trunk, image_size=SIZES[trunk], read_block=read_block, **options
    )
    return model.eval()


def images_of(trunk=PLAIN, count=2):
    return torch.randn(count, 3, SIZES[trunk], SIZES[trunk])


def tokens_after(vit, images, blocks):
    """timm's own forward up to a number of blocks: (B, P+N, D)."""
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    for block in list(vit.blocks)[:blocks]:
        x = block(x)
    return x


def cca_by_loops(model, vit, x, read_block):
    """Eq. 2 to 7 in timm's own block, with the condition's query, a head and a condition at a time."""
    block, attn = vit.blocks[read_block - 1], vit.blocks[read_block - 1].attn
    width, d, spaces = x.shape[-1], attn.head_dim, []
    _, k, v = attn.qkv(block.norm1(x)).split(width, dim=-1)
    for condition in range(model.conditions):
        given = F.one_hot(torch.tensor(condition), K).float()
        if model.token.mask is not None:
            given = model.token.mask[condition].clamp(min=0)
        q, heads = model.token.fc(given), []
        for part in (slice(h * d, (h + 1) * d) for h in range(attn.num_heads)):
            scores = torch.einsum("d,bnd->bn", q[part], k[..., part]) / math.sqrt(d)
            heads.append(torch.einsum("bn,bnd->bd", scores.softmax(-1), v[..., part]))
        row = x[:, 0] + block.ls1(attn.proj(torch.cat(heads, dim=-1)))
        row = row + block.ls2(block.mlp(block.norm2(row)))
        spaces.append(F.normalize(model.head.fc(vit.norm(row)), dim=-1))
    return torch.stack(spaces, dim=1)


@pytest.mark.parametrize("trunk", SIZES)
@pytest.mark.parametrize("system", ["cca-type1", "cca-type2"])
def test_cca_in_a_block_is_the_plain_loop_of_timms_own_blocks(source, system, trunk):
    vit, file = source(trunk)
    images = images_of(trunk)
    for read_block in (1, 5, 12) if trunk == PLAIN else (5,):
        model = make(system, trunk, read_block, weights=file)
        expected = cca_by_loops(model, vit, tokens_after(vit, images, read_block - 1), read_block)
        close(model(images), expected)


@pytest.mark.parametrize("trunk", [PLAIN, "vit_small_patch14_reg4_dinov2"])
def test_the_plain_vit_read_at_a_block_is_timms_own_up_to_it(source, trunk):
    vit, file = source(trunk)
    images = images_of(trunk)
    expected = vit.norm(tokens_after(vit, images, 5))
    triplet, asen, networks = (
        make(system, trunk, 5, weights=file) for system in ("triplet", "tf-asen", "networks")
    )
    close(triplet.pool(triplet.encode(images)), expected[:, 0])
    close(asen.encode(images), expected)
    for net in networks.nets:
        close(net.pool(net.encode(images)), expected[:, 0])


@pytest.mark.parametrize("system", ON_TOKENS)
def test_spaces_is_embed_for_each_condition(system):
    model = spoil(make(system, read_block=4))
    tokens = model.encode(images_of())
    each = torch.stack([model.embed(tokens, torch.full((2,), k)) for k in range(K)], dim=1)
    close(model.spaces(tokens), each)
    maps = model.attention(tokens, torch.tensor([2, 0]))
    assert maps.shape[2:] == model.trunk.grid_size and (maps > 0).all()


def work(model):
    """The operations of one image's spaces."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(images_of(count=1))
    return counter.get_total_flops()


@pytest.mark.parametrize("system", [name for name in ON_TOKENS if name != "networks"])
def test_blocks_behind_are_neither_kept_nor_run(system):
    full, models = make(system), {n: make(system, read_block=n) for n in (1, 4, 12)}
    block = full.trunk.blocks[0]
    tokens = full.trunk(images_of(count=1))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        block(tokens)
    for n, model in models.items():
        assert len(model.trunk.blocks) == n - 1
        assert count_parameters(full) - count_parameters(model) == (12 - n) * count_parameters(block)
        assert work(full) - work(model) == (12 - n) * counter.get_total_flops()
    assert [*models[12].state_dict()] == [*full.state_dict()]


def test_in_k_networks_each_ends_at_the_block():
    assert [len(net.trunk.blocks) for net in make("networks", read_block=4).nets] == [3] * K


def test_lite_read_at_a_block_is_lite_of_that_depth():
    torch.manual_seed(0)
    vit = create_vit("lite", image_size=64, pretrained=False, width=32, num_heads=2, depth=3, read_block=2)
    assert len(vit.blocks) == 2
    torch.manual_seed(0)
    whole = create_vit("lite", image_size=64, pretrained=False, width=32, num_heads=2, depth=3)
    images = torch.randn(2, 3, 64, 64)
    close(vit.eval().forward_features(images), whole.norm(tokens_after(whole.eval(), images, 2)))


@pytest.mark.parametrize("freeze", ["all", 3])
def test_features_are_kept_at_that_depth_and_of_no_other(source, draw, tmp_path, freeze):
    """With --freeze all they are what comes out of the blocks before; frozen alike, they are shared."""
    _, file = source(PLAIN)
    split = read_dataset(draw(4, 4, 4))["test"]
    images = ImageInputs(split, ImageTransform((64, 64)))
    found = {}
    for read_block in (4, 5, 12, None):
        model = make("cca-type2", read_block=read_block, weights=file, freeze=freeze)
        kept = keep_features(model, images, tmp_path, progress=False).load(np.arange(4))
        vit, depth = source(PLAIN)[0], 3 if freeze == 3 else (read_block or 12) - 1
        close(kept, tokens_after(vit, images.load(np.arange(4)), depth), atol=2e-3, rtol=2e-3)
        found[read_block] = model.trunk.stem_key()
        assert not any(p.requires_grad for b in model.trunk.blocks[:depth] for p in b.parameters())
        assert all(p.requires_grad for p in model.block.parameters())
    assert found[12] == found[None]
    assert len({*found.values()}) == (1 if freeze == 3 else 3) == len([*tmp_path.glob("*.npy")])


@pytest.mark.parametrize("read_block", [0, 13, -1, True, 2.5, "6"])
def test_a_block_that_is_not_there_is_refused_before_weights_are_loaded(monkeypatch, read_block):
    monkeypatch.setattr(timm_weights, "_check_weights", None)
    for system in ("triplet", "tf-asen", "cca-type2"):
        with pytest.raises(TrunkError, match=f"{PLAIN} has no block .*; take --read-block 1 to 12$"):
            create_model(system, conditions=2, trunk=PLAIN, read_block=read_block)


@pytest.mark.parametrize("system,trunk", [*((name, "lite") for name in ON_MAP), ("triplet", "resnet18")])
def test_a_cnn_has_no_block_to_read(system, trunk):
    given = {"values": VALUES} if INFO[system].system.classifies else {}
    with pytest.raises(TrunkError, match=f"{system} reads the feature map .*leave out --read-block 2$"):
        create_model(system, conditions=K, trunk=trunk, read_block=2, pretrained=False, **given)


def test_what_is_frozen_lies_before_the_block():
    assert (
        make("cca-type1", read_block=4, freeze=3).trunk.frozen
        == make("cca-type1", read_block=4, freeze="all").trunk.frozen
    )
    with pytest.raises(TrunkError, match="freeze=4: the trunk has 3 blocks before the one that is read"):
        make("cca-type1", read_block=4, freeze=4)


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--trunk", "vit_for_tests", "--read-block", "3"], "vit_for_tests has no block 3"),
        (["--read-block", "2"], "lite has no block 2 to read; take --read-block 1 to 1"),
        (["--model", "csn", "--read-block", "1"], "csn reads the feature map of a CNN"),
        (["--trunk", "resnet18", "--read-block", "1"], "resnet18 cannot be a trunk"),
    ],
)
def test_train_says_so_in_a_line_and_leaves_no_run_folder(draw, tmp_path, capsys, flags, message):
    flags = ["--data", str(draw(20, 10, 10)), "--out", str(tmp_path / "run"), "--no-pretrained", *flags]
    assert main(["train", "--freeze", "none", *flags]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"ccakit train: {message}") and not (tmp_path / "run").exists()


def test_params_counts_what_is_left(capsys):
    assert main(["params", "--trunk", PLAIN, "--read-block", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["match"] and result["read_block"] == 4
    parts = result["parts"]["cca-type2"]
    assert sum(parts.values()) == INFO["cca-type2"].parameters(PLAIN) - 8 * parts["blocks 1 .. L-1"] / 3


@pytest.fixture(scope="module")
def run(draw, tmp_path_factory):
    """A run that reads the first of two blocks, on kept features."""
    out = tmp_path_factory.mktemp("read") / "run"
    config = TrainConfig(
        data=draw(48, 16, 16),
        out=out,
        trunk="vit_for_tests",
        pretrained=False,
        freeze="all",
        read_block=1,
        batch_size=16,
        budget="steps=2",
    )
    train(config, quiet=True)
    return out


def test_a_run_keeps_it_and_what_is_made_of_the_run_follows(run, tmp_path):
    saved = load_model(run)
    assert saved.recipe["read_block"] == 1 and len(saved.model.trunk.blocks) == 0
    assert not any(".blocks." in name for name in saved.model.state_dict())
    assert main(["evaluate", "--run", str(run)]) == 0
    assert main(["export", "--run", str(run), "--out", str(tmp_path), "--onnx"]) == 0
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "on the trunk `vit_for_tests`, read at its block 1." in card and "--read-block 1" in card
    images = torch.randn(2, 3, 32, 32)
    close(load_model(tmp_path).model(images), saved.model(images))


def test_a_model_that_names_a_block_too_many_is_refused(tmp_path):
    recipe = dict(name="cca-type2", conditions=2, trunk="vit_for_tests", read_block=2)
    attributes = Attributes(("a", "b"), (("x", "y"), ("z", "w")))
    model = create_model(**recipe, pretrained=False)
    save_model(tmp_path, SavedModel(model, attributes, ImageTransform((32, 32)), recipe))
    file = tmp_path / "model.json"
    text = file.read_text("utf-8")
    for wrong, message in (("3", "has no block 3"), ("1", "it holds|does not hold")):
        file.write_text(text.replace('"read_block": 2', f'"read_block": {wrong}'), "utf-8")
        with pytest.raises(DataError, match=message):
            load_model(tmp_path)


def test_earlier_runs_read_the_last_block(run):
    before = json.loads((run / "config.json").read_text("utf-8"))
    config = TrainConfig(**{**before, "data": run, "out": run, "read_block": None})
    del before["read_block"]
    before |= {"data": str(run), "out": str(run)}
    _check_same(run, config, before)
    config.read_block = 2
    with pytest.raises(DataError, match="read_block was None, now 2"):
        _check_same(run, config, before)


def test_one_pass_keeps_the_features_of_several_depths(source, draw, tmp_path, monkeypatch):
    """They are what each depth gives by itself, under the same names; what is there is not computed again."""
    _, file = source(PLAIN)
    images = ImageInputs(read_dataset(draw(4, 4, 4))["test"], ImageTransform((64, 64)))
    models = [make("triplet", read_block=n, weights=file, freeze="all") for n in (5, 2, 12)]
    calls = []
    monkeypatch.setattr(type(models[0].trunk), "stem_at", _counted(type(models[0].trunk).stem_at, calls))
    keep_features(models[0], images, tmp_path / "several", progress=False)
    kept = keep_depths(models, images, tmp_path / "several", progress=False)
    assert calls == [[7], [4, 14]]  # stages: three before the blocks
    for model, features in zip(models, kept):
        alone = keep_features(model, images, tmp_path / "alone", progress=False)
        np.testing.assert_array_equal(features.features, alone.features)
    assert {p.name for p in (tmp_path / "several").iterdir()} == {
        p.name for p in (tmp_path / "alone").iterdir()
    }
    other = make("triplet", read_block=3, freeze="all")
    with pytest.raises(ValueError, match="not beginnings of the longest"):
        keep_depths([models[2], other], images, tmp_path / "others", progress=False)


def _counted(function, calls):
    def count(self, images, depths):
        calls.append(list(depths))
        return function(self, images, depths)

    return count
