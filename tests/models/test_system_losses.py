"""A system's own losses, by hand; switched off by name; and every system trained for a moment."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ccakit.data.layout import read_dataset
from ccakit.models.asen_pp import FIRST_STAGE
from ccakit.models.base import choose_losses
from ccakit.models.classifier import ValueClassifier
from ccakit.models.registry import create_model, list_models
from ccakit.training.config import TrainConfig
from ccakit.training.objectives import SpacesObjective, TripletObjective
from ccakit.training.setup import learning_rate
from ccakit.training.trainer import Trainer

INFO = {info.name: info for info in list_models()}
OWN = {
    "csn": {"embedding_norm": 5e-3, "mask_norm": 5e-4},
    "csn-preset": {"embedding_norm": 5e-3, "mask_norm": 5e-4},
    "csn-fixed": {"embedding_norm": 5e-3, "mask_norm": 5e-4},
    "tf-csn": {"embedding_norm": 5e-3, "mask_norm": 5e-4},
    "asen-pp": {"local": 0.1, "align": 0.1},
    "m2fashion": {"classify": 1.0},
    "adde": {"classify": 1.0},
}
VALUES = (3, 2, 4)
K = len(VALUES)


@pytest.fixture(scope="module")
def garments(draw):
    return draw(64, 20, 30)


@pytest.fixture(scope="module")
def split(garments):
    return read_dataset(garments)["train"]


def make(name, conditions=K, values=VALUES, **options):
    if INFO[name].system.classifies:
        options["values"] = values
    options = dict(image_size=64, freeze="backbone", trunk_options=dict(width=32, num_heads=2), **options)
    model = create_model(name, conditions=conditions, pretrained=False, **options)
    model.advance(1.0)
    return model.eval()


def tokens_of(model, count):
    """Random kept features through the trained part of the trunk."""
    return model.encode_features(torch.randn(count, 152, 4, 4))


def close(a, b, atol=1e-6):
    torch.testing.assert_close(
        torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=1e-5, check_dtype=False
    )


# -------------------------------------------------------------------------------------------- CSN's two norms


@pytest.mark.parametrize("name", ["csn", "csn-preset", "csn-fixed", "tf-csn"])
def test_csns_norms_over_triplets(name):
    model, triplets = make(name), 5
    tokens = tokens_of(model, 3 * triplets)
    condition = torch.randint(K, (triplets,)).repeat(3)
    out = model.outputs(tokens, condition, torch.zeros(3 * triplets, dtype=torch.long))
    general = model.head.fc(model.pool(tokens)).detach()
    table = (model.mask.table if name == "csn-fixed" else model.mask.table.clamp(min=0)).detach()
    embedding_norm, mask_norm = 0.0, 0.0
    for side in range(3):  # anchor, positive, negative
        squares, absolute = 0.0, 0.0
        for row in range(side * triplets, (side + 1) * triplets):
            squares += float((general[row] ** 2).sum())
            absolute += float(table[condition[row]].abs().sum())
        embedding_norm += math.sqrt(squares) / math.sqrt(triplets) / 3
        mask_norm += absolute / triplets / 3
    assert set(out.terms) == set(OWN[name]) and out.extra == {}
    close(out.terms["embedding_norm"].detach(), embedding_norm)
    close(out.terms["mask_norm"].detach(), mask_norm, atol=1e-5)
    close(out.embedding, model.embed(tokens, condition))


@pytest.mark.parametrize("name", ["csn", "csn-fixed", "tf-csn"])
def test_csns_norms_over_spaces(name):
    model, count = make(name), 7
    tokens = tokens_of(model, count)
    out = model.outputs(tokens, None, torch.zeros(count, K, dtype=torch.long))
    general = model.head.fc(model.pool(tokens)).detach()
    table = (model.mask.table if name == "csn-fixed" else model.mask.table.clamp(min=0)).detach()
    close(
        out.terms["embedding_norm"].detach(), math.sqrt(sum(float(v) ** 2 for v in general.flatten()) / count)
    )
    close(out.terms["mask_norm"].detach(), sum(float(row.abs().sum()) for row in table) / K, atol=1e-5)
    close(out.embedding, model.spaces(tokens))


# ------------------------------------------------------------------------------------------------ classifiers


def plain_classify(classifier, x, condition, labels):
    """Row by row: the condition's slice of the logits, torch's cross entropy, the mean over labelled rows."""
    losses = []
    for row, c, label in zip(x, condition.tolist(), labels.tolist()):
        if label >= 0:
            start = sum(VALUES[:c])
            logits = (
                classifier.fc.weight[start : start + VALUES[c]] @ row
                + classifier.fc.bias[start : start + VALUES[c]]
            )
            losses.append(F.cross_entropy(logits[None], torch.tensor([label])))
    return sum(losses) / max(1, len(losses))


def drawn_labels(*shape_of):
    """Random labels under conditions, a third of them -1."""
    condition = torch.randint(K, shape_of)
    labels = (torch.rand(shape_of) * torch.tensor(VALUES)[condition]).long()
    return condition, labels.masked_fill(torch.rand(shape_of) < 0.3, -1)


def test_the_classifier_is_cross_entropy_over_the_conditions_values():
    classifier = ValueClassifier(6, VALUES)
    condition, labels = drawn_labels(20)
    assert (labels == -1).any() and len(condition.unique()) == K
    x = torch.randn(20, 6, requires_grad=True)
    loss, expected = classifier.loss(x, condition, labels), plain_classify(classifier, x, condition, labels)
    close(loss, expected)
    ours, theirs = (torch.autograd.grad(y, [x, *classifier.parameters()]) for y in (loss, expected))
    for a, b in zip(ours, theirs):
        close(a, b)
    assert (ours[0][labels == -1] == 0).all()
    square = x[:18].view(6, 3, 6)  # (..., width), as for all spaces
    condition, labels = condition[:18].view(6, 3), labels[:18].view(6, 3)
    close(
        classifier.loss(square, condition, labels),
        plain_classify(classifier, x[:18], condition.flatten(), labels.flatten()),
    )


def test_without_any_label_the_classifier_is_silent():
    classifier, x = ValueClassifier(6, VALUES), torch.randn(5, 6, requires_grad=True)
    loss = classifier.loss(x, torch.zeros(5, dtype=torch.long), torch.full((5,), -1))
    assert loss.item() == 0
    loss.backward()
    assert (x.grad == 0).all() and (classifier.fc.weight.grad == 0).all()


@pytest.mark.parametrize("name", ["m2fashion", "adde"])
@pytest.mark.parametrize("mode", ["triplets", "spaces"])
def test_classifiers_read_what_stands_before_the_l2(name, mode):
    model = make(name)
    tokens = tokens_of(model, 9)
    if mode == "spaces":
        condition, labels = torch.arange(K).expand(9, K), torch.randint(-1, 2, (9, K))
        out = model.outputs(tokens, None, labels)
    else:
        condition, labels = drawn_labels(9)
        out = model.outputs(tokens, condition, labels)
    rows = condition.view(9, -1)
    if name == "adde":
        pooled = tokens.mean((2, 3))
        projected = torch.stack([torch.stack([model.mlps[c](pooled)[b] for c in rows[b]]) for b in range(9)])
    else:
        projected = model.head.fc(model.attend(tokens, rows))
    expected = plain_classify(model.classifier, projected.flatten(0, 1), rows.flatten(), labels.flatten())
    close(out.terms["classify"], expected)
    close(out.embedding, F.normalize(projected, dim=-1).view(out.embedding.shape))
    close(out.embedding, model.spaces(tokens) if mode == "spaces" else model.embed(tokens, condition))


# -------------------------------------------------------------------------------------- ASEN++'s two branches


def cosine_distance(a, b):
    return 1 - F.cosine_similarity(a, b, dim=-1)


def test_asen_pps_losses_over_triplets():
    model, triplets = make("asen-pp"), 4
    tokens, condition = tokens_of(model, 3 * triplets), torch.tensor([0, 2, 1, 2]).repeat(3)
    out = model.outputs(tokens, condition, torch.zeros(3 * triplets, dtype=torch.long))
    both = model.embed(tokens, condition).detach()
    half = both.shape[1] // 2
    whole, part = F.normalize(both[:, :half], dim=-1), F.normalize(both[:, half:], dim=-1)
    close(out.embedding, whole)
    assert set(out.extra) == {"local"} and set(out.terms) == {"align"}
    close(out.extra["local"], part)
    align = (
        sum(
            float(cosine_distance(whole[side * triplets + t], part[side * triplets + t]))
            for side in range(3)
            for t in range(triplets)
        )
        / triplets
    )
    close(out.terms["align"].detach(), align, atol=1e-5)
    ranking, total = nn.MarginRankingLoss(margin=0.2), 0.0  # as the authors rank the similarities
    for t in range(triplets):
        near, far = (F.cosine_similarity(part[t], part[side * triplets + t], dim=0) for side in (1, 2))
        total += float(ranking(near[None], far[None], torch.ones(1)))
    split = out.extra["local"].chunk(3)
    theirs = nn.TripletMarginWithDistanceLoss(distance_function=cosine_distance, margin=0.2)(*split)
    close(theirs.detach(), total / triplets)


def test_asen_pps_first_stage_is_the_global_branch_alone():
    model = make("asen-pp")
    model.advance(0.0)
    tokens, condition = tokens_of(model, 6), torch.tensor([0, 2] * 3)
    for out in (model.outputs(tokens, condition, condition), model.outputs(tokens, None, condition)):
        assert out.extra == {} and out.terms == {}
        close(out.embedding.norm(dim=-1), torch.ones(out.embedding.shape[:-1]))
        assert out.embedding.shape[-1] == model.embed_dim // 2


def test_asen_pp_aligns_all_spaces():
    model = make("asen-pp")
    tokens = tokens_of(model, 4)
    out = model.outputs(tokens, None, torch.zeros(4, K, dtype=torch.long))
    rows = [
        cosine_distance(out.embedding[b, c], out.extra["local"][b, c]).item()
        for b in range(4)
        for c in range(K)
    ]
    assert out.extra["local"].shape == out.embedding.shape == (4, K, 32)
    close(out.terms["align"].detach(), 3 * sum(rows) / len(rows), atol=1e-5)


# ------------------------------------------------------------------------------ the objectives' sums, by name


def settings(**options):
    usual = dict(batch_size=6, triplets_per_epoch=60, negatives="asen", seed=0, margin=0.2, balance=None)
    return SimpleNamespace(**{**usual, "pull": 0.0, "oversample": 0.0, **options})


def plain_triplets(embeddings, margin=0.2):
    """Eq. 9's mean over rows of anchors, positives and negatives."""
    count, total = len(embeddings) // 3, 0.0
    for t in range(count):
        a, p, n = (embeddings[side * count + t] for side in range(3))
        total = total + torch.clamp(cosine_distance(a, p) - cosine_distance(a, n) + margin, min=0)
    return total / count


