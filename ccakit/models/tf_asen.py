"""TF-ASEN (section 4.6): the vision transformer, and ASEN's two attentions on its [PATCH] tokens as a map."""

from __future__ import annotations

from torch import Tensor

from ccakit.models.asen import ASEN
from ccakit.models.trunks.block_parts import tokens_norm
from ccakit.models.trunks.vit import Trunk, ViT, last_block


class TFASEN(ASEN):
    """ASEN on the transformer's output. `tokens` are here those after the last block and the final norm."""

    source = "the paper, section 4.6"
    faithfulness = "after the paper, with our choices: asen on the last block's [PATCH] tokens"
    reads = "tokens"

    def __init__(self, vit: ViT, conditions: int, *, freeze: str | int = "none", **options) -> None:
        super().__init__(Trunk(vit, freeze), conditions, **options)
        self.block, self.norm = last_block(vit), tokens_norm(vit)

    def encode_features(self, features: Tensor) -> Tensor:
        return self.norm(self.block(self.trunk.tail(features)))

    def as_map(self, tokens: Tensor) -> Tensor:
        """Arrange the patches as a map: tokens (B, P+N, D) -> (B, D, h, w)."""
        return self.patch_map(tokens.transpose(1, 2))
