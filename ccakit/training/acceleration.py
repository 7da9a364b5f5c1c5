"""Create accelerate's Accelerator from the run's settings alone, whatever the environment says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DistributedDataParallelKwargs

from ccakit import processes
from ccakit.training.config import TrainConfig

PREFIXES = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_")
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
RANKS = ("RANK", "LOCAL_RANK", *SIZES)
FLAGS = {
    "ACCELERATE_MIXED_PRECISION": "give --mixed-precision",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "give --accumulate",
    "ACCELERATE_DYNAMO_BACKEND": "give --compile",
    "ACCELERATE_TORCH_DEVICE": "set CUDA_VISIBLE_DEVICES",
    **dict.fromkeys(SIZES, "this process trains alone: start those that train together with torchrun"),
    "ACCELERATE_USE_CPU": "to hide GPUs, set CUDA_VISIBLE_DEVICES to nothing",
}
OTHER = "ccakit trains in data-parallel processes only"
DEFAULTS = ("", "0", "1", "false", "no")  # `accelerate launch` sets variables to these, which ask for nothing


def create_accelerator(mixed_precision: str) -> Accelerator:
    """Create the Accelerator of a run; ValueError for a precision that this device does not compute in."""
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)]
    cpu = processes.launched() and not torch.cuda.is_available()
    if is_initialized() and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()  # it refuses another precision than that of an earlier run
    with _hidden_variables():
        accelerator = Accelerator(cpu=cpu, mixed_precision=mixed_precision, kwargs_handlers=handlers)
    if mixed_precision != "no" and not accelerator.native_amp:
        device, remedy = accelerator.device.type, "take --mixed-precision bf16, or no"
        raise ValueError(f"--mixed-precision {mixed_precision} has no effect on this {device}; {remedy}")
    return accelerator


def ignored_variables(config: TrainConfig) -> list[str]:
    """List the environment's variables that ask accelerate for another run; the settings decide instead."""
    given = {
        "ACCELERATE_MIXED_PRECISION": config.mixed_precision,
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": str(config.accumulate),
    }
    return [
        f"{name}={value} is ignored, as settings alone decide; {FLAGS.get(name, OTHER)}"
        for name, value in sorted(_variables().items())
        if name in FLAGS or name.startswith("ACCELERATE_USE_")
        if value.lower() not in (*DEFAULTS, given.get(name))
    ]


def _variables() -> dict[str, str]:
    """Give the variables by which accelerate would change a run; ranks only where no launcher set them."""
    ranks = () if processes.launched() else RANKS
    return {name: os.environ[name] for name in os.environ if name.startswith(PREFIXES) or name in ranks}


@contextmanager
def _hidden_variables() -> Iterator[None]:
    hidden = _variables()
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