def plain_spaces(spaces, labels, margin=0.2):
    """Eq. 9's mean over every valid triplet of a batch under every condition."""
    losses = []
    for c in range(spaces.shape[1]):
        value = labels[:, c].tolist()
        for a in range(len(value)):
            for p in range(len(value)):
                for n in range(len(value)):
                    if a != p and min(value[a], value[p], value[n]) >= 0 and value[a] == value[p] != value[n]:
                        x, y, z = spaces[a, c], spaces[p, c], spaces[n, c]
                        losses.append(torch.clamp((x * z).sum() - (x * y).sum() + margin, min=0))
    return torch.stack(losses).mean()


def stepped(name, mode, split, without=()):
    """A step's result, and the total and the terms computed from the model's outputs by loops."""
    torch.manual_seed(1)
    sizes = split.attributes.sizes
    options = dict(without=without) if without else {}
    model = make(name, conditions=len(sizes), values=sizes, **options)
    objective = {"triplets": TripletObjective, "spaces": SpacesObjective}[mode](split, settings())
    batch = next(iter(objective.sampler.epoch(0)))
    images, extra = objective.prepare(batch)
    features = torch.randn(len(split.filenames), 152, 4, 4, generator=torch.Generator().manual_seed(2))[
        images
    ]
    with torch.no_grad():
        result = objective.step(model, features, extra, "all", True)
        tokens = model.encode_features(features)
        matrix = torch.from_numpy(split.label_matrix())
        if mode == "triplets":
            order = np.concatenate([batch.anchor, batch.positive, batch.negative])
            rows = torch.from_numpy(np.concatenate([batch.condition] * 3))
            tokens = tokens[torch.tensor([list(images).index(i) for i in order])]
            labels = matrix[torch.from_numpy(order), rows]
            out = model.outputs(tokens, rows, labels)
            base = plain_triplets(out.embedding)
            terms = {name: plain_triplets(of) for name, of in out.extra.items()} | out.terms
        else:
            labels = matrix[torch.from_numpy(images)]
            out = model.outputs(tokens, None, labels)
            base = plain_spaces(out.embedding, labels)
            terms = {name: plain_spaces(of, labels) for name, of in out.extra.items()} | out.terms
        assert (labels >= 0).all() == (mode == "triplets")  # a triplet's condition is labelled
    return result, base, terms


