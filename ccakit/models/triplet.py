"""The non-conditional comparison: the same trunk and loss, the condition ignored ("Triplet network")."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ccakit.models.base import ConditionalModel, Head
from ccakit.models.last_block import LastBlock
from ccakit.models.trunks.cnn import MapTrunk
from ccakit.models.trunks.vit import Trunk


class TripletNetwork(ConditionalModel):
    """A plain ViT with Eq. 7's head; every condition has the same embedding.

    Its last block computes the [CLS] row alone, which is all that the head reads: exact, and as cheap as CCA's.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        conditions: int,
        *,
        freeze: str | int = "none",
        embed_dim: int | None = None,
        head_norm: str = "none",
    ) -> None:
        super().__init__(Trunk(vit, freeze), conditions, embed_dim)
        self.block = LastBlock(vit.blocks[-1], keep_query=True)
        self.norm = vit.norm
        self.head = Head(self.trunk.embed_dim, self.embed_dim, head_norm)

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head(self.norm(self.block.cls_row(tokens))).expand(-1, condition.shape[1], -1)

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """[CLS]'s self-attention, the same under every condition: (B, H, P+N)."""
        self.check_condition(condition, tokens)
        return self.block.cls_weights(tokens)

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.patch_map(self.attention_rows(tokens, condition))


class MapTripletNetwork(ConditionalModel):
    """The same on a CNN, as in Tables 2-4: l2(FC(mean over places))."""

    def __init__(
        self, trunk: MapTrunk, conditions: int, *, embed_dim: int | None = None, head_norm: str = "none"
    ) -> None:
        super().__init__(trunk, conditions, embed_dim)
        self.head = Head(trunk.embed_dim, self.embed_dim, head_norm)

    def read(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.head(tokens.mean(dim=(2, 3)))[:, None].expand(-1, condition.shape[1], -1)
