"""Encode and train on the device that is there: a GPU, or the CPU at a small size.

    python -m benchmarks.gpu                    # on a GPU; writes results/gpu.csv, which names it
    python -m benchmarks.gpu --quick            # a look, on any device: small sizes, writes nothing

Meant for under 8 minutes on a GPU; no GPU was at hand when this was written. On the CPU only --quick is run.

- matrix rate: a product of two large bf16 matrices, in TFLOP/s: what the chip reaches just now.
- encode, in bf16 under autocast, eager and compiled, in turns in one process: `plain`, the timm model from
  images to the pooled and normed [CLS]; `spaces 8`, from images to all 8 embeddings (CCA, Type-2). Compiled
  and eager embeddings must agree (checked). Floor: operations, as in benchmarks/spaces.py.
- steps: forward, backward and optimizer on loaded batches, of `paper` (`--preset paper`) and of `ours` (mode
  spaces, the defaults of `ccakit train`), all of the trunk trained: distinct images/s, the most memory, and
  the share of the matrix rate. The operations are torch's FlopCounterMode's.
- resume: a run of 6 steps, and the same from its checkpoint after 3: the largest difference of a weight; 0
  where it goes on exactly.
- two processes, where there are two GPUs (nccl): images/s by `ccakit train --check`, against one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.all import COLUMNS, csv_rows
from benchmarks.common import (
    ROOT,
    Peak,
    Row,
    agree,
    alternate,
    begin,
    make_parser,
    ready_trainer,
    report,
    write_csv,
)
from benchmarks.spaces import K, models, operations, pictures

RESULTS = ROOT / "results" / "gpu.csv"
TRUNKS = {"vit_base_r50_s16_224": 224, "vit_small_patch14_dinov2": 224}  # pixels a side
SMALL = {"vit_tiny_r_s16_p8_224": 32}
STEPS, WHOLE, HALF = 5, 6, 3
TOLERANCE = 0.05  # of an embedding's values, in bf16
CLAIMS: dict[str, str] = {}


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Name the device, and how many of them there are."""
    if not torch.cuda.is_available():
        return "CPU"
    facts = torch.cuda.get_device_properties(0)
    return f"{torch.cuda.device_count()} x {facts.name}, {facts.total_memory / 2**30:.0f} GiB"


def synchronized(work):
    """Make a function that returns when the device has done the work."""

    def run():
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return result

    return run


def matrix_rate(side: int, rounds: int) -> float:
    """Measure TFLOP/s of a product of two bf16 matrices of so many rows and columns."""
    a, b = (torch.randn(side, side, device=device(), dtype=torch.bfloat16) for _ in "ab")
    times = alternate({"product": synchronized(lambda: a @ b)}, rounds, warm=3)
    return 2 * side**3 / times["product"] / 1e12


@torch.inference_mode()
def encode(trunk: str, side: int, batch: int, options, rate: float) -> list[Row]:
    """Measure plain and spaces, eager and, unless quick, compiled."""
    made = models(trunk, image_size=side)
    made = {name: made[name] for name in ("plain", f"spaces {K}")}
    ops = {"plain": operations(made["plain"], pictures(made["plain"], 1))}
    ops[f"spaces {K}"] = operations(made[f"spaces {K}"], pictures(made["plain"], 1), K)
    images = pictures(made["plain"], batch).to(device())
    made = {name: model.to(device()) for name, model in made.items()}
    if not options.quick:
        made |= {f"{name}, compiled": torch.compile(model) for name, model in made.items()}
    sides = {name: synchronized(lambda model=model: in_bf16(model, images)) for name, model in made.items()}
    if not options.quick:
        eager, compiled = (sides[f"spaces {K}{end}"]().float().cpu() for end in ("", ", compiled"))
        agree("eager and compiled spaces", eager, compiled, TOLERANCE)
    times, rows = alternate(sides, options.rounds, warm=2), []
    for name in sides:
        seconds, work = times[name] / batch, ops[name.removesuffix(", compiled")]
        note = f"{100 * work / seconds / 1e12 / rate:.0f}% of the matrix rate"
        rows.append(Row(f"{trunk}: {name}", 1 / seconds, "images/s", note=note))
    for end in ("",) if options.quick else ("", ", compiled"):
        pair = f"spaces {K}{end}", f"plain{end}"
        floor, spread = ops[f"spaces {K}"] / ops["plain"], times.spread(*pair)
        what = f"{trunk}: {' / '.join(pair)}"
        rows.append(Row(what, times.ratio(*pair), "of its time", floor=floor, note=spread))
    return rows


