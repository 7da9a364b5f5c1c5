"""What tests of the compared systems share: small models with telling weights, ASEN++'s crop by loops."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from PIL import Image

from ccakit.attributes import Attributes
from ccakit.data.transform import ImageTransform
from ccakit.models.registry import create_model, list_models
from ccakit.models.saved import SavedModel, load_model, save_model

K, B = 3, 2
VALUES = (3, 2, 4)
NAMES = [info.name for info in list_models()]
INFO = {info.name: info for info in list_models()}
ON_MAP = [name for name in NAMES if INFO[name].system.reads == "map"]
ON_TOKENS = [name for name in NAMES if INFO[name].system.reads == "tokens"]
ON_PLACES = ["asen", "asen-v2", "asen-pp", "camnet", "m2fashion", "tf-asen"]  # a softmax over places
CLS_ATTENDS = ["triplet", "networks", "tf-csn", "cca-type1", "cca-type2"]  # a softmax over [CLS] and patches
TRUNKS = {
    "lite": dict(trunk="lite", trunk_options=dict(width=32, num_heads=2)),
    "resnet18": dict(trunk="resnet18"),
    "vit": dict(trunk="vit_tiny_patch16_224"),
}


def spoil(model):
    """Biases and norms begin at values that hide errors: move all parameters and statistics a little."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() < 2 else 0.02))
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None and module.weight.requires_grad:
                module.running_mean.normal_(0, 0.1), module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def make(name, trunk="lite", conditions=K, **options):
    options = {"image_size": 64, **TRUNKS[trunk], **options}
    if INFO[name].system.classifies:
        options["values"] = VALUES[:conditions]
    if name == "asen-pp" and trunk != "lite" and options.get("crop") == "image":
        options["local"] = "resnet18"
    torch.manual_seed(0)  # a network of timm that is asked for again is then a copy, see built_once
    return spoil(create_model(name, conditions=conditions, pretrained=False, **options))


def pictures(count=B):
    return torch.randn(count, 3, 64, 64)


def a_map(model, count=B):
    """A random feature map, for what a system does with it."""
    return torch.randn(count, model.trunk.embed_dim, *model.trunk.grid_size)


def close(a, b, atol=1e-5, rtol=0.0):
    torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


def plain_crop(picture, left, top, share, side):
    """Bilinear samples one by one: the pixel (i, j) of `side` x `side` sees the square's (i + 0.5) / side."""
    channels, height, width = picture.shape
    out = torch.zeros(channels, side, side)
    for i in range(side):
        for j in range(side):
            y = (top + share * (i + 0.5) / side) * height - 0.5
            x = (left + share * (j + 0.5) / side) * width - 0.5
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            up = (1 - (x - x0)) * picture[:, y0, x0] + (x - x0) * picture[:, y0, x1]
            down = (1 - (x - x0)) * picture[:, y1, x0] + (x - x0) * picture[:, y1, x1]
            out[:, i, j] = (1 - (y - y0)) * up + (y - y0) * down
    return out


def pillow_crop(picture, left, top, d, side):
    """Pillow's crop and resize of a picture (C, h, w), in pixels, channel by channel in float32."""
    parts = [Image.fromarray(channel.numpy()).crop((left, top, left + d, top + d)) for channel in picture]
    return torch.stack(
        [torch.from_numpy(np.array(p.resize((side, side), Image.Resampling.BILINEAR))) for p in parts]
    )


def plain_box(weights, side):
    """The authors' rule by OpenCV: left, top and side of the square in pixels."""
    large = cv2.resize(weights.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    grey = np.uint8(255 * (large - large.min()) / (large.max() - large.min()))
    _, inside = cv2.threshold(grey, int(255 * 0.1), 255, cv2.THRESH_BINARY)
    left, top, width, height = cv2.boundingRect(inside)
    d = max(width, height)
    corner = []
    for start, length in ((left, width), (top, height)):
        centre = start + length // 2
        at = side - d if centre + d // 2 > side else max(0, centre - d // 2)
        corner.append(at)
    return (*corner, d)


def saved_and_loaded(model, folder, name, options):
    recipe = {"name": name, "conditions": K, "image_size": 64, **TRUNKS["lite"], **options}
    if INFO[name].system.classifies:
        recipe["values"] = list(VALUES)
    attributes = Attributes(tuple("abc"), tuple(tuple(map(str, range(n))) for n in VALUES))
    save_model(folder, SavedModel(model, attributes, ImageTransform((64, 64)), recipe))
    return load_model(folder).model
