"""Training: triplets in one pass against three, comparisons a second of both modes, mAP in equal time.

    python -m benchmarks.training_modes         # about 4 minutes

1. Mode `triplets`, batch 64 of drawn garments, the whole of `lite` trained (the images go through the CNN in
   each step): one pass over the distinct images (ours) against three forwards, of anchors, positives and
   negatives, as in the field's code. Losses and gradients must be equal. (Checked without BatchNorm, whose
   statistics are those of a batch.) Floor: the share of distinct images among the 192 of a batch, which
   depends on the size of the data set.
2. Mode `spaces` on kept features: labelled comparisons (a triplet under a condition) in the loss in a second,
   against `triplets`. Their number must equal that of a plain loop over the batches (checked). In mode
   `triplets` each attribute has the same share of them, in mode `spaces` a share by how many images of a
   batch have a label.
3. Weighted mAP on valid after equal seconds of training on kept features, in turns, with the same seeds.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from benchmarks.common import Row, agree, alternate, begin, make_parser, ready_trainer, report

CLAIMS = {"triplets: three forwards / one pass": ">= 1", "weighted mAP after 20 s, spaces - triplets": ">= 0"}


def batches(trainer, count: int) -> list:
    """Load the first `count` batches of an epoch."""
    from ccakit.training.batches import Steps

    return list(islice(Steps(trainer.objective, 0, trainer.inputs), count))


def one_pass(model, inputs, extra) -> torch.Tensor:
    """Compute the loss of a batch of triplets, each distinct image encoded once; leave the gradients in the
    model."""
    model.zero_grad(set_to_none=True)
    embedding = model(inputs, extra["condition"], gather=extra["gather"])
    return _loss(*embedding.chunk(3))


def three_passes(model, inputs, extra) -> torch.Tensor:
    """Compute the same with a forward for anchors, one for positives and one for negatives."""
    model.zero_grad(set_to_none=True)
    parts = zip(inputs[extra["gather"]].chunk(3), extra["condition"].chunk(3))
    return _loss(*(model(images, condition) for images, condition in parts))


def _loss(*embeddings) -> torch.Tensor:
    from ccakit.loss import triplet_loss

    loss = triplet_loss(*embeddings)
    loss.backward()
    return loss


def check_passes(model, inputs, extra) -> float:
    """Give the largest difference of the gradients, relative to the largest gradient; Disagreement if too
    large."""
    model.eval()  # the CNN's BatchNorm would see other batches
    one = one_pass(model, inputs, extra)
    gradient = _gradient(model)
    three = three_passes(model, inputs, extra)
    other_gradient = _gradient(model)
    model.train()
    agree("losses of one pass and three", one, three, 1e-5)
    largest = other_gradient.abs().max()
    return agree("gradients of one pass and three", gradient / largest, other_gradient / largest, 1e-3)


def _gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def passes(options, folder: Path) -> list[Row]:
    """Compare one pass over the distinct images with three forwards."""
    size = 8 if options.quick else 64
    settings = dict(batch_size=size, freeze="none", cache=False, head_norm="none")
    trainer = ready_trainer(folder, mode="triplets", **settings)
    inputs, extra = batches(trainer, 1)[0]
    model = trainer.saved.model
    difference = check_passes(model, inputs, extra)
    sides = {
        "one": lambda: one_pass(model, inputs, extra),
        "three": lambda: three_passes(model, inputs, extra),
    }
    times = alternate(sides, options.rounds)
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
            floor=1 / distinct,
            note=f"{100 * distinct:.1f}% of a batch's images are distinct; {note}",
        )
    ]


def count_by_loop(labels: np.ndarray) -> np.ndarray:
    """Count the comparisons of a batch by plain loops: labels (B, K), -1 where unlabelled -> (K,) int.

    A comparison is an ordered pair of images with the same value, and an image with another value.
    """
    totals = np.zeros(labels.shape[1], int)
    for condition, column in enumerate(labels.T.tolist()):
        for i, anchor in enumerate(column):
            for j, positive in enumerate(column):
                if i != j and anchor >= 0 and anchor == positive:
                    totals[condition] += sum(label >= 0 and label != anchor for label in column)
    return totals


def comparisons(options, folder: Path) -> list[Row]:
    """Count the comparisons a second in either mode, in whole steps on kept features."""
    size, steps = (16, 2) if options.quick else (64, 8)
    made = {mode: ready_trainer(folder, mode=mode, batch_size=size) for mode in ("spaces", "triplets")}
    ready, counts, images = {mode: batches(trainer, steps) for mode, trainer in made.items()}, {}, {}

    def run(mode: str) -> None:
        results = [made[mode].step(inputs, dict(extra)) for inputs, extra in ready[mode]]
        counts[mode] = sum(result.triplets for result in results)
        images[mode] = sum(len(inputs) for inputs, _ in ready[mode])

    times = alternate({mode: lambda mode=mode: run(mode) for mode in made}, options.rounds)
    looped = sum(count_by_loop(extra["labels"].numpy()) for _, extra in ready["spaces"])
    agree("comparisons counted and looped over", counts["spaces"], looped.sum(), 0)
    rate = {mode: counts[mode] / times[mode] for mode in made}
    speed = {mode: images[mode] / times[mode] for mode in made}
    a_step = f"{counts['spaces'] / steps:.0f} and {counts['triplets'] / steps:.0f} a step"
    note = (
        f"{rate['spaces']:.4g} and {rate['triplets']:.4g} a second; encoded images/s {speed['spaces']:.0f} "
        f"and {speed['triplets']:.0f}; {a_step}"
    )
    shares = dict(zip(made["spaces"].saved.attributes.names, looped / looped.sum()))
    largest = max(shares, key=shares.get)
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    equal = f"in mode triplets {1 / len(shares):.3f}; {listed}"
    return [
        Row("comparisons a second, spaces / triplets", rate["spaces"] / rate["triplets"], "times", note=note),
        Row(f"share of comparisons about {largest} in mode spaces", shares[largest], "of all", note=equal),
    ]


def equal_time(options, folder: Path) -> list[Row]:
    """Compare the weighted mAPs on valid after the same seconds of training."""
    from ccakit.data.layout import read_dataset
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    seconds, seeds = (1, [0]) if options.quick else (options.seconds, [0, 1, 2])
    scores: dict[str, list[float]] = {"spaces": [], "triplets": []}
    steps: dict[str, list[int]] = {"spaces": [], "triplets": []}
    dataset = read_dataset(folder / "data")
    for seed in seeds:
        for mode in scores:
            with tempfile.TemporaryDirectory() as out:
                config = TrainConfig(
                    data=folder / "data",
                    out=Path(out) / "run",
                    mode=mode,
                    seed=seed,
                    budget=f"{seconds}s",
                    evaluate_every=10**6,
                )
                trainer = Trainer(config, dataset, quiet=True)
                scores[mode].append(trainer.run()["best_valid_map_weighted"])
                steps[mode].append(trainer.progress.step)
    chance, rows = _random(dataset), []
    for mode, found in scores.items():
        seeded = ", ".join(f"{score:.1f}" for score in found)
        note = f"seeds: {seeded}; {mean(steps[mode]):.0f} steps; floor: random"
        rows.append(Row(f"weighted mAP after {seconds} s, {mode}", mean(found), "%", floor=chance, note=note))
    gain = mean(scores["spaces"]) - mean(scores["triplets"])
    rows.append(Row(f"weighted mAP after {seconds} s, spaces - triplets", gain, "points", ">= 0"))
    return rows


def _random(dataset) -> float:
    """Compute the weighted mAP of a random ranking of valid, in percent."""
    from ccakit.metrics import random_map

    valid = dataset["valid"]
    return 100 * random_map(valid.queries, valid.candidates, dataset.attributes).map_weighted


def main(argv: list[str] | None = None) -> dict:
    from ccakit.data.drawn import write_garments

    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="seconds of each training in part 3")
    options = begin(parser, argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sizes = (120, 40, 10) if options.quick else (3000, 800, 10)
        write_garments(folder / "data", *sizes, progress=False)
        rows = passes(options, folder) + comparisons(options, folder) + equal_time(options, folder)
    return report("training_modes", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
