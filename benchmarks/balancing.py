"""Ways to balance many attributes in one network, under one protocol: ours, and those of the literature.

    python -m benchmarks.balancing                  # about 25 minutes on 2 cores
    python -m benchmarks.balancing --markdown       # the table of docs/results.md, from results/balancing.csv

Every run trains CCA Type-2 in mode `spaces` with a head of each condition, 8 heads and equal epochs; only the
way to balance differs. `oversample` and `pull` are the options of `ccakit train`; `neither` has none of them.
The others begin with a loss a condition, the mean over its triplets, and a batch that is drawn as in
`oversample`. A way that works on gradients computes one a condition, of all weights, each step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from benchmarks.common import ROOT, plain_parser, read_csv, write_csv

RESULTS = ROOT / "results" / "balancing.csv"
COLUMNS = (
    "dataset",
    "way",
    "seed",
    "valid_map_weighted",
    "map_weighted",
    "map_macro",
    "worst",
    "train_seconds",
)
OPTIONS = {
    "neither": {},
    "oversample": dict(oversample=0.25),
    "pull": dict(pull=1.0),
    "pull and oversample": dict(pull=1.0, oversample=0.25),
}


class UncertaintyWeights:
    """Weigh each loss by a learned uncertainty: exp(-s) L + s / 2. Kendall et al., CVPR 2018."""

    def __init__(self, conditions: int) -> None:
        self.log_variance = torch.zeros(conditions, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.log_variance], lr=0.01)

    def __call__(self, losses: Tensor, parameters: list[Tensor]) -> Tensor:
        s, present = self.log_variance, losses.detach() > 0
        self.optimizer.zero_grad()
        (torch.exp(-s) * losses.detach() + s / 2)[present].sum().backward()
        self.optimizer.step()
        return (torch.exp(-s.detach()) * losses).sum()


class GradNorm:
    """Learn weights by which the gradients' norms follow the losses' rates. Chen et al., ICML 2018."""

    rate, asymmetry = 0.025, 1.5

    def __init__(self, conditions: int) -> None:
        self.weights, self.first = torch.ones(conditions), None

    def __call__(self, losses: Tensor, parameters: list[Tensor]) -> Tensor:
        values = losses.detach().clamp(min=1e-4)
        self.first = values if self.first is None else self.first
        norms = gradients(losses, parameters).norm(dim=1)
        pace = values / self.first
        target = (self.weights * norms).mean() * (pace / pace.mean()) ** self.asymmetry
        step = self.rate * torch.sign(self.weights * norms - target) * norms / norms.mean().clamp(min=1e-12)
        weights = (self.weights - step).clamp(min=1e-3)
        self.weights = weights * len(weights) / weights.sum()
        return (self.weights * losses).sum()


class PCGrad:
    """Take from each gradient what opposes another's. Yu et al., NeurIPS 2020."""

    def __init__(self, conditions: int) -> None:
        pass

    def __call__(self, losses: Tensor, parameters: list[Tensor]) -> Tensor:
        own = gradients(losses, parameters)
        projected = own.clone()
        for i in range(len(own)):
            for j in torch.randperm(len(own)).tolist():
                overlap = projected[i] @ own[j]
                if j != i and overlap < 0:
                    projected[i] -= overlap / own[j].square().sum() * own[j]
        return with_gradient(losses, parameters, projected.sum(dim=0))


class CAGrad:
    """Maximise the smallest gain of a loss, near the mean gradient (c = 0.5). Liu et al., NeurIPS 2021."""

    radius = 0.5

    def __init__(self, conditions: int) -> None:
        self.even = np.full(conditions, 1 / conditions)

    def __call__(self, losses: Tensor, parameters: list[Tensor]) -> Tensor:
        own = gradients(losses, parameters)
        products = (own @ own.T).double().numpy()
        reach = self.radius * np.sqrt(self.even @ products @ self.even + 1e-12)

        def dual(w: np.ndarray) -> float:
            return w @ products @ self.even + reach * np.sqrt(w @ products @ w + 1e-12)

        unit = [(0, 1)] * len(own)
        found = minimize(
            dual, self.even, bounds=unit, constraints={"type": "eq", "fun": lambda w: 1 - w.sum()}
        )
        worst = torch.from_numpy(found.x).to(own) @ own
        gradient = own.mean(dim=0) + reach / worst.norm().clamp(min=1e-8) * worst
        return with_gradient(losses, parameters, gradient * len(own) / (1 + self.radius))


class IMTLG:
    """Weigh gradients so that their sum projects alike on each of them. Liu et al., ICLR 2021 (IMTL-G)."""

    def __init__(self, conditions: int) -> None:
        pass

    def __call__(self, losses: Tensor, parameters: list[Tensor]) -> Tensor:
        own = gradients(losses, parameters)
        own = own[own.norm(dim=1) > 0]
        if len(own) == 0:
            return losses.sum()
        units = own / own.norm(dim=1, keepdim=True)
        differences, of_units = own[0] - own[1:], units[0] - units[1:]
        rest = own[0] @ of_units.T @ torch.linalg.pinv(differences @ of_units.T)
        weights = torch.cat([1 - rest.sum()[None], rest])
        return with_gradient(losses, parameters, len(own) * weights @ own)


