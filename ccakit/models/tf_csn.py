"""TF-CSN (section 4.6): the vision transformer, and CSN's mask on what [CLS] gives."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ccakit.models.csn import CSN
from ccakit.models.last_block import LastBlock
from ccakit.models.trunks.vit import Trunk


class TFCSN(CSN):
    """l2(FC([CLS]) * mask). The last block computes the [CLS] row alone, which is all that is read: exact."""

    def __init__(
        self, vit: VisionTransformer, conditions: int, *, freeze: str | int = "none", **options
    ) -> None:
        super().__init__(Trunk(vit, freeze), conditions, **options)
        self.block, self.norm = LastBlock(vit.blocks[-1], keep_query=True), vit.norm

    def pool(self, tokens: Tensor) -> Tensor:
        """tokens (B, P+N, D) -> the transformer's [CLS] output (B, D)."""
        return self.norm(self.block.cls_row(tokens))[:, 0]

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """[CLS]'s self-attention, the same under every condition: (B, H, h, w)."""
        self.check_condition(condition, tokens)
        return self.patch_map(self.block.cls_weights(tokens))
