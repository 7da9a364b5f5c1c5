"""The training loop, on accelerate: schedule, validation and the best epoch, checkpoints, exact resume, curves."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from timm.optim import param_groups_weight_decay
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from ccakit import distributed
from ccakit.attributes import Attributes
from ccakit.checkpoint import (
    SavedModel,
    last_good_state,
    load_model,
    put_state,
    rng_state,
    save_model,
    save_state,
    write_json,
)
from ccakit.config import Budget, TrainConfig, parse_budget
from ccakit.data.images import ImageTransform
from ccakit.data.layout import Dataset, read_dataset
from ccakit.embedding import rank
from ccakit.inputs import inputs_for
from ccakit.loading import Loader
from ccakit.models import ConditionalModel, create_model, model_info
from ccakit.models.lite import LITE
from ccakit.objectives import StepResult, Steps, objective_for
from ccakit.run_folder import COLUMNS, add_row, data_facts, keep_rows, open_folder, versions
from ccakit.stopping import StopSignals, stop

__all__ = ["Progress", "Trainer", "data_facts", "learning_rate", "parameter_groups", "recipe_of", "train", "versions"]

log = logging.getLogger("ccakit")
COLLAPSED, COLLAPSE_FROM = 0.01, 0.25
SMALLER = "try a smaller --lr, a longer --warmup, --head-norm batchnorm, or --mixed-precision no"
COLLAPSE_REMEDY = (
    "training has collapsed: all embeddings of a batch are one point (spread {:.4f}). Try --head-norm batchnorm, "
    "--mining all-then-active with a later --active-from, a smaller --lr, or a pre-trained trunk"
)


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps beside weights, optimizer and RNG."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches that the epoch has had."""
    rows: list[list[float]] = field(default_factory=list)
    """Loss, triplets and spread of each of them."""
    terms: dict[str, float] = field(default_factory=dict)
    """The system's own losses in the last of them."""
    learning_rate: float = 0.0
    """Of the last of them."""
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


def checkpoint_activations(model: ConditionalModel) -> None:
    """Have the trunk's trained blocks compute their inside anew on the way back."""
    from torch.utils.checkpoint import checkpoint

    for block in getattr(model.trunk, "blocks", ()):
        if any(parameter.requires_grad for parameter in block.parameters()):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


