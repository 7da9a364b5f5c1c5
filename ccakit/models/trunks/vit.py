"""The shared trunk: a timm vision transformer cut before its last block, frozen in whole or part if wanted.

    images -> stem (the frozen part, may be cached) -> features -> tail -> tokens

`tokens` are x_{L-1} of the paper's Eq. 1: (B, P+N, D) with P prefix tokens ([CLS] first) and N patches.
"""

from __future__ import annotations

import math

import torch
from timm.layers import HybridEmbed, to_2tuple
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from ccakit.models.trunks.frozen import FrozenStem, TrunkError, check_passage, check_size, checked_once
from ccakit.models.trunks.lite import LITE, create_lite
from ccakit.models.trunks.timm_weights import create_timm

WORKING = (
    "vit_base_r50_s16_224 (the paper's)",
    "vit_base_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_small_patch14_dinov2",
    "lite (ours, for CPUs)",
)


def create_vit(name: str, *, image_size: int | None = None, **options) -> VisionTransformer:
    """Create a timm vision transformer with standard blocks and a [CLS] token, hybrids included, or `lite`.

    image_size: pixels a side; timm interpolates the position embedding where it differs from the default.
    options: passed on to `create_lite` (pretrained, weights, width, depth, num_heads) or to `create_timm`
    (pretrained, weights, and timm's own: drop_path_rate and the like). Raises TrunkError for options and
    weights that do not fit, an image size that is no multiple of the stride, and anything whose last block
    CCA cannot take over; weights are loaded only after these checks.
    """
    if name == LITE:
        return create_lite(image_size=image_size, **options)
    if image_size:
        options["img_size"] = image_size
    works = f"{', '.join(WORKING)}, and timm's other plain ViTs"
    _check(name, works, {**options, "pretrained": False, "weights": None})
    return create_timm(name, works, num_classes=0, **options)


@checked_once
def _check(name: str, works: str, options: dict) -> None:
    """Raise TrunkError for a network that, built without weights, cannot be a trunk at this image size."""
    size = options.pop("img_size", None)
    with torch.device("meta"):
        vit = create_timm(name, works, num_classes=0, **options)
        if problem := _problem(vit):
            raise TrunkError(f"{name} cannot be a trunk: {problem}; what works: {works}")
        if size is not None:
            # a hybrid's stride can be told only at the network's own size
            check_size(name, to_2tuple(size), vit.patch_embed.feat_ratio(as_scalar=False))
            vit = create_timm(name, works, num_classes=0, img_size=size, **options)
        trunk = Trunk(vit)
    tokens = trunk.num_prefix_tokens + math.prod(trunk.grid_size)
    check_passage(name, trunk, trunk.image_size, (1, tokens, trunk.embed_dim))


def _problem(vit: nn.Module) -> str | None:
    """Say why a network is not made of standard blocks with a [CLS] token; None if it is."""
    if type(vit) is not VisionTransformer:
        return f"it is a {type(vit).__name__}, not a plain vision transformer"
    if vit.cls_token is None:
        return "it has no [CLS] token, which Eq. 7 reads"
    if len(vit.blocks) < 1:
        return "it has no block"
    last = vit.blocks[-1]
    if type(last) is not Block or type(last.attn) is not Attention:
        return f"its last block is a {type(last).__name__}, not a standard pre-norm block"
    if getattr(last.attn, "gate", None) is not None:
        return "its attention is gated"
    return None


class Trunk(FrozenStem):
    """Blocks 1..L-1 of a vision transformer, split into a frozen stem and a trained tail.

    freeze: "none"; "backbone" (the CNN of a hybrid); "all" (everything before the last block); or a number n
    (the embedding and the first n blocks).
    """

    def __init__(self, vit: VisionTransformer, freeze: str | int = "none") -> None:
        super().__init__()
        self.patch_embed, self.norm_pre = vit.patch_embed, vit.norm_pre
        self.position = Position(vit)
        self.blocks = nn.ModuleList(list(vit.blocks)[:-1])
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
            raise TrunkError(f"freeze={freeze}: the trunk has {blocks} blocks before its last one")
        return len(self.stages()) - blocks + count


class Patches(nn.Module):
    """Arrange a map as patches: (B, D, h, w) -> (B, N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class Position(nn.Module):
    """x_0 of Eq. 1: put [CLS] (and register) tokens before the patches, and add the position embedding."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.cls_token, self.reg_token, self.pos_embed = vit.cls_token, vit.reg_token, vit.pos_embed
        self.pos_drop, self.no_embed_class = vit.pos_drop, vit.no_embed_class

    def forward(self, patches: Tensor) -> Tensor:
        """Build the tokens before the first block: (B, N, D) -> (B, P+N, D)."""
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        prefix = [token.expand(patches.shape[0], -1, -1) for token in prefix]
        if self.no_embed_class and self.pos_embed is not None:
            patches = patches + self.pos_embed
        tokens = torch.cat([*prefix, patches], dim=1)
        if not self.no_embed_class and self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        return self.pos_drop(tokens)
