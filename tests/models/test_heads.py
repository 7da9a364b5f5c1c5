"""Eq. 7's head, shared or one of each condition: by models of one head each, and by torch's BatchNorm."""

from __future__ import annotations

import pytest
import torch
from systems import INFO, NAMES, K, close, make, pictures
from torch import nn

from ccakit.models.each import LinearEach
from ccakit.models.head import BatchNormEach
from ccakit.models.registry import create_model

WITH = [name for name in NAMES if "head" in INFO[name].options]


def test_which_systems_have_the_option():
    assert set(NAMES) - set(WITH) == {"triplet", "networks", "adde"}
    for name in set(NAMES) - set(WITH):
        with pytest.raises(ValueError, match=f"{name} has no option head"):
            make(name, head="each")
    with pytest.raises(ValueError, match="head 'both': one of .'shared', 'each'."):
        make("cca-type2", head="both")


@pytest.mark.parametrize("name", WITH)
def test_the_papers_head_is_the_default(name):
    sizes = dict(values=(3, 2, 4)) if INFO[name].system.classifies else {}
    model = create_model(name, conditions=K, pretrained=False, image_size=64, **sizes)
    assert not any(isinstance(module, (LinearEach, BatchNormEach)) for module in model.modules())


@pytest.mark.parametrize("name", WITH)
@pytest.mark.parametrize("norm", ["none", "batchnorm"])
def test_a_head_of_each_is_that_of_a_model_of_its_own(name, norm):
    """Space k of the model is space k of a model with a shared head, which has the weights of head k."""
    model = make(name, head="each", head_norm=norm)
    model.advance(1.0)
    tokens = model.encode(pictures())
    for k in range(K):
        weights = {}
        for key, value in model.state_dict().items():
            each = "head." in key or (key.startswith("norm.") and name == "asen-v2")
            if each and key.endswith("fc.weight"):
                value = value[k].T
            elif each:
                value = value.view(K, -1)[k]
            weights[key] = value
        alone = make(name, head_norm=norm)
        missing = alone.load_state_dict(weights, strict=False)
        assert not missing.unexpected_keys
        assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
        alone.advance(1.0)
        close(model.spaces(tokens)[:, k], alone.spaces(tokens)[:, k])


@pytest.mark.parametrize("rows", ["spaces", "mixed"])
def test_statistics_are_those_of_a_batchnorm_for_each_condition(rows):
    condition = torch.arange(4).expand(6, 4)
    if rows == "mixed":  # one condition an image; the last is missing
        condition = torch.tensor([0, 2, 1, 0, 2, 2, 1, 0])[:, None]
    each, torchs = BatchNormEach(4, 5), [nn.BatchNorm1d(5) for _ in range(4)]
    with torch.no_grad():
        each.weight.normal_()
        each.bias.normal_()
        for k, norm in enumerate(torchs):
            norm.weight.copy_(each.weight.view(4, 5)[k])
            norm.bias.copy_(each.bias.view(4, 5)[k])
    for _ in range(3):
        x = torch.randn(*condition.shape, 5) * 3 + condition[..., None]
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected = torch.zeros_like(x)
        for k in condition.unique():
            expected[condition == k] = torchs[k](theirs[condition == k])
        found, weight = each(ours, condition), torch.randn_like(x)
        close(found, expected)
        (found * weight).sum().backward()
        (expected * weight).sum().backward()
        close(ours.grad, theirs.grad)
    for k, norm in enumerate(torchs):
        close(each.running_mean[k], norm.running_mean)
        close(each.running_var[k], norm.running_var)
    each.eval()
    x = torch.randn(*condition.shape, 5)
    for k in condition.unique():
        close(each(x, condition)[condition == k], torchs[k].eval()(x[condition == k]))
