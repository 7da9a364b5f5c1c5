"""Two ways to train with one interface: an epoch's batches, and the loss of a batch.

`triplets` is the paper's Eq. 8-9: a triplet has one condition; anchor, positive and negative go through the
trunk in one pass, each distinct image once. `spaces` is ours: one pass of an image gives all K spaces, so
that every labelled condition of every image takes part, and every valid triplet in the batch counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ccakit import processes
from ccakit.data.split import Split
from ccakit.data.value_index import ValueIndex
from ccakit.loss import spaces_loss, spread, triplet_loss
from ccakit.models.base import Outputs
from ccakit.training import batchnorm, samplers
from ccakit.training.pull import share_pull
from ccakit.training.samplers import TripletBatch

SINGLE = 0.9  # the share of images with labels of one attribute alone, from which batches are balanced


@dataclass
class StepResult:
    """Hold the result of a step: the loss, the number of valid triplets, the batch's spread (0: collapsed),
    and the system's own losses by name, unweighted."""

    loss: Tensor
    triplets: int
    spread: float
    terms: dict[str, Tensor] = field(default_factory=dict)


class TripletObjective:
    """Compute Eq. 8-9 over drawn triplets."""

    def __init__(self, split: Split, config) -> None:
        self.sampler = samplers.TripletSampler(
            split.labels,
            len(split.attributes),
            batch_size=config.batch_size,
            triplets_per_epoch=config.triplets_per_epoch,
            negatives=config.negatives,
            seed=config.seed,
        )
        self.sampling = f"triplets are drawn, {config.batch_size} a batch (mode triplets)"
        self.margin, self.pull = config.margin, config.pull
        self.labels = torch.from_numpy(split.label_matrix())

    def images(self, batch: TripletBatch) -> np.ndarray:
        """List the distinct images of the batch, over all processes."""
        return batch.distinct()[0]

    def comparisons(self, batch: TripletBatch) -> np.ndarray:
        """Count the batch's triplets of each condition, (K,)."""
        return np.bincount(batch.condition, minlength=self.labels.shape[1])

    def prepare(self, batch: TripletBatch) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Give the images of this process's triplets, (U,), and the other tensors that the loss needs."""
        part = TripletBatch(*map(processes.shard, batch))
        images, gather = part.distinct()
        weight = {"weight": _weights(images, batch)} if processes.world_size() > 1 else {}
        gather, condition = torch.from_numpy(gather), torch.from_numpy(np.tile(part.condition, 3))
        labels = self.labels[torch.from_numpy(images)[gather], condition]
        return images, {"gather": gather, "condition": condition, "labels": labels, **weight}

    def step(self, model, inputs: Tensor, extra: dict[str, Tensor], mining: str, cached: bool) -> StepResult:
        condition = processes.gather_sides(extra["condition"], 3)

        def compare(embeddings: Tensor) -> tuple[Tensor, int]:
            anchor, positive, negative = share_pull(embeddings, condition, self.pull).chunk(3)
            return triplet_loss(anchor, positive, negative, self.margin, mining), len(anchor)

        batchnorm.weigh_rows(_unwrapped(model).trunk, extra.get("weight"))
        out = model(inputs, extra["condition"], gather=extra["gather"], cached=cached, labels=extra["labels"])
        out = _gathered(out, 3)
        spreads = [spread(out.embedding[condition == each, None]) for each in condition.unique()]
        # the widest condition: a batch has few images of each, and some lie close by chance
        return _result(model, out, compare, max(spreads))


