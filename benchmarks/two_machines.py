"""Train on two "machines" and compare with one process: `python benchmarks/two_machines.py`.

The machines are two network namespaces joined by a cable (veth), where this process has the right to make them, else
two launchers that meet on the loopback. Each runs `torchrun --nnodes 2 --nproc_per_node 1`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
NAMES, ADDRESSES = ("ccakit0", "ccakit1"), ("10.77.0.1", "10.77.0.2")
SETTINGS = ("--image-size=64", "--lite-width=32", "--lite-heads=2", "--batch-size=16", "--head-norm=none", "--lr=1e-4",
            "--budget=epochs=3", "--evaluate-every=3")  # fmt: skip


def make_namespaces() -> bool:
    """Two namespaces with an address each; False, and nothing left of them, without the right to."""
    lines = [f"ip netns add {name}" for name in NAMES]
    lines += [f"ip link add {NAMES[0]} type veth peer name {NAMES[1]}"]
    for name, address in zip(NAMES, ADDRESSES):
        lines += [f"ip link set {name} netns {name}", f"ip -n {name} addr add {address}/24 dev {name}",
                  f"ip -n {name} link set {name} up", f"ip -n {name} link set lo up"]  # fmt: skip
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


def train_command(data: Path, out: Path) -> list[str]:
    return ["ccakit.cli", "train", "--data", str(data), "--out", str(out), *SETTINGS]


def train_on_two(data: Path, out: Path, namespaces: bool, environment: dict) -> None:
    """Start both machines, and wait; RuntimeError with what they said where one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = 29500 if namespaces else free.getsockname()[1]
    master, started = ADDRESSES[0] if namespaces else "127.0.0.1", []
    for rank, name in enumerate(NAMES):
        inside = ["ip", "netns", "exec", name] if namespaces else []
        own = {**environment, "GLOO_SOCKET_IFNAME": name if namespaces else "lo"}
        command = [*inside, sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}",
                   "--nproc_per_node=1", f"--master-addr={master}", f"--master-port={port}", "-m",
                   *train_command(data, out)]  # fmt: skip
        started.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    told = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("\n".join(told))


def main() -> int:
    """Returns 0 where the weights of both agree to 1e-5."""
    from ccakit.data.garments import write_garments

    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        data, one, two = (Path(folder) / name for name in ("data", "one", "two"))
        write_garments(data, 96, 24, 24, size=64, progress=False)
        subprocess.run([sys.executable, "-m", *train_command(data, one)], check=True, env=environment)
        namespaces = make_namespaces()
        try:
            train_on_two(data, two, namespaces, environment)
        finally:
            if namespaces:
                remove_namespaces()
        a, b = (load_file(out / "model.safetensors") for out in (one, two))
    difference = max(float((a[name].float() - b[name].float()).abs().max()) for name in a if a[name].numel())
    print(f"two {'network namespaces' if namespaces else 'rendezvous on loopback'}: weights differ from one process's "
          f"by {difference:.1e} at most; match: {difference <= 1e-5}")  # fmt: skip
    return int(difference > 1e-5)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
