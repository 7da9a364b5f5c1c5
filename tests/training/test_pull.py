"""How conditions share the pull of a step, compared with plain loops; that a rare attribute is learned."""

from __future__ import annotations

import csv
import itertools
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from systems import INFO, TRUNKS

from ccakit.attributes import Attributes
from ccakit.data.layout import read_dataset, rows_of, write_dataset
from ccakit.data.split import Split
from ccakit.models.registry import create_model
from ccakit.training.config import PLAIN, TrainConfig
from ccakit.training.objectives import objective_for
from ccakit.training.pull import (
    describe_shares,
    expected_shares,
    share_pull,
    starving,
    weigh_conditions,
)
from ccakit.training.trainer import train


def plain_pull(gradient, condition, power):
    """Entry by entry: gradient (..., E), conditions (...)."""
    rows, of = gradient.reshape(-1, gradient.shape[-1]).tolist(), condition.flatten().tolist()
    squares = {}
    for row, k in zip(rows, of):
        squares[k] = squares.get(k, 0.0) + sum(x * x for x in row)
    divided = [[x / math.sqrt(squares[k]) ** power if x else 0.0 for x in row] for row, k in zip(rows, of)]
    before, after = (math.sqrt(sum(x * x for row in each for x in row)) for each in (rows, divided))
    return torch.tensor([[x * before / after for x in row] for row in divided]).view_as(gradient)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_gradients_are_divided_by_their_norms(power, scale):
    condition = torch.arange(4).expand(5, 4)
    gradient = torch.randn(5, 4, 3) * torch.tensor([100.0, 1.0, 0.0, 0.01])[:, None] * scale
    found = weigh_conditions(gradient, condition, power)
    torch.testing.assert_close(found, plain_pull(gradient, condition, power), rtol=1e-4, atol=1e-6 * scale)
    torch.testing.assert_close(found.norm(), gradient.norm())
    assert not found[:, 2].any()  # a space without gradient stays without
    if power == 1:
        norms = found.norm(dim=(0, 2))[[0, 1, 3]]
        torch.testing.assert_close(norms, norms[:1].expand(3))


def test_nothing_is_changed_forward_nor_without_a_gradient_nor_at_0():
    x, condition = torch.randn(5, 4, 3, requires_grad=True), torch.arange(4).expand(5, 4)
    assert share_pull(x, condition, 0.0) is x
    assert torch.equal(share_pull(x, condition, 1.0), x)
    assert not weigh_conditions(torch.zeros(5, 4, 3), condition, 1.0).any()


@pytest.fixture(scope="module")
def split(draw):
    return read_dataset(draw(83, 21, 37))["train"]


def steps(model, objective, features):
    """A batch's loss, what the model gave for it, and the condition of each embedding."""
    given, outputs = [], type(model).outputs
    model.outputs = lambda *inputs: given.append(outputs(model, *inputs)) or given[0]
    images, extra = objective.prepare(next(iter(objective.sampler.epoch(0))))
    loss = objective.step(model, features[: len(images)], extra, "all", True).loss
    return loss, given[0], extra.get("condition", torch.arange(8).expand(len(images), 8))


@pytest.mark.parametrize("mode", ["spaces", "triplets"])
@pytest.mark.parametrize("name", ["cca-type2", "networks", "csn", "asen-pp", "adde"])
def test_a_step_pulls_as_the_loops_do(name, mode, split):
    """Weights get the gradient at the embeddings, weighed by loops, and that of the system's own losses."""
    options = dict(values=split.attributes.sizes) if INFO[name].system.classifies else {}
    options |= dict(head="each") if "head" in INFO[name].options else {}
    model = create_model(name, conditions=8, pretrained=False, freeze="backbone", **TRUNKS["lite"], **options)
    model.advance(1.0)  # asen-pp: its second stage
    trained, features = [p for p in model.parameters() if p.requires_grad], torch.randn(36, 152, 8, 8)
    settings = dict(mode=mode, batch_size=12, pull=0.0)
    loss, _, _ = steps(model, objective_for(split, TrainConfig(**{**settings, "pull": 0.5})), features)
    ours = torch.autograd.grad(loss, trained, allow_unused=True)
    loss, out, condition = steps(model, objective_for(split, TrainConfig(**settings)), features)
    own = sum((model.own_losses[name] * term for name, term in out.terms.items()), torch.zeros(()))
    compared = [out.embedding, *out.extra.values()]
    arriving = torch.autograd.grad(loss - own, compared, retain_graph=True)
    pulled = [plain_pull(gradient, condition, 0.5) for gradient in arriving]
    surrogate = own + sum((each * gradient).sum() for each, gradient in zip(compared, pulled))
    theirs = torch.autograd.grad(surrogate, trained, allow_unused=True, retain_graph=True)
    unpulled = torch.autograd.grad(loss, trained, allow_unused=True)
    changed = 0.0
    for a, b, c in zip(ours, theirs, unpulled):
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
            changed = max(changed, float((a - c).abs().max()))
    assert changed > 1e-4


