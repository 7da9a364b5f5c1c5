"""A vision transformer so small that its trained weights are kept in git: 32 pixels, width 32, two blocks."""

from __future__ import annotations

from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer


@register_model
def vit_for_tests(pretrained: bool = False, **options) -> VisionTransformer:
    """timm's own class under a name of ours; `pretrained` is ignored, as there are no weights."""
    (
        options.pop("pretrained_cfg", None),
        options.pop("pretrained_cfg_overlay", None),
        options.pop("cache_dir", None),
    )
    sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
    vit = VisionTransformer(**{**sizes, **options})
    vit.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    return vit
