"""Train a system on accelerate: schedule, validation, the best epoch, checkpoints and exact resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.utils import set_seed

from ccakit import processes
from ccakit.data.inputs import FeatureInputs, ImageInputs
from ccakit.data.layout import read_dataset
from ccakit.data.split import Dataset, Split
from ccakit.data.transform import ImageTransform
from ccakit.disk import check_output, write_json
from ccakit.evaluation.embedding import rank, readable
from ccakit.models.registry import create_model
from ccakit.models.saved import SavedModel, load_model, save_model
from ccakit.models.trunks.weight_files import in_weights_folder, weights_record
from ccakit.training import batchnorm
from ccakit.training.acceleration import create_accelerator, ignored_variables
from ccakit.training.batches import Loader, Steps
from ccakit.training.checkpoints import last_good_state, put_state, remove_old, rng_state, save_state
from ccakit.training.config import TrainConfig, parse_budget
from ccakit.training.objectives import StepResult, objective_for
from ccakit.training.progress import Progress
from ccakit.training.pull import describe_shares, expected_shares
from ccakit.training.reporting import Reporter, log_row, report_unreadable, warn_of_collapse
from ccakit.training.run_folder import keep_rows, open_folder, versions, writing_run
from ccakit.training.setup import (
    checkpoint_activations,
    inputs_of,
    learning_rate,
    parameter_groups,
    recipe_of,
)
from ccakit.training.stopping import StopSignals, check_weights, stop, stop_if_not_finite

log = logging.getLogger("ccakit")


class Trainer:
    """Prepare one run from its config; `run()` trains it to the end of its budget and returns its facts."""

    def __init__(self, config: TrainConfig, dataset: Dataset | None = None, quiet: bool = False) -> None:
        self.config, self.quiet = config, quiet
        self.budget = parse_budget(config.budget)
        self.out = Path(config.out)
        processes.start("nccl" if torch.cuda.is_available() else "gloo")
        self.accelerator = create_accelerator(config.mixed_precision)
        set_seed(config.seed)
        self.dataset = dataset or read_dataset(config.data)
        self.saved = self._model()
        self.progress, self.stopping = Progress(), StopSignals(patient=processes.world_size() > 1)
        self._left_in_group = 0  # batches until the optimizer's next step
        if processes.rank():  # each process has its own dropout
            torch.manual_seed(config.seed + 10**6 * processes.rank())

    def _model(self) -> SavedModel:
        config, attributes = self.config, self.dataset.attributes
        recipe = recipe_of(config, attributes)
        model = create_model(**recipe, pretrained=config.pretrained, weights=config.weights)
        transform = ImageTransform.from_timm(model.trunk.pretrained_cfg)
        return SavedModel(model, attributes, transform, recipe)

    def run(self) -> dict:
        """Train, keep the best epoch's model in `out` and in `saved`, and return the run's facts."""
        processes.run_on_main(lambda: check_output(self.out / "config.json"))
        self.open_training()
        self._open_folder()
        try:
            with self.stopping, processes.together():
                while self._share() < 1 or self.progress.batch:
                    self._epoch()
                    self.end_epoch()
        finally:
            self.reporter.close()
        best = processes.run_on_main(lambda: load_model(self.out).model.state_dict())
        self.saved.model.eval().load_state_dict(best)
        facts = self._facts()
        self._write(lambda: write_json(self.out / "train.json", facts))
        return facts

    def _share(self) -> float:
        return self.progress.share(self.budget, len(self.objective.sampler))

    def open_training(self) -> None:
        """Make what `step` needs: the objective, the inputs, the optimizer; nothing is written."""
        config, model = self.config, self.saved.model
        splits = self.dataset["train"], self.dataset["valid"]
        processes.keep_freed_memory()
        if config.flip and config.cache and model.keeps_features:
            raise ValueError("--flip cannot be used with kept features; take --no-cache, or --freeze none")
        model.to(self.accelerator.device)
        batchnorm.share_statistics(model)
        self.inputs, self.valid_inputs = map(self.open_inputs, splits)
        self.objective = objective_for(readable(self.inputs), config)
        if config.checkpoint_activations:
            checkpoint_activations(model)
        if config.compile:
            model.compile()
        groups = parameter_groups(model, config.weight_decay, config.layer_decay)
        optimizer = torch.optim.AdamW(groups, lr=config.lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def open_inputs(self, split: Split) -> ImageInputs | FeatureInputs:
        """Open what the model is fed of a split."""
        return inputs_of(self.config, self.saved, split, progress=not self.quiet)

    def _open_folder(self) -> None:
        model, optimizer, folder = self.saved.model, self.optimizer, self.out / "checkpoints"
        weights = processes.run_on_main(lambda: weights_record(model))
        resumed = self._write(lambda: open_folder(self.out, self.config, self.dataset, weights))
        state = processes.run_on_main(lambda: last_good_state(folder, model, optimizer)) if resumed else None
        if state is not None:
            self.progress = put_state(state, model, optimizer, processes.rank())
            if self.accelerator.scaler is not None and state.facts.scaler:
                self.accelerator.scaler.load_state_dict(state.facts.scaler)
            before, now = state.facts.processes, processes.world_size()
            if before != now and processes.is_main():
                same = "batches stay the same, sums differ in the last digits"
                log.warning("%s: %d processes before, %d now; %s", self.out, before, now, same)
            self._write(lambda: remove_old(folder, self.progress.step, self.config.keep))
        names = self.dataset.attributes.names
        self._write(lambda: keep_rows(self.out, self.progress.epoch, names))
        self._write(lambda: report_unreadable(self.out, self.inputs, self.valid_inputs))
        with writing_run(self.out):
            self.reporter = Reporter(self.out, self.quiet)
        self.reporter.note(self.objective.sampling)
        for each in weights:
            tell = self.reporter.say if in_weights_folder(each["file"]) else self.reporter.note
            tell(f"the trunk starts from {each['file']} (SHA-256 {each['sha256']})")
        self.shares = expected_shares(self.objective, self.config.pull)
        self.reporter.say(describe_shares(names, self.shares))
        if processes.is_main():
            for ignored in ignored_variables(self.config):
                log.warning("%s", ignored)

    def _write(self, work: Callable[[], object]) -> object:
        """Write a part of the run in the main process; return the result, or raise the DataError, in all."""
        in_run = writing_run(self.out)  # a context manager, and so a decorator
        return processes.run_on_main(in_run(work))

    def _epoch(self) -> None:
        """Train the rest of the epoch, to its end or the end of the budget."""
        config, progress = self.config, self.progress
        flip_seed = config.seed if config.flip else None
        steps = Steps(self.objective, progress.epoch, self.inputs, flip_seed)
        self.model.train()
        images, started, before = progress.images, time.perf_counter(), progress.seconds
        with Loader(steps, progress.batch, config.workers, config.loader_timeout) as loader:
            while progress.batch < len(steps) and self._share() < 1:
                inputs, extra = self._next(loader)
                result = self.step(inputs, extra)
                progress.rows.append([float(result.loss), result.triplets, result.spread])
                progress.terms = {name: float(term) for name, term in result.terms.items()}
                progress.batch += 1
                progress.seconds = processes.all_max([before + time.perf_counter() - started])[0]
                rate = (progress.images - images) / (time.perf_counter() - started)
                self.reporter.step(progress, self._share(), rate)
                due = config.checkpoint_every and progress.step % config.checkpoint_every == 0
                if due and not self._left_in_group:
                    self._save()
        warn_of_collapse(progress, self._share())

    def _next(self, loader: Loader) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Load the next batch, or stop where a signal asks for it; an error in one process ends all."""
        with processes.raise_in_all():
            batch = loader.next()
        signal = processes.all_max([self.stopping.number])[0]
        if signal and not self._left_in_group:  # so that no gradients wait, and the run goes on exactly
            self._save()
            saved = f"step {self.progress.step} is saved in {self.out}"
            stop(int(signal), f"stopped; {saved}; the same command with --resume goes on from there")
        return batch

    def step(self, inputs, extra) -> StepResult:
        """Train on a loaded batch.

        The optimizer takes a step after the last batch of a group (`accumulate`), with the mean of their
        gradients; only then do processes exchange gradients.
        """
        if not self._left_in_group:
            self._begin_group()
        self._left_in_group -= 1
        last = self._left_in_group == 0
        device = self.accelerator.device
        images = int(extra.get("images", len(inputs)))  # of the whole batch
        extra = {name: tensor.to(device) for name, tensor in extra.items()}
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            inputs, cached = inputs.to(device), self.inputs.cached
            result = self.objective.step(self.model, inputs, extra, self._mining, cached)
            result.loss, loss = result.loss.detach(), result.loss
            stop_if_not_finite(float(result.loss), f"the loss is {{}} at step {self.progress.step}")
            self._backward(loss, last)
        self.progress.step += 1
        self.progress.images += images
        return result

    def _begin_group(self) -> None:
        """Set what all batches of a group share: their number, stage, mining, learning rate."""
        self.optimizer.zero_grad(set_to_none=True)
        share, config, model = self._share(), self.config, self.saved.model
        steps_per_epoch = len(self.objective.sampler)
        self._group_size = self.progress.group_size(self.budget, steps_per_epoch, config.accumulate)
        self._left_in_group = self._group_size
        model.advance(share)
        rate, slow = learning_rate(share, config.lr, config.warmup), model.slow_parameters()[1]
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"] * (slow if group["slow"] else 1)
        self.progress.learning_rate = self.optimizer.param_groups[-1]["lr"]
        self._mining = config.mining
        if config.mining == "all-then-active":
            self._mining = "all" if share < config.active_from else "active"

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        self.accelerator.backward(loss / self._group_size)
        if last:
            self.optimizer.step()

    def end_epoch(self) -> None:
        """Count the epoch; evaluate and save where it is time."""
        progress = self.progress
        rows, progress.rows, progress.batch = progress.rows, [], 0
        progress.epoch += 1
        if self._share() < 1 and progress.epoch % self.config.evaluate_every:
            return
        check_weights(self.saved.model, progress.step)
        ranked = rank(self.saved.model, self.valid_inputs)
        row, score = log_row(progress, rows, ranked), 100 * ranked.map_weighted
        self._write(lambda: self.reporter.evaluation(row, progress))
        if score > progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
            self._write(lambda: save_model(self.out, self.saved))
        self._save()

    def _save(self) -> None:
        """Save a checkpoint, from which the run goes on exactly."""
        check_weights(self.saved.model, self.progress.step)
        model, progress = self.saved.model, self.progress
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        options = dict(scaler=scaler, rngs=processes.gather_objects(rng_state()), keep=self.config.keep)
        self._write(lambda: save_state(self.out / "checkpoints", model, self.optimizer, progress, **options))

    def _facts(self) -> dict:
        progress = self.progress
        return {
            "model": self.config.model,
            "seed": self.config.seed,
            "train_seconds": round(progress.seconds, 1),
            "steps": progress.step,
            "epochs": progress.epoch,
            "images": progress.images,
            "images_per_second": round(progress.images_per_second(), 1),
            "best_valid_map_weighted": round(progress.best, 2),
            "best_epoch": progress.best_epoch,
            "collapsed": progress.collapsed,
            "unreadable": len(self.inputs.unreadable),
            "sampling": self.objective.sampling,
            "expected_shares": dict(zip(self.dataset.attributes.names, self.shares.round(4).tolist())),
            "ignored_variables": ignored_variables(self.config),
            "findings": self.dataset.findings,
            **versions(),
        }


def train(
    config: TrainConfig, dataset: Dataset | None = None, quiet: bool = False
) -> tuple[SavedModel, dict]:
    """Train as `config` says; return the best epoch's model and the run's facts.

    Raises DataError for data or a run folder that does not fit, ValueError for settings that do not.
    """
    trainer = Trainer(config, dataset, quiet)
    facts = trainer.run()
    return trainer.saved, facts