# ------------------------------------------------------------------------------------------- expected shares


@pytest.mark.parametrize("mode", ["spaces", "triplets"])
def test_comparisons_are_counted_as_by_loops(mode, split):
    objective = objective_for(split, TrainConfig(mode=mode, batch_size=12))
    batch, labels = next(iter(objective.sampler.epoch(0))), split.label_matrix()
    counts = np.zeros(8, int)
    if mode == "triplets":
        for condition in batch.condition:
            counts[condition] += 1
    else:
        for c in range(8):
            for a, p, n in itertools.permutations(batch, 3):
                counts[c] += min(labels[[a, p, n], c]) >= 0 and labels[a, c] == labels[p, c] != labels[n, c]
    assert counts.sum() > 0 and np.array_equal(objective.comparisons(batch), counts)


class Counted:
    """An objective of two batches, of four and one comparisons, and of nine of the first condition alone."""

    sampler = SimpleNamespace(epoch=lambda _: [[4, 1], [9, 0]])
    comparisons = staticmethod(np.array)


@pytest.mark.parametrize("power,shares", [(0, [0.9, 0.1]), (0.5, [5 / 6, 1 / 6]), (1, [0.75, 0.25])])
def test_shares_are_means_over_batches(power, shares):
    np.testing.assert_allclose(expected_shares(Counted, power), shares)


def test_what_starves_has_less_than_a_fifth_of_an_equal_share():
    shares = np.array([0.04, 0.9, 0.06])
    assert starving(shares).tolist() == [True, False, True]
    words = "big 90.0%, coat length 6.0%, a 4.0%; may starve: coat length, a"
    assert describe_shares(("a", "big", "coat_length"), shares) == f"expected share of the pull: {words}"


# ----------------------------------------------------------------------------------------- a rare attribute

COLOURS = np.array([(220, 40, 40), (40, 200, 60), (50, 80, 230)])


def draw_rare(root) -> None:
    """Write pictures with two coloured squares and a tinted ground, labelled in 3% of the training images."""
    rng, splits = np.random.default_rng(0), []
    attributes = Attributes(("upper", "lower", "ground"), (("red", "green", "blue"),) * 3)
    for name, count in (("train", 1600), ("valid", 200)):
        labels, files = rng.integers(3, size=(count, 3)), [f"{name}/{i}.png" for i in range(count)]
        (root / name).mkdir(parents=True)
        for file, (*squares, ground) in zip(files, labels):
            image = rng.integers(60, 120, (64, 64, 3)) + COLOURS[ground] // 3
            for half, value in enumerate(squares):
                y, x = 32 * half + rng.integers(16), rng.integers(48)
                image[y : y + 16, x : x + 16] = COLOURS[value]
            cv2.imwrite(str(root / file), image.astype(np.uint8))
        if name == "train":
            labels[48:, 2] = -1
        rows = rows_of(labels)
        asks = rows[:, 0] % 5 == 0
        tables = [rows] if name == "train" else [rows[~asks], rows[asks]]
        splits.append(Split.from_tables(name, root, attributes, files, tables))
    write_dataset(root, "rare", attributes, splits)


@pytest.mark.slow
def test_an_attribute_labelled_in_3_percent_of_the_images_is_learned(tmp_path):
    """With equal pull and heads of each; without, it stays at chance (36) while the others are learned."""
    draw_rare(tmp_path / "data")
    options = dict(image_size=64, lite_width=64, batch_size=160, budget="epochs=8")
    options |= {**PLAIN, "head": "each"}
    found = {}
    for pull in (0.0, 1.0):
        out = tmp_path / str(pull)
        train(TrainConfig(data=tmp_path / "data", out=out, **{**options, "pull": pull}), quiet=True)
        with open(out / "log.csv", encoding="utf-8", newline="") as file:
            *_, last = csv.DictReader(file)
        found[pull] = {name: float(last[f"valid_map:{name}"]) for name in ("upper", "lower", "ground")}
        assert ("may starve: ground" in (out / "train.log").read_text("utf-8")) == (pull == 0)
    assert min(found[pull][name] for pull in found for name in ("upper", "lower")) > 90
    assert found[0.0]["ground"] < 45 and found[1.0]["ground"] > 70
