"""Exact resume: runs that are killed, stopped, or fail to write end where an unbroken one does."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from broken_runs import TINY, go_on, kill_often, result, settings, stopped_command
from ranks import run_ranks

from ccakit import disk
from ccakit.cli import main
from ccakit.errors import DataError
from ccakit.models import saved
from ccakit.training import checkpoints, reporting, run_folder, trainer
from ccakit.training.stopping import Stopped
from ccakit.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def garments(draw):
    return draw(80, 16, 16)


@pytest.fixture(scope="module")
def unbroken(garments, tmp_path_factory):
    """The folder of a run that nothing has broken, which tests read, or copy."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    train(settings(garments, out), quiet=True)
    return out


@pytest.fixture
def ended(unbroken, tmp_path):
    """A run of its own for the test, at its end."""
    return shutil.copytree(unbroken, tmp_path / "run")


TRIPLETS = dict(mode="triplets", triplets_per_epoch=64, checkpoint_every=2, accumulate=2)


@pytest.mark.parametrize(
    "kills,options",
    [
        (4, {}),
        pytest.param(20, {}, marks=pytest.mark.slow),
        pytest.param(6, TRIPLETS, marks=pytest.mark.slow),
    ],
)
def test_runs_killed_at_many_moments_end_as_an_unbroken_one(garments, unbroken, tmp_path, kills, options):
    """SIGKILL, half at random and half within the writing of a checkpoint: the same bytes at the end."""
    if options:
        unbroken = tmp_path / "unbroken"
        train(settings(garments, unbroken, **options), quiet=True)
    run_ranks(1, kill_often, garments, tmp_path / "killed", kills, options, timeout=900)
    assert result(tmp_path / "killed") == result(unbroken)
    left = [path.name for path in (tmp_path / "killed/checkpoints").iterdir()]
    assert len(left) == 2 and all(name.startswith("step-") for name in left)


@pytest.mark.parametrize(
    "number,code,error", [(signal.SIGINT, 130, Stopped), (signal.SIGTERM, 143, SystemExit)]
)
def test_signals_save_at_the_next_step_and_the_run_goes_on(
    garments, unbroken, tmp_path, monkeypatch, number, code, error
):
    real, before = Trainer.step, signal.getsignal(number)

    def step(self, *batch):
        if self.progress.step == 2:
            os.kill(os.getpid(), number)
        return real(self, *batch)

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(error) as stopped:
        train(settings(garments, tmp_path / "run", checkpoint_every=0), quiet=True)
    if number == signal.SIGTERM:
        assert stopped.value.code == code
    else:
        assert "step 3 is saved" in str(stopped.value) and "--resume" in str(stopped.value)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003"]
    monkeypatch.setattr(Trainer, "step", real)
    assert signal.getsignal(number) == before
    go_on(garments, tmp_path / "run", checkpoint_every=0)
    assert result(tmp_path / "run") == result(unbroken)


def command_words(data, out, **options) -> list[str]:
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in {**TINY, **options}.items()]
    return ["train", "--data", str(data), "--out", str(out), *flags]


SIGNALS = pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def check_one_line(stderr: str) -> None:
    assert (
        len([line for line in stderr.splitlines() if "--resume" in line]) == 1 and "Traceback" not in stderr
    )


@SIGNALS
def test_the_command_ends_with_the_signals_code_and_one_line(garments, tmp_path, number, code):
    words = command_words(garments, tmp_path / "run")
    stopped = run_ranks(1, stopped_command, number, *words, check=False)
    assert stopped.codes == [code]
    check_one_line(stopped.stderr)


@pytest.mark.slow
@SIGNALS
def test_an_interpreter_that_trains_ends_with_the_signals_code(garments, tmp_path, number, code):
    lite = dict(trunk="lite", image_size=64, freeze="backbone", lite_width=32, lite_heads=2)
    words = command_words(garments, tmp_path / "run", **lite, budget="300s")
    command, pipes = (
        [sys.executable, "-m", "ccakit", *words],
        dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE),
    )
    run = subprocess.Popen(command, text=True, **pipes)
    while not list((tmp_path / "run").glob("checkpoints/step-*")) and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == code, stderr
    check_one_line(stderr)


def _break(path):
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name,damage",
    [
        ("model.safetensors", _break),
        ("optimizer.safetensors", _flip),
        ("state.json", _break),
        ("model.safetensors", Path.unlink),
    ],
)
def test_a_damaged_last_checkpoint_is_told_and_the_one_before_taken(
    garments, unbroken, ended, caplog, name, damage
):
    last = max((ended / "checkpoints").iterdir())
    damage(last / name)
    go_on(garments, ended)
    assert result(ended) == result(unbroken)
    assert f"{last.name}/{name}" in caplog.text and "the checkpoint before it" in caplog.text


