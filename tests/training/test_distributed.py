"""Several processes on one CPU do what one does: the same losses, weights, metrics; and they end together.

Run as a script, by torchrun, this file is what each process does: `test_distributed.py JOB ARGUMENTS`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT
from safetensors.torch import load_file, save_file

from ccakit import processes as distributed
from ccakit.training import batchnorm
from ccakit.training.batches import Steps
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import Trainer, train

TINY = dict(
    lite_width=32,
    lite_depth=2,
    lite_heads=2,
    batch_size=16,
    image_size=64,
    budget="epochs=2",
    lr=1e-4,
    triplets_per_epoch=64,
    head_norm="none",
)
CASES = {
    "spaces": dict(),
    "triplets": dict(mode="triplets"),
    "triplets-batchnorm": dict(mode="triplets", head_norm="batchnorm"),
    "spaces-batchnorm": dict(head_norm="batchnorm"),
    "csn": dict(model="csn"),
    "csn-triplets": dict(model="csn", mode="triplets"),
    "adde-triplets": dict(model="adde", mode="triplets"),
    "asen-pp": dict(model="asen-pp"),
    "spaces-accumulate": dict(accumulate=3),
    "triplets-accumulate": dict(mode="triplets", accumulate=2),
    "networks-accumulate": dict(
        model="networks", mode="triplets", accumulate=2
    ),  # not every batch has every condition
}
TRUNKS = {
    "spaces": dict(),
    "triplets": dict(mode="triplets"),
    "resnet": dict(model="csn", trunk="resnet18", mode="triplets"),
}


def settings(data, out, **options):
    return TrainConfig(data=Path(data), out=Path(out), **{**TINY, **options})


def train_case(data: str, out: str, options: str = "{}", die: str = "") -> None:
    """Train, and keep each step's loss. die: "NUMBER STEP SIGNAL", to be sent once to that process by itself."""
    made, losses = Trainer(settings(data, out, **json.loads(options)), quiet=True), []
    real = made.step

    def step(*batch):
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if die and first and [distributed.number(), made.progress.step] == [int(x) for x in die.split()[:2]]:
            os.kill(os.getpid(), int(die.split()[2]))
        result = real(*batch)
        losses.append(float(result.loss))
        return result

    made.step = step
    made.run()
    if distributed.is_main():
        (Path(out) / "losses.json").write_text(json.dumps(losses))


def train_cases(data: str, out: str) -> None:
    for name, options in CASES.items():
        train_case(data, f"{out}/{name}", json.dumps(options))


def gradients(data: str, out: str) -> None:
    """The gradients of the first step where nothing is frozen, BatchNorms of the CNN included, and its statistics."""
    for name, options in TRUNKS.items():
        options = dict(freeze="none", cache=False, flip=True, pretrained=name != "resnet", **options)
        made = Trainer(settings(data, f"{out}/{name}", **options), quiet=True)
        made.saved.model.double()  # so that what is left of a difference is no rounding
        made.open_training()
        made.model.train()
        inputs, extra = Steps(made.objective, 0, made.inputs, flip_seed=0)[0]
        result = made.step(inputs.double(), extra)
        if distributed.is_main():
            model = made.saved.model
            found = {f"g/{n}": p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}
            found |= {f"b/{n}": b for n, b in model.named_buffers() if "running" in n}
            save_file({**found, "loss": result.loss}, f"{out}/{name}.safetensors")


def functions(out: str) -> None:
    """gather, total and the BatchNorm by themselves, on parts of unlike size."""
    distributed.start()
    generator = torch.Generator().manual_seed(0)
    whole, wanted = torch.randn(7, 3, 4, generator=generator), torch.randn(7, 3, 4, generator=generator)
    part = torch.from_numpy(distributed.part_of(whole.numpy())).requires_grad_()
    torch.testing.assert_close(distributed.gather(part).detach(), whole)
    (distributed.gather(part) * wanted).sum().backward()
    n = distributed.processes()  # DDP's mean takes this factor away
    torch.testing.assert_close(part.grad / n, torch.from_numpy(distributed.part_of(wanted.numpy())))
    assert float(distributed.total(part.detach().sum())) == pytest.approx(float(whole.sum()), abs=1e-5)
    norm, x = torch.nn.BatchNorm1d(3), part.detach().requires_grad_()
    ours, single = batchnorm.GlobalBatchNorm(torch.nn.BatchNorm1d(3)), whole.clone().requires_grad_()
    wished = norm(single)
    (wished * wanted).sum().backward()
    got = distributed.gather(ours(x))
    (got * wanted).sum().backward()
    torch.testing.assert_close(got, wished, atol=1e-5, rtol=1e-5)
    part_grad = torch.from_numpy(distributed.part_of(single.grad.numpy()))
    torch.testing.assert_close(x.grad / n, part_grad, atol=1e-5, rtol=1e-5)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer, msg=name)
    try:
        with distributed.agreed():
            if distributed.number() == n - 1:
                raise ValueError("this one")
        raise AssertionError("no error")
    except ValueError as error:
        assert "this one" in str(error)
    Path(out, str(distributed.number())).touch()


