"""Images: a file to RGB, and RGB to what a model takes.

OpenCV decodes. Pillow reads the header first (kind, size, EXIF), so that a picture beyond the limit is refused before
a pixel of it is decoded, and decodes what OpenCV does not, or not as it is meant: CMYK, LAB, YCbCr, transparent grey,
TIFF with alpha, and any kind of file that this build of OpenCV lacks.

**Reduced decoding.** Large JPEGs are decoded at 1/2, 1/4 or 1/8 where both sides divide by that, and where both are
still at least twice what the transform shrinks them to. After the transform to 224 pixels the result then differs
from that of the whole picture by at most 1 in the mean and 24 in a single value, of 255 (`tests/test_images.py`;
measured on pictures of photographs' spectrum with hard edges, and on drawn garments: 0.7 and 19). Where sides do not
divide, the picture would be shifted by up to a pixel (values differed by 79), and nearer to the target edges would
blur (48): such pictures are decoded whole.
"""

from __future__ import annotations

import io
import math
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ccakit.data.errors import DataError
from ccakit.data.whole import jpeg_ends

MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB; where Pillow, too, begins to warn of decompression bombs
MAX_BYTES = 1 << 30
REMEDY = "Put the image there again, or take its line out of the lists."
SMALLER = "Make the image smaller."
EXIF_ORIENTATION = 0x0112
MODES = {"bicubic": "bicubic", "bilinear": "bilinear", "nearest": "nearest-exact"}
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
OPTIONAL = ("JPEG", "WEBP", "GIF", "JPEG2000", "AVIF")  # what a build of OpenCV may lack (JPEG: arithmetic coding)
BY_PILLOW = ("CMYK", "LAB", "YCbCr", "PA")  # color models that OpenCV's readers guess, each in its own way
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, turned as its EXIF says; resized to `size` (h, w) if given.

    Grey, palette, CMYK, LAB and YCbCr become RGB, alpha is laid on white, 16 bits become 8; of several frames, the
    first. at_least: a JPEG may be decoded smaller, by 2, 4 or 8, as long as it keeps (h, w); see the module.
    DataError names the file when it is missing, empty, cut short, no image, or has more than `max_pixels`.
    """
    data = _bytes(path)
    header = _header(path, data)
    height, width = header.size
    if height * width > max_pixels:
        raise DataError(path, f"has {width} x {height} pixels, more than the limit of {max_pixels}", SMALLER)
    try:
        image = _decode(data, header, _reduction(header, at_least))
    except cv2.error as error:
        raise DataError(path, f"cannot be decoded ({error.err})", REMEDY) from None
    if image is None:
        raise DataError(path, "is broken, or no image", REMEDY)
    image = _turned(image, header.orientation)
    return image if size is None else _resize(image, size)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file as `read_image` gives it, from its header alone; DataError as there."""
    header = _header(path, _bytes(path))
    return header.size[::-1] if header.orientation >= 5 else header.size


@dataclass(frozen=True)
class _Header:
    """What a file says of its picture before it is decoded: size is (height, width) before it is turned."""

    kind: str
    mode: str
    size: tuple[int, int]
    orientation: int
    transparent: bool


