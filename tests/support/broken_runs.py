"""Small runs that are killed, stopped and resumed: for the tests of exact resume."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import safetensors.torch
import tiny_vit  # noqa: F401 - registers vit_for_tests

from ccakit import disk
from ccakit.cli import main
from ccakit.models import saved
from ccakit.training import checkpoints, run_folder, trainer
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import Trainer, train

TINY = dict(trunk="vit_for_tests", image_size=32, freeze="1", batch_size=16, budget="epochs=2")
TINY |= dict(evaluate_every=1, checkpoint_every=1)
FACTS = "steps epochs images best_valid_map_weighted best_epoch collapsed".split()
WRITES = ("save_tensors", "write_text", "write_json", "_remove", "sync", "file_digest")
WRITERS = (disk, safetensors.torch, checkpoints, saved, run_folder, trainer)


def settings(data, out, **options) -> TrainConfig:
    return TrainConfig(data=Path(data), out=Path(out), **{**TINY, **options})


def result(out) -> tuple:
    """What must be the same: the best model's bytes and the columns of the log that tell no time."""
    with open(out / "log.csv", encoding="utf-8", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]
    facts = json.loads((out / "train.json").read_text())
    return (out / "model.safetensors").read_bytes(), rows, {name: facts[name] for name in FACTS}


def go_on(data, out, **options):
    """Train; with --resume where the run has begun."""
    return train(settings(data, out, resume=Path(out).is_dir(), **options), quiet=True)


def stopped_command(number: int, *words: str) -> None:
    """`ccakit` with these words, in a process that gets a signal before step 2."""
    real = Trainer.step

    def step(self, *batch):
        if self.progress.step == 2:
            os.kill(os.getpid(), number)
        return real(self, *batch)

    Trainer.step = step
    sys.exit(main(list(words)))


def die_in_writing(count: int) -> None:
    """Have this process killed within the count-th operation of a checkpoint's or a model's writing."""
    left = [count]

    def dying(real):
        def operation(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                if real.__name__ == "save_tensors":  # half a file
                    disk.partial_of(Path(args[1])).write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return operation

    for module in WRITERS:
        for name in {*WRITES} & vars(module).keys():
            setattr(module, name, dying(getattr(module, name)))


def kill_often(data, out, kills: int, options: dict) -> None:
    """Run and kill, `kills` times, half of them inside writing, then let it end. Forked children train."""
    rng, seconds, done = random.Random(5), [], 0
    while done < kills:
        started, writing = time.monotonic(), done % 2
        if (child := os.fork()) == 0:
            if writing:
                die_in_writing(rng.randint(1, 40))
            go_on(data, out, **options)
            os._exit(0)
        rng.random()
        if not writing:
            time.sleep(rng.uniform(0.05, 1.2 * (max(seconds) if seconds else 1.0)))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        seconds.append(time.monotonic() - started)
        if status == 0:  # it was at its end before: begin again
            shutil.rmtree(out)
        else:
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            done += 1
    go_on(data, out, **options)