def in_bf16(model, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast(images.device.type, torch.bfloat16):
        return model(images)


def settings(name: str, options) -> dict:
    """Give the settings of training, `paper` or `ours`, on the paper's trunk."""
    from ccakit.training.config import TrainConfig

    paper = TrainConfig.presets["paper"]
    trained = {key: paper[key] for key in ("trunk", "freeze", "cache", "mixed_precision", "lr")}
    chosen = {**paper, "workers": 0} if name == "paper" else {**trained, "mode": "spaces"}
    chosen |= {"batch_size": options.batch, "budget": f"steps={WHOLE}", "evaluate_every": WHOLE}
    if options.quick:
        chosen |= {"trunk": next(iter(SMALL)), "image_size": 32, "batch_size": 4, "triplets_per_epoch": 64}
    return {**chosen, "pretrained": False}


def steps(name: str, folder: Path, options, rate: float) -> list[Row]:
    """Measure training steps: images/s, memory, and their share of the matrix rate."""
    from ccakit.training.batches import Steps

    with Peak() as peak:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer = ready_trainer(folder, **settings(name, options))
        batches = list(islice(Steps(trainer.objective, 0, trainer.inputs), STEPS))
        trainer.step(*batches[0])
        with FlopCounterMode(display=False) as counter:
            trainer.step(*batches[0])
        work = counter.get_total_flops() / len(batches[0][0])
        times = alternate(
            {"steps": synchronized(lambda: [trainer.step(*b) for b in batches])}, options.rounds
        )
    count = sum(len(inputs) for inputs, _ in batches)
    speed = count / times["steps"]
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak.bytes
    share = f"{100 * speed * work / 1e12 / rate:.0f}% of the matrix rate, {work / 1e9:.1f} GFLOP an image"
    about = f"{count / len(batches):.0f} images a batch"
    return [
        Row(f"steps of {name}", speed, "images/s", note=share),
        Row(f"steps of {name}, peak memory", memory / 2**30, "GiB", note=about),
    ]


def resume(folder: Path, options) -> Row:
    """Train to the end, and again from the checkpoint in the middle: the largest difference of a weight."""
    from safetensors.torch import load_file

    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import train

    chosen = {**settings("paper", options), "checkpoint_every": HALF, "keep": WHOLE}
    chosen["batch_size"] = min(8, chosen["batch_size"])
    whole, again = folder / "whole", folder / "again"
    train(TrainConfig(data=folder / "data", out=whole, **chosen), quiet=True)
    shutil.copytree(whole, again)
    for checkpoint in (again / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > HALF:
            shutil.rmtree(checkpoint)
    train(TrainConfig(data=folder / "data", out=again, resume=True, **chosen), quiet=True)
    one, other = (load_file(run / "model.safetensors") for run in (whole, again))
    largest = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
    return Row(f"resumed after {HALF} of {WHOLE} steps", largest, "largest difference of a weight", floor=0.0)


def processes(folder: Path, count: int, options) -> float:
    """Measure distinct images/s of `paper` in so many processes, by `ccakit train --check`."""
    chosen = {"batch-size": options.batch, "no-pretrained": None, "data": folder / "data", "json": None}
    flags = [word for name, value in chosen.items() for word in (f"--{name}", value) if word is not None]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    command += ["-m", "ccakit", "train", "--check", "--preset", "paper", *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["images_per_second"]["steps"]


def measure(folder: Path, options) -> list[Row]:
    """Measure everything that this device allows."""
    from ccakit.data.drawn import write_garments

    size, images = (32, 64) if options.quick else (256, 512)
    write_garments(folder / "data", images, 16, 16, size=size, workers=1, progress=False)
    rate = matrix_rate(256 if options.quick else 8192, options.rounds)
    rows = [Row("matrix rate, bf16", rate, "TFLOP/s")]
    for trunk, side in (SMALL if options.quick else TRUNKS).items():
        rows += encode(trunk, side, 2 if options.quick else options.batch, options, rate)
    for name in ("paper", "ours"):
        rows += steps(name, folder, options, rate)
    rows.append(resume(folder, options))
    if torch.cuda.device_count() > 1:
        one, two = (processes(folder, count, options) for count in (1, 2))
        rows.append(Row("two processes / one", two / one, "times its images/s", floor=2.0))
    return rows


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__)
    parser.add_argument("--batch", type=int, default=64, help="triplets or images of a step (default 64)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the CSV file (--quick writes none)")
    options = begin(parser, argv)
    if not torch.cuda.is_available() and not options.quick:
        parser.error("no GPU is here; on the CPU, take --quick")
    print(f"device: {device_name()}")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options)
    result = {**report("gpu", rows, CLAIMS, options), "device": device_name()}
    if not options.quick:
        about = {"device": device_name()}
        write_csv(options.results, ("device", *COLUMNS), [about | row for row in csv_rows(result)])
    return result


if __name__ == "__main__":
    main()