@pytest.mark.parametrize("mode", ["triplets", "spaces"])
@pytest.mark.parametrize("name", ["triplet", "csn", "asen-pp", "m2fashion", "adde", "tf-csn"])
def test_a_step_adds_own_losses_at_their_weights(name, mode, split):
    weights = OWN.get(name, {})
    result, base, terms = stepped(name, mode, split)
    assert set(terms) == set(result.terms) == set(weights) and float(base) > 0
    for term in terms:
        assert float(terms[term]) > 0
        close(result.terms[term], terms[term], atol=1e-5)
    close(result.loss, base + sum(weights[term] * terms[term] for term in terms), atol=1e-5)
    for left_out in weights:
        other, _, rest = stepped(name, mode, split, without=(left_out,))
        assert set(other.terms) == set(rest) == set(weights) - {left_out}
        close(other.loss, base + sum(weights[term] * terms[term] for term in rest), atol=1e-5)
        assert abs(float(other.loss - result.loss)) > 1e-5
    if weights:
        bare, _, _ = stepped(name, mode, split, without=tuple(weights))
        close(bare.loss, base, atol=1e-5)


@pytest.mark.parametrize("name", INFO)
def test_own_losses_are_listed_and_an_unknown_one_is_refused(name):
    model = make(name)
    assert dict(model.own_losses) == OWN.get(name, {})
    if "without" not in INFO[name].options:
        assert not model.own_losses
        return
    with pytest.raises(
        ValueError, match=f"no loss nonsense to leave out; this system has: {', '.join(OWN[name])}"
    ):
        make(name, without=("nonsense",))
    fewer = make(name, without=tuple(OWN[name])[:1])
    assert dict(fewer.own_losses) == dict(list(OWN[name].items())[1:])
    assert dict(make(name).own_losses) == OWN[name]  # the next one has all again


