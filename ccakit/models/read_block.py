"""The transformer block that is read, at single rows: keys and values of all tokens, one output row a query.

It is the trunk's last block, or that of `read_block`: the last one that is built. Only its [CLS] is ever
read (Eq. 7), and keys and values depend on the image alone. So one query row is exact, and K and V are shared
by all conditions of an image, unless each has its own W_v. An attention pool, as in SigLIP, is such a row
already: its learned query is not an image's, and nothing stands beside it.
"""

from __future__ import annotations

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.each import Adapter, LinearEach
from ccakit.models.trunks.block_parts import BlockParts, linear_of


class ReadBlock(nn.Module):
    """A timm block, or attention pool, with its projections taken apart: the query may come from elsewhere.

    keep_query: whether W_q stays. The plain ViT needs it; in CCA an FC replaces it. wv: "each" for a W_v of
    each of the K conditions, which begins as the block's own. adapter: the width of an adapter of each, or 0.
    """

    def __init__(
        self, parts: BlockParts, keep_query: bool, conditions: int = 0, wv: str = "shared", adapter: int = 0
    ) -> None:
        super().__init__()
        attn = parts.attn
        self.num_heads, self.head_dim = attn.num_heads, attn.head_dim
        self.norm1, self.norm2, self.mlp = parts.norm1, parts.norm2, parts.mlp
        self.q = linear_of(parts.q) if keep_query else None
        self.kv, self.v = linear_of(parts.k, parts.v) if wv == "shared" else linear_of(parts.k), None
        if wv == "each":
            self.v = _values_each(linear_of(parts.v), conditions, self.num_heads)
        self.adapter = Adapter(conditions, parts.k[0].shape[1], adapter) if adapter else None
        self.q_norm, self.k_norm = attn.q_norm, attn.k_norm
        self.attn_norm = parts.attn_norm
        self.proj, self.proj_drop, self.attn_drop = parts.proj, parts.proj_drop, parts.attn_drop
        self.ls1, self.ls2 = parts.ls1, parts.ls2
        self.drop_path1, self.drop_path2 = parts.drop_path1, parts.drop_path2
        self.is_pool, self.first = parts.latent is not None, parts.first
        self.latent = parts.latent if keep_query and self.is_pool else None
        self.prefix, self.rotate_half = parts.prefix, parts.rotate_half
        self.register_buffer("rope", parts.rope, persistent=False)

    @property
    def width(self) -> int:
        """The width of a query: H * d."""
        return self.num_heads * self.head_dim

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute k and v of LN(x_{L-1}): (B, P+N, D) -> each (B, H, P+N, d).

        With a W_v of each condition, v is LN(x_{L-1}) itself, (B, P+N, D): see `rows`.
        """
        x = self.norm1(tokens)[:, self.first :]
        kv = self.kv(x).unflatten(-1, (-1, self.num_heads, self.head_dim))
        k, *v = kv.permute(2, 0, 3, 1, 4)  # (B, P+N, 1 or 2, H, d) -> 1 or 2 x (B, H, P+N, d)
        return self._rotated(self.k_norm(k)), v[0] if v else x

    def _rotated(self, k: Tensor) -> Tensor:
        """Turn the patches' keys by their rotary positions, if there are any; [CLS], which asks, has none."""
        if self.rope is None:
            return k
        patches = apply_rot_embed_cat(k[:, :, self.prefix :], self.rope, half=self.rotate_half)
        return torch.cat([k[:, :, : self.prefix], patches], dim=2)

    def heads(self, q: Tensor) -> Tensor:
        """Split queries into heads: (B, R, H*d) -> (B, H, R, d)."""
        return self.q_norm(q.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2))

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Compute softmax(q k^T / sqrt(d)): (B, R, H*d), (B, H, P+N, d) -> (B, H, R, P+N), rows sum to 1."""
        return (self.heads(q) @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(dim=-1)

    def rows(
        self, x: Tensor | None, q: Tensor, k: Tensor, v: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Compute the block's output at R rows: (B, R, D).

        x: (B, 1 or R, D), the residual of Eq. 1, or None for none; q: (B, R, H*d). condition: (B, R), where
        conditions have weights of their own. Attention is linear in v: W_v of the weighted mean of the tokens
        is the weighted mean of their W_v, so that a W_v of each condition costs one product a row.
        """
        if self.v is None:
            drop = self.attn_drop.p if self.training else 0.0
            out = F.scaled_dot_product_attention(self.heads(q), k, v, dropout_p=drop).transpose(1, 2)  # Eq. 6
        else:
            weights = self.attn_drop(self.weights(q, k)).transpose(1, 2)  # (B, H, R, P+N) -> (B, R, H, P+N)
            mean = (weights.flatten(1, 2) @ v).unflatten(1, (-1, self.num_heads))  # (B, R, H, D)
            out = self.v(mean, condition)
        out = self.attn_norm(out.flatten(2))  # (B, R, H, d) -> (B, R, H*d)
        out = self.drop_path1(self.ls1(self.proj_drop(self.proj(out))))
        x = out if x is None else x + out
        normed = self.norm2(x)
        ffn = self.mlp(normed) if self.adapter is None else self.mlp(normed) + self.adapter(normed, condition)
        return x + self.drop_path2(self.ls2(ffn))

    def residual(self, tokens: Tensor) -> Tensor | None:
        """Give what stands beside the attention's output, x_[CLS] (B, 1, D); None for a pool."""
        return None if self.is_pool else tokens[:, :1]

    def cls_query(self, tokens: Tensor) -> Tensor:
        """Compute the trunk's own query, [CLS]'s or the pool's learned one: (B, P+N, D) -> (B, 1, H*d)."""
        if self.is_pool:
            return self.q(self.latent).expand(len(tokens), -1, -1)
        return self.q(self.norm1(tokens[:, :1]))

    def cls_row(self, tokens: Tensor) -> Tensor:
        """Compute the plain block's output at [CLS] alone, or the pool's: (B, P+N, D) -> (B, 1, D)."""
        k, v = self.keys_values(tokens)
        return self.rows(self.residual(tokens), self.cls_query(tokens), k, v)

    def cls_weights(self, tokens: Tensor) -> Tensor:
        """Compute the attention of [CLS], or of the pool's query: (B, P+N, D) -> (B, H, P+N)."""
        return self.weights(self.cls_query(tokens), self.keys_values(tokens)[0])[:, :, 0]


def _values_each(linear: nn.Linear, conditions: int, heads: int) -> LinearEach:
    """Copy W_v (H*d, D) for each condition, by heads: (B, R, H, D) -> (B, R, H, d)."""
    each = LinearEach(conditions, linear.in_features, linear.out_features // heads, (heads,))
    each.weight.data.copy_(linear.weight.data.unflatten(0, (heads, -1)).mT)
    nn.init.zeros_(each.bias)
    if linear.bias is not None:
        each.bias.data.copy_(linear.bias.data.unflatten(0, (heads, -1)))
    return each
