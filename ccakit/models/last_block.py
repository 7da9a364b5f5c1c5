"""A transformer's last block, read at single rows: keys and values from all tokens, one output row a query.

Only [CLS] of the last block is ever read (Eq. 7), and keys and values depend on the image alone. So one query
row is exact, and K and V are shared by all conditions of an image.
"""

from __future__ import annotations

from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F


class LastBlock(nn.Module):
    """A timm `Block` with its fused qkv taken apart, so that the query may come from elsewhere.

    keep_query: whether W_q stays. The plain ViT needs it; in CCA an FC replaces it.
    """

    def __init__(self, block: Block, keep_query: bool) -> None:
        super().__init__()
        attn = block.attn
        self.num_heads, self.head_dim = attn.num_heads, attn.head_dim
        width = self.num_heads * self.head_dim
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.q = _slice(attn.qkv, 0, width) if keep_query else None
        self.kv = _slice(attn.qkv, width, 3 * width)
        self.q_norm, self.k_norm = attn.q_norm, attn.k_norm
        self.attn_norm = getattr(attn, "norm", nn.Identity())
        self.proj, self.proj_drop, self.attn_drop = attn.proj, attn.proj_drop, attn.attn_drop
        self.ls1, self.ls2 = block.ls1, block.ls2
        self.drop_path1, self.drop_path2 = block.drop_path1, block.drop_path2

    @property
    def width(self) -> int:
        """The width of a query: H * d."""
        return self.num_heads * self.head_dim

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute k and v of LN(x_{L-1}): (B, P+N, D) -> each (B, H, P+N, d)."""
        kv = self.kv(self.norm1(tokens)).unflatten(-1, (2, self.num_heads, self.head_dim))
        k, v = kv.permute(2, 0, 3, 1, 4)  # (B, P+N, 2, H, d) -> 2 x (B, H, P+N, d)
        return self.k_norm(k), v

    def heads(self, q: Tensor) -> Tensor:
        """Split queries into heads: (B, R, H*d) -> (B, H, R, d)."""
        return self.q_norm(q.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2))

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Compute softmax(q k^T / sqrt(d)): (B, R, H*d), (B, H, P+N, d) -> (B, H, R, P+N), rows sum to 1."""
        return (self.heads(q) @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(dim=-1)

    def rows(self, x: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Compute the block's output at R rows: (B, R, D).

        x: (B, 1 or R, D), the residual of Eq. 1, or None for none; q: (B, R, H*d).
        """
        drop = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(self.heads(q), k, v, dropout_p=drop)  # Eq. 6
        out = self.attn_norm(out.transpose(1, 2).flatten(2))  # (B, H, R, d) -> (B, R, H*d)
        out = self.drop_path1(self.ls1(self.proj_drop(self.proj(out))))
        x = out if x is None else x + out
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    def cls_row(self, tokens: Tensor) -> Tensor:
        """Compute the plain block's output at [CLS] alone: (B, P+N, D) -> (B, 1, D)."""
        k, v = self.keys_values(tokens)
        return self.rows(tokens[:, :1], self.q(self.norm1(tokens[:, :1])), k, v)

    def cls_weights(self, tokens: Tensor) -> Tensor:
        """Compute [CLS]'s self-attention: (B, P+N, D) -> (B, H, P+N)."""
        return self.weights(self.q(self.norm1(tokens[:, :1])), self.keys_values(tokens)[0])[:, :, 0]


def _slice(linear: nn.Linear, start: int, stop: int) -> nn.Linear:
    """Copy output rows start..stop of a Linear into a Linear of its own."""
    part = nn.Linear(linear.in_features, stop - start, bias=linear.bias is not None)
    part.weight.data.copy_(linear.weight.data[start:stop])
    if linear.bias is not None:
        part.bias.data.copy_(linear.bias.data[start:stop])
    return part
