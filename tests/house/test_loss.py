"""Eq. 9 against torch's own triplet loss and plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ccakit.loss import same_value, spaces_loss, spread, triplet_loss


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1).requires_grad_()


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.7])
def test_triplet_loss_is_torchs_with_cosine_distance(margin):
    a, p, n = unit(50, 8), unit(50, 8), unit(50, 8)
    theirs = nn.TripletMarginWithDistanceLoss(
        distance_function=lambda x, y: 1 - F.cosine_similarity(x, y), margin=max(margin, 1e-12)
    )
    ours, expected = triplet_loss(a, p, n, margin), theirs(a, p, n)
    torch.testing.assert_close(ours, expected)
    for x, y, at in zip(
        torch.autograd.grad(ours, (a, p, n)), torch.autograd.grad(expected, (a, p, n)), (a, p, n)
    ):
        radial = (x * at).sum(
            -1, keepdim=True
        ) * at  # torch's distance normalises once more, which removes this
        torch.testing.assert_close(x - radial, y)


def test_triplet_loss_by_hand():
    a, p, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]]), torch.tensor([[0.6, 0.8]])
    assert triplet_loss(a, p, n, 0.2).item() == pytest.approx(0.2 - 0.4 + 0.2, abs=1e-6)
    assert triplet_loss(a, n, p, 0.2).item() == pytest.approx(0.4 - 0.2 + 0.2, abs=1e-6)
    assert triplet_loss(a, p, -a, 0.2).item() == 0


def loop_loss(embeddings, labels, margin, mining):
    """Eq. 8 and 9 by four nested loops."""
    losses = []
    for c in range(labels.shape[1]):
        for a in range(len(labels)):
            for p in range(len(labels)):
                for n in range(len(labels)):
                    if a == p or min(labels[a, c], labels[p, c], labels[n, c]) < 0:
                        continue
                    if labels[a, c] == labels[p, c] != labels[n, c]:
                        e = embeddings[:, c]
                        value = max(0.0, float((1 - e[a] @ e[p]) - (1 - e[a] @ e[n]) + margin))
                        losses.append(value)
    active = [v for v in losses if v > 0]
    kept = losses if mining == "all" else active
    return sum(losses) / max(1, len(kept)), len(losses)


@pytest.mark.parametrize("mining", ["all", "active"])
@pytest.mark.parametrize("margin", [0.05, 0.2])
def test_spaces_loss_is_the_loop(mining, margin):
    embeddings, labels = unit(9, 3, 4), torch.randint(-1, 3, (9, 3))
    loss, count = spaces_loss(embeddings, same_value(labels), margin, mining)
    expected, triplets = loop_loss(embeddings.detach(), labels, margin, mining)
    assert count == triplets > 0
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_spaces_loss_without_a_triplet_is_zero_with_a_gradient():
    embeddings, labels = unit(4, 2, 3), torch.tensor([[0, -1], [0, -1], [0, 1], [0, 2]])
    loss, count = spaces_loss(embeddings, same_value(labels))
    loss.backward()
    assert count == 0 and loss.item() == 0 and embeddings.grad.abs().sum() == 0


def test_unknown_mining_is_refused():
    with pytest.raises(ValueError, match="all"):
        triplet_loss(unit(1, 2), unit(1, 2), unit(1, 2), mining="hard")


def test_spread_tells_a_point_from_a_sphere():
    assert spread(F.normalize(torch.ones(8, 3, 5), dim=-1)) == pytest.approx(0, abs=1e-6)
    assert spread(unit(4000, 2, 16)) > 0.98


@pytest.mark.parametrize("collapsed", range(4))
def test_one_space_that_is_a_point_is_enough_for_no_spread(collapsed):
    embeddings = unit(500, 4, 16).detach()
    embeddings[:, collapsed] = F.normalize(torch.randn(16), dim=-1)
    assert spread(embeddings) == pytest.approx(0, abs=1e-5)
    pairs = torch.stack([1 - embeddings[:, k] @ embeddings[:, k].T for k in range(4)])  # (K, B, B)
    assert spread(embeddings) == pytest.approx(float(pairs.mean(dim=(1, 2)).min()), abs=1e-5)
