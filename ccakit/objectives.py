"""The two ways to train, behind one door: batches of an epoch, and the loss of one of them.

`triplets` is the paper's Eq. 8-9: one condition a triplet; anchor, positive and negative go through the trunk in
one pass, each distinct image once. `spaces` is ours: one pass an image gives all K spaces, so every labelled
condition of every image takes part, and every valid triplet in the batch counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ccakit.data.layout import Split
from ccakit.data.triplets import BalancedBatches, Relations, ShuffledBatches, TripletBatch, TripletSampler, ValueIndex
from ccakit.loss import spaces_loss, spread, triplet_loss


@dataclass
class StepResult:
    """What a step says of itself: the loss, valid triplets, and the batch's spread (0: collapsed)."""

    loss: Tensor
    triplets: int
    spread: float


class TripletObjective:
    """Eq. 8-9 over drawn triplets."""

    def __init__(self, split: Split, config) -> None:
        self.sampler = TripletSampler(
            split.labels, len(split.attributes), batch_size=config.batch_size,
            triplets_per_epoch=config.triplets_per_epoch, negatives=config.negatives, seed=config.seed,
        )  # fmt: skip
        self.margin = config.margin

    def prepare(self, batch: TripletBatch) -> tuple[np.ndarray, dict[str, Tensor]]:
        """The images to load, (U,), and what the loss needs beside them."""
        images, gather = batch.distinct()
        condition = torch.from_numpy(np.tile(batch.condition, 3))
        return images, {"gather": torch.from_numpy(gather), "condition": condition}

    def step(self, model, inputs: Tensor, extra: dict[str, Tensor], mining: str, cached: bool) -> StepResult:
        embeddings = model(inputs, extra["condition"], gather=extra["gather"], cached=cached)
        anchor, positive, negative = embeddings.chunk(3)
        loss = triplet_loss(anchor, positive, negative, self.margin, mining)
        widest = max(spread(embeddings[extra["condition"] == c, None]) for c in extra["condition"].unique())
        return StepResult(loss, len(anchor), widest)


class SpacesObjective:
    """Eq. 9 over every valid triplet of a batch, under all conditions at once."""

    def __init__(self, split: Split, config) -> None:
        rows, conditions = split.labels, len(split.attributes)
        ValueIndex(rows, conditions)  # raises where no triplet exists
        layout = config.balance or (one_label_each(rows) and (2, 5, 6))
        if layout:
            self.sampler = BalancedBatches(rows, conditions, layout=layout, seed=config.seed)
        else:
            self.sampler = ShuffledBatches(rows, batch_size=config.batch_size, seed=config.seed)
        self.relations = Relations(rows, conditions, len(split.filenames))
        self.margin = config.margin

    def prepare(self, batch: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
        return batch, {"relation": torch.from_numpy(self.relations.of(batch))}

    def step(self, model, inputs: Tensor, extra: dict[str, Tensor], mining: str, cached: bool) -> StepResult:
        embeddings = model(inputs, cached=cached)
        loss, triplets = spaces_loss(embeddings, extra["relation"], self.margin, mining)
        return StepResult(loss, triplets, spread(embeddings))


def objective_for(split: Split, config) -> TripletObjective | SpacesObjective:
    """The objective that `config.mode` names, over a train split."""
    return {"triplets": TripletObjective, "spaces": SpacesObjective}[config.mode](split, config)


def one_label_each(rows: np.ndarray) -> bool:
    """Whether every image is labelled under one condition only, as in FashionAI."""
    pairs = np.unique(rows[:, :2], axis=0)
    return len(pairs) == len(np.unique(pairs[:, 0]))


class Steps(torch.utils.data.Dataset):
    """An epoch's batches, loaded: `steps[i]` -> (inputs, extra). With a seed, images are flipped at random."""

    def __init__(self, objective, epoch: int, inputs, flip_seed: int | None = None) -> None:
        self.objective, self.inputs = objective, inputs
        self.batches = list(objective.sampler.epoch(epoch))
        self.flip_seed, self.epoch = flip_seed, epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        images, extra = self.objective.prepare(self.batches[index])
        inputs = self.inputs.load(images)
        if self.flip_seed is not None:
            flip = np.random.default_rng([self.flip_seed, self.epoch, index]).random(len(inputs)) < 0.5
            inputs[flip] = inputs[flip].flip(-1)
        return inputs, extra
