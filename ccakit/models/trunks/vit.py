"""The shared trunk: a timm vision transformer cut before its last block, frozen in whole or part if wanted.

    images -> stem (the frozen part, may be cached) -> features -> tail -> tokens

`tokens` are x_{L-1} of the paper's Eq. 1: (B, P+N, D) with P prefix tokens ([CLS] first) and N patches.
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from timm.layers import HybridEmbed
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from ccakit.models.trunks.frozen import FrozenStem, TrunkError
from ccakit.models.trunks.lite import LITE, create_lite
from ccakit.models.trunks.timm_weights import build

WORKING = (
    "vit_base_r50_s16_224 (the paper's)",
    "vit_base_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_small_patch14_dinov2",
    "lite (ours, for CPUs)",
)


def create_vit(
    name: str,
    *,
    pretrained: bool = True,
    weights: str | Path | None = None,
    image_size: int | None = None,
    **options,
) -> VisionTransformer:
    """A timm vision transformer with standard blocks and a [CLS] token, hybrids included, or `lite`.

    pretrained: load ImageNet weights, through timm (its hub download) or, for `lite`, from pip.
    weights: a local file in the place of that download (.safetensors, or .pth read with weights_only).
    image_size: pixels a side; timm interpolates the position embedding where it differs from the default.
    options: passed on (`lite`: width, depth, num_heads; timm: drop_path_rate and the like).
    Raises TrunkError for options and weights that do not fit, and anything whose last block CCA cannot take over.
    """
    if name == LITE:
        return create_lite(image_size=image_size or 128, pretrained=pretrained, weights=weights, **options)
    if not timm.is_model(name):
        raise TrunkError(f"no trunk {name!r}; what works: {', '.join(WORKING)}, and timm's other plain ViTs")
    if image_size:
        options["img_size"] = image_size
    vit = build(name, ", ".join(WORKING), pretrained=pretrained, weights=weights, num_classes=0, **options)
    check_standard(name, vit)
    return vit


def check_standard(name: str, vit: nn.Module) -> None:
    """Raise TrunkError unless `vit` is made of standard blocks and carries a [CLS] token."""
    problem = None
    if type(vit) is not VisionTransformer:
        problem = f"it is a {type(vit).__name__}, not a plain vision transformer"
    elif vit.cls_token is None:
        problem = "it has no [CLS] token, which Eq. 7 reads"
    elif len(vit.blocks) < 1:
        problem = "it has no block"
    elif type(vit.blocks[-1]) is not Block or type(vit.blocks[-1].attn) is not Attention:
        problem = f"its last block is a {type(vit.blocks[-1]).__name__}, not a standard pre-norm block"
    elif getattr(vit.blocks[-1].attn, "gate", None) is not None:
        problem = "its attention is gated"
    if problem:
        raise TrunkError(f"{name} cannot be a trunk: {problem}; what works: {', '.join(WORKING)}")


class Trunk(FrozenStem):
    """Blocks 1..L-1 of a vision transformer, split into a frozen stem and a trained tail.

    freeze: "none"; "backbone" (the CNN of a hybrid); "all" (everything before the last block); or a
    number n: the embedding and the first n blocks.
    """

    def __init__(self, vit: VisionTransformer, freeze: str | int = "none") -> None:
        super().__init__()
        blocks = list(vit.blocks)[:-1]
        self.patch_embed, self.norm_pre = vit.patch_embed, vit.norm_pre
        self.position = Position(vit)
        self.blocks = nn.ModuleList(blocks)
        self.embed_dim: int = vit.embed_dim
        self.num_prefix_tokens: int = vit.num_prefix_tokens
        self.grid_size: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.frozen_blocks = self._frozen_blocks(freeze)
        self.freezes_backbone = freeze == "backbone"
        self.freeze_stem()

    def _frozen_blocks(self, freeze: str | int) -> int | None:
        if freeze == "backbone" and not isinstance(self.patch_embed, HybridEmbed):
            raise TrunkError(
                'freeze="backbone" needs a hybrid trunk, whose patch embedding holds a CNN; take "none"'
            )
        if freeze in ("none", "backbone"):
            return None
        count = len(self.blocks) if freeze == "all" else int(freeze)
        if not 0 <= count <= len(self.blocks):
            raise TrunkError(f"freeze={freeze}: the trunk has {len(self.blocks)} blocks before its last one")
        return count

    def frozen_modules(self) -> list[nn.Module]:
        if self.freezes_backbone:
            return [self.patch_embed.backbone]
        if self.frozen_blocks is None:
            return []
        return [self.patch_embed, self.position, self.norm_pre, *self.blocks[: self.frozen_blocks]]

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) -> the frozen part's output; the images themselves where nothing is."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freezes):
            if self.freezes_backbone:
                features = self.patch_embed.backbone(images)
                return features[-1] if isinstance(features, (list, tuple)) else features
            if self.frozen_blocks is None:
                return images
            return self._through(self._embed(images), 0, self.frozen_blocks)

    def tail(self, features: Tensor) -> Tensor:
        """The stem's output -> tokens (B, P+N, D)."""
        if self.frozen_blocks is not None:
            return self._through(features, self.frozen_blocks, len(self.blocks))
        if self.freezes_backbone:
            patches = self.patch_embed.proj(features).flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, N, D)
            tokens = self.norm_pre(self.position(patches))
        else:
            tokens = self._embed(features)
        return self._through(tokens, 0, len(self.blocks))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) -> x_{L-1}: (B, P+N, D)."""
        return self.tail(self.stem(images))

    def _embed(self, images: Tensor) -> Tensor:
        return self.norm_pre(self.position(self.patch_embed(images)))

    def _through(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        for block in self.blocks[start:stop]:
            tokens = block(tokens)
        return tokens


class Position(nn.Module):
    """x_0 of Eq. 1: [CLS] (and register) tokens put before the patches, position embedding added."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.cls_token, self.reg_token, self.pos_embed = vit.cls_token, vit.reg_token, vit.pos_embed
        self.pos_drop, self.no_embed_class = vit.pos_drop, vit.no_embed_class

    def forward(self, patches: Tensor) -> Tensor:
        """(B, N, D) -> (B, P+N, D)."""
        prefix = [t.expand(len(patches), -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        if self.no_embed_class and self.pos_embed is not None:
            patches = patches + self.pos_embed
        tokens = torch.cat([*prefix, patches], dim=1)
        if not self.no_embed_class and self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        return self.pos_drop(tokens)
