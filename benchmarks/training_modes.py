"""Training: triplets in one pass against three, comparisons a second of both modes, mAP in equal time.

    python -m benchmarks.training_modes         # about 4 minutes

1. Mode `triplets`, batch 64 of drawn garments, `lite` trained as a whole (the images go through the CNN in each step):
   one pass over the distinct images (ours) against three forwards, of anchors, positives and negatives, as the field's
   code does. Losses and gradients must be equal (checked, without BatchNorm, whose statistics are a batch's).
   Floor: the share of distinct images, which depends on the data set's size: a batch holds 192 places.
2. Mode `spaces` on kept features: valid labelled comparisons (a triplet under a condition) in the loss a second,
   against `triplets`. The count must equal that of a plain loop over the batches (checked). Which attributes they are
   about: in mode `triplets` each alike, in mode `spaces` by how many images of a batch carry a label.
3. Weighted mAP on valid after equal seconds of training on kept features, in turns, the same seeds.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from benchmarks.common import Row, agree, alternate, begin, options, report


def trainer(folder: Path, mode: str, **settings):
    """A trainer on the drawn data, ready to step."""
    from ccakit.data.layout import read_dataset
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    config = TrainConfig(data=folder / "data", out=folder / "run", mode=mode, **settings)
    made = Trainer(config, read_dataset(folder / "data"), quiet=True)
    made.open_training()
    made.model.train()
    return made


def batches(made, count: int) -> list:
    from ccakit.training.batches import Steps

    return list(islice(Steps(made.objective, 0, made.inputs), count))


def one_pass(model, inputs, extra) -> torch.Tensor:
    """The loss of a batch of triplets, each distinct image encoded once; gradients are left in the model."""
    model.zero_grad(set_to_none=True)
    embedding = model(inputs, extra["condition"], gather=extra["gather"])
    return _loss(*embedding.chunk(3))


def three_passes(model, inputs, extra) -> torch.Tensor:
    """The same with a forward for anchors, positives and negatives each."""
    model.zero_grad(set_to_none=True)
    parts = zip(inputs[extra["gather"]].chunk(3), extra["condition"].chunk(3))
    return _loss(*(model(images, condition) for images, condition in parts))


def _loss(*embeddings) -> torch.Tensor:
    from ccakit.loss import triplet_loss

    loss = triplet_loss(*embeddings)
    loss.backward()
    return loss


def check_passes(model, inputs, extra) -> float:
    """Equal losses, and equal gradients in parts of their largest."""
    model.eval()  # a BatchNorm of the CNN would see other batches
    one = one_pass(model, inputs, extra)
    mine = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    three = three_passes(model, inputs, extra)
    theirs = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    agree("losses of one pass and three", one, three, 1e-5)
    difference = agree(
        "gradients of one pass and three", mine / theirs.abs().max(), theirs / theirs.abs().max(), 1e-3
    )
    model.train()
    return difference


def passes(given, folder: Path) -> list[Row]:
    size = 8 if given.quick else 64
    made = trainer(folder, "triplets", batch_size=size, freeze="none", cache=False, head_norm="none")
    inputs, extra = batches(made, 1)[0]
    model = made.saved.model
    difference = check_passes(model, inputs, extra)
    sides = {
        "one": lambda: one_pass(model, inputs, extra),
        "three": lambda: three_passes(model, inputs, extra),
    }
    times = alternate(sides, given.rounds)
    note = (
        f"{3 * size / times['one']:.1f} and {3 * size / times['three']:.1f} images of triplets/s; "
        f"gradients differ by {difference:.1e}; {times.spread('three', 'one')}"
    )
    distinct = len(inputs) / (3 * size)
    return [
        Row(
            "triplets: three forwards / one pass",
            times.ratio("three", "one"),
            "times its time",
            ">= 1",
            1 / distinct,
            f"{100 * distinct:.1f}% of a batch's images are distinct; {note}",
        )
    ]


def count_by_loop(labels: np.ndarray) -> np.ndarray:
    """(K,) valid comparisons of a batch, (B, K) labels, -1 unlabelled: ordered pairs of one value, times others."""
    totals = np.zeros(labels.shape[1], int)
    for condition, column in enumerate(labels.T.tolist()):
        for i, a in enumerate(column):
            for j, p in enumerate(column):
                if i != j and a >= 0 and a == p:
                    totals[condition] += sum(n >= 0 and n != a for n in column)
    return totals


def comparisons(given, folder: Path) -> list[Row]:
    """Comparisons a second in either mode, whole steps on kept features."""
    size, steps = (16, 2) if given.quick else (64, 8)
    made = {mode: trainer(folder, mode, batch_size=size) for mode in ("spaces", "triplets")}
    ready, counts, images = {mode: batches(of, steps) for mode, of in made.items()}, {}, {}

    def run(mode: str) -> None:
        results = [made[mode].step(inputs, dict(extra)) for inputs, extra in ready[mode]]
        counts[mode] = sum(result.triplets for result in results)
        images[mode] = sum(len(inputs) for inputs, _ in ready[mode])

    times = alternate({mode: lambda mode=mode: run(mode) for mode in made}, given.rounds)
    looped = sum(count_by_loop(extra["labels"].numpy()) for _, extra in ready["spaces"])
    agree("comparisons counted and looped over", counts["spaces"], looped.sum(), 0)
    rate = {mode: counts[mode] / times[mode] for mode in made}
    speed = {mode: images[mode] / times[mode] for mode in made}
    note = (
        f"{rate['spaces']:.4g} and {rate['triplets']:.4g} a second; encoded images/s {speed['spaces']:.0f} and "
        f"{speed['triplets']:.0f}; {counts['spaces'] / steps:.0f} and {counts['triplets'] / steps:.0f} a step"
    )
    shares = dict(zip(made["spaces"].saved.attributes.names, looped / looped.sum()))
    largest = max(shares, key=shares.get)
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return [
        Row("comparisons a second, spaces / triplets", rate["spaces"] / rate["triplets"], "times", note=note),
        Row(
            f"share of comparisons about {largest} in mode spaces",
            shares[largest],
            "of all",
            note=f"in mode triplets {1 / len(shares):.3f}; {told}",
        ),
    ]


def equal_time(given, folder: Path) -> list[Row]:
    """Weighted mAP on valid after the same seconds of training."""
    from ccakit.data.layout import read_dataset
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    seconds, seeds = (1, [0]) if given.quick else (given.seconds, [0, 1, 2])
    found: dict[str, list[float]] = {"spaces": [], "triplets": []}
    steps: dict[str, list[int]] = {"spaces": [], "triplets": []}
    dataset = read_dataset(folder / "data")
    for seed in seeds:
        for mode in found:
            with tempfile.TemporaryDirectory() as out:
                config = TrainConfig(
                    data=folder / "data",
                    out=Path(out) / "run",
                    mode=mode,
                    seed=seed,
                    budget=f"{seconds}s",
                    evaluate_every=10**6,
                )
                made = Trainer(config, dataset, quiet=True)
                found[mode].append(made.run()["best_valid_map_weighted"])
                steps[mode].append(made.progress.step)
    rows = [
        Row(
            f"weighted mAP after {seconds} s, {mode}",
            mean(scores),
            "%",
            floor=_random(dataset),
            note=f"seeds: {', '.join(f'{s:.1f}' for s in scores)}; {mean(steps[mode]):.0f} steps; floor: random",
        )
        for mode, scores in found.items()
    ]
    return [
        *rows,
        Row(
            f"weighted mAP after {seconds} s, spaces - triplets",
            mean(found["spaces"]) - mean(found["triplets"]),
            "points",
            ">= 0",
        ),
    ]


def _random(dataset) -> float:
    from ccakit.metrics import random_map

    valid = dataset["valid"]
    return 100 * random_map(valid.queries, valid.candidates, dataset.attributes).map_weighted


def main(argv: list[str] | None = None) -> dict:
    from ccakit.data.drawn import write_garments

    parser = options(__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each training in part 3 (default 20)")
    given = begin(parser, argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sizes = (120, 40, 10) if given.quick else (3000, 800, 10)
        write_garments(folder / "data", *sizes, progress=False)
        rows = passes(given, folder) + comparisons(given, folder) + equal_time(given, folder)
    return report("training_modes", rows, given)


if __name__ == "__main__":
    main()
