"""The non-conditional comparison: the same trunk and loss, the condition ignored ("Triplet network")."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ccakit.models.base import ConditionalModel, Head
from ccakit.models.last_block import LastBlock
from ccakit.models.trunk import Trunk


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

    def _query(self, tokens: Tensor) -> Tensor:
        return self.block.q(self.block.norm1(tokens[:, :1]))  # (B, 1, H*d)

    def embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        self.check_condition(condition, tokens)
        k, v = self.block.keys_values(tokens)
        return self.head(self.norm(self.block.rows(tokens[:, :1], self._query(tokens), k, v)))[:, 0]

    def spaces(self, tokens: Tensor) -> Tensor:
        one = self.embed(tokens, self.all_of(0, tokens))
        return one[:, None].expand(-1, self.conditions, -1)

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """[CLS]'s self-attention, the same under every condition: (B, H, P+N)."""
        self.check_condition(condition, tokens)
        return self.block.weights(self._query(tokens), self.block.keys_values(tokens)[0])[:, :, 0]

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return self.patch_map(self.attention_rows(tokens, condition))
