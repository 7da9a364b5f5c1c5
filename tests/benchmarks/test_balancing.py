"""The ways to balance attributes of benchmarks/balancing.py: by hand, and one small run of each."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from places import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import balancing  # noqa: E402


def gradient_of(way: str, *rows: list[float]) -> torch.Tensor:
    """The gradient that a way leaves at one weight vector, where each loss has the given gradient."""
    weight = torch.zeros(len(rows[0]), requires_grad=True)
    losses = torch.tensor(rows, dtype=torch.float32) @ weight + 1
    balancing.WAYS[way](len(rows))(losses, [weight]).backward()
    return weight.grad


def test_pcgrad_takes_out_what_opposes():
    # each loses its part along the other: (1, 0) - (-1) (-1, 1) / 2 and (-1, 1) - (-1) (1, 0)
    assert gradient_of("PCGrad", [1, 0], [-1, 1]).tolist() == pytest.approx([0.5, 1.5])
    assert gradient_of("PCGrad", [1, 0], [0, 2]).tolist() == [1, 2]


def test_imtl_projects_alike_on_each_gradient():
    rows = torch.tensor([[3.0, 0.0, 1.0], [0.0, 1.0, 0.5], [1.0, 1.0, 4.0]])
    on_each = rows / rows.norm(dim=1, keepdim=True) @ gradient_of("IMTL-G", *rows.tolist())
    assert on_each.tolist() == pytest.approx([float(on_each[0])] * 3, rel=1e-4)
    assert gradient_of("IMTL-G", [0, 0], [1, 2]).tolist() == pytest.approx([1, 2])  # one has no gradient


def test_cagrad_helps_the_worst_loss_more_than_the_mean_does():
    rows = torch.tensor([[4.0, 1.0], [-1.0, 1.0]])
    found = gradient_of("CAGrad", *rows.tolist())
    gains, of_mean = rows @ found / found.norm(), rows @ rows.mean(0) / rows.mean(0).norm()
    assert of_mean.min() < gains.min()
    assert found.tolist() != pytest.approx(rows.sum(0).tolist())


def test_weights_follow_uncertainty_and_norms():
    uncertain = balancing.UncertaintyWeights(3)
    for _ in range(50):
        uncertain(torch.tensor([4.0, 0.25, 0.0], requires_grad=True), [])
    high, low, absent = uncertain.log_variance.tolist()
    assert high > 0 > low and absent == 0  # towards exp(s) = 2 L; a condition that is absent stays

    norm = balancing.GradNorm(2)
    weight = torch.zeros(2, requires_grad=True)
    for _ in range(20):
        norm(torch.tensor([[10.0, 0.0], [0.0, 1.0]]) @ weight + 1, [weight])
    assert norm.weights[0] < norm.weights[1] and float(norm.weights.sum()) == pytest.approx(2)


@pytest.mark.slow
def test_each_run_is_a_row(draw, tmp_path, capsys):
    data = draw(128, 20, 40)
    results = tmp_path / "balancing.csv"
    ways = ["neither", "pull and oversample", "PCGrad"]
    argv = [
        "--ways",
        *ways,
        "--data",
        str(data),
        "--budget",
        "epochs=4",
        "--runs",
        str(tmp_path),
        "--results",
        str(results),
    ]
    balancing.main(argv)
    rows = balancing.read_csv(results)
    assert [row["way"] for row in rows] == ways
    assert all(0 <= float(row["worst"]) <= float(row["map_macro"]) <= 100 for row in rows)
    assert len({row["map_weighted"] for row in rows}) == len(rows)  # they differ
    capsys.readouterr()
    balancing.main([*argv, "--markdown"])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + len(rows) and f"{np.mean([float(rows[0]['worst'])]):.1f}" in table[2]
