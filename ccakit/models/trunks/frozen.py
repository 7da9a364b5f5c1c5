"""The base of every trunk: a frozen stem, whose output may be kept, before a trained tail."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from functools import wraps

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ccakit.errors import first_line


class TrunkError(ValueError):
    """A trunk that cannot be used; the message lists what works."""


def check_size(name: str, size: tuple[int, int], stride: tuple[int, int]) -> None:
    """Raise TrunkError for an image size (height, width) of which the trunk would cut pixels off.

    The patches would then cover less than the picture, and heatmaps would be displaced.
    """
    for side, step in zip(size, stride):
        if side % step:
            below = side - side % step
            nearest = " or ".join(str(near) for near in (below, below + step) if near)
            problem = f"is not a multiple of its stride of {step} pixels: the rest would be cut off"
            raise TrunkError(f"{name}: an image size of {side} {problem}; take --image-size {nearest}")


def check_passage(name: str, trunk: nn.Module, size: tuple[int, int], expected: tuple[int, ...]) -> None:
    """Raise TrunkError unless one image comes out of a trunk on "meta" in the expected shape."""
    problem = f"{name} cannot be a trunk: an image of {size[0]} x {size[1]} pixels"
    try:
        shape = tuple(trunk.eval()(torch.zeros(1, 3, *size, device="meta")).shape)
    except Exception as error:  # of many types: timm's networks differ
        raise TrunkError(f"{problem} does not pass through it ({first_line(error)})") from error
    if shape != expected:
        raise TrunkError(f"{problem} gives {shape}, not {expected}: its heatmaps would be displaced")


def checked_once(check: Callable[..., None]) -> Callable[..., None]:
    """Let a check of a trunk that has passed pass again at once: K networks build the same trunk K times."""
    passed = set()

    @wraps(check)
    def check_new(*given) -> None:
        if (key := repr(given)) not in passed:
            check(*given)
            passed.add(key)

    return check_new


class FrozenStem(nn.Module):
    """A trunk as a chain of stages: the first ones are frozen (the stem), the others trained (the tail).

    frozen: the number of frozen stages; 0 where all is trained. embed_dim, grid_size: width and patches
    (rows, columns) of the tokens. image_size: in pixels (height, width). pretrained_cfg: timm's settings
    of the images, of this size.
    """

    frozen: int = 0
    embed_dim: int
    grid_size: tuple[int, int]
    image_size: tuple[int, int]
    pretrained_cfg: dict

    def stages(self) -> list[nn.Module]:
        """List the modules between images and tokens, in their order."""
        raise NotImplementedError

    def frozen_modules(self) -> list[nn.Module]:
        """List the stages of the stem; none where all is trained."""
        return self.stages()[: self.frozen]

    def stem(self, images: Tensor) -> Tensor:
        """Run the frozen part: (B, 3, height, width) -> features; the images if nothing is frozen."""
        return self.stem_at(images, [self.frozen])[0]

    def stem_at(self, images: Tensor, depths: list[int]) -> list[Tensor]:
        """Run the frozen part once, and give what comes out after each number of stages, in rising order."""
        stages, outputs, done, x = self.frozen_modules(), [], 0, images
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            for depth in depths:
                x = _run(stages[done:depth], x)
                outputs.append(x)
                done = depth
        return outputs

    def tail(self, features: Tensor) -> Tensor:
        """Run the trained part: features -> tokens, (B, P+N, D) or a map (B, C, h, w)."""
        return _run(self.stages()[self.frozen :], features)

    def forward(self, images: Tensor) -> Tensor:
        return self.tail(self.stem(images))

    def freeze_stem(self, stages: int) -> None:
        """Take the first stages out of training: no gradients, and their BatchNorms keep their statistics."""
        self.frozen = stages
        for module in self.frozen_modules():
            module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenStem:
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def folded(self) -> FrozenStem:
        """Copy the trunk for inference, each BatchNorm of the stem folded into its convolution: faster."""
        trunk = copy.deepcopy(self).eval()
        for module in trunk.frozen_modules():
            _fold_batchnorm(module)
        return trunk

    def stem_key(self, stages: int | None = None) -> str:
        """Digest the frozen part's weights and shape, on which kept features depend, in 16 hex digits.

        stages: of so many of its stages; all by default.
        """
        digest = hashlib.sha256(str(self.grid_size).encode())
        for module in self.frozen_modules()[:stages]:
            digest.update(repr(module).encode())
            kept = module.state_dict()
            for name, tensor in kept.items():
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
            for name, buffer in module.named_buffers():
                if name not in kept:  # rotary positions
                    digest.update(name.encode() + buffer.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def _run(stages: list[nn.Module], x: Tensor) -> Tensor:
    for stage in stages:
        x = stage(x)
        if isinstance(x, (list, tuple)):  # the feature maps of a timm CNN
            x = x[-1]
    return x


def _fold_batchnorm(module: nn.Module) -> None:
    """Fold each BatchNorm of timm that follows a convolution into it, in place."""
    children = list(module.named_children())
    for (conv_name, conv), (norm_name, norm) in zip(children, children[1:]):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, norm.act)
    for _, child in children:
        _fold_batchnorm(child)
