"""The comparison without conditions: the same trunk and loss, the condition ignored ("Triplet network")."""

from __future__ import annotations

from torch import Tensor

from ccakit.models.base import ConditionalModel
from ccakit.models.read_block import ReadBlock
from ccakit.models.trunks.block_parts import block_parts, row_norm
from ccakit.models.trunks.cnn import MapTrunk
from ccakit.models.trunks.vit import Trunk, ViT


class ClsReader(ConditionalModel):
    """What the systems share that read [CLS] of the unchanged vision transformer.

    The last block computes only the [CLS] row, as nothing else is read: exact, and as cheap as CCA's.
    """

    reads = "tokens"

    def __init__(self, vit: ViT, conditions: int, *, freeze: str | int = "none", **options) -> None:
        super().__init__(Trunk(vit, freeze), conditions, **options)
        self.block, self.norm = ReadBlock(block_parts(vit), keep_query=True), row_norm(vit)

    def pool(self, tokens: Tensor) -> Tensor:
        """Compute the transformer's [CLS] output: tokens (B, P+N, D) -> (B, D)."""
        return self.norm(self.block.cls_row(tokens))[:, 0]

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute [CLS]'s self-attention, the same under every condition: (B, H, P+N)."""
        return self.block.cls_weights(tokens)


class TripletNetwork(ClsReader):
    """A plain ViT with Eq. 7's head; every condition has the same embedding."""

    source = "Tables 2-4"
    faithfulness = "the same trunk and loss, the condition ignored"

    def __init__(self, vit: ViT, conditions: int, **options) -> None:
        super().__init__(vit, conditions, **options)
        self.head = self.create_head()

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head(self.pool(tokens))[:, None].expand(-1, condition.shape[1], -1)


class MapTripletNetwork(ConditionalModel):
    """The triplet network on a CNN, as in Tables 2-4: l2(FC(mean over places))."""

    def __init__(self, trunk: MapTrunk, conditions: int, **options) -> None:
        super().__init__(trunk, conditions, **options)
        self.head = self.create_head()

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head(tokens.mean(dim=(2, 3)))[:, None].expand(-1, condition.shape[1], -1)