def test_a_full_disk_is_one_clear_error_and_loses_nothing(garments, unbroken, tmp_path, monkeypatch, capsys):
    real, calls = safetensors.torch.save_file, []

    def full(tensors, path, header):
        calls.append(path)
        if len(calls) == 6 and Path(path).write_bytes(b"half"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(tensors, path, header)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    told = (
        "step-00000003: cannot be written .No space left on device.*--resume then goes on from step-00000002"
    )
    with pytest.raises(DataError, match=told):
        train(settings(garments, tmp_path / "run"), quiet=True)
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == [
        "step-00000001",
        "step-00000002",
    ]
    monkeypatch.setattr(safetensors.torch, "save_file", real)
    go_on(garments, tmp_path / "run")
    assert result(tmp_path / "run") == result(unbroken)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class NoSpace:
    """What `open` gives on a full disk: the write fails, and names no file."""

    write = no_space

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize(
    "file,owner,name,given,there",
    [
        ("model.safetensors", safetensors.torch, "save_file", "/run/.model.safetensors", "step-00000005"),
        ("log.csv", run_folder, "open", "/run/log.csv", "step-00000005"),
        ("train.json", disk, "open", "/run/.train.json", "step-00000010"),
        ("config.json", disk, "open", "/run/.config.json", "the beginning"),
        ("tensorboard", reporting.SummaryWriter, "add_scalar", "SummaryWriter", "step-00000005"),
    ],
)
def test_any_file_of_a_run_that_a_full_disk_refuses_is_named(
    garments, unbroken, tmp_path, monkeypatch, file, owner, name, given, there
):
    real = getattr(owner, name, open)

    def full(*args, **kwargs):
        if given not in str(args):
            return real(*args, **kwargs)
        return NoSpace() if name == "open" else no_space()

    with monkeypatch.context() as patch, pytest.raises(DataError) as error:
        patch.setattr(owner, name, full, raising=False)
        train(settings(garments, tmp_path / "run"), quiet=True)
    told = f"run/{file}: cannot be written (No space left on device). Make room there, or make it writable; "
    assert f"{told}--resume then goes on from {there}." in str(error.value)
    go_on(garments, tmp_path / "run")
    assert result(tmp_path / "run") == result(unbroken)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 100 MiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    "owner,name,file",
    [
        (trainer, "save_model", "model.safetensors"),
        (reporting.Reporter, "evaluation", "log.csv"),
    ],
)
def test_a_disk_that_fills_up_is_one_clear_error(
    garments, unbroken, small_disk, monkeypatch, owner, name, file
):
    """The disk is full from the first evaluation on; with room again, the run ends as if there always was."""
    real, filler = getattr(owner, name), small_disk / "filler"

    def full(*args, **kwargs):
        if name == "evaluation":  # a log that ends where its block does
            log = small_disk / "run/log.csv"
            log.write_text(log.read_text() + "0" * (os.statvfs(log).f_bsize - log.stat().st_size))
        with open(filler, "wb", buffering=0) as rest, suppress(OSError):
            while rest.write(bytes(4096)):
                pass
        return real(*args, **kwargs)

    with (
        monkeypatch.context() as patch,
        pytest.raises(DataError, match=f"run/{file}: cannot be written .*No space"),
    ):
        patch.setattr(owner, name, full)
        train(settings(garments, small_disk / "run"), quiet=True)
    filler.unlink()
    go_on(garments, small_disk / "run")
    assert result(small_disk / "run") == result(unbroken)