class Trainer:
    """One run: built from a config, `run()` trains it to the end of its budget and returns its facts."""

    def __init__(self, config: TrainConfig, dataset: Dataset | None = None, quiet: bool = False) -> None:
        self.config, self.quiet = config, quiet
        self.budget = parse_budget(config.budget)
        self.out = Path(config.out)
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)]
        distributed.start("nccl" if torch.cuda.is_available() else "gloo")
        cpu = distributed.launched() and not torch.cuda.is_available()
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=config.mixed_precision, kwargs_handlers=handlers)
        set_seed(config.seed)
        self.dataset = dataset or read_dataset(config.data)
        self.saved = self._model()
        self.progress, self.stopping = Progress(), StopSignals(patient=distributed.processes() > 1)
        if distributed.number():  # each process drops out other units
            torch.manual_seed(config.seed + 10**6 * distributed.number())

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
            with self.stopping, distributed.together():
                while self._share() < 1 or self.progress.batch:
                    self._epoch()
                    self._end_epoch()
        finally:
            self._close()
        best = distributed.from_main(lambda: load_model(self.out).model.state_dict())
        self.saved.model.load_state_dict(best)
        distributed.from_main(lambda: write_json(self.out / "train.json", self._facts()))
        return self._facts()

    def _share(self) -> float:
        return self.progress.share(self.budget, len(self.objective.sampler))

    def _open(self) -> None:
        self.open_training()
        self._open_folder()
        self.writer = self.handler = None
        if distributed.is_main():
            self.handler = logging.FileHandler(self.out / "train.log")
            log.addHandler(self.handler)
            self.writer = SummaryWriter(str(self.out / "tensorboard"))
        hide = self.quiet or not distributed.is_main() or None
        self.bar = tqdm(total=100, disable=hide, desc="training",
                        bar_format="{desc} {percentage:3.0f}% {bar} {elapsed}<{remaining} {postfix}")  # fmt: skip

    def _close(self) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()
            log.removeHandler(self.handler)
            self.handler.close()

    def open_training(self) -> None:
        """Make ready what `step` needs: the objective, the inputs and the optimizer; nothing is written."""
        config, model = self.config, self.saved.model
        train, valid = self.dataset["train"], self.dataset["valid"]
        if config.flip and config.cache and model.keeps_features:
            raise ValueError("--flip cannot be used with kept features; take --no-cache, or --freeze none")
        self.objective = objective_for(train, config)
        model.to(self.accelerator.device)
        distributed.share_statistics(model)
        options = dict(cache=config.cache, progress=not self.quiet)
        images, skip = self.saved.transform, float(config.skip_unreadable)
        with self.accelerator.local_main_process_first():  # it computes kept features, which the others then open
            self.inputs = inputs_for(model, train, images, max_unreadable=config.max_unreadable, **options)
            self.valid_inputs = inputs_for(model, valid, images, max_unreadable=skip, **options)
        if config.checkpoint_activations:
            checkpoint_activations(model)
        if config.compile:
            model.compile()
        optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def _open_folder(self) -> None:
        goes_on = distributed.from_main(lambda: open_folder(self.out, self.config, self.dataset))
        state = distributed.from_main(lambda: last_good_state(self.out / "checkpoints")) if goes_on else None
        if state is not None:
            facts = put_state(state, self.saved.model, self.optimizer, distributed.number())
            self.progress = Progress(**facts["progress"])
            self._go_on(facts)
        distributed.from_main(lambda: keep_rows(self.out, self.progress.epoch))

    def _go_on(self, facts: dict) -> None:
        if (scaler := self.accelerator.scaler) is not None and facts.get("scaler"):
            scaler.load_state_dict(facts["scaler"])
        if (before := facts.get("processes", 1)) != distributed.processes() and distributed.is_main():
            log.warning("%s: %d processes before, %d now; batches stay the same, sums differ in the last digits",
                        self.out, before, distributed.processes())  # fmt: skip
        if self.progress.unreadable:  # which are still so, and why
            self.inputs.load([int(index) for index in self.progress.unreadable])

    def _epoch(self) -> None:
        """The rest of the epoch, to its end or the budget's."""
        config, progress, flip = self.config, self.progress, self.config.seed if self.config.flip else None
        steps = Steps(self.objective, progress.epoch, self.inputs, flip, config.seed)
        self.model.train()
        images, started, before = progress.images, time.perf_counter(), progress.seconds
        with Loader(steps, progress.batch, config.workers, config.loader_timeout) as loader:
            while progress.batch < len(steps) and self._share() < 1:
                inputs, extra = self._next(loader)
                result = self.step(inputs, extra)
                progress.rows.append([float(result.loss), result.triplets, result.spread])
                progress.terms = {name: float(term) for name, term in result.terms.items()}
                progress.batch += 1
                progress.seconds = distributed.largest([before + time.perf_counter() - started])[0]
                rate = (progress.images - images) / (time.perf_counter() - started)
                self._show(rate)
                if config.checkpoint_every and progress.step % config.checkpoint_every == 0 and self._settled:
                    self._save()
        self._notice_collapse()

    def _next(self, loader: Loader) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The next batch, the same to all processes, as is what goes wrong with it; or the end, where a signal asks
        for it."""
        inputs, extra, error = (), {}, None
        try:
            inputs, extra = loader.next()
        except Exception as raised:
            error = raised
        bad = len(extra.get("unreadable", ()))
        signal, bad, failed = distributed.largest([self.stopping.number, bad, error is not None])
        if failed:
            with distributed.agreed():
                raise error or distributed.OtherProcessError
        if signal and self._settled:
            self._stop(int(signal))
        if bad and distributed.processes() > 1:
            inputs, extra = loader.steps.replaced(self.progress.batch, distributed.union(extra.get("unreadable", {})))
        self._note(extra.pop("unreadable", {}), len(inputs))
        return inputs, extra

    @property
    def _settled(self) -> bool:
        """Whether no gradients wait for more batches, so that the run can stop here and go on exactly."""
        return self.progress.batch % self.config.accumulate == 0 or self._ends(self.progress.batch)

    def _ends(self, batch: int) -> bool:
        return batch == len(self.objective.sampler) or self._share() >= 1

    def _stop(self, number: int) -> None:
        self._save()
        where = f"step {self.progress.step} is saved in {self.out}"
        stop(number, f"stopped; {where}; the same command with --resume goes on from there", distributed.is_main())

    def _show(self, rate: float) -> None:
        loss, best = self.progress.rows[-1][0], self.progress.best
        self.bar.n = int(100 * self._share())
        self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} images/s, best {best:.1f}")

    def step(self, inputs, extra) -> StepResult:
        """One step of training on a loaded batch."""
        share, config = self._share(), self.config
        self.saved.model.advance(share)
        slow = self.saved.model.slow_parameters()[1]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(share, config.lr, config.warmup) * (slow if group["slow"] else 1)
        self.progress.learning_rate = self.optimizer.param_groups[-1]["lr"]
        mining = config.mining
        if mining == "all-then-active":
            mining = "all" if share < config.active_from else "active"
        device = self.accelerator.device
        images = int(extra.pop("images", len(inputs)))  # of the whole batch
        extra = {name: tensor.to(device) for name, tensor in extra.items()}
        result = self.objective.step(self.model, inputs.to(device), extra, mining, self.inputs.cached)
        result.loss, loss = result.loss.detach(), result.loss
        if not math.isfinite(value := float(result.loss)):
            raise FloatingPointError(f"the loss is {value} at step {self.progress.step}; {SMALLER}")
        self._backward(loss)
        self.progress.step += 1
        self.progress.images += images
        return result

    def _backward(self, loss: torch.Tensor) -> None:
        """Gradients; a step of the optimizer with the mean of every `accumulate` of them."""
        batch, every = self.progress.batch, self.config.accumulate
        if batch % every == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss if every == 1 else loss / every)
        steps = self.budget.kind == "steps" and self.progress.step + 1 >= self.budget.amount
        if (batch + 1) % every == 0 or steps or batch + 1 == len(self.objective.sampler):
            self.optimizer.step()

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
        if found and distributed.is_main():
            train = [{**row, "drawn": drawn.get(str(row["image"]), 0)} for row in self.inputs.report()]
            write_json(self.out / "unreadable.json", {"train": train, "valid": self.valid_inputs.report()})

    def _notice_collapse(self) -> None:
        if self._share() < COLLAPSE_FROM:  # random weights start near one point, too
            return
        rows = self.progress.rows
        last = [spread for _, _, spread in rows[-max(1, len(rows) // 4) :]]
        mean = sum(last) / len(last)
        if mean < COLLAPSED and not self.progress.collapsed:
            self.progress.collapsed = True
            if distributed.is_main():
                log.warning(COLLAPSE_REMEDY.format(mean))

    def _end_epoch(self) -> None:
        """Count the epoch, evaluate where it is time to, and save."""
        progress = self.progress
        rows, progress.rows, progress.batch = progress.rows, [], 0
        progress.epoch += 1
        if self._share() >= 1 or progress.epoch % self.config.evaluate_every == 0:
            self._evaluate(rows)

    def _evaluate(self, rows: list[list[float]]) -> None:
        score = 100 * rank(self.saved.model, self.valid_inputs, self.dataset["valid"]).map_weighted
        progress, count = self.progress, len(rows)
        loss, triplets, spread = (sum(of) / count for of in zip(*rows))
        row = {
            "step": progress.step, "epoch": progress.epoch, "loss": loss,
            "learning_rate": progress.learning_rate,
            "images_per_second": progress.images / max(progress.seconds, 1e-9), "triplets": triplets,
            "spread": spread, "valid_map_weighted": score,
        }  # fmt: skip
        better = score > progress.best
        if better:
            progress.best, progress.best_epoch = score, progress.epoch
        distributed.from_main(lambda: self._write(row, better))
        self._save()

    def _write(self, row: dict, better: bool) -> None:
        add_row(self.out, row)
        for name in COLUMNS[2:]:
            self.writer.add_scalar(name, row[name], row["step"])
        for name, term in self.progress.terms.items():
            self.writer.add_scalar(f"own/{name}", term, row["step"])
        if better:
            save_model(self.out, self.saved)
        self._report_unreadable()

    def _save(self) -> None:
        """A checkpoint of this moment, from which the run goes on exactly."""
        model, progress = self.saved.model, self.progress
        if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
            raise FloatingPointError(f"weights are not finite after step {progress.step - 1}; {SMALLER}")
        scaler = self.accelerator.scaler
        facts = {"progress": vars(progress), "processes": distributed.processes(),
                 "scaler": scaler.state_dict() if scaler is not None else None}  # fmt: skip
        rngs, folder, keep = distributed.every(rng_state()), self.out / "checkpoints", self.config.keep
        distributed.from_main(
            lambda: save_state(folder, progress.step, model, self.optimizer, facts, rngs=rngs, keep=keep)
        )

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
