"""Settings of training: fields are the flags, the YAML keys and what a run folder keeps."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Optional

from annotated_types import Ge, Gt, Le, Lt

from ccakit.settings import CommandConfig, NotNegative, Positive, Share, to_dict

EARLIER = {"pull": 0.0, "oversample": 0.0, "head": "shared", "wv": "shared", "adapter": 0, "read_block": None}
"""What runs did whose version lacked these settings, whatever the defaults are today."""
PLAIN = {**EARLIER, "lite_heads": 4}
"""The defaults before attributes were balanced: one W_v and one head that all conditions share."""


@dataclass
class TrainConfig(CommandConfig):
    """Train one system on a data set in the layout; the defaults are the demo's, for 2 cores."""

    presets: ClassVar[dict[str, dict]] = {
        "smoke": dict(budget="epochs=3", evaluate_every=3),
        "demo": {},
        "paper": dict(
            trunk="vit_base_r50_s16_224",
            freeze="none",
            cache=False,
            mode="triplets",
            mining="all",
            lr=1e-4,
            pull=0.0,
            oversample=0.0,
            head="shared",
            wv="shared",
            adapter=0,
            head_norm="none",
            weight_decay=0.05,
            budget="epochs=200",
            flip=True,
            workers=8,
            mixed_precision="bf16",
        ),
    }

    data: Path = Path("data/garments")
    """The data set's folder (see ccakit.data.layout)."""
    out: Path = Path("runs/train")
    """The run folder: config, log, checkpoints, best model, metrics."""
    seed: int = 0
    """Everything random follows it."""

    model: str = "cca-type2"
    """A name of `ccakit params --list`."""
    trunk: str = "lite"
    """`lite`, or a timm vision transformer such as vit_base_r50_s16_224 (the paper's)."""
    pretrained: bool = True
    """Start the trunk from trained weights: data/weights/TRUNK.safetensors where it is there, else timm's
    download (`lite`: from pip)."""
    weights: Optional[Path] = None
    """A local weights file instead; or `hub`: the download, whatever lies in data/weights."""
    image_size: Optional[Positive] = None
    """Pixels a side; the trunk's own by default."""
    read_block: Optional[Positive] = None
    """The block of the trunk that the system reads, and in which CCA stands, from 1 on; those behind it are
    dropped. By default the last, as in the paper. (Not for systems that read a CNN's map.)"""
    lite_width: int = 128
    """Width D of `lite`."""
    lite_depth: int = 1
    """Transformer blocks of `lite`, the last of them the system's; 1 is CCA right on the CNN's map."""
    lite_heads: int = 8
    """Attention heads of `lite`."""
    embed_dim: Optional[Positive] = None
    """E of Eq. 7; D by default."""
    head: Literal["shared", "each"] = "each"
    """The FC of Eq. 7 and the normalisation after it: shared by all conditions, as in the paper, or one for
    each. (triplet ignores the condition; networks and adde have one for each anyway.)"""
    head_norm: Literal["none", "batchnorm"] = "batchnorm"
    """A normalisation between the FC and the L2 of Eq. 7, which the paper does not have: blocks that start
    from random weights learn faster with it, and do not collapse."""
    query: Literal["fc", "fc-wq"] = "fc"
    """CCA: the FC of Eq. 2, 3 instead of W_q, or before it."""
    residual: bool = True
    """CCA: keep x_[CLS] beside the attention's output."""
    wv: Literal["shared", "each"] = "each"
    """CCA: the W_v of the block that is read, shared by all conditions, as in the paper, or one for each."""
    adapter: Annotated[int, Ge(0)] = 128
    """CCA: the width of an MLP for each condition beside that block's FFN; 0: none, as in the paper."""
    without: tuple[str, ...] = ()
    """Losses of the system's own to leave out: embedding_norm, mask_norm (csn, tf-csn), classify (m2fashion,
    adde), local, align (asen-pp)."""
    freeze: str = "backbone"
    """none, backbone (a hybrid's CNN), a number of blocks, or all before the block that is read."""
    cache: bool = True
    """Compute the frozen part's output once an image and keep it (float16) beside the data."""

    mode: Literal["triplets", "spaces"] = "spaces"
    """The paper's triplets (Eq. 8-9), or every labelled condition of every image in the batch (ours)."""
    batch_size: Annotated[int, Ge(2)] = 64
    """Triplets (mode triplets) or images (mode spaces) a step."""
    balance: Optional[tuple[Positive, Positive, Positive]] = None
    """Mode spaces: conditions x values x images of each a batch; by default 2 5 6 where 90% of the images
    carry labels of one attribute alone, else shuffled batches."""
    oversample: Share = 0.25
    """Mode spaces, shuffled batches: an attribute that a smaller share of the images carries is rare, and its
    images are drawn more often, as if it had this share. 0: every image comes once an epoch."""
    triplets_per_epoch: Positive = 100_000
    """Mode triplets: how many an epoch draws, as ASEN does."""
    negatives: Literal["asen", "asen++"] = "asen"
    """Mode triplets: uniform over images of other values, or over the other values first."""
    margin: NotNegative = 0.2
    """m of Eq. 9, in cosine distance."""
    pull: Share = 1.0
    """How conditions share the pull of a step on the weights: 0, by the size of their gradients, as in Eq. 9;
    1, equally; between, by the gradients' norms to the power 1 - PULL."""
    mining: Literal["all", "active", "all-then-active"] = "all-then-active"
    """Mean over all triplets, over those with a loss, or the first and then the second."""
    active_from: Share = 0.4
    """all-then-active: the share of the budget after which only active triplets count."""

    budget: str = "epochs=15"
    """How long to train: epochs=N, steps=N, or a time such as 90s or 4m."""
    lr: NotNegative = 1e-3
    """AdamW's learning rate after warm-up; cosine to 0 after it."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """Multiply the learning rate by this for each block of the trunk, back from the one that is read; 1: the
    same rate for all."""
    weight_decay: NotNegative = 0.05
    """AdamW's weight decay."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.05
    """The share of the budget over which the learning rate rises."""
    evaluate_every: Positive = 1
    """Epochs between evaluations on the valid split, whose best weighted mAP is kept."""
    flip: bool = False
    """Flip images left to right at random (not with kept features)."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """For GPUs."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged before each step of the optimizer."""
    checkpoint_activations: bool = False
    """Compute the trunk's blocks again in the backward pass instead of keeping their results: less memory,
    more time."""
    compile: bool = False
    """Compile the model (torch.compile), which helps on GPUs and in long runs."""
    workers: Annotated[int, Ge(0)] = 0
    """Loader processes; 0 loads in the main one."""
    loader_timeout: NotNegative = 0.0
    """Seconds after which a loader process that gives no batch ends the run, with the batch it was at; 0: an
    hour."""
    checkpoint_every: Annotated[int, Ge(0)] = 0
    """Steps between checkpoints, beside the one at every evaluation; 0: only that one."""
    keep: Positive = 2
    """How many checkpoints to keep."""
    max_unreadable: Share = 0.01
    """The share of training images that may be unreadable. They are looked for before the first epoch, left
    out, and listed in the run's unreadable.json; more of them end the run. 0: do not look beforehand;
    the first unreadable image ends the run."""
    skip_unreadable: bool = False
    """Leave out unreadable images of the valid split instead of ending the run."""
    resume: bool = False
    """Continue from the run folder's last checkpoint."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_budget(self.budget)
        if not (self.freeze in ("none", "backbone", "all") or self.freeze.isdigit()):
            raise ValueError(f"freeze={self.freeze}: none, backbone, all or a number of blocks")


def setting_changes(before: dict, now: dict) -> dict[str, str]:
    """Say of each setting, by name, what it was in `before` and is in `now`, where they differ.

    Both are as JSON has them. A setting that `before` lacks had the value of EARLIER, or its default.
    """
    defaults = json.loads(json.dumps(to_dict(TrainConfig())))
    before = {**now, **defaults, **EARLIER, **before}
    return {name: f"{name} was {before[name]}, now {now[name]}" for name in now if before[name] != now[name]}


_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """How long to train: `amount` epochs, steps or seconds."""

    kind: Literal["epochs", "steps", "seconds"]
    amount: float


def parse_budget(text: str) -> Budget:
    """ "epochs=20", "steps=500", "90s", "4m", "1.5h" -> Budget; ValueError says what is allowed."""
    counted = re.fullmatch(r"(epochs|steps)=([1-9]\d*)", text)
    if counted:
        return Budget(counted[1], int(counted[2]))
    timed = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if timed and float(timed[1]) > 0:
        return Budget("seconds", float(timed[1]) * _UNITS[timed[2]])
    raise ValueError(f"budget {text!r}: epochs=N, steps=N, or a time such as 90s, 4m or 1.5h")
