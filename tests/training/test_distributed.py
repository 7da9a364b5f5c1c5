"""Several processes on one CPU do what one does: the same losses, weights, metrics; and they end together.

What each process does is in tests/support/rank_jobs.py, how they are started in tests/support/ranks.py.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import rank_jobs
import torch
from places import ROOT
from rank_jobs import CASES, LITE, TINY
from ranks import run_command, run_ranks, torchrun
from safetensors.torch import load_file


def losses_of(out) -> list[float]:
    return json.loads((out / "losses.json").read_text())


def column(out, name) -> list[float]:
    return np.genfromtxt(out / "log.csv", delimiter=",", names=True)[name].tolist()


@pytest.fixture(scope="module")
def garments(draw):
    return draw(83, 21, 37)


@pytest.fixture(scope="module")
def single(garments, tmp_path_factory):
    """A function that gives the folder of a case trained by one process, which trains it once."""
    out = tmp_path_factory.mktemp("single")

    def trained(name: str) -> Path:
        if not (out / name).exists():
            rank_jobs.train_cases(garments, out, [name])
        return out / name

    return trained


NO_GRADIENT = "fc.bias proj.bias norm.bias kv.bias qkv.bias 2.bias running_mean condition.bias".split()


def but_for_keys(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Weights without keys' biases, which move all scores of a query alike: their gradient is rounding."""
    if name.endswith("qkv.bias"):
        return weights.view(3, -1)[[0, 2]]
    return weights.view(2, -1)[1] if name.endswith("kv.bias") else weights


def largest_difference(run, other, without: tuple[str, ...] = ()) -> float:
    """Between the weights of two runs, keys' biases left out."""
    ours, theirs = (load_file(out / "model.safetensors") for out in (run, other))
    alone = {
        name.replace(".v.bias", ".kv.bias") for name in ours if name.endswith(".v.bias")
    }  # kv: keys alone
    kept = [name for name in ours if ours[name].numel() and not name.endswith(without) and name not in alone]
    differences = (but_for_keys(name, ours[name].float() - theirs[name].float()) for name in kept)
    return max(float(difference.abs().max()) for difference in differences)


FEW = ("spaces", "triplets-pull", "spaces-accumulate")
OTHERS = tuple(name for name in CASES if name not in FEW)


@pytest.mark.parametrize(
    "world_size,names",
    [(3, FEW), pytest.param(2, FEW, marks=pytest.mark.slow), pytest.param(2, OTHERS, marks=pytest.mark.slow)]
    + [pytest.param(3, OTHERS, marks=pytest.mark.slow)],
)
def test_processes_train_as_one_does(garments, single, tmp_path, world_size, names):
    """Losses and weights within 1e-5.

    Keys' biases, and some before a BatchNorm, have no gradient but rounding, which Adam makes a step of; they
    change no loss, and are left out.
    """
    run_ranks(world_size, rank_jobs.train_cases, garments, tmp_path, names)
    for name in names:
        ours, theirs = tmp_path / name, single(name)
        np.testing.assert_allclose(losses_of(ours), losses_of(theirs), atol=1e-5, err_msg=name)
        without = NO_GRADIENT if CASES[name].get("head_norm") or "model" in CASES[name] else ()
        assert largest_difference(ours, theirs, tuple(without)) <= 1e-5, name
        for each in ("step", "epoch", "triplets"):
            assert column(ours, each) == column(theirs, each)
        np.testing.assert_allclose(column(ours, "valid_map_weighted"), column(theirs, "valid_map_weighted"))


@pytest.mark.parametrize(
    "names", [["spaces"], pytest.param(["triplets", "resnet"], marks=pytest.mark.slow)], ids=" ".join
)
def test_gradients_through_a_trained_cnn_are_the_single_processs(garments, tmp_path, names):
    """An image that two processes encode counts once in the BatchNorms."""
    for name, world_size in (("one", 1), ("several", 3)):
        (tmp_path / name).mkdir()
        run_ranks(world_size, rank_jobs.gradients, garments, tmp_path / name, names)
    for name in names:
        a, b = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("one", "several"))
        assert a.keys() == b.keys() and any("backbone" in key for key in a)
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-5)
        largest = max(float(a[k].abs().max()) for k in a if k.startswith("g/"))
        for key in a:
            scale = largest if key.startswith("g/") else max(1.0, float(a[key].abs().max()))
            assert float((a[key] - b[key]).abs().max()) <= 1e-5 * scale, (name, key)


@pytest.mark.parametrize("world_size", [2, 3])
def test_gather_sum_and_batchnorm(tmp_path, world_size):
    run_ranks(world_size, rank_jobs.functions, tmp_path)
    assert len(list(tmp_path.iterdir())) == world_size


