"""What every trunk shares: a frozen stem, whose output may be kept, before a trained tail."""

from __future__ import annotations

import copy
import hashlib

from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class TrunkError(ValueError):
    """A trunk that cannot be used; the message lists what works."""


class FrozenStem(nn.Module):
    """A trunk whose modules `frozen_modules()` are not trained; a subclass says which, and how to run them.

    freezes_backbone: the CNN is the stem; frozen_blocks: the embedding and so many blocks are, or None.
    """

    freezes_backbone: bool = False
    frozen_blocks: int | None = None
    grid_size: tuple[int, int]

    def frozen_modules(self) -> list[nn.Module]:
        """The modules of the stem; none where all is trained."""
        raise NotImplementedError

    @property
    def freezes(self) -> bool:
        """Whether there is a frozen stem whose output can be kept."""
        return self.freezes_backbone or self.frozen_blocks is not None

    def freeze_stem(self) -> None:
        """Take the stem out of training: no gradients, and a BatchNorm keeps its statistics."""
        for module in self.frozen_modules():
            module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenStem:
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def folded(self) -> FrozenStem:
        """A copy for inference whose frozen convolutions have their BatchNorm folded in: the same stem, faster."""
        trunk = copy.deepcopy(self).eval()
        for module in trunk.frozen_modules():
            _fold_batchnorm(module)
        return trunk

    def stem_key(self) -> str:
        """A digest of the frozen part's weights and shape: what a cache of its output depends on."""
        digest = hashlib.sha256(f"{self.freezes_backbone} {self.frozen_blocks} {self.grid_size}".encode())
        for module in self.frozen_modules():
            digest.update(repr(module).encode())
            for name, tensor in module.state_dict().items():
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def _fold_batchnorm(module: nn.Module) -> None:
    children = list(module.named_children())
    for (name, conv), (after, norm) in zip(children, children[1:]):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, after, norm.act)
    for _, child in children:
        _fold_batchnorm(child)
