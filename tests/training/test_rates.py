"""How fast each parameter learns: AdamW's groups, by depth, weight decay and the systems' own wishes."""

from __future__ import annotations

import math

import pytest
import timm
from systems import NAMES, make
from timm.optim import param_groups_layer_decay

from ccakit.models.registry import create_model
from ccakit.training.config import TrainConfig
from ccakit.training.setup import parameter_groups
from ccakit.training.trainer import Trainer

DECAY = 0.75


def scales(model, decay=DECAY) -> dict[str, float]:
    """Read each parameter's scale out of the groups, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: g["lr_scale"] for g in parameter_groups(model, 0.05, decay) for p in g["params"]}


def test_weight_decay_spares_biases_and_scales_of_each():
    model = make("cca-type2", head="each", head_norm="batchnorm")
    decayed = {id(p) for g in parameter_groups(model, 0.05) if g["weight_decay"] for p in g["params"]}
    found = {name for name, parameter in model.head.named_parameters() if id(parameter) in decayed}
    assert found == {"fc.weight"}


def test_the_scales_are_timms_own_for_a_plain_vit():
    """timm counts the whole ViT below its head, we count below the block that CCA stands in."""
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, depth=4)
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    groups = param_groups_layer_decay(vit, layer_decay=DECAY)
    theirs = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    options = dict(trunk="vit_tiny_patch16_224", image_size=32, pretrained=False)
    ours = scales(create_model("cca-type2", conditions=2, read_block=4, **options))
    trunk = {name: value for name, value in ours.items() if name.startswith("trunk.")}
    assert len(trunk) == 4 + 3 * 12 and {v for name, v in ours.items() if name not in trunk} == {1.0}
    for name, value in trunk.items():
        same = name.removeprefix("trunk.").replace("position.", "")
        assert value == pytest.approx(theirs[same] / DECAY), name


@pytest.mark.parametrize("freeze", [0, 2])
def test_frozen_blocks_are_in_no_group_and_the_others_keep_their_scale(freeze):
    options = dict(trunk="vit_tiny_patch16_224", image_size=32, pretrained=False, read_block=4)
    found = scales(create_model("cca-type2", conditions=2, freeze=freeze, **options))
    blocks = {int(name.split(".")[2]): value for name, value in found.items() if ".blocks." in name}
    assert blocks == {index: pytest.approx(DECAY ** (3 - index)) for index in range(freeze, 3)}


@pytest.mark.parametrize("name", NAMES)
def test_every_trained_parameter_is_in_one_group(name):
    model = make(name)
    found = scales(model)
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in parameter_groups(model, 0.05, DECAY)) == len(found)
    assert set(scales(model, 1.0).values()) == {1.0}
    if name == "networks":  # each of them has a trunk
        assert len({value for key, value in found.items() if ".trunk." in key}) == 1
        assert all((".trunk." in key) == (value < 1) for key, value in found.items())


def test_training_sets_the_rates(draw, tmp_path):
    options = dict(trunk="vit_tiny_patch16_224", image_size=32, pretrained=False, read_block=3, freeze="1")
    options |= dict(budget="steps=2", warmup=0.0, lr=1e-3, layer_decay=0.5, cache=False)
    trainer = Trainer(TrainConfig(data=draw(16, 8, 8), out=tmp_path / "run", **options), quiet=True)
    trainer.run()
    last = 1e-3 * 0.5 * (1 + math.cos(math.pi / 2))  # of the second of two steps
    assert {group["lr_scale"]: group["lr"] for group in trainer.optimizer.param_groups} == {
        1.0: pytest.approx(last),
        0.5: pytest.approx(last / 2),
    }


@pytest.mark.parametrize("value", [0, -1, 1.5, "much"])
def test_a_layer_decay_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="layer_decay"):
        TrainConfig(layer_decay=value)