class SpacesObjective:
    """Compute Eq. 9 over every valid triplet of a batch, under all conditions at once."""

    def __init__(self, split: Split, config) -> None:
        rows, conditions = split.labels, len(split.attributes)
        ValueIndex(rows, conditions)  # raises where no triplet exists
        layout, why = choose_layout(rows, config.balance)
        if layout:
            self.sampler = samplers.BalancedBatches(rows, conditions, layout=layout, seed=config.seed)
            batches = "{} conditions x {} values x {} images".format(*layout)
        else:
            options = dict(batch_size=config.batch_size, oversample=config.oversample, seed=config.seed)
            self.sampler = samplers.ShuffledBatches(rows, **options)
            rare = f", attributes below {100 * config.oversample:g}% drawn more often"
            batches = f"{config.batch_size} images, shuffled{rare if self.sampler.repeats else ''}"
        self.sampling = f"batches of {batches}: {why}"
        self.relations = samplers.Relations(rows, conditions, len(split.filenames))
        self.margin, self.pull = config.margin, config.pull
        self.labels = torch.from_numpy(split.label_matrix())

    def images(self, batch: np.ndarray) -> np.ndarray:
        """List the distinct images of the batch, over all processes."""
        return batch

    def comparisons(self, batch: np.ndarray) -> np.ndarray:
        """Count the batch's valid triplets of each condition, (K,)."""
        relation = self.relations.of(batch)
        labelled = relation.diagonal(axis1=1, axis2=2)  # (K, B), 1 where an image has a label
        positives, negatives = (relation == 1).sum(2) - labelled, (relation == -1).sum(2)
        return (positives * negatives).sum(1)

    def prepare(self, batch: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Give this process's images, (U,), and the other tensors that the loss needs."""
        part = processes.shard(batch)
        return part, {"relation": torch.from_numpy(self.relations.of(batch)), "labels": self.labels[part]}

    def step(self, model, inputs: Tensor, extra: dict[str, Tensor], mining: str, cached: bool) -> StepResult:
        def compare(embeddings: Tensor) -> tuple[Tensor, int]:
            condition = _unwrapped(model).all_conditions(embeddings)
            pulled = share_pull(embeddings, condition, self.pull)
            return spaces_loss(pulled, extra["relation"], self.margin, mining)

        out = _gathered(model(inputs, cached=cached, labels=extra["labels"]), 1)
        return _result(model, out, compare, spread(out.embedding))


def _weights(images: np.ndarray, batch: TripletBatch) -> Tensor:
    """Divide 1 by the number of processes that encode each of the images: (U,) float32."""
    triplets = np.stack([batch.anchor, batch.positive, batch.negative], axis=1)  # (T, 3)
    parts = [np.unique(part) for part in np.array_split(triplets, processes.world_size())]
    found, counts = np.unique(np.concatenate(parts), return_counts=True)
    return torch.from_numpy((1 / counts[np.searchsorted(found, images)]).astype(np.float32))


def _unwrapped(model):
    """Get the model itself, where it is wrapped for several processes."""
    return getattr(model, "module", model)


def _gathered(out: Outputs, sides: int) -> Outputs:
    """Gather the embeddings of all processes, each with so many sides, one after the other."""
    also = {name: processes.gather_sides(embedding, sides) for name, embedding in out.extra.items()}
    return Outputs(processes.gather_sides(out.embedding, sides), also, out.terms)


def _result(
    model, out: Outputs, compare: Callable[[Tensor], tuple[Tensor, int]], batch_spread: float
) -> StepResult:
    """Add the system's own losses, weighted, to the loss that `compare` computes."""
    own = _unwrapped(model).own_losses
    loss, triplets = compare(out.embedding)
    terms = {name: compare(embeddings)[0] for name, embeddings in out.extra.items()} | out.terms
    total = loss + sum(own[name] * term for name, term in terms.items())
    return StepResult(total, triplets, batch_spread, {name: term.detach() for name, term in terms.items()})


def objective_for(split: Split, config) -> TripletObjective | SpacesObjective:
    """Make the objective that `config.mode` names, over a train split."""
    return {"triplets": TripletObjective, "spaces": SpacesObjective}[config.mode](split, config)


def choose_layout(
    rows: np.ndarray, balance: tuple[int, int, int] | None = None
) -> tuple[tuple[int, int, int] | None, str]:
    """Choose the balanced sampler's layout, or None for shuffled batches; and say why.

    Shuffled batches hold hardly any pair of one value where images are labelled under one condition each, as
    in FashionAI, so that SINGLE of them are enough for balanced ones. balance: the layout that was asked for.
    """
    if balance:
        return tuple(balance), "by --balance"
    pairs = np.unique(rows[:, :2], axis=0)
    counts = np.unique(pairs[:, 0], return_counts=True)[1]
    single = int((counts == 1).sum())
    balanced = single >= SINGLE * len(counts)
    limit = f"{'at least' if balanced else 'fewer than'} {100 * SINGLE:.0f}%"
    why = f"{single} of {len(counts)} labelled images carry a label of one attribute alone ({limit})"
    return ((2, 5, 6) if balanced else None), why
