"""The training loop, on accelerate: schedule, validation and the best epoch, checkpoints, resume, curves."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from timm.optim import param_groups_weight_decay
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

import ccakit
from ccakit.attributes import Attributes
from ccakit.checkpoint import (
    SavedModel,
    last_state,
    load_model,
    load_state,
    read_json,
    save_model,
    save_state,
    write_json,
)
from ccakit.config import Budget, TrainConfig, parse_budget, to_dict
from ccakit.data.errors import DataError
from ccakit.data.images import ImageTransform
from ccakit.data.layout import Dataset, read_dataset
from ccakit.embedding import rank
from ccakit.inputs import inputs_for
from ccakit.models import ConditionalModel, create_model, model_info
from ccakit.models.lite import LITE
from ccakit.objectives import StepResult, Steps, objective_for

log = logging.getLogger("ccakit")
COLLAPSED, COLLAPSE_FROM = 0.01, 0.25
COLUMNS = ("step", "epoch", "loss", "learning_rate", "images_per_second", "triplets", "spread", "valid_map_weighted")
MAY_DIFFER = ("resume", "json", "out", "data", "workers", "max_unreadable", "skip_unreadable")  # on resuming
COLLAPSE_REMEDY = (
    "training has collapsed: all embeddings of a batch are one point (spread {:.4f}). Try --head-norm batchnorm, "
    "--mining all-then-active with a later --active-from, a smaller --lr, or a pre-trained trunk"
)


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps beside weights, optimizer and RNG."""

    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    images: int = 0
    best: float = -1.0
    best_epoch: int = -1
    collapsed: bool = False
    unreadable: dict[str, int] = field(default_factory=dict)
    """How many batches drew each image that cannot be read, by index."""

    def share(self, budget: Budget, steps_per_epoch: int) -> float:
        """How much of the budget is used, 0 to 1."""
        used = {"epochs": self.step / steps_per_epoch, "steps": self.step, "seconds": self.seconds}[budget.kind]
        return min(1.0, used / budget.amount)


