"""The comparison without conditions: the same trunk and loss, the condition ignored ("Triplet network")."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ccakit.models.base import ConditionalModel
from ccakit.models.last_block import LastBlock
from ccakit.models.trunks.cnn import MapTrunk
from ccakit.models.trunks.vit import Trunk


class TripletNetwork(ConditionalModel):
    """A plain ViT with Eq. 7's head; every condition has the same embedding.

    Its last block computes only the [CLS] row, as the head reads nothing else: exact, and as cheap as CCA's.
    """

    source = "Tables 2-4"
    faithfulness = "the same trunk and loss, the condition ignored"
    reads = "tokens"

    def __init__(
        self, vit: VisionTransformer, conditions: int, *, freeze: str | int = "none", **options
    ) -> None:
        super().__init__(Trunk(vit, freeze), conditions, **options)
        self.block, self.norm = LastBlock(vit.blocks[-1], keep_query=True), vit.norm
        self.head = self.create_head()

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head(self.norm(self.block.cls_row(tokens))).expand(-1, condition.shape[1], -1)

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute [CLS]'s self-attention, the same under every condition: (B, H, P+N)."""
        return self.block.cls_weights(tokens)


class MapTripletNetwork(ConditionalModel):
    """The triplet network on a CNN, as in Tables 2-4: l2(FC(mean over places))."""

    def __init__(self, trunk: MapTrunk, conditions: int, **options) -> None:
        super().__init__(trunk, conditions, **options)
        self.head = self.create_head()

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head(tokens.mean(dim=(2, 3)))[:, None].expand(-1, condition.shape[1], -1)
