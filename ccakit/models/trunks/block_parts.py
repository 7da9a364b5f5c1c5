"""What a system reads of a timm vision transformer, taken apart: a block, or the attention pool behind all.

Several classes of timm do the same under other names: `Block`, `EvaBlock` (rotary positions; LayerScale as a
bare parameter; a bias of queries and values alone), and `AttentionPoolLatent` (SigLIP's: a learned query, no
residual). Here they become one thing, from which `ReadBlock` is built. `families` says which can.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import AttentionPoolLatent, LayerScale
from timm.models.eva import Eva
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

Projection = tuple[Tensor, Tensor | None]  # weight and bias of one of q, k, v


@dataclass
class BlockParts:
    """A block or an attention pool, by the names of `ReadBlock`.

    attn: the module with num_heads, head_dim, q_norm and k_norm. q, k, v: its projections. rope: the rotary
    positions of the patches, (N, 2 d), or None. prefix: the number of tokens before the patches. latent: the
    learned query of a pool, (1, 1, D), or None. first: the token that a pool begins with.
    """

    attn: nn.Module
    q: Projection
    k: Projection
    v: Projection
    norm1: nn.Module
    attn_norm: nn.Module
    proj: nn.Module
    proj_drop: nn.Module
    attn_drop: nn.Module
    ls1: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    ls2: nn.Module
    drop_path1: nn.Module
    drop_path2: nn.Module
    rope: Tensor | None = None
    rotate_half: bool = False
    prefix: int = 0
    latent: nn.Parameter | None = None
    first: int = 0


class ValueBias(nn.Linear):
    """A Linear for keys and values, of which the values alone have a bias, as in EVA."""

    def __init__(self, width: int, out: int, values: int) -> None:
        super().__init__(width, out, bias=False)
        self.values = nn.Parameter(torch.zeros(values))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, F.pad(self.values, (self.out_features - len(self.values), 0)))


class Rotary(nn.Module):
    """A block of EVA with the rotary positions that it is given at every call."""

    def __init__(self, block: nn.Module, rope: Tensor) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("rope", rope, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, rope=self.rope)


def reads_pool(vit: nn.Module) -> bool:
    """Whether the trunk's attention pool is read, which stands behind all blocks, and not a block."""
    return isinstance(getattr(vit, "attn_pool", None), AttentionPoolLatent)


def rotary_positions(vit: nn.Module) -> Tensor | None:
    """Compute the rotary positions of the patches, (N, 2 d), as in evaluation; None where there are none."""
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    rope.eval()  # in training, timm may move the coordinates at random
    with torch.no_grad():
        if getattr(rope, "feat_shape", None) is not None:
            return rope.get_embed().clone()
        return rope.get_embed(shape=list(vit.patch_embed.grid_size)).clone()


def tokens_norm(vit: nn.Module) -> nn.Module:
    """Find the norm of what comes out of the last block; where a trunk averages before its norm, that one."""
    return vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm


def row_norm(vit: nn.Module) -> nn.Module:
    """Find the norm of the row that is read: of [CLS], or what stands behind an attention pool."""
    return vit.fc_norm if reads_pool(vit) else tokens_norm(vit)


def block_parts(vit: nn.Module) -> BlockParts:
    """Take apart what is read of a trunk: its attention pool if it has one, else its last block."""
    if reads_pool(vit):
        return _pool_parts(vit)
    block, attn = vit.blocks[-1], vit.blocks[-1].attn
    q, k, v = _projections(attn)
    return BlockParts(
        attn=attn, q=q, k=k, v=v,
        norm1=block.norm1, attn_norm=getattr(attn, "norm", nn.Identity()),
        proj=attn.proj, proj_drop=attn.proj_drop, attn_drop=attn.attn_drop,
        ls1=_layer_scale(block, 1), norm2=block.norm2, mlp=block.mlp, ls2=_layer_scale(block, 2),
        drop_path1=block.drop_path1, drop_path2=block.drop_path2,
        rope=rotary_positions(vit), rotate_half=getattr(attn, "rotate_half", False),
        prefix=vit.num_prefix_tokens,
    )  # fmt: skip


def _pool_parts(vit: nn.Module) -> BlockParts:
    """Take apart an attention pool: the trunk's last norm comes before it, and nothing stands beside it."""
    pool, nothing = vit.attn_pool, nn.Identity
    k, v = zip(pool.kv.weight.chunk(2), _chunks(pool.kv.bias, 2))
    all_tokens = isinstance(vit, Eva) or vit.pool_include_prefix
    return BlockParts(
        attn=pool, q=(pool.q.weight, pool.q.bias), k=k, v=v,
        norm1=vit.norm, attn_norm=nothing(),
        proj=pool.proj, proj_drop=pool.proj_drop, attn_drop=nn.Dropout(0.0),
        ls1=nothing(), norm2=pool.norm, mlp=pool.mlp, ls2=nothing(),
        drop_path1=nothing(), drop_path2=nothing(),
        latent=pool.latent, first=0 if all_tokens else vit.num_prefix_tokens,
    )  # fmt: skip


def _projections(attn: nn.Module) -> list[Projection]:
    """Give weight and bias of q, k and v: of one Linear, of one without the keys' bias, or of three."""
    if attn.qkv is None:
        return [(part.weight, part.bias) for part in (attn.q_proj, attn.k_proj, attn.v_proj)]
    biases = _chunks(attn.qkv.bias, 3)
    if getattr(attn, "q_bias", None) is not None:
        biases = (attn.q_bias, None, attn.v_bias)
    return list(zip(attn.qkv.weight.chunk(3), biases))


def _chunks(bias: Tensor | None, count: int) -> tuple:
    return (None,) * count if bias is None else bias.chunk(count)


def _layer_scale(block: nn.Module, number: int) -> nn.Module:
    """Give a block's LayerScale as a module; EVA keeps the bare parameter."""
    if isinstance(block, Block):
        return getattr(block, f"ls{number}")
    gamma = getattr(block, f"gamma_{number}")
    if gamma is None:
        return nn.Identity()
    scale = LayerScale(len(gamma))
    scale.gamma = gamma
    return scale


def linear_of(*parts: Projection) -> nn.Linear:
    """Stack projections into a Linear, as a copy: some have a bias, or none, or the last alone."""
    weights, biases = zip(*parts)
    weight = torch.cat(weights)
    if len(parts) == 2 and biases[0] is None and biases[1] is not None:
        linear = ValueBias(weight.shape[1], len(weight), len(biases[1]))
        linear.values.data.copy_(biases[1])
    else:
        linear = nn.Linear(weight.shape[1], len(weight), bias=biases[0] is not None)
    linear.weight.data.copy_(weight)
    if linear.bias is not None:
        linear.bias.data.copy_(torch.cat(biases))
    return linear