def test_evaluate_and_embed_are_sharded_with_the_same_numbers(single, tmp_path):
    """With one thread in each process, as matrix products differ by the number of threads."""
    metrics = {}
    for name, world_size in (("one", 1), ("several", 3)):
        run = tmp_path / name
        shutil.copytree(single("spaces"), run)
        for command in ("evaluate", "embed"):
            run_ranks(world_size, rank_jobs.command, command, "--run", str(run), "--batch-size", "8")
        metrics[name] = json.loads((run / "metrics_garments_test.json").read_text())
        embeddings = load_file(run / "embeddings_test.safetensors")["embeddings"]
        metrics[name]["embeddings"] = embeddings.numpy().tobytes()
    assert metrics["one"] == metrics["several"]


@pytest.mark.slow
def test_torchrun_evaluates_with_the_same_numbers(single, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(single("spaces-lite"), run)
    for world_size in (1, 2):
        torchrun(world_size, "-m", "ccakit", "evaluate", "--run", run, "--batch-size", "8")
        (run / "metrics_garments_test.json").rename(tmp_path / f"{world_size}.json")
    assert (tmp_path / "1.json").read_text() == (tmp_path / "2.json").read_text()


@pytest.mark.slow
def test_accelerate_launch_trains(garments, single, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "accelerate", "launch", "--multi_gpu", "--num_processes", 2]
    command += ["--main_process_port", port, "-m", "ccakit", "train", "--data", garments]
    command += [
        "--out",
        tmp_path / "run",
        *(f"--{k.replace('_', '-')}={v}" for k, v in {**TINY, **LITE}.items()),
    ]
    run_command(command, timeout=300)
    last = max((tmp_path / "run/checkpoints").iterdir())
    assert json.loads((last / "state.json").read_text())["processes"] == 2  # --cpu would start one only
    assert largest_difference(tmp_path / "run", single("spaces-lite")) <= 1e-5


@pytest.mark.slow
def test_a_worker_that_dies_is_restarted_from_the_last_checkpoint(garments, tmp_path):
    """By torchrun, which ends all processes where it may not restart them."""
    options, die = json.dumps(dict(checkpoint_every=1)), f"1 6 {int(signal.SIGKILL)}"
    torchrun(2, "train_case", garments, tmp_path / "unbroken", options)
    ended = torchrun(2, "train_case", garments, tmp_path / "ended", options, die, check=False)
    assert ended.codes != [0] and "Signal 9 (SIGKILL)" in ended.stderr
    flags = ("--max-restarts", 1)
    torchrun(2, "train_case", garments, tmp_path / "restarted", options, die, flags=flags)
    assert len(losses_of(tmp_path / "restarted")) == len(losses_of(tmp_path / "unbroken")) - 6
    torchrun(2, "train_case", garments, tmp_path / "ended", json.dumps(dict(checkpoint_every=1, resume=True)))
    weights = (tmp_path / "unbroken/model.safetensors").read_bytes()
    for name in ("restarted", "ended"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == weights
        assert column(tmp_path / name, "loss") == column(tmp_path / "unbroken", "loss")


def test_a_process_that_dies_ends_the_other_and_the_run_resumes(garments, single, tmp_path):
    """From the last checkpoint, step 6, to where one process ends."""
    out, die = tmp_path / "run", f"1 6 {int(signal.SIGKILL)}"
    options = dict(checkpoint_every=1)
    ended = run_ranks(2, rank_jobs.train_case, garments, out, json.dumps(options), die, check=False)
    assert ended.codes == [1, -signal.SIGKILL] and "another process has ended" in ended.stderr
    run_ranks(2, rank_jobs.train_case, garments, out, json.dumps(dict(options, resume=True)))
    np.testing.assert_allclose(losses_of(out), losses_of(single("spaces"))[6:], atol=1e-5)
    assert largest_difference(out, single("spaces")) <= 1e-5


@pytest.mark.parametrize("before,after", [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(garments, single, tmp_path, before, after):
    """Stopped after 4 of 12 steps, it says so, and ends within 1e-5 of one process that went through."""
    out, stop = tmp_path / "run", f"0 3 {int(signal.SIGTERM)}"
    stopped = run_ranks(before, rank_jobs.train_case, garments, out, "{}", stop, check=False)
    assert stopped.codes == [128 + signal.SIGTERM] * before
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004"]
    resumed = run_ranks(after, rank_jobs.train_case, garments, out, json.dumps(dict(resume=True)))
    assert f"{before} processes before, {after} now; batches stay the same" in resumed.stderr
    np.testing.assert_allclose(losses_of(out), losses_of(single("spaces"))[4:], atol=1e-5)
    assert largest_difference(out, single("spaces")) <= 1e-5
    assert column(out, "step") == column(single("spaces"), "step")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--loopback"], []])
def test_two_machines_train_as_one_process(flags, capfd, monkeypatch):
    """The script, at a tiny size: two launchers on the loopback, and two network namespaces where allowed."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import two_machines

    if not flags:
        if not two_machines.make_namespaces():
            pytest.skip("no right to make network namespaces")
        two_machines.remove_namespaces()
    assert two_machines.main(["--tiny", *flags]) == 0
    printed = capfd.readouterr().out
    where = "rendezvous on loopback" if flags else "network namespaces"
    assert f"two {where}: " in printed and "match: True" in printed


def by_torchrun(world_size, job, *arguments, check):
    return torchrun(world_size, job.__name__, *arguments, check=check)


@pytest.mark.parametrize("start", [run_ranks, pytest.param(by_torchrun, marks=pytest.mark.slow)])
def test_a_signal_to_one_process_stops_all_after_saving(garments, tmp_path, start):
    stop = f"1 3 {int(signal.SIGTERM)}"
    stopped = start(2, rank_jobs.train_case, garments, tmp_path / "run", "{}", stop, check=False)
    assert all(stopped.codes)
    assert stopped.stderr.count("step 4 is saved") == 1
    assert (tmp_path / "run/checkpoints/step-00000004").is_dir()


def test_unreadable_images_are_left_out_as_in_one_process(garments, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(garments, data)
    for image in (5, 44):
        (data / f"images/train/{image:06d}.png").write_bytes(b"none")
    for name, world_size in (("one", 1), ("two", 2)):
        run_ranks(world_size, rank_jobs.unreadable_images, data, tmp_path / name)
    shutil.copy(
        garments / "images/train/000044.png", data / "images/train/000044.png"
    )  # one process has the other
    refused = run_ranks(2, rank_jobs.unreadable_images, data, tmp_path / "none", 0.0, check=False)
    assert refused.codes == [1, 1]
    assert re.search(r"OtherProcessError: process [01]: .*lists images/train/0000", refused.stderr)
    found = [json.loads((tmp_path / name / "unreadable.json").read_text()) for name in ("one", "two")]
    assert found[0] == found[1] and len(found[0]["train"]) == 2
    np.testing.assert_allclose(column(tmp_path / "two", "loss"), column(tmp_path / "one", "loss"), atol=1e-5)


@pytest.mark.parametrize(
    "what,message",
    [
        (
            "images",
            "the loss is nan at step 2; try a smaller --lr",
        ),  # the loss of the whole batch, in all processes
        ("loss", "the loss is inf at step 2 in process 1; try a smaller --lr"),
        ("weights", "the loss is nan at step 3; try a smaller --lr"),
    ],
)
def test_what_is_not_finite_in_one_process_ends_all_with_one_message(garments, tmp_path, what, message):
    ended = run_ranks(2, rank_jobs.not_finite, garments, tmp_path / "run", what, check=False)
    assert ended.codes == [1, 1]
    assert ended.stderr.count("at step") == 1 and message in ended.stderr
    assert "Traceback (most recent call last)" not in ended.stderr
    assert message in (tmp_path / "run/train.log").read_text()


def test_gradients_are_exchanged_once_a_step_of_the_optimizer(garments, tmp_path):
    run_ranks(2, rank_jobs.reductions, garments, tmp_path)
    found = json.loads((tmp_path / "reductions.json").read_text())
    assert found == [2, 3, 6, 7]  # 3 batches and 1, in each epoch


BF16 = 2**-8
"""How far two processes' losses in bf16 may be from one's: bf16 has 8 bits, cosine distances are about 1."""


@pytest.mark.parametrize(
    "options",
    [
        dict(pull=1.0, head="each"),
        pytest.param(dict(mode="triplets", mining="all", freeze="none", cache=False), marks=pytest.mark.slow),
    ],
)
def test_bf16_in_two_processes_is_that_of_one(garments, single, tmp_path, options):
    """Mining is "all" in the second case: a triplet whose loss is 0 but for rounding counts as active or not,
    which moves the mean over 16 triplets by a fifteenth."""
    runs = {"one": 1, "two": 2}
    flags = json.dumps(dict(mixed_precision="bf16", **options))
    for name, world_size in runs.items():
        run_ranks(world_size, rank_jobs.train_case, garments, tmp_path / name, flags)
    one, two = (losses_of(tmp_path / name) for name in runs)
    np.testing.assert_allclose(two, one, atol=BF16)
    np.testing.assert_allclose(*(column(tmp_path / name, "valid_map_weighted") for name in runs), atol=2)
    float32 = losses_of(single(options.get("mode", "spaces")))  # with the same batches
    assert len(one) == len(float32) and one != float32 and abs(one[0] - float32[0]) < 0.02


def test_processes_that_fail_or_hang_fail_their_test(tmp_path):
    """What the other tests of this file rest on."""
    with pytest.raises(AssertionError, match=r"exit codes \[1, 1\]\n(.*\n)+.*DataError: .*is not a folder"):
        run_ranks(2, rank_jobs.train_case, tmp_path / "none", tmp_path / "run")
    with pytest.raises(TimeoutError, match=r"ranks \[0, 1\] of 2 did not end"):
        run_ranks(2, rank_jobs.sleep, timeout=0.5)