def test_choosing_losses():
    assert choose_losses({"a": 1.0, "b": 2.0}, ("a",)) == {"b": 2.0}
    with pytest.raises(ValueError, match="no loss c, d to leave out; this system has: none"):
        choose_losses({}, ("d", "c"))


# -------------------------------------------------------------------------------------------- training itself


def config(data, out, **options):
    return TrainConfig(
        **{
            **dict(
                data=data,
                out=out,
                image_size=64,
                lite_width=32,
                lite_heads=2,
                batch_size=16,
                triplets_per_epoch=32,
                evaluate_every=9,
                budget="epochs=2",
                pretrained=False,
            ),
            **options,
        }
    )


@pytest.mark.parametrize("mode", ["triplets", pytest.param("spaces", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", INFO)
def test_every_system_trains(name, mode, garments, tmp_path):
    dataset = read_dataset(garments)
    trainer = Trainer(config(garments, tmp_path / "run", model=name, mode=mode), dataset, quiet=True)
    model = trainer.saved.model
    before = {n: t.detach().clone() for n, t in model.state_dict().items()}
    facts = trainer.run()
    with open(tmp_path / "run" / "log.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert facts["epochs"] == 2 and len(rows) == 1 and 0 < facts["best_valid_map_weighted"] <= 100
    assert 0 < float(rows[0]["loss"]) < 5
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    kernels = {n for n, p in model.named_parameters() if n in trained and p.dim() > 1}
    assert kernels <= changed, sorted(kernels - changed)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen and not frozen & changed  # the CNN, and fixed masks
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())
    assert trainer.inputs.cached


@pytest.mark.parametrize("mode", ["triplets", "spaces"])
def test_asen_pp_reaches_its_second_stage_in_training(mode, garments, tmp_path, monkeypatch):
    seen, real = [], Trainer.step

    def step(self, inputs, extra):
        share = self._share()
        result = real(self, inputs, extra)
        rates = {group["slow"]: group["lr"] for group in self.optimizer.param_groups}
        seen.append((share, bool(self.saved.model.second_stage), rates, set(result.terms)))
        return result

    monkeypatch.setattr(Trainer, "step", step)
    options = dict(model="asen-pp", mode=mode, budget="steps=14", lr=1e-2, warmup=0.1)
    trainer = Trainer(config(garments, tmp_path / "run", **options), quiet=True)
    trainer.run()
    assert [stage for _, stage, _, _ in seen] == [False] * 10 + [True] * 4
    for share, stage, rates, terms in seen:
        full = learning_rate(share, 1e-2, 0.1)
        assert stage == (share >= FIRST_STAGE) and terms == ({"local", "align"} if stage else set())
        assert rates[False] == pytest.approx(full) and rates[True] == pytest.approx(
            full * (0.1 if stage else 1.0)
        )
    slow = {id(p) for p in trainer.saved.model.slow_parameters()[0]}
    for group in trainer.optimizer.param_groups:
        assert {id(p) in slow for p in group["params"]} == {group["slow"]}
    grouped = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert grouped == sum(p.requires_grad for p in trainer.saved.model.parameters())


def test_losses_left_out_are_left_out_of_a_run(garments, tmp_path):
    trainer = Trainer(
        config(garments, tmp_path / "run", model="csn", without=("mask_norm",), budget="steps=1"), quiet=True
    )
    trainer.run()
    assert set(trainer.saved.model.own_losses) == {"embedding_norm"}
    assert trainer.saved.recipe["without"] == ["mask_norm"]
    with pytest.raises(ValueError, match="asen has no option without; it has: head"):
        Trainer(config(garments, tmp_path / "other", model="asen", without=("mask_norm",)), quiet=True)
