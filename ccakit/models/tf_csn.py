"""TF-CSN (section 4.6): the vision transformer, and CSN's mask on its [CLS] output."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ccakit.models.csn import CSN
from ccakit.models.last_block import LastBlock
from ccakit.models.trunks.vit import Trunk


class TFCSN(CSN):
    """l2(FC([CLS]) * mask). The last block computes only the [CLS] row, as nothing else is read: exact."""

    source = "the paper, section 4.6"
    faithfulness = "after the paper, with our choices: learned masks, FC before the mask"
    reads = "tokens"

    def __init__(
        self, vit: VisionTransformer, conditions: int, *, freeze: str | int = "none", **options
    ) -> None:
        super().__init__(Trunk(vit, freeze), conditions, **options)
        self.block, self.norm = LastBlock(vit.blocks[-1], keep_query=True), vit.norm

    def pool(self, tokens: Tensor) -> Tensor:
        """Compute the transformer's [CLS] output: tokens (B, P+N, D) -> (B, D)."""
        return self.norm(self.block.cls_row(tokens))[:, 0]

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute [CLS]'s self-attention, the same under every condition: (B, H, P+N)."""
        return self.block.cls_weights(tokens)
