"""Weights of each condition in CCA's block, `wv` and `adapter`: by models with those of one condition."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from systems import K, close, make, pictures
from torch import nn

from ccakit.models.cca import CCA
from ccakit.models.each import LinearEach
from ccakit.models.registry import create_model
from ccakit.models.trunks.vit import create_vit

EACH = dict(wv="each", adapter=24)
CCAS = ["cca-type1", "cca-type2"]


def scattered(model):
    """Give the conditions different weights, as training does: they begin alike, and adapters at 0."""
    with torch.no_grad():
        for part in (model.block.v, model.block.adapter):
            for parameter in [] if part is None else part.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def alone(model, k, **options):
    """Make a model of shared weights that has condition k's: its W_v, and its adapter inside a wider FFN."""
    other, block = make("cca-type2", **options), model.block
    state = {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(("block.v.", "block.adapter.", "block.kv."))
    }
    other.load_state_dict(state, strict=False)
    if block.v is not None:
        own_v = block.v.weight[k].mT.flatten(0, 1), block.v.bias[k].flatten()  # (H, D, d) -> (H*d, D)
        other.block.kv.weight = nn.Parameter(torch.cat([block.kv.weight, own_v[0]]))
        other.block.kv.bias = nn.Parameter(torch.cat([block.kv.bias, own_v[1]]))
    else:
        other.block.kv = block.kv
    if block.adapter is not None:
        first, last, adapter = block.mlp.fc1, block.mlp.fc2, block.adapter
        wide = other.block.mlp
        wide.fc1.weight = nn.Parameter(torch.cat([first.weight, adapter.down.weight[k].T]))
        wide.fc1.bias = nn.Parameter(torch.cat([first.bias, adapter.down.bias[k]]))
        wide.fc2.weight = nn.Parameter(torch.cat([last.weight, adapter.up.weight[k].T], dim=1))
        wide.fc2.bias = nn.Parameter(last.bias + adapter.up.bias[k])
    return other


@pytest.mark.parametrize("options", [EACH, dict(wv="each"), dict(adapter=24)], ids=["both", "wv", "adapter"])
def test_space_k_is_that_of_a_model_with_the_weights_of_k(options):
    model, tokens = scattered(make("cca-type2", **options)), None
    tokens = model.encode(pictures())
    spaces = model.spaces(tokens)
    for k in range(K):
        expected = alone(model, k)
        close(spaces[:, k], expected.spaces(tokens)[:, k])
        close(
            model.attention(tokens, model.repeat_condition(k, tokens)),
            expected.attention(tokens, model.repeat_condition(k, tokens)),
        )


@pytest.mark.parametrize("name", CCAS)
@pytest.mark.parametrize("query", ["fc", "fc-wq"])
def test_spaces_are_the_embeddings_one_by_one(name, query):
    model = scattered(make(name, query=query, head="each", **EACH))
    tokens = model.encode(pictures())
    spaces = model.spaces(tokens)
    one_by_one = [model.embed(tokens, model.repeat_condition(k, tokens)) for k in range(K)]
    close(spaces, torch.stack(one_by_one, dim=1))
    mixed = torch.arange(len(tokens)) % K
    close(model.embed(tokens, mixed), spaces[torch.arange(len(tokens)), mixed])


@pytest.mark.parametrize("name", CCAS)
def test_they_begin_as_the_blocks_own(name):
    """A pre-trained block begins as it is: equal W_v, and adapters that add nothing."""
    vit = create_vit("lite", pretrained=False, image_size=64, num_heads=4)
    torch.nn.init.normal_(vit.blocks[-1].attn.qkv.bias)
    shared = CCA(deepcopy(vit), K, name.removeprefix("cca-")).eval()
    each = CCA(vit, K, name.removeprefix("cca-"), **EACH).eval()
    each.token.load_state_dict(shared.token.state_dict())
    each.head.load_state_dict(shared.head.state_dict())
    tokens = shared.encode(pictures())
    close(each.spaces(tokens), shared.spaces(tokens))


def test_only_its_own_space_moves_them():
    model = scattered(make("cca-type2", **EACH))
    model.spaces(model.encode(pictures()))[:, 1].sum().backward()
    for part in (model.block.v, model.block.adapter.down, model.block.adapter.up):
        moved = part.weight.grad.abs().flatten(1).sum(dim=1) > 0
        assert moved.tolist() == [False, True, False]


def test_the_papers_block_is_the_default():
    for name in CCAS:
        model = create_model(name, conditions=K, pretrained=False, image_size=64)
        assert not any(isinstance(module, LinearEach) for module in model.modules())


@pytest.mark.parametrize("name", ["triplet", "tf-csn", "tf-asen", "networks", "asen"])
def test_other_systems_have_no_such_weights(name):
    with pytest.raises(ValueError, match=f"{name} has no option adapter, wv"):
        make(name, **EACH)


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="wv 'both': one of .'shared', 'each'."):
        make("cca-type2", wv="both")
    with pytest.raises(ValueError, match="adapter -1: a width, or 0 for none"):
        make("cca-type2", adapter=-1)


@pytest.mark.parametrize("groups", [(), (3,), (2, 3)])
def test_linear_each_is_an_fc_for_each(groups):
    layer, rows = LinearEach(4, 5, 6, groups), torch.tensor([[0, 3], [2, 2], [1, 0]])
    for condition in (rows, rows[:1].expand(3, -1)):
        x = torch.randn(3, 2, *groups, 5)
        found = layer(x, condition)
        for b in range(3):
            for r in range(2):
                weight, bias = layer.weight[condition[b, r]], layer.bias[condition[b, r]]
                close(found[b, r], (x[b, r].unsqueeze(-2) @ weight).squeeze(-2) + bias)
