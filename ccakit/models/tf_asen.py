"""TF-ASEN (section 4.6): the vision transformer, and ASEN's two attentions on its [PATCH] tokens as a map."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ccakit.models.asen import ASEN
from ccakit.models.trunks.vit import Trunk


class TFASEN(ASEN):
    """ASEN on the transformer's output. `tokens` are here those after the last block and the final norm."""

    def __init__(
        self, vit: VisionTransformer, conditions: int, *, freeze: str | int = "none", **options
    ) -> None:
        super().__init__(Trunk(vit, freeze), conditions, **options)
        self.block, self.norm = vit.blocks[-1], vit.norm

    def encode_features(self, features: Tensor) -> Tensor:
        return self.norm(self.block(self.trunk.tail(features)))

    def as_map(self, tokens: Tensor) -> Tensor:
        """tokens (B, P+N, D) -> the patches as a map (B, D, h, w)."""
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return patches.transpose(1, 2).unflatten(-1, self.trunk.grid_size)