def test_embeddings_that_a_full_disk_refuses_are_one_line(ended, monkeypatch, capsys):
    monkeypatch.setattr(safetensors.torch, "save_file", no_space)
    assert main(["embed", "--run", str(ended)]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert (
        len(told) == 1
        and "run/embeddings_test.safetensors: cannot be written (No space left on device)" in told[0]
    )


def test_features_that_a_full_disk_refuses_are_computed_each_time(garments, small_disk, tmp_path, caplog):
    """A warning, and no killed process, as a memory map on a full disk would have it."""
    shutil.copytree(garments, small_disk / "data", ignore=shutil.ignore_patterns(".features"))
    with open(small_disk / "filler", "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    train(settings(small_disk / "data", tmp_path / "run", budget="steps=2"), quiet=True)
    assert "features cannot be kept" in caplog.text and not list((small_disk / "data/.features").glob("*"))


def test_checkpoints_are_kept_as_many_as_wanted_and_leftovers_go(garments, tmp_path):
    train(settings(garments, tmp_path / "run", keep=3, budget="epochs=1"), quiet=True)
    folder = tmp_path / "run/checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000003", "step-00000004", "step-00000005"]
    (folder / ".partial-999999999").mkdir()
    checkpoints.remove_leftovers(folder)
    assert not list(folder.glob(".partial*"))


def test_resume_says_what_differs(garments, ended):
    with pytest.raises(DataError, match="lr was 0.001, now 0.1; accumulate was 1, now 2"):
        go_on(garments, ended, lr=0.1, accumulate=2)
    go_on(garments, ended, checkpoint_every=7, keep=1, workers=1)  # these may


def test_resume_on_other_data_says_what_differs(garments, ended, draw, tmp_path):
    """Which split, and in what; a query that is a candidate too, though all labels are where they were."""

    def told(data) -> str:
        with pytest.raises(DataError, match="data.json: is of other data than --data: ") as error:
            go_on(data, ended)
        return error.value.problem.split("--data: ")[1]

    assert told(draw(81, 16, 15)) == "train had 80 images, now 81; test had 16 images, now 15"
    for split in ("valid", "test"):
        other = tmp_path / split / "garments"
        shutil.copytree(garments, other)
        query, candidates = (other / f"{name}_{split}.txt" for name in ("query", "candidate"))
        first, *others = query.read_text().splitlines(keepends=True)
        query.write_text("".join(others))
        candidates.write_text(
            candidates.read_text() + first
        )  # labels are the candidates' rows, then the queries'
        assert told(other) == f"{split} has other files, labels, queries or candidates"
    other = tmp_path / "other"
    shutil.copytree(garments, other)
    (other / "meta.json").write_text((other / "meta.json").read_text().replace("neck_design", "neckline"))
    assert "other attributes or values" in told(other)


def test_a_run_restarted_by_the_launcher_goes_on_without_resume(garments, ended, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(settings(garments, ended), quiet=True)[1]["epochs"] == 2


def test_a_loader_that_hangs_or_dies_names_the_batch(garments, tmp_path, monkeypatch):
    from ccakit.training.batches import Steps

    real = Steps.__getitem__

    def bad(self, index, end):
        if index == 2:
            end()
        return real(self, index)

    ends = {
        "gave nothing in time": lambda: time.sleep(60),
        "died": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }
    for told, end in ends.items():
        monkeypatch.setattr(Steps, "__getitem__", partialmethod(bad, end=end))
        with pytest.raises(
            DataError, match=f"filenames_train.txt, line .*{told} at batch [12] of epoch 0.*train/0"
        ):
            train(settings(garments, tmp_path / told, workers=1, loader_timeout=5.0), quiet=True)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_loader_that_dies_while_it_sends_a_batch_names_it(garments, tmp_path, error, monkeypatch):
    from ccakit.training import batches
    from ccakit.training.batches import Loader, Steps

    def the_signal_comes(_) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(batches, "time", SimpleNamespace(sleep=the_signal_comes))
    made = Trainer(settings(garments, tmp_path / "run"), quiet=True)
    made.open_training()
    steps = Steps(made.objective, 0, made.inputs)
    with pytest.raises(DataError, match="died at batch 1 of epoch 0.*train/0"), Loader(steps, first=1):
        raise error


def test_loaders_that_die_one_after_the_other_name_the_batch(garments, tmp_path):
    from ccakit.training.batches import Loader, Steps

    def the_next_signal_comes() -> None:
        raise RuntimeError("DataLoader worker (pid 8) is killed by signal: Killed.")

    made = Trainer(settings(garments, tmp_path / "run"), quiet=True)
    made.open_training()
    loader = Loader(Steps(made.objective, 0, made.inputs), first=1)
    loader._packed, loader._batches = True, SimpleNamespace(_shutdown_workers=the_next_signal_comes)
    with pytest.raises(DataError, match="died at batch 1 of epoch 0.*train/0"), loader:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")


def test_accumulated_batches_make_one_step_of_the_optimizer(garments, tmp_path):
    """The optimizer's gradient is the mean of the batches' gradients, each by itself."""
    made = Trainer(settings(garments, tmp_path / "run", accumulate=2, checkpoint_every=0), quiet=True)
    made.open_training()
    from ccakit.training.batches import Steps

    steps, model = Steps(made.objective, 0, made.inputs), made.saved.model
    model.train()
    singles = []
    for index in range(2):
        model.zero_grad()
        made.objective.step(model, *steps[index], "all", made.inputs.cached).loss.backward()
        singles.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    before = [p.detach().clone() for p in model.parameters()]
    made.step(*steps[0])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    made.progress.batch = 1
    made.step(*steps[1])
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    for a, b, p in zip(*singles, [p for p in model.parameters() if p.grad is not None]):
        torch.testing.assert_close(p.grad, (a + b) / 2, atol=1e-6, rtol=1e-4)


def test_activations_computed_anew_give_the_same_weights(garments, tmp_path):
    options = dict(freeze="none", cache=False, budget="steps=3", checkpoint_every=0)
    for name, on in (("kept", False), ("anew", True)):
        train(settings(garments, tmp_path / name, checkpoint_activations=on, **options), quiet=True)
    a, b = (saved.load_model(tmp_path / name).model.state_dict() for name in ("kept", "anew"))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


def test_weights_that_are_not_finite_are_not_saved(garments, tmp_path, capsys):
    made = Trainer(settings(garments, tmp_path / "run"), quiet=True)
    real = made._backward

    def backward(*loss):
        real(*loss)
        if made.progress.step == 2:
            made.saved.model.head.fc.weight.data[0, 0] = float("inf")

    made._backward = backward
    with pytest.raises(FloatingPointError, match=r"not finite \(inf\) after step 2; try a smaller --lr"):
        made.run()
    assert max(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == "step-00000002"


def test_flags_out_of_range_are_refused(garments, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data", str(garments), "--keep", "0"])
    assert "keep: Input should be greater than or equal to 1" in capsys.readouterr().err