WAYS = {
    "uncertainty weights": UncertaintyWeights,
    "GradNorm": GradNorm,
    "PCGrad": PCGrad,
    "CAGrad": CAGrad,
    "IMTL-G": IMTLG,
}


def gradients(losses: Tensor, parameters: list[Tensor]) -> Tensor:
    """Compute the gradient of each loss: (K,) losses, weights with P numbers in all -> (K, P)."""
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        zeros = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found))
        rows.append(torch.cat([g.flatten() for g in zeros]))
    return torch.stack(rows)


def with_gradient(losses: Tensor, parameters: list[Tensor], gradient: Tensor) -> Tensor:
    """Give the sum of the losses a gradient (P,) of its own: a backward pass from it leaves this one."""
    parts = gradient.split([p.numel() for p in parameters])
    linear = sum((p * part.view_as(p)).sum() for p, part in zip(parameters, parts))
    return losses.sum().detach() + linear - linear.detach()


def objective_with(way: Callable) -> Callable:
    """Make a function that stands for `objective_for`: mode `spaces`, with the losses joined by `way`."""
    from ccakit.loss import spaces_loss, spread
    from ccakit.training.objectives import SpacesObjective, StepResult

    class Joined(SpacesObjective):
        def __init__(self, split, config) -> None:
            super().__init__(split, config)
            self.way = way(len(split.attributes))

        def step(self, model, inputs, extra, mining, cached) -> StepResult:
            embedding = model(inputs, cached=cached, labels=extra["labels"]).embedding
            relation = extra["relation"]
            each = [
                spaces_loss(embedding[:, [k]], relation[[k]], self.margin, mining)
                for k in range(len(relation))
            ]
            losses, counts = torch.stack([loss for loss, _ in each]), sum(count for _, count in each)
            parameters = [p for p in model.parameters() if p.requires_grad]
            return StepResult(self.way(losses, parameters), counts, spread(embedding))

    return Joined


def run(data: Path, way: str, seed: int, out: Path, budget: str) -> dict:
    """Train and evaluate one run; return its row."""
    import ccakit
    from ccakit.training import trainer
    from ccakit.training.config import PLAIN, TrainConfig

    settings = dict(data=data, out=out, seed=seed, budget=budget, evaluate_every=2)
    settings |= {**PLAIN, "lite_heads": 8, "head": "each"}
    usual = trainer.objective_for
    if way in WAYS:
        settings.update(oversample=0.25)
        trainer.objective_for = objective_with(WAYS[way])
    try:
        _, facts = trainer.train(TrainConfig(**{**settings, **OPTIONS.get(way, {})}), quiet=True)
    finally:
        trainer.objective_for = usual
    opened = ccakit.open_run(out)
    result = ccakit.evaluate(opened)
    row = dict(dataset=data.name, way=way, seed=seed, valid_map_weighted=facts["best_valid_map_weighted"])
    row.update({name: result[name] for name in ("map_weighted", "map_macro")})
    row.update(worst=min(result["map_per_attribute"].values()), train_seconds=facts["train_seconds"])
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()}


def markdown(rows: list[dict]) -> str:
    """Make the table: for each data set and way the mean over seeds, and what training costs."""
    lines = [
        "| data | way | seeds | weighted mAP, valid | test | macro mAP | worst attribute | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dataset, way in dict.fromkeys((row["dataset"], row["way"]) for row in rows):
        runs = [row for row in rows if (row["dataset"], row["way"]) == (dataset, way)]
        names = ("valid_map_weighted", "map_weighted", "map_macro", "worst")
        means = [f"{np.mean([float(row[name]) for row in runs]):.1f}" for name in names]
        seconds = np.mean([float(row["train_seconds"]) for row in runs])
        lines.append(f"| {dataset} | {way} | {len(runs)} | {' | '.join(means)} | {seconds:.0f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=[Path("data/garments_rare")])
    parser.add_argument(
        "--ways", nargs="+", default=[*OPTIONS, *WAYS], choices=[*OPTIONS, *WAYS], metavar="WAY"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budget", default="epochs=10")
    parser.add_argument("--runs", type=Path, default=Path("runs/balancing"), help="where the run folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to add rows to")
    parser.add_argument("--markdown", action="store_true", help="print the table of the rows, and stop")
    options = parser.parse_args(argv)
    rows = read_csv(options.results) if options.results.is_file() else []
    done = {(row["dataset"], row["way"], int(row["seed"])) for row in rows}
    wanted = [(data, way, seed) for data in options.data for way in options.ways for seed in options.seeds]
    for data, way, seed in [] if options.markdown else wanted:
        if (data.name, way, seed) not in done:
            out = options.runs / f"{data.name}, {way}, seed {seed}"
            rows.append(run(data, way, seed, out, options.budget))
            write_csv(options.results, COLUMNS, rows)
            print(rows[-1], flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
