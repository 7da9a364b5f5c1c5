"""The training loop, on accelerate: schedule, validation and the best epoch, checkpoints, exact resume, curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DistributedDataParallelKwargs, set_seed

from ccakit import processes
from ccakit.data.inputs import inputs_for
from ccakit.data.layout import read_dataset
from ccakit.data.split import Dataset
from ccakit.data.transform import ImageTransform
from ccakit.disk import write_json
from ccakit.evaluation.embedding import rank, readable
from ccakit.models.registry import create_model
from ccakit.models.saved import SavedModel, load_model, save_model
from ccakit.processes import keep_freed_memory
from ccakit.training import batchnorm
from ccakit.training.batches import Loader, Steps
from ccakit.training.checkpoints import last_good_state, put_state, rng_state, save_state
from ccakit.training.config import TrainConfig, parse_budget
from ccakit.training.objectives import StepResult, objective_for
from ccakit.training.progress import Progress
from ccakit.training.reporting import Reporter, log_row, notice_collapse, report_unreadable
from ccakit.training.run_folder import data_facts, keep_rows, open_folder, versions, writing_run
from ccakit.training.setup import checkpoint_activations, learning_rate, parameter_groups, recipe_of
from ccakit.training.stopping import StopSignals, check_weights, stop, stop_if_not_finite

__all__ = [
    "Progress",
    "Trainer",
    "data_facts",
    "learning_rate",
    "parameter_groups",
    "recipe_of",
    "train",
    "versions",
]

log = logging.getLogger("ccakit")


class Trainer:
    """One run: built from a config, `run()` trains it to the end of its budget and returns its facts."""

    def __init__(self, config: TrainConfig, dataset: Dataset | None = None, quiet: bool = False) -> None:
        self.config, self.quiet = config, quiet
        self.budget = parse_budget(config.budget)
        self.out = Path(config.out)
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)]
        processes.start("nccl" if torch.cuda.is_available() else "gloo")
        cpu = processes.launched() and not torch.cuda.is_available()
        if is_initialized() and AcceleratorState().mixed_precision != config.mixed_precision:
            AcceleratorState._reset_state()  # it would refuse another precision than an earlier run's in this process
        self.accelerator = Accelerator(
            cpu=cpu, mixed_precision=config.mixed_precision, kwargs_handlers=handlers
        )
        set_seed(config.seed)
        self.dataset = dataset or read_dataset(config.data)
        self.saved = self._model()
        self.progress, self.stopping = Progress(), StopSignals(patient=processes.world_size() > 1)
        if processes.rank():  # each process drops out other units
            torch.manual_seed(config.seed + 10**6 * processes.rank())

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
            with self.stopping, processes.together():
                while self._share() < 1 or self.progress.batch:
                    self._epoch()
                    self._end_epoch()
        finally:
            self.reporter.close()
        best = processes.run_on_main(lambda: load_model(self.out).model.state_dict())
        self.saved.model.load_state_dict(best)
        self._write(lambda: write_json(self.out / "train.json", self._facts()))
        return self._facts()

    def _share(self) -> float:
        return self.progress.share(self.budget, len(self.objective.sampler))

    def _open(self) -> None:
        self.open_training()
        self._open_folder()
        with writing_run(self.out):
            self.reporter = Reporter(self.out, self.quiet)

    def open_training(self) -> None:
        """Make ready what `step` needs: the objective, the inputs and the optimizer; nothing is written."""
        config, model = self.config, self.saved.model
        keep_freed_memory()
        train, valid = self.dataset["train"], self.dataset["valid"]
        if config.flip and config.cache and model.keeps_features:
            raise ValueError("--flip cannot be used with kept features; take --no-cache, or --freeze none")
        model.to(self.accelerator.device)
        batchnorm.share_statistics(model)
        options = dict(cache=config.cache, progress=not self.quiet)
        images, skip = self.saved.transform, float(config.skip_unreadable)
        self.inputs = inputs_for(model, train, images, max_unreadable=config.max_unreadable, **options)
        self.valid_inputs = inputs_for(model, valid, images, max_unreadable=skip, **options)
        self.objective = objective_for(readable(self.inputs), config)
        if config.checkpoint_activations:
            checkpoint_activations(model)
        if config.compile:
            model.compile()
        optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def _open_folder(self) -> None:
        model, optimizer, folder = self.saved.model, self.optimizer, self.out / "checkpoints"
        goes_on = self._write(lambda: open_folder(self.out, self.config, self.dataset))
        state = processes.run_on_main(lambda: last_good_state(folder, model, optimizer)) if goes_on else None
        if state is not None:
            self.progress = put_state(state, model, optimizer, processes.rank())
            self._go_on(state.facts)
        self._write(lambda: keep_rows(self.out, self.progress.epoch))
        self._write(lambda: report_unreadable(self.out, self.inputs, self.valid_inputs))

    def _write(self, work: Callable[[], object]) -> object:
        """What the main process writes of the run, and what that gives, in all processes; DataError if it cannot."""

        def written() -> object:
            with writing_run(self.out):
                return work()

        return processes.run_on_main(written)

    def _go_on(self, facts: dict) -> None:
        if (scaler := self.accelerator.scaler) is not None and facts["scaler"]:
            scaler.load_state_dict(facts["scaler"])
        if (before := facts["processes"]) != processes.world_size() and processes.is_main():
            log.warning(
                "%s: %d processes before, %d now; batches stay the same, sums differ in the last digits",
                self.out,
                before,
                processes.world_size(),
            )

    def _epoch(self) -> None:
        """The rest of the epoch, to its end or the budget's."""
        config, progress, flip = self.config, self.progress, self.config.seed if self.config.flip else None
        steps = Steps(self.objective, progress.epoch, self.inputs, flip)
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
                if config.checkpoint_every and progress.step % config.checkpoint_every == 0 and self._settled:
                    self._save()
        notice_collapse(progress, self._share())

    def _next(self, loader: Loader) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Load the next batch, or stop where a signal asks for it; an error in one process ends all."""
        with processes.raise_in_all():
            batch = loader.next()
        signal = processes.all_max([self.stopping.number])[0]
        if signal and self._settled:
            self._stop(int(signal))
        return batch

    @property
    def _settled(self) -> bool:
        """Whether no gradients wait for more batches, so that the run can stop here and go on exactly."""
        return self.progress.batch % self.config.accumulate == 0 or self._ends(self.progress.batch)

    def _ends(self, batch: int) -> bool:
        return batch == len(self.objective.sampler) or self._share() >= 1

    def _stop(self, number: int) -> None:
        self._save()
        where = f"step {self.progress.step} is saved in {self.out}"
        stop(number, f"stopped; {where}; the same command with --resume goes on from there")

    def step(self, inputs, extra) -> StepResult:
        """One step of training on a loaded batch; the optimizer moves with the last batch of those that it takes
        together, whose gradients' mean it gets, and processes exchange gradients only then."""
        if self.progress.batch % self.config.accumulate == 0:
            self._begin_group()
        last = (self.progress.batch + 1) % self.config.accumulate == 0 or self._last_of_all()
        device = self.accelerator.device
        images = int(extra.pop("images", len(inputs)))  # of the whole batch
        extra = {name: tensor.to(device) for name, tensor in extra.items()}
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            result = self.objective.step(
                self.model, inputs.to(device), extra, self._mining, self.inputs.cached
            )
            result.loss, loss = result.loss.detach(), result.loss
            stop_if_not_finite(float(result.loss), f"the loss is {{}} at step {self.progress.step}")
            self._backward(loss, last)
        self.progress.step += 1
        self.progress.images += images
        return result

    def _begin_group(self) -> None:
        """What holds for all batches of a step of the optimizer: their number, stage, mining and learning rate."""
        self.optimizer.zero_grad(set_to_none=True)
        share, config, model = self._share(), self.config, self.saved.model
        self._together = self.progress.together(self.budget, len(self.objective.sampler), config.accumulate)
        model.advance(share)
        slow = model.slow_parameters()[1]
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(share, config.lr, config.warmup) * (slow if group["slow"] else 1)
        self.progress.learning_rate = self.optimizer.param_groups[-1]["lr"]
        self._mining = config.mining
        if config.mining == "all-then-active":
            self._mining = "all" if share < config.active_from else "active"

    def _last_of_all(self) -> bool:
        """Whether this batch is the epoch's last, or that of a budget in steps."""
        steps = self.budget.kind == "steps" and self.progress.step + 1 >= self.budget.amount
        return steps or self.progress.batch + 1 == len(self.objective.sampler)

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        self.accelerator.backward(loss if self._together == 1 else loss / self._together)
        if last:
            self.optimizer.step()

    def _end_epoch(self) -> None:
        """Count the epoch, evaluate where it is time to, and save."""
        progress = self.progress
        rows, progress.rows, progress.batch = progress.rows, [], 0
        progress.epoch += 1
        if self._share() >= 1 or progress.epoch % self.config.evaluate_every == 0:
            self._evaluate(rows)

    def _evaluate(self, rows: list[list[float]]) -> None:
        check_weights(self.saved.model, self.progress.step)
        score = 100 * rank(self.saved.model, self.valid_inputs).map_weighted
        progress = self.progress
        row = log_row(progress, rows, score)
        better = score > progress.best
        if better:
            progress.best, progress.best_epoch = score, progress.epoch
        self._write(lambda: self._write_evaluation(row, better))
        self._save()

    def _write_evaluation(self, row: dict, better: bool) -> None:
        self.reporter.evaluation(row, self.progress)
        if better:
            save_model(self.out, self.saved)

    def _save(self) -> None:
        """A checkpoint of this moment, from which the run goes on exactly."""
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
            **versions(),
        }


def train(
    config: TrainConfig, dataset: Dataset | None = None, quiet: bool = False
) -> tuple[SavedModel, dict]:
    """Train as `config` says; returns the best epoch's model and the run's facts.

    Raises DataError for data or a run folder that does not fit, ValueError for settings that do not.
    """
    trainer = Trainer(config, dataset, quiet)
    facts = trainer.run()
    trainer.saved.model.eval()
    return trainer.saved, facts
