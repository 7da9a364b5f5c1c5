"""What each of several processes does in the tests of distributed training.

A test passes one of these functions to `ranks.run_ranks`; torchrun runs this file: `rank_jobs.py JOB
ARGUMENTS`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
import tiny_vit  # noqa: F401 - registers vit_for_tests
import torch
from safetensors.torch import save_file

from ccakit import processes
from ccakit.cli import main
from ccakit.training import batchnorm
from ccakit.training.batches import Steps
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import Trainer, train

LITE = dict(trunk="lite", image_size=64, freeze="backbone", lite_width=32, lite_depth=2, lite_heads=2)
TINY = dict(trunk="vit_for_tests", image_size=32, freeze="1", batch_size=16, budget="epochs=2")
TINY |= dict(lr=1e-4, triplets_per_epoch=64, head_norm="none")
TINY |= dict(adapter=8)  # narrow: behind zeros their first gradients are rounding, which Adam makes a step of
CASES = {
    "spaces": dict(),
    "spaces-lite": LITE,
    "triplets": dict(mode="triplets"),
    "triplets-batchnorm": dict(mode="triplets", head_norm="batchnorm"),
    "spaces-batchnorm": dict(head_norm="batchnorm"),
    "spaces-pull": dict(LITE, pull=1.0, head="each", head_norm="batchnorm"),
    "triplets-pull": dict(mode="triplets", pull=0.5, head="each", head_norm="batchnorm", accumulate=2),
    "csn": dict(LITE, model="csn"),
    "csn-triplets": dict(LITE, model="csn", mode="triplets"),
    "adde-triplets": dict(LITE, model="adde", mode="triplets"),
    "asen-pp": dict(LITE, model="asen-pp"),
    "spaces-accumulate": dict(accumulate=3),
    "triplets-accumulate": dict(mode="triplets", accumulate=2),
    "networks-accumulate": dict(model="networks", mode="triplets", accumulate=2),  # batches lack conditions
}
TRUNKS = {
    "spaces": {**LITE, "image_size": 32},
    "triplets": {**LITE, "mode": "triplets", "image_size": 32},
    "resnet": dict(model="csn", trunk="resnet18", mode="triplets", image_size=64),
}


def settings(data, out, **options) -> TrainConfig:
    return TrainConfig(data=Path(data), out=Path(out), **{**TINY, **options})


def train_case(data, out, options: str = "{}", die: str = "") -> None:
    """Train, and keep the loss of each step.

    die: "RANK STEP SIGNAL": the process of that rank sends itself the signal before that step, once.
    """
    trainer, losses = Trainer(settings(data, out, **json.loads(options)), quiet=True), []
    real, restarts = trainer.step, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    rank, step, number = map(int, die.split()) if die and restarts == "0" else (None, None, None)

    def step_or_die(*batch):
        if [processes.rank(), trainer.progress.step] == [rank, step]:
            os.kill(os.getpid(), number)
        result = real(*batch)
        losses.append(float(result.loss))
        return result

    trainer.step = step_or_die
    trainer.run()
    if processes.is_main():
        (Path(out) / "losses.json").write_text(json.dumps(losses))


def train_cases(data, out, names: list[str] = tuple(CASES)) -> None:
    for name in names:
        train_case(data, Path(out) / name, json.dumps(CASES[name]))


def train_config(config: TrainConfig) -> None:
    train(config, quiet=True)


def gradients(data, out, names: list[str]) -> None:
    """The first step's gradients with nothing frozen, the CNN's BatchNorms included, and its statistics."""
    for name in names:
        options = dict(freeze="none", cache=False, flip=True, pretrained=name != "resnet")
        trainer = Trainer(settings(data, Path(out) / name, **{**TRUNKS[name], **options}), quiet=True)
        trainer.saved.model.double()  # so that what is left of a difference is no rounding
        trainer.open_training()
        trainer.model.train()
        inputs, extra = Steps(trainer.objective, 0, trainer.inputs, flip_seed=0)[0]
        result = trainer.step(inputs.double(), extra)
        if processes.is_main():
            model = trainer.saved.model
            found = {f"g/{n}": p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}
            found |= {f"b/{n}": b for n, b in model.named_buffers() if "running" in n}
            save_file({**found, "loss": result.loss}, Path(out) / f"{name}.safetensors")


def functions(out) -> None:
    """gather, all_sum, raise_in_all and the BatchNorm by themselves, on parts of unlike size."""
    mains = processes.gather_objects(processes.run_on_main(os.getpid))  # nothing has joined them before
    assert len(mains) == processes.variable("WORLD_SIZE", 1) and len(set(mains)) == 1
    generator = torch.Generator().manual_seed(0)
    batch, wanted = torch.randn(7, 3, 4, generator=generator), torch.randn(7, 3, 4, generator=generator)
    part = torch.from_numpy(processes.shard(batch.numpy())).requires_grad_()
    torch.testing.assert_close(processes.gather(part).detach(), batch)
    (processes.gather(part) * wanted).sum().backward()
    n = processes.world_size()  # DDP's mean takes this factor away
    torch.testing.assert_close(part.grad / n, torch.from_numpy(processes.shard(wanted.numpy())))
    assert float(processes.all_sum(part.detach().sum())) == pytest.approx(float(batch.sum()), abs=1e-5)
    norm, x = torch.nn.BatchNorm1d(3), part.detach().requires_grad_()
    ours, single = torch.nn.BatchNorm1d(3), batch.clone().requires_grad_()
    batchnorm.share_statistics(ours)
    expected = norm(single)
    (expected * wanted).sum().backward()
    gathered = processes.gather(ours(x))
    (gathered * wanted).sum().backward()
    torch.testing.assert_close(gathered, expected, atol=1e-5, rtol=1e-5)
    part_grad = torch.from_numpy(processes.shard(single.grad.numpy()))
    torch.testing.assert_close(x.grad / n, part_grad, atol=1e-5, rtol=1e-5)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer, msg=name)
    try:
        with processes.raise_in_all():
            if processes.rank() == n - 1:
                raise ValueError("this one")
        raise AssertionError("no error")
    except ValueError as error:
        assert "this one" in str(error)
    Path(out, str(processes.rank())).touch()


def not_finite(data, out, what: str) -> None:
    """Train; from step 2 on something is NaN or infinite in the last process alone."""
    trainer = Trainer(settings(data, out), quiet=True)
    real, last = trainer.step, processes.rank() == processes.world_size() - 1

    def step(inputs, extra):
        if not last or trainer.progress.step < 2:
            return real(inputs, extra)
        if what == "images":
            inputs = inputs * torch.nan
        if what == "loss":
            real_loss = trainer.objective.step

            def infinite_loss(*arguments):
                result = real_loss(*arguments)
                result.loss = result.loss * torch.inf
                return result

            trainer.objective.step = infinite_loss
        result = real(inputs, extra)
        if what == "weights":
            trainer.saved.model.head.fc.weight.data[0, 0] = torch.nan
        return result

    trainer.step = step
    trainer.run()


def reductions(data, out) -> None:
    """Count how often processes exchange gradients within two epochs of four batches."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    trainer, found = Trainer(settings(data, out, mode="triplets", accumulate=3), quiet=True), []

    def hook(group, bucket):
        if bucket.is_last():
            found.append(trainer.progress.step)
        return allreduce_hook(group, bucket)

    real = trainer.open_training
    trainer.open_training = lambda: (real(), trainer.model.register_comm_hook(None, hook))
    trainer.run()
    if processes.is_main():
        (Path(out) / "reductions.json").write_text(json.dumps(found))


def unreadable_images(data, out, most: float = 0.2) -> None:
    """Train where some images cannot be read."""
    train(settings(data, out, max_unreadable=most, cache=False, mode="spaces"), quiet=True)


def command(*words: str) -> None:
    """A command of ccakit, which ends with its exit code."""
    sys.exit(main(list(words)))


def sleep() -> None:
    time.sleep(600)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
