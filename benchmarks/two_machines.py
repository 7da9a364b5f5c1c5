"""Train on two "machines" and compare with one process: `python benchmarks/two_machines.py`.

The machines are two network namespaces with a cable (veth) between them, if this process may make them.
Otherwise, or with --loopback, they are two launchers that meet on the loopback. Each machine runs `torchrun
--nnodes 2 --nproc_per_node 1`. --tiny: fewer images and one epoch.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
NAMES, ADDRESSES = (f"cca{os.getpid()}a", f"cca{os.getpid()}b"), ("10.77.0.1", "10.77.0.2")
SETTINGS = (
    "--image-size=64",
    "--lite-width=32",
    "--lite-heads=2",
    "--batch-size=16",
    "--head-norm=none",
    "--lr=1e-4",
    "--evaluate-every=1",
)
TOLERANCE = 1e-5


def make_namespaces() -> bool:
    """Make two namespaces with an address each; False where this process may not, and then nothing of them is
    left."""
    lines = [f"ip netns add {name}" for name in NAMES]
    lines += [f"ip link add {NAMES[0]} type veth peer name {NAMES[1]}"]
    for name, address in zip(NAMES, ADDRESSES):
        lines += [
            f"ip link set {name} netns {name}",
            f"ip -n {name} addr add {address}/24 dev {name}",
            f"ip -n {name} link set {name} up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for line in lines:
            subprocess.run(line.split(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        remove_namespaces()
        return False
    return True


def remove_namespaces() -> None:
    if shutil.which("ip"):
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def train_command(data: Path, out: Path, epochs: int) -> list[str]:
    return [
        "ccakit",
        "train",
        "--data",
        str(data),
        "--out",
        str(out),
        f"--budget=epochs={epochs}",
        *SETTINGS,
    ]


def train_on_two(train: list[str], namespaces: bool, environment: dict) -> None:
    """Start both machines, and wait; RuntimeError with their output where one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = 29500 if namespaces else free.getsockname()[1]
    master, started = ADDRESSES[0] if namespaces else "127.0.0.1", []
    for rank, name in enumerate(NAMES):
        inside = ["ip", "netns", "exec", name] if namespaces else []
        own = {**environment, "GLOO_SOCKET_IFNAME": name if namespaces else "lo"}
        command = [
            *inside,
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            f"--node-rank={rank}",
            "--nproc_per_node=1",
            f"--master-addr={master}",
            f"--master-port={port}",
            "-m",
            *train,
        ]
        started.append(
            subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        outputs = [process.communicate(timeout=600)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        raise RuntimeError("\n".join(outputs))


def losses_of(out: Path) -> list[float]:
    """Read the mean loss of each epoch, to the six decimals of the log."""
    with open(out / "log.csv", encoding="utf-8", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights_of(out: Path) -> dict:
    """Read the last weights, with the biases of the keys set to 0.

    Such a bias moves all scores of a query by the same amount, and so changes no output. Its gradient is 0
    but for rounding errors, and Adam makes steps of these.
    """
    last = max((out / "checkpoints").glob("step-*"))
    weights = {name: tensor.float() for name, tensor in load_file(last / "model.safetensors").items()}
    for name, bias in weights.items():
        if name.endswith("kv.bias"):
            if name.replace("kv.bias", "v.bias") in weights:  # each condition has a W_v: keys alone
                bias[:] = 0
            else:
                bias.view(3 if name.endswith("qkv.bias") else 2, -1)[-2] = 0  # (queries,) keys, values
    return weights


def compare(
    folder: Path, loopback: bool, counts: tuple[int, int, int], epochs: int
) -> tuple[float, float, str]:
    """Train both ways: the largest difference of losses, that of weights, and a line for people."""
    from ccakit.data.drawn import write_garments

    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    data, one, two = (folder / name for name in ("data", "one", "two"))
    write_garments(data, *counts, size=64, progress=False)
    times = [time.perf_counter()]
    subprocess.run([sys.executable, "-m", *train_command(data, one, epochs)], check=True, env=environment)
    times.append(time.perf_counter())
    namespaces = not loopback and make_namespaces()
    try:
        train_on_two(train_command(data, two, epochs), namespaces, environment)
    finally:
        if namespaces:
            remove_namespaces()
    times.append(time.perf_counter())
    losses = max(abs(a - b) for a, b in zip(losses_of(one), losses_of(two), strict=True))
    a, b = weights_of(one), weights_of(two)
    weights = max(float((a[name] - b[name]).abs().max()) for name in a if a[name].numel())
    machines = "network namespaces" if namespaces else "rendezvous on loopback"
    line = (
        f"two {machines}: losses of {epochs} epochs differ from one process's by {losses:.1e} at most, "
        f"weights by {weights:.1e}; {times[1] - times[0]:.0f} s in one process, "
        f"{times[2] - times[1]:.0f} s on two machines; match: {max(losses, weights) <= TOLERANCE}"
    )
    return losses, weights, line


def main(argv: list[str] | None = None) -> int:
    """Compare; the exit code is 0 where losses and weights of both agree to 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loopback", action="store_true", help="no network namespaces")
    parser.add_argument("--tiny", action="store_true", help="32 images and one epoch")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        counts, epochs = ((32, 8, 8), 1) if options.tiny else ((96, 24, 24), 3)
        losses, weights, line = compare(Path(folder), options.loopback, counts, epochs)
    print(line)
    return int(max(losses, weights) > TOLERANCE)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
