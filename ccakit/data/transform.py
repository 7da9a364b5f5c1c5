"""Turn a picture into what a model takes: resize, crop, normalise."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Gt, Le
from torch.nn.functional import interpolate

from ccakit.data.images import MAX_PIXELS
from ccakit.settings import Positive, check_limits, from_dict

MODES = {"bicubic": "bicubic", "bilinear": "bilinear", "nearest": "nearest-exact"}
AboveZero = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class ImageTransform:
    """Transform as timm does for evaluation: shorter side to size / crop_pct, central crop, mean and std.

    size: (h, w). interpolation: with antialiasing as PIL has it. ValueError for a setting out of its limits.
    """

    size: tuple[Positive, Positive] = (224, 224)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[AboveZero, AboveZero, AboveZero] = (0.5, 0.5, 0.5)
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    crop_pct: Annotated[float, Gt(0), Le(1)] = 0.9

    def __post_init__(self) -> None:
        check_limits(self)

    @classmethod
    def from_timm(cls, config: dict[str, Any]) -> ImageTransform:
        """Make the transform of timm's `resolve_data_config`; ValueError for another crop than the centre."""
        if config.get("crop_mode", "center") != "center":
            raise ValueError(f"crop_mode {config['crop_mode']!r} is not supported; only 'center' is")
        kept = {key: config[key] for key in ("mean", "std", "interpolation", "crop_pct")}
        return cls.from_dict({"size": config["input_size"][1:], **kept})

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> ImageTransform:
        """Make the transform of the settings that `to_dict` returns."""
        return from_dict(cls, settings, where="transform")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def at_least(self) -> tuple[int, int] | None:
        """The (height, width) to which `read_image` may reduce a picture: twice what this shrinks it to."""
        if self.interpolation == "nearest":  # takes single pixels, of which a reduced picture has others
            return None
        return tuple(2 * math.floor(side / self.crop_pct) for side in self.size)

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Transform (H, W, 3) uint8 RGB to (3, h, w) float32; ValueError if it is too narrow to enlarge."""
        to = self._resized(*image.shape[:2])
        if math.prod(to) > max(MAX_PIXELS, math.prod(image.shape[:2])):
            raise ValueError(f"has {image.shape[1]} x {image.shape[0]} pixels, too narrow for {self.size}")
        pixels = torch.from_numpy(np.require(image, requirements="CW")).permute(2, 0, 1)[None]  # (1, 3, H, W)
        if to != image.shape[:2]:
            antialias = self.interpolation != "nearest"
            pixels = interpolate(pixels, to, mode=MODES[self.interpolation], antialias=antialias)
        (h, w), (top, left) = self.size, self._corner(to)
        pixels = pixels[0, :, top : top + h, left : left + w]
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        for channel, mean, std in zip(pixels, self.mean, self.std):
            channel.sub_(mean).div_(std)
        return pixels

    def gives(self, pixels: torch.Tensor) -> bool:
        """Tell whether floats may be what this made of a picture: (3, h, w), of 8-bit levels, normalised.

        Pictures that are only scaled, to 0..1 or 0..255, have other levels.
        """
        if not pixels.dtype.is_floating_point or pixels.shape != (3, *self.size):
            return False
        mean, std = (
            torch.tensor(each, device=pixels.device)[:, None, None] for each in (self.mean, self.std)
        )
        levels = 255 * (pixels.detach().float() * std + mean)
        return bool(((levels - levels.round().clamp(0, 255)).abs() < 0.25).all())  # 0.25: float16

    def view(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return what the crop keeps of a picture: x0, y0, x1, y1 in fractions of its width and height."""
        to = self._resized(height, width)
        (h, w), (top, left) = self.size, self._corner(to)
        return left / to[1], top / to[0], (left + w) / to[1], (top + h) / to[0]

    def _corner(self, to: tuple[int, int]) -> tuple[int, int]:
        """Return top and left of the central crop in a picture of size `to`."""
        return tuple(round((a - b) / 2) for a, b in zip(to, self.size))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size before the crop: the smallest in proportion that covers size / crop_pct."""
        h, w = (math.floor(side / self.crop_pct) for side in self.size)
        whole = int if h == w else round  # timm's two ways
        if height * w <= width * h:
            return h, max(w, whole(h * width / height))
        return max(h, whole(w * height / width)), w
