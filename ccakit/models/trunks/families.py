"""The families of timm's vision transformers: which of them CCA can stand in, and why it cannot in others."""

from __future__ import annotations

from dataclasses import dataclass

from timm.layers import AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn

from ccakit.models.trunks.block_parts import reads_pool


@dataclass(frozen=True)
class Family:
    """Trunks that are built alike.

    name: what they are known as. reads: what of them is read. tested: timm's names that the tests compare, at
    small size and with random weights, with timm's own forward.
    """

    name: str
    reads: str
    tested: tuple[str, ...]


CLS, QUERY = "[CLS] of a block", "the pool's query"
FAMILIES = (
    Family("ViT, AugReg", CLS, ("vit_tiny_patch16_224", "vit_base_patch32_224")),
    Family("hybrids of CNN and ViT", CLS, ("vit_tiny_r_s16_p8_224",)),
    Family("DeiT, DeiT III", CLS, ("deit_tiny_patch16_224", "deit3_small_patch16_224")),
    Family("DINOv2", CLS, ("vit_small_patch14_dinov2",)),
    Family("DINOv2 with registers", CLS, ("vit_small_patch14_reg4_dinov2",)),
    Family("DINOv3", CLS, ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb")),
    Family("CLIP", CLS, ("vit_base_patch16_clip_224", "vit_base_patch32_clip_quickgelu_224")),
    Family("SigLIP, SigLIP 2", QUERY, ("vit_base_patch16_siglip_224", "vit_base_patch32_siglip_256")),
    Family("ViTs with registers and a pool", QUERY, ("vit_so150m_patch16_reg4_map_256",)),
    Family(
        "EVA-02", CLS, ("eva02_tiny_patch14_224", "eva02_base_patch14_224", "eva02_base_patch16_clip_224")
    ),
    Family("EVA", CLS, ("eva_giant_patch14_224", "eva_giant_patch14_clip_224")),
    Family("BEiT-3", CLS, ("beit3_base_patch16_224",)),
    Family("Perception Encoder, core", QUERY, ("vit_pe_core_tiny_patch16_384",)),
    Family("Perception Encoder, spatial", CLS, ("vit_pe_spatial_tiny_patch16_512",)),
    Family(
        "ViT with axial rotary positions",
        CLS,
        ("vit_small_patch16_rope_224", "vit_small_patch16_rope_ape_224"),
    ),
    Family("TIPS v2", CLS, ("vit_base_patch14_reg1_tipsv2",)),
    Family("LingBot-Vision", CLS, ("vit_small_patch16_lingbot",)),
)
PAIRS = "whose attention adds a bias for each pair of positions: a condition has no position"
WINDOWS = "whose attention sees windows: no token sees the whole picture"
STAGES = "whose grid shrinks from stage to stage: no token of it asks all patches"
OTHERS = {  # timm's classes that are asked for, and why each is refused
    "Beit": PAIRS,
    "VisionTransformerRelPos": PAIRS,
    "VisionTransformerSAM": WINDOWS,
    "SwinTransformer": WINDOWS,
    "SwinTransformerV2": WINDOWS,
    "MaxxVit": WINDOWS,
    "Hiera": STAGES,
    "HieraDet": STAGES,
    "MultiScaleVit": STAGES,
    "PyramidVisionTransformerV2": STAGES,
    "PoolingVisionTransformer": STAGES,
    "VisionTransformerDistilled": "which is read at two tokens, [CLS] and a distilled one",
    "NaFlexVit": "which takes patches of pictures of any shape, not pictures",
    "Cait": "whose [CLS] comes in after the last block of patches, with blocks of its own",
    "Xcit": "whose attention compares channels, not places",
    "CrossVit": "which has two branches with a [CLS] each",
}


def network_problem(vit: nn.Module) -> str | None:
    """Say why a network is not a vision transformer that can be read at one row; None if it is one."""
    if type(vit) not in (VisionTransformer, Eva):
        reason = OTHERS.get(type(vit).__name__, "not a plain vision transformer")
        return f"it is a {type(vit).__name__}, {reason}"
    if len(vit.blocks) < 1:
        return "it has no block"
    if getattr(vit, "rope_mixed", False):
        return "its rotary positions are learned, and other ones in each block"
    if reads_pool(vit):
        pool = vit.attn_pool
        plain = pool.latent_len == 1 and pool.pos_embed is None and pool.mlp is not None
        return None if plain else "its attention pool is not SigLIP's: one query, an MLP, no positions"
    if vit.cls_token is None:
        return "it has no [CLS] token, which Eq. 7 reads, and no attention pool: it averages its patches"
    if vit.attn_pool is not None:
        return f"its output is a {type(vit.attn_pool).__name__} of all tokens, not [CLS]"
    return None


def block_problem(vit: nn.Module) -> str | None:
    """Say why a network's last block cannot be read at one row; None if it can, or a pool is read."""
    block = vit.blocks[-1]
    if reads_pool(vit):
        return None
    kinds = {Block: (Attention,), EvaBlock: (EvaAttention, AttentionRope)}
    if type(block) not in kinds or type(block.attn) not in kinds[type(block)]:
        inside = f" with {type(block.attn).__name__}" if type(block) in kinds else ""
        return f"the block to read is a {type(block).__name__}{inside}, not a standard pre-norm block"
    if getattr(block.attn, "gate", None) is not None:
        return "its attention is gated by the token that asks"
    if getattr(block.attn, "num_kv_groups", 1) > 1:
        return "groups of its heads share keys and values"
    return None