def not_finite(data: str, out: str, what: str) -> None:
    """Train; from step 2 on something is NaN or infinite in the last process alone."""
    made = Trainer(settings(data, out), quiet=True)
    real, last = made.step, distributed.number() == distributed.processes() - 1

    def step(inputs, extra):
        if not last or made.progress.step < 2:
            return real(inputs, extra)
        if what == "images":
            inputs = inputs * torch.nan
        if what == "loss":
            loss_of = made.objective.step

            def objective_step(*arguments):
                result = loss_of(*arguments)
                result.loss = result.loss * torch.inf
                return result

            made.objective.step = objective_step
        result = real(inputs, extra)
        if what == "weights":
            made.saved.model.head.fc.weight.data[0, 0] = torch.nan
        return result

    made.step = step
    made.run()


def reductions(data: str, out: str) -> None:
    """Count how often processes exchange gradients within two epochs of four batches."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    made, found = Trainer(settings(data, out, mode="triplets", accumulate=3), quiet=True), []

    def hook(group, bucket):
        if bucket.is_last():
            found.append(made.progress.step)
        return allreduce_hook(group, bucket)

    real = made.open_training
    made.open_training = lambda: (real(), made.model.register_comm_hook(None, hook))
    made.run()
    if distributed.is_main():
        (Path(out) / "reductions.json").write_text(json.dumps(found))


def one_bad_image(data: str, out: str, most: str = "0.2") -> None:
    """A batch of the second step in which an image turns out to be unreadable."""
    train(settings(data, out, max_unreadable=float(most), cache=False, mode="spaces"), quiet=True)


def launch(processes: int, *arguments, flags=(), check: bool = True, timeout: float = 600):
    """`torchrun` with so many processes of one thread each; with 0, plain Python with one thread. What it gave."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = ROOT
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests/support'}",
    }
    arguments = arguments if arguments[0] == "-m" else (__file__, *arguments)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        processes,
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"127.0.0.1:{port}",
        *flags,
        *arguments,
    ]
    if not processes:
        command = [sys.executable, *(word for word in arguments if word != "--")]
    command = [str(word) for word in command]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
    assert not check or run.returncode == 0, run.stderr[-4000:]
    return run


def losses_of(out) -> list[float]:
    return json.loads((out / "losses.json").read_text())


@pytest.fixture(scope="module")
def garments(draw):
    return draw(83, 21, 37)


