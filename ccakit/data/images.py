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
import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ccakit.errors import DataError

MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB; where Pillow, too, begins to warn of decompression bombs
MAX_BYTES = 1 << 30
REMEDY = "Put the image there again, or take its line out of the lists."
SMALLER = "Make the image smaller."
EXIF_ORIENTATION = 0x0112
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
OPTIONAL = (
    "JPEG",
    "WEBP",
    "GIF",
    "JPEG2000",
    "AVIF",
)  # what a build of OpenCV may lack (JPEG: arithmetic coding)
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
            kind = (
                "JPEG" if image.format == "MPO" else image.format
            )  # MPO: a JPEG with a second picture behind it
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
    if (
        at_least is None or header.kind != "JPEG"
    ):  # only JPEG gains: other kinds are decoded whole, and then shrunk
        return 1
    wanted = at_least[::-1] if header.orientation >= 5 else at_least
    fits = (
        n for n in REDUCED if all(side % n == 0 and side // n >= w for side, w in zip(header.size, wanted))
    )
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


MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a JPEG's scan; FF00 and RSTn belong to the scan
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


def cut_short(data: bytes) -> str:
    """What is missing from a JPEG, PNG, WebP, GIF or BMP file; "" if nothing is, or the kind is another.

    A JPEG that was cut and given an end marker anew is not recognised.

    >>> cut_short(b"\\xff\\xd8\\xff\\xda\\x00\\x02abc\\xff\\xd9"), cut_short(b"\\xff\\xd8\\xff\\xda\\x00\\x02abc")
    ('', 'the JPEG has no end marker')
    """
    if data.startswith(b"\xff\xd8"):
        return "" if jpeg_ends(data) else "the JPEG has no end marker"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _length(data, struct.unpack("<I", data[4:8])[0] + 8, "WebP")
    if data[:3] == b"GIF":
        return "" if data.rstrip(b"\0").endswith(b"\0;") else "the GIF has no trailer"
    if data[:2] == b"BM" and len(data) >= 6:
        return _length(data, struct.unpack("<I", data[2:6])[0], "BMP")
    return ""


def kind_of(data: bytes) -> str:
    """The kind of an image file by its first bytes: JPEG, PNG, WebP, GIF, BMP, TIFF or other."""
    starts = {
        b"\xff\xd8": "JPEG",
        b"\x89PNG": "PNG",
        b"GIF": "GIF",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
    }
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for start, kind in starts.items() if data.startswith(start)), "other")


def _length(data: bytes, needs: int, kind: str) -> str:
    return f"the {kind} needs {needs} bytes and has {len(data)}" if len(data) < needs else ""


def jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG has its end marker. Segments are walked, so that one inside them (a thumbnail's) does not count;
    what follows the end does not matter (a phone's film or sound), nor what stands between segments."""
    at = 2
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                return False
            continue
        kind = data[at + 1]
        if kind == 0xD9:
            return True
        if kind == 0xFF or kind in ALONE:
            at += 1 if kind == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xDA:  # a scan follows; it ends where the next marker stands
            found = MARKER.search(data, at)
            if found is None:
                return False
            at = found.end() - 2
    return False


def _png(data: bytes) -> str:
    """Walk the chunks: each whole, its CRC right, IEND the last."""
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", view[at : at + 8])
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack(">I", view[end - 4 : end])[0]:
            return f"the checksum of the PNG's {kind.decode('latin-1')} chunk does not fit"
        if kind == b"IEND":
            return ""
        at = end
    return "the PNG has no end chunk"