def learning_rate(share: float, peak: float, warmup: float) -> float:
    """Linear warm-up over the first `warmup` of the budget, then a cosine to 0."""
    if share < warmup:
        return peak * (share + 1e-3) / (warmup + 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


def recipe_of(config: TrainConfig, attributes: Attributes) -> dict:
    """The arguments of `create_model` (all but the weights to start from), as JSON can keep them."""
    info = model_info(config.model)
    recipe = {
        "name": config.model, "conditions": len(attributes), "trunk": config.trunk, "image_size": config.image_size,
        "freeze": int(config.freeze) if config.freeze.isdigit() else config.freeze,
        "embed_dim": config.embed_dim, "head_norm": config.head_norm,
    }  # fmt: skip
    if config.trunk == LITE:
        recipe["trunk_options"] = {
            "width": config.lite_width, "depth": config.lite_depth, "num_heads": config.lite_heads,
        }  # fmt: skip
    if "query" in info.options:
        recipe.update(query=config.query, residual=config.residual)
    if "crop" in info.options:
        recipe["crop"] = "map" if config.cache and config.freeze in ("backbone", "all") else "image"
    if info.classifies:
        recipe["values"] = list(attributes.sizes)
    if config.without:
        recipe["without"] = list(config.without)
    return recipe


def parameter_groups(model: ConditionalModel, weight_decay: float) -> list[dict]:
    """AdamW's groups: with and without weight decay, each apart for the model's slow parameters (first)."""
    slow = {id(parameter) for parameter in model.slow_parameters()[0]}
    groups = []
    for group in param_groups_weight_decay(model, weight_decay):
        for is_slow in (True, False):
            params = [p for p in group["params"] if (id(p) in slow) == is_slow]
            groups += [{**group, "params": params, "slow": is_slow}] if params else []
    return groups


class Trainer:
    """One run: built from a config, `run()` trains it to the end of its budget and returns its facts."""

    def __init__(self, config: TrainConfig, dataset: Dataset | None = None, quiet: bool = False) -> None:
        self.config, self.quiet = config, quiet
        self.budget = parse_budget(config.budget)
        self.out = Path(config.out)
        self.accelerator = Accelerator(mixed_precision=config.mixed_precision)
        if self.accelerator.num_processes > 1:
            raise ValueError("training runs in one process for now; start it without a launcher")
        set_seed(config.seed)
        self.dataset = dataset or read_dataset(config.data)
        self.saved = self._model()
        self.progress = Progress()

    def _model(self) -> SavedModel:
        config, attributes = self.config, self.dataset.attributes
        recipe = recipe_of(config, attributes)
        model = create_model(**recipe, pretrained=config.pretrained, weights=config.weights)
        transform = ImageTransform.from_timm({**model.pretrained_cfg, "input_size": (3, *model.image_size)})
        return SavedModel(model, attributes, transform, recipe)

    def run(self) -> dict:
        """Train; the best epoch by weighted mAP on valid is in `out/model.safetensors`. Returns the run's facts."""
        self._open()
        try:
            share = self._share()
            while share < 1:
                rows = self._epoch()
                self.progress.epoch += 1
                share = self._share()
                if share >= 1 or self.progress.epoch % self.config.evaluate_every == 0:
                    self._evaluate(rows)
        finally:
            self.writer.close()
            self.bar.close()
            log.removeHandler(self.handler)
            self.handler.close()
        self.saved.model.load_state_dict(load_model(self.out).model.state_dict())
        write_json(self.out / "train.json", self._facts())
        return self._facts()

    def _share(self) -> float:
        return self.progress.share(self.budget, len(self.objective.sampler))

    def _open(self) -> None:
        self.open_training()
        self._open_folder()
        self.handler = logging.FileHandler(self.out / "train.log")
        log.addHandler(self.handler)
        self.writer = SummaryWriter(str(self.out / "tensorboard"))
        self.bar = tqdm(total=100, disable=self.quiet or None, desc="training",
                        bar_format="{desc} {percentage:3.0f}% {bar} {elapsed}<{remaining} {postfix}")  # fmt: skip

    def open_training(self) -> None:
        """Make ready what `step` needs: the objective, the inputs and the optimizer; nothing is written."""
        config, model = self.config, self.saved.model
        train, valid = self.dataset["train"], self.dataset["valid"]
        if config.flip and config.cache and model.keeps_features:
            raise ValueError("--flip cannot be used with kept features; take --no-cache, or --freeze none")
        self.objective = objective_for(train, config)
        model.to(self.accelerator.device)
        options = dict(cache=config.cache, progress=not self.quiet)
        self.inputs = inputs_for(model, train, self.saved.transform, max_unreadable=config.max_unreadable, **options)
        skip = float(config.skip_unreadable)
        self.valid_inputs = inputs_for(model, valid, self.saved.transform, max_unreadable=skip, **options)
        optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def _open_folder(self) -> None:
        checkpoints, begun = self.out / "checkpoints", (self.out / "config.json").exists()
        if begun and not self.config.resume:
            raise DataError(self.out, "already holds a run", "Go on with --resume, choose another --out, or delete it.")
        if self.config.resume and not begun:
            raise DataError(self.out, "holds no run to resume", "Train without --resume.")
        if begun:
            self._check_same(read_json(self.out / "config.json", "Train into another --out."))
            self._check_same_data(read_json(self.out / "data.json", "Train into another --out."))
        found = last_state(checkpoints)
        if found is not None:
            self.progress = Progress(**load_state(found, self.saved.model, self.optimizer)["progress"])
            self._drop_later_rows()
            if self.progress.unreadable:  # which are still so, and why
                self.inputs.load([int(index) for index in self.progress.unreadable])
            return
        self.out.mkdir(parents=True, exist_ok=True)
        with open(self.out / "log.csv", "w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)
        write_json(self.out / "versions.json", versions())
        write_json(self.out / "data.json", data_facts(self.dataset))
        write_json(self.out / "config.json", to_dict(self.config))

    def _check_same(self, before: dict) -> None:
        now = json.loads(json.dumps(to_dict(self.config)))
        differ = [k for k in now if k not in MAY_DIFFER and now[k] != before.get(k)]
        if differ:
            told = "; ".join(f"{k} was {before.get(k)}, now {now[k]}" for k in differ)
            raise DataError(self.out / "config.json", f"was written by another run: {told}", "Use the same settings.")

    def _check_same_data(self, before: dict) -> None:
        if before != data_facts(self.dataset):
            raise DataError(self.out / "data.json", "tells of other data than --data", "Use the same data set.")

    def _drop_later_rows(self) -> None:
        with open(self.out / "log.csv", newline="") as file:
            head, *rows = csv.reader(file)
        with open(self.out / "log.csv", "w", newline="") as file:
            csv.writer(file).writerows([head, *(r for r in rows if int(r[0]) <= self.progress.step)])

    def _epoch(self) -> list[StepResult]:
        flip = self.config.seed if self.config.flip else None
        steps = Steps(self.objective, self.progress.epoch, self.inputs, flip, self.config.seed)
        loader = DataLoader(steps, batch_size=None, num_workers=self.config.workers)
        self.model.train()
        results, started, before = [], time.perf_counter(), self.progress.seconds
        for inputs, extra in loader:
            self._note(extra.pop("unreadable", {}), len(inputs))
            results.append(self.step(inputs, extra))
            self.progress.seconds = before + time.perf_counter() - started
            share = self._share()
            rate = len(inputs) * len(results) / (time.perf_counter() - started)
            self.bar.n = int(100 * share)
            self.bar.set_postfix_str(f"loss {results[-1].loss:.4f}, {rate:.0f} images/s, best {self.progress.best:.1f}")
            if share >= 1:
                break
        self._notice_collapse(results)
        return results

    def step(self, inputs, extra) -> StepResult:
        """One step of training on a loaded batch."""
        share, config = self._share(), self.config
        self.saved.model.advance(share)
        slow = self.saved.model.slow_parameters()[1]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(share, config.lr, config.warmup) * (slow if group["slow"] else 1)
        mining = config.mining
        if mining == "all-then-active":
            mining = "all" if share < config.active_from else "active"
        device = self.accelerator.device
        extra = {name: tensor.to(device) for name, tensor in extra.items()}
        result = self.objective.step(self.model, inputs.to(device), extra, mining, self.inputs.cached)
        result.loss, loss = result.loss.detach(), result.loss
        if not math.isfinite(value := float(result.loss)):
            raise FloatingPointError(f"the loss is {value} at step {self.progress.step}; try a smaller --lr")
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.images += len(inputs)
        return result

    def _note(self, unreadable: dict[int, str], left: int) -> None:
        """Count images that could not be read; DataError where they are too many, or none is left in the batch."""
        for index, reason in unreadable.items():
            self.inputs.unreadable[index] = reason
            self.progress.unreadable[str(index)] = 1 + self.progress.unreadable.get(str(index), 0)
        if unreadable and (self.inputs.too_many() or not left):
            self._report_unreadable()
            self.inputs.check()
            raise self.inputs.error(min(unreadable), "cannot be read, and there is nothing to draw in its place")

    def _report_unreadable(self) -> None:
        """`out/unreadable.json`: the images that could not be read, and how many batches drew each in its place."""
        drawn, found = self.progress.unreadable, [*self.inputs.report(), *self.valid_inputs.report()]
        if found:
            train = [{**row, "drawn": drawn.get(str(row["image"]), 0)} for row in self.inputs.report()]
            write_json(self.out / "unreadable.json", {"train": train, "valid": self.valid_inputs.report()})

    def _notice_collapse(self, results: list[StepResult]) -> None:
        if self._share() < COLLAPSE_FROM:  # random weights start near one point, too
            return
        last = results[-max(1, len(results) // 4) :]
        mean = sum(r.spread for r in last) / len(last)
        if mean < COLLAPSED and not self.progress.collapsed:
            self.progress.collapsed = True
            log.warning(COLLAPSE_REMEDY.format(mean))

    def _evaluate(self, results: list[StepResult]) -> None:
        score = 100 * rank(self.saved.model, self.valid_inputs, self.dataset["valid"]).map_weighted
        progress, count = self.progress, len(results)
        row = {
            "step": progress.step, "epoch": progress.epoch, "loss": sum(float(r.loss) for r in results) / count,
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "images_per_second": progress.images / max(progress.seconds, 1e-9),
            "triplets": sum(r.triplets for r in results) / count, "spread": sum(r.spread for r in results) / count,
            "valid_map_weighted": score,
        }  # fmt: skip
        with open(self.out / "log.csv", "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow({k: round(v, 6) for k, v in row.items()})
        for name in COLUMNS[2:]:
            self.writer.add_scalar(name, row[name], progress.step)
        for name in results[-1].terms:
            self.writer.add_scalar(f"own/{name}", float(results[-1].terms[name]), progress.step)
        if score > progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
            save_model(self.out, self.saved)
        self._report_unreadable()
        facts = {"progress": vars(progress)}
        save_state(self.out / "checkpoints", progress.step, self.saved.model, self.optimizer, facts)

    def _facts(self) -> dict:
        progress = self.progress
        return {
            "model": self.config.model, "seed": self.config.seed, "train_seconds": round(progress.seconds, 1),
            "steps": progress.step, "epochs": progress.epoch, "images": progress.images,
            "images_per_second": round(progress.images / max(progress.seconds, 1e-9), 1),
            "best_valid_map_weighted": round(progress.best, 2), "best_epoch": progress.best_epoch,
            "collapsed": progress.collapsed, "unreadable": len(self.inputs.unreadable), **versions(),
        }  # fmt: skip


def train(config: TrainConfig, dataset: Dataset | None = None, quiet: bool = False) -> tuple[SavedModel, dict]:
    """Train as `config` says; returns the best epoch's model and the run's facts.

    Raises DataError for data or a run folder that does not fit, ValueError for settings that do not.
    """
    trainer = Trainer(config, dataset, quiet)
    facts = trainer.run()
    trainer.saved.model.eval()
    return trainer.saved, facts


def data_facts(dataset: Dataset) -> dict:
    """What a data set is, wherever it lies: its name, image counts, and a digest of lists and labels."""
    digest = hashlib.sha256(repr(dataset.attributes).encode())
    for split in dataset.splits.values():
        digest.update("\n".join(split.filenames).encode() + split.labels.tobytes())
    counts = {name: len(split.filenames) for name, split in dataset.splits.items()}
    return {"name": dataset.name, "images": counts, "digest": digest.hexdigest()[:16]}


def versions() -> dict:
    """What a run was made with."""
    import numpy
    import timm

    return {
        "ccakit": ccakit.__version__, "torch": torch.__version__, "timm": timm.__version__,
        "numpy": numpy.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
    }  # fmt: skip
