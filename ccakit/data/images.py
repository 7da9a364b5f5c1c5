"""Images: a file to RGB, and RGB to what a model takes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ccakit.data.errors import DataError

EXIF_ORIENTATION = 0x0112
MODES = {"bicubic": "bicubic", "bilinear": "bilinear", "nearest": "nearest-exact"}


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, turned as its EXIF says; resized to `size` (h, w) if given.

    Grey and palette become RGB, alpha is laid on white (EXIF is not read there), 16 bits become 8.
    DataError names the file when it is missing, empty, cut short, or no image.
    """
    remedy = "Put the image there again, or take its line out of the lists."
    try:
        data = np.fromfile(path, np.uint8)  # imread would fail on names that are not ASCII
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise DataError(path, "is missing" if missing else f"cannot be read ({error})", remedy) from None
    try:
        image = _decode(data) if len(data) else None
    except cv2.error as error:
        raise DataError(path, f"cannot be decoded ({error.err})", remedy) from None
    if image is None:
        raise DataError(path, "is broken, or no image" if len(data) else "is empty", remedy)
    return image if size is None else _resize(image, size)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file as `read_image` gives it, from its header alone; DataError as there."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.mode not in ("RGBA", "LA", "PA") and image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    except OSError:
        return read_image(path).shape[:2]  # which says what is wrong with it
    return (width, height) if turned else (height, width)


def _decode(data: np.ndarray) -> np.ndarray | None:
    """(H, W, 3) RGB, or None. OpenCV reads a file with alpha or with EXIF, not with both."""
    file, plain = data.tobytes(), False
    if file.startswith(b"\xff\xd8"):  # JPEG: no alpha; OpenCV before 5 takes one that is cut short
        if file.rfind(b"\xff\xd9") < file.rfind(b"\xff\xda"):
            return None
    else:
        raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if raw is None or (raw.ndim == 3 and raw.shape[2] == 4 and raw.dtype.kind == "u"):
            return None if raw is None else _on_white(raw)
        plain = raw.dtype == np.uint8 and file.startswith(b"\x89PNG") and b"eXIf" not in file
    image = raw if plain else cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        return None
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def _on_white(bgra: np.ndarray) -> np.ndarray:
    """(H, W, 4) BGRA of 8 or 16 bits -> (H, W, 3) uint8 RGB on a white ground."""
    top = np.iinfo(bgra.dtype).max
    rgb, alpha = bgra[..., 2::-1].astype(np.float32) / top, bgra[..., 3:].astype(np.float32) / top
    return np.rint(255 * (rgb * alpha + 1 - alpha)).astype(np.uint8)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


@dataclass(frozen=True)
class ImageTransform:
    """What timm's evaluation transform does: shorter side to size / crop_pct, central crop, mean and std.

    size: (h, w). interpolation: bicubic, bilinear or nearest, with antialiasing as PIL has it.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"
    crop_pct: float = 0.9

    def __post_init__(self) -> None:
        if self.interpolation not in MODES:
            raise ValueError(f"interpolation {self.interpolation!r} is none of {', '.join(MODES)}")
        if len(self.size) != 2 or min(self.size) < 1 or not 0 < self.crop_pct <= 1:
            raise ValueError(f"size {self.size} is not (h, w), or crop_pct {self.crop_pct} not in (0, 1]")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} are not three numbers, std above 0")

    @classmethod
    def from_timm(cls, config: dict[str, Any]) -> ImageTransform:
        """The transform of timm's `resolve_data_config`."""
        if config.get("crop_mode", "center") != "center":
            raise ValueError(f"crop_mode {config['crop_mode']!r} is not supported; only 'center' is")
        kept = {key: config[key] for key in ("mean", "std", "interpolation", "crop_pct")}
        return cls.from_dict({"size": config["input_size"][1:], **kept})

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> ImageTransform:
        """The inverse of `to_dict`."""
        return cls(**{k: tuple(v) if isinstance(v, list | tuple) else v for k, v in settings.items()})

    def to_dict(self) -> dict[str, Any]:
        """The settings, as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> (3, h, w) float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]  # (1, 3, H, W)
        if (to := self._resized(*image.shape[:2])) != image.shape[:2]:
            antialias = self.interpolation != "nearest"
            pixels = interpolate(pixels, to, mode=MODES[self.interpolation], antialias=antialias)
        (h, w), (top, left) = self.size, self._corner(to)
        pixels = pixels[0, :, top : top + h, left : left + w].float() / 255
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (self.mean, self.std))
        return (pixels - mean) / std

    def view(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a (height, width) picture that the crop keeps: x0, y0, x1, y1, fractions of width and height."""
        to = self._resized(height, width)
        (h, w), (top, left) = self.size, self._corner(to)
        return left / to[1], top / to[0], (left + w) / to[1], (top + h) / to[0]

    def _corner(self, to: tuple[int, int]) -> tuple[int, int]:
        """Top and left of the central crop in a picture of size `to`."""
        return tuple(round((a - b) / 2) for a, b in zip(to, self.size))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """The size before the crop: as small as covers size / crop_pct, proportions kept."""
        h, w = (math.floor(side / self.crop_pct) for side in self.size)
        whole = int if h == w else round  # timm's two ways
        if height * w <= width * h:
            return h, max(w, whole(h * width / height))
        return max(h, whole(w * height / width)), w