@pytest.fixture(scope="module")
def alone(garments, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    train_cases(str(garments), str(out))
    return out


NO_GRADIENT = (
    "fc.bias",
    "proj.bias",
    "norm.bias",
    "kv.bias",
    "qkv.bias",
    "2.bias",
    "running_mean",
    "condition.bias",
)


def but_for_keys(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Weights without the keys' biases, which move all scores of a query alike, so that their gradient is rounding."""
    if name.endswith("qkv.bias"):
        return weights.view(3, -1)[[0, 2]]
    return weights.view(2, -1)[1] if name.endswith("kv.bias") else weights


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_train_as_one_does(garments, alone, tmp_path, processes):
    """Losses and weights within 1e-5. Keys' biases, and some before a BatchNorm, have no gradient but rounding, which
    Adam makes a step of; they change no loss, and are left out."""
    launch(processes, "train_cases", garments, tmp_path)
    for name, options in CASES.items():
        ours, theirs = (out / name for out in (tmp_path, alone))
        np.testing.assert_allclose(losses_of(ours), losses_of(theirs), atol=1e-5, err_msg=name)
        a, b = (load_file(out / "model.safetensors") for out in (ours, theirs))
        free = NO_GRADIENT if "batchnorm" in name or "model" in options else ()
        kept = {k: but_for_keys(k, a[k].float() - b[k].float()) for k in a if not k.endswith(free)}
        worst = {k: float(of.abs().max()) for k, of in kept.items()}
        assert max(worst.values()) <= 1e-5, (name, max(worst, key=worst.get), max(worst.values()))
        for column in ("step", "epoch", "triplets"):
            assert _column(ours, column) == _column(theirs, column)
        np.testing.assert_allclose(_column(ours, "valid_map_weighted"), _column(theirs, "valid_map_weighted"))


def _column(out, name):
    return np.genfromtxt(out / "log.csv", delimiter=",", names=True)[name].tolist()


@pytest.mark.parametrize("processes", [3])
def test_gradients_through_a_trained_cnn_are_the_single_processs(garments, tmp_path, processes):
    """An image that two processes encode counts once in the BatchNorms."""
    (tmp_path / "one").mkdir(), (tmp_path / "several").mkdir()
    gradients(str(garments), str(tmp_path / "one"))
    launch(processes, "gradients", garments, tmp_path / "several")
    for name in TRUNKS:
        a, b = (load_file(tmp_path / of / f"{name}.safetensors") for of in ("one", "several"))
        assert a.keys() == b.keys() and any("backbone" in key for key in a)
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-5)
        largest = max(float(a[k].abs().max()) for k in a if k.startswith("g/"))
        for key in a:
            scale = largest if key.startswith("g/") else max(1.0, float(a[key].abs().max()))
            assert float((a[key] - b[key]).abs().max()) <= 1e-5 * scale, (name, key)


@pytest.mark.parametrize("processes", [2, 3])
def test_gather_total_and_batchnorm(tmp_path, processes):
    launch(processes, "functions", tmp_path)
    assert len(list(tmp_path.iterdir())) == processes


def test_evaluate_and_embed_are_sharded_with_the_same_numbers(garments, alone, tmp_path):
    metrics = {}
    for name, processes in (
        ("one", 0),
        ("several", 3),
    ):  # with as many threads each: matrix products differ by them
        run = tmp_path / name
        shutil.copytree(alone / "spaces", run)
        for command in ("evaluate", "embed"):
            launch(processes, "-m", "--", "ccakit", command, "--run", run, "--batch-size", "8")
        metrics[name] = json.loads((run / "metrics_garments_test.json").read_text())
        metrics[name]["embeddings"] = (
            load_file(run / "embeddings_test.safetensors")["embeddings"].numpy().tobytes()
        )
    assert metrics["one"] == metrics["several"]


def test_accelerate_launch_trains(garments, alone, tmp_path):
    flags = {k.replace("_", "-"): v for k, v in TINY.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [
        "accelerate",
        "launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--main_process_port",
        port,
        "-m",
        "ccakit",
        "train",
        "--data",
        str(garments),
        "--out",
        str(tmp_path / "run"),
        *(f"--{k}={v}" for k, v in flags.items()),
    ]
    command[0] = str(Path(sys.executable).parent / "accelerate")
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    last = max((tmp_path / "run/checkpoints").iterdir())
    assert json.loads((last / "state.json").read_text())["processes"] == 2  # --cpu would start one only
    a, b = (load_file(out / "model.safetensors") for out in (tmp_path / "run", alone / "spaces"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) <= 1e-5


def test_a_worker_that_dies_ends_all_or_is_restarted_from_the_last_checkpoint(garments, tmp_path):
    options = json.dumps(dict(checkpoint_every=1))
    launch(2, "train_case", garments, tmp_path / "whole", options)
    die = f"1 6 {int(signal.SIGKILL)}"
    ended = launch(2, "train_case", garments, tmp_path / "ended", options, die, check=False)
    assert ended.returncode != 0 and "Signal 9 (SIGKILL)" in ended.stderr
    launch(2, "train_case", garments, tmp_path / "on", options, die, flags=("--max-restarts", 1))
    assert len(losses_of(tmp_path / "on")) == len(losses_of(tmp_path / "whole")) - 6  # from step 6 on
    launch(2, "train_case", garments, tmp_path / "ended", json.dumps(dict(checkpoint_every=1, resume=True)))
    whole = (tmp_path / "whole/model.safetensors").read_bytes()
    for name in ("on", "ended"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == whole
        assert _column(tmp_path / name, "loss") == _column(tmp_path / "whole", "loss")


@pytest.mark.parametrize("before,after", [(2, 0), (0, 2)])
def test_a_run_goes_on_with_another_number_of_processes(garments, alone, tmp_path, before, after):
    """Stopped after 4 of 12 steps; it says so, and ends within 1e-5 of the run of one process that went through."""
    out, cut = tmp_path / "run", f"0 3 {int(signal.SIGTERM)}"
    launch(before, "train_case", garments, out, "{}", cut, check=False)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004"]
    gone_on = launch(after, "train_case", garments, out, json.dumps(dict(resume=True)))
    told = f"{max(1, before)} processes before, {max(1, after)} now; batches stay the same"
    assert told in gone_on.stderr
    np.testing.assert_allclose(losses_of(out), losses_of(alone / "spaces")[4:], atol=1e-5)
    a, b = (load_file(of / "model.safetensors") for of in (out, alone / "spaces"))
    assert (
        max(float(but_for_keys(k, a[k].float() - b[k].float()).abs().max()) for k in a if a[k].numel())
        <= 1e-5
    )
    assert _column(out, "step") == _column(alone / "spaces", "step")


@pytest.mark.parametrize("flags", [["--loopback"], []])
def test_two_machines_train_as_one_process(flags, capfd, monkeypatch):
    """The script, at a tiny size: two launchers on the loopback, and two network namespaces where they may be made."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import two_machines

    if not flags:
        if not two_machines.make_namespaces():
            pytest.skip("no right to make network namespaces")
        two_machines.remove_namespaces()
    assert two_machines.main(["--tiny", *flags]) == 0
    told = capfd.readouterr().out
    assert (
        f"two {'rendezvous on loopback' if flags else 'network namespaces'}: " in told
        and "match: True" in told
    )


def test_a_signal_to_one_process_stops_all_after_saving(garments, tmp_path):
    stopped = launch(
        2, "train_case", garments, tmp_path / "run", "{}", f"1 3 {int(signal.SIGTERM)}", check=False
    )
    assert stopped.returncode != 0
    assert stopped.stderr.count("step 4 is saved") == 1
    assert (tmp_path / "run/checkpoints/step-00000004").is_dir()


def test_an_unreadable_image_is_replaced_as_in_one_process(garments, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(garments, data)
    for image in (5, 44):
        (data / f"images/train/{image:06d}.png").write_bytes(b"none")
    one_bad_image(str(data), str(tmp_path / "one"))
    launch(2, "one_bad_image", data, tmp_path / "two")
    shutil.copy(
        garments / "images/train/000044.png", data / "images/train/000044.png"
    )  # one process has the other
    refused = launch(2, "one_bad_image", data, tmp_path / "none", "0.0", check=False, timeout=150)
    assert refused.returncode == 1
    assert re.search(r"OtherProcessError: process [01]: .*lists images/train/0000", refused.stderr)
    told = [json.loads((tmp_path / name / "unreadable.json").read_text()) for name in ("one", "two")]
    assert told[0] == told[1] and len(told[0]["train"]) == 2
    np.testing.assert_allclose(
        _column(tmp_path / "two", "loss"), _column(tmp_path / "one", "loss"), atol=1e-5
    )


@pytest.mark.parametrize(
    "what,told",
    [
        (
            "images",
            "the loss is nan at step 2; try a smaller --lr",
        ),  # the loss of the whole batch, in all processes
        ("loss", "the loss is inf at step 2 in process 1; try a smaller --lr"),
        ("weights", "the loss is nan at step 3; try a smaller --lr"),
    ],
)
def test_what_is_not_finite_in_one_process_ends_all_with_one_message(garments, tmp_path, what, told):
    ended = launch(2, "not_finite", garments, tmp_path / "run", what, check=False, timeout=150)
    assert ended.returncode == 1 and "exitcode  : 1 " in ended.stderr
    assert ended.stderr.count("at step") == 1 and told in ended.stderr
    assert "Traceback (most recent call last)" not in ended.stderr.split(told)[0]
    assert told in (tmp_path / "run/train.log").read_text()


def test_gradients_are_exchanged_once_a_step_of_the_optimizer(garments, tmp_path):
    launch(2, "reductions", garments, tmp_path)
    assert json.loads((tmp_path / "reductions.json").read_text()) == [
        2,
        3,
        6,
        7,
    ]  # 3 batches and 1, in each epoch


BF16 = 2**-8
"""How far losses of two processes in bf16 may be from one's: bf16 has 8 bits, and cosine distances are about 1."""


@pytest.mark.parametrize("options", [dict(), dict(mode="triplets", freeze="none", cache=False)])
def test_bf16_in_two_processes_is_that_of_one(garments, alone, tmp_path, options):
    for name, processes in (("one", 0), ("two", 2)):
        flags = json.dumps(dict(mixed_precision="bf16", **options))
        launch(processes, "train_case", garments, tmp_path / name, flags)
    one, two = (losses_of(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(two, one, atol=BF16)
    np.testing.assert_allclose(
        *(_column(tmp_path / name, "valid_map_weighted") for name in ("one", "two")), atol=2
    )
    float32 = losses_of(alone / options.get("mode", "spaces"))  # with the same batches
    assert len(one) == len(float32) and one != float32 and abs(one[0] - float32[0]) < 0.02


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