def _bytes(path: str | Path) -> np.ndarray:
    """A regular file's bytes, (n,) uint8 (imread would fail on names that are not ASCII); DataError if none."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise OSError("it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise DataError(path, f"has {status.st_size} bytes, more than the limit of {MAX_BYTES}", SMALLER)
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise DataError(path, "is missing" if missing else f"cannot be read ({error})", REMEDY) from None
    if not len(data):
        raise DataError(path, "is empty", REMEDY)
    return data


def _open(data: np.ndarray) -> Image.Image:
    """The picture in Pillow, its header read."""
    Image.init()
    return Image.open(io.BytesIO(data), formats=[kind for kind in KINDS if kind in Image.OPEN])


def _header(path: str | Path, data: np.ndarray) -> _Header:
    """What Pillow reads of the header; DataError where it finds no image, or one that it, too, calls a bomb."""
    try:
        with _open(data) as image:
            width, height = image.size
            kind = "JPEG" if image.format == "MPO" else image.format  # MPO: a JPEG with a second picture behind it
            facts = kind, image.mode, (height, width), _orientation(image, data), "transparency" in image.info
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(path, f"has too many pixels ({error})", SMALLER) from None
    except Exception:  # noqa: BLE001 - on broken files, Pillow's readers raise errors of many kinds
        raise DataError(path, "is broken, or no image", REMEDY) from None
    return _Header(*facts)


def _orientation(image: Image.Image, data: np.ndarray) -> int:
    """EXIF's orientation, 1 to 8: how `_turned` has to turn the picture. TIFFs are turned by who decodes them."""
    if image.format == "TIFF":
        return 1
    try:
        exif = Image.Image.getexif(image)  # a PNG's own getexif would decode it
        if image.format == "PNG" and EXIF_ORIENTATION not in exif:  # the chunk may stand behind the pixels
            chunk = data.tobytes().partition(b"eXIf")[2]
            exif.load(chunk)
        orientation = exif.get(EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken EXIF, of which nobody knows how it was meant
        return 1
    return orientation if orientation in range(1, 9) else 1


def _reduction(header: _Header, at_least: tuple[int, int] | None) -> int:
    """By how much the picture may be decoded smaller, 1, 2, 4 or 8."""
    if at_least is None or header.kind != "JPEG":  # only JPEG gains: other kinds are decoded whole, and then shrunk
        return 1
    wanted = at_least[::-1] if header.orientation >= 5 else at_least
    fits = (n for n in REDUCED if all(side % n == 0 and side // n >= w for side, w in zip(header.size, wanted)))
    return next(fits, 1)


def _decode(data: np.ndarray, header: _Header, reduction: int) -> np.ndarray | None:
    """(H, W, 3) RGB, not turned; None where the file does not hold what its header says."""
    if header.kind == "JPEG" and not jpeg_ends(data.tobytes()):
        return None  # cut short, which OpenCV before 5 does not mind
    if header.mode in BY_PILLOW or (header.transparent and header.mode in ("1", "L")):
        return _by_pillow(data)
    if header.kind == "TIFF" and header.mode in ("RGBA", "LA"):  # which OpenCV gives multiplied by alpha
        return _by_pillow(data)
    image = _by_opencv(data, header, reduction)
    if image is None:
        return _by_pillow(data) if header.kind in OPTIONAL else None
    return image if image.shape[:2] == tuple(side // reduction for side in header.size) else None


def _by_opencv(data: np.ndarray, header: _Header, reduction: int) -> np.ndarray | None:
    """OpenCV reads a file with alpha, or as plain color."""
    image = None
    if header.kind != "JPEG":
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if image is None or (image.ndim == 3 and image.shape[2] == 4 and image.dtype.kind == "u"):
            return None if image is None else _on_white(image)
    if image is None or image.dtype != np.uint8 or header.kind != "PNG":
        if reduction == 1:
            return cv2.imdecode(data, RGB)
        image = cv2.imdecode(data, REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return None
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def _by_pillow(data: np.ndarray) -> np.ndarray | None:
    """Pillow, for what OpenCV does not read."""
    try:
        with _open(data) as image:
            if not image.has_transparency_data:
                return np.array(image.convert("RGB"))
            return _on_white(np.array(image.convert("RGBA"))[..., [2, 1, 0, 3]])
    except Exception:  # noqa: BLE001 - on broken files, Pillow's readers raise errors of many kinds
        return None


def _on_white(bgra: np.ndarray, rows: int = 256) -> np.ndarray:
    """(H, W, 4) BGRA of 8 or 16 bits -> (H, W, 3) uint8 RGB on a white ground; so many rows at once, for memory."""
    out, top = np.empty((*bgra.shape[:2], 3), np.uint8), np.iinfo(bgra.dtype).max
    for start in range(0, len(bgra), rows):
        part = bgra[start : start + rows].astype(np.float32) / top
        alpha = part[..., 3:]
        out[start : start + rows] = np.rint(255 * (part[..., 2::-1] * alpha + 1 - alpha))
    return out


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """A picture, (H, W, 3), as its EXIF orientation wants it seen."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


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

    @property
    def at_least(self) -> tuple[int, int] | None:
        """The (height, width) that `read_image` may reduce a picture to: twice what this shrinks it to."""
        if self.interpolation == "nearest":  # takes single pixels, of which a reduced picture has others
            return None
        return tuple(2 * math.floor(side / self.crop_pct) for side in self.size)

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> (3, h, w) float32. ValueError for one so narrow that it cannot be enlarged."""
        to = self._resized(*image.shape[:2])
        if math.prod(to) > max(MAX_PIXELS, math.prod(image.shape[:2])):
            raise ValueError(f"has {image.shape[1]} x {image.shape[0]} pixels, too narrow for {self.size}")
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]  # (1, 3, H, W)
        if to != image.shape[:2]:
            antialias = self.interpolation != "nearest"
            pixels = interpolate(pixels, to, mode=MODES[self.interpolation], antialias=antialias)
        (h, w), (top, left) = self.size, self._corner(to)
        pixels = pixels[0, :, top : top + h, left : left + w]
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        for channel, mean, std in zip(pixels, self.mean, self.std):
            channel.sub_(mean).div_(std)
        return pixels

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
