"""Images: make RGB of a picture of any kind, by one function, and say whether a file is complete.

Pillow reads the header first (kind, size, EXIF), so that a picture beyond the limit is refused before a pixel
of it is decoded. OpenCV decodes, as it is faster. Pillow decodes what OpenCV does not read, or reads
differently: transparency, CMYK, LAB, YCbCr, and any kind of file that this build of OpenCV lacks.

**Reduced decoding.** A large JPEG is decoded at 1/2, 1/4 or 1/8 if both sides divide by that, and if both are
still at least twice what the transform shrinks them to. After the transform to 224 pixels the result differs
from that of the full picture by at most 1 in the mean and 24 in a single value, of 255
(`tests/data/test_images.py`; measured on pictures of photographs' spectrum with hard edges, and on drawn
garments: 0.7 and 19). If the sides do not divide, the picture would be shifted by up to a pixel (values
differed by 79), and nearer to the target edges would blur (48): such pictures are decoded in full.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from ccakit.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    Bytes = bytes | bytearray | memoryview | BinaryIO
    Picture = str | os.PathLike | Bytes | Image.Image | np.ndarray | Tensor

PICTURES = (
    "a file, by its path or open, its bytes, a PIL image, RGB as (height, width, 3) uint8, "
    "or a tensor: (3, height, width) uint8, or what the model's transform gives, float"
)
MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB; Pillow, too, begins to warn of decompression bombs here
MAX_BYTES = 1 << 30
REMEDY = "Put the image there again, or take its line out of the lists."
SMALLER = "Make the image smaller."
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
JPEG = ("JPEG", "MPO")  # MPO: a JPEG that a second picture follows
# a build of OpenCV may lack these (JPEG: arithmetic coding)
OPTIONAL = (*JPEG, "WEBP", "GIF", "JPEG2000", "AVIF")
# OpenCV's readers convert these, each in its own way; "I": a PGM, whose greatest value OpenCV ignores
BY_PILLOW = ("CMYK", "LAB", "YCbCr", "I")
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
REDUCED = {  # OpenCV names these flags after grayscale; together with RGB they give color
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}


def read_image(
    picture: Picture, *, at_least: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Make (H, W, 3) uint8 RGB of a picture: the same for a file, its bytes, and a PIL image of it.

    Grey, palette, CMYK, LAB and YCbCr become RGB, transparency is laid on white, 16 bits become 8, and EXIF
    turns the picture. Of several frames of a file, the first is read. An array is RGB already, (H, W, 3)
    uint8; a tensor, too, (3, H, W) uint8. at_least: (h, w); a JPEG file may be decoded smaller, by 2, 4 or 8,
    but not below this size (see the module). Raises DataError, which names the file, if it is missing, empty,
    cut short, not an image, or has more than `max_pixels`; ValueError for what is not a picture.
    """
    if isinstance(picture, str | os.PathLike):
        return decode_image(picture, read_bytes(picture), at_least=at_least, max_pixels=max_pixels)
    if hasattr(picture, "read"):  # an open file
        name = getattr(picture, "name", "(open file)")
        return decode_image(name, picture.read(), at_least=at_least, max_pixels=max_pixels)
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode_image("(bytes)", bytes(picture), at_least=at_least, max_pixels=max_pixels)
    if isinstance(picture, Image.Image):
        return _from_pillow(picture, max_pixels)
    shape, dtype = tuple(getattr(picture, "shape", ())), str(getattr(picture, "dtype", "no type"))
    if dtype == "uint8" and len(shape) == 3 and shape[2] == 3 and 0 not in shape:
        return picture
    if dtype == "torch.uint8" and len(shape) == 3 and shape[0] == 3 and 0 not in shape:
        return picture.cpu().numpy().transpose(1, 2, 0)
    given = f"{type(picture).__name__} of {dtype} and shape {shape}"
    raise ValueError(f"{given} is not a picture: give {PICTURES}")


def _from_pillow(image: Image.Image, max_pixels: int) -> np.ndarray:
    """Make RGB of a PIL image as `decode_image` makes it of the file."""
    path = getattr(image, "filename", "") or "(PIL image)"
    _check_size(path, image.size, max_pixels)
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise errors of many kinds on broken files
        raise DataError(path, f"cannot be decoded ({error})", REMEDY) from None
    pixels = _on_white(image)
    if pixels is None:
        problem = f"cannot be made RGB: nobody knows the range of mode {image.mode!r}"
        raise DataError(path, problem, "Scale it to 8 bits.")
    return _turn(pixels, _read_orientation(image))


def decode_image(
    path: str | Path, data: bytes, *, at_least: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode the bytes of an image file as `read_image` does; errors name `path`."""
    header = _read_header(path, data)
    _check_size(path, header.size, max_pixels)
    orientation = _read_orientation(header, data)
    try:
        image = _decode(data, header, _reduction(header, orientation, at_least))
    except cv2.error as error:
        raise DataError(path, f"cannot be decoded ({error.err})", REMEDY) from None
    if image is None:
        raise DataError(path, "is broken, or no image", REMEDY)
    return _turn(image, orientation)


def _check_size(path: str | Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if height * width > max_pixels:
        raise DataError(path, f"has {width} x {height} pixels, more than the limit of {max_pixels}", SMALLER)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read the (height, width) of an image, as `read_image` gives it, from its header; DataError as there."""
    data = read_bytes(path)
    header = _read_header(path, data)
    return header.size if _read_orientation(header, data) >= 5 else header.size[::-1]


def read_bytes(path: str | Path) -> bytes:
    """Read a regular file (OpenCV's imread would fail on names that are not ASCII)."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise OSError("it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise DataError(path, f"has {status.st_size} bytes, more than the limit of {MAX_BYTES}", SMALLER)
        return Path(path).read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise DataError(path, "is missing" if missing else f"cannot be read ({error})", REMEDY) from None


def _read_header(path: str | Path, data: bytes) -> Image.Image:
    """Open a picture in Pillow, which reads its header only; DataError if it is none, or is a bomb."""
    if not data:
        raise DataError(path, "is empty", REMEDY)
    Image.init()
    try:
        return Image.open(io.BytesIO(data), formats=[kind for kind in KINDS if kind in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(path, f"has too many pixels ({error})", SMALLER) from None
    except Exception:  # noqa: BLE001 - Pillow's readers raise errors of many kinds on broken files
        raise DataError(path, "is broken, or no image", REMEDY) from None


def _read_orientation(header: Image.Image, data: bytes = b"") -> int:
    """Read EXIF's orientation, 1 to 8. It is 1 for TIFF, which is turned while it is decoded.

    data: the file, where the image is not loaded; a PNG's EXIF may follow the pixels.
    """
    if header.format == "TIFF":
        return 1
    try:
        exif = Image.Image.getexif(header)  # a PNG's own getexif would decode it
        if data and header.format == "PNG" and ExifTags.Base.Orientation not in exif:
            exif.load(data.partition(b"eXIf")[2])
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - broken EXIF: nobody knows how the picture should be turned
        return 1
    return orientation if orientation in range(1, 9) else 1


def _reduction(header: Image.Image, orientation: int, at_least: tuple[int, int] | None) -> int:
    """Choose by how much to decode the picture smaller: 1, 2, 4 or 8. Only JPEG gets faster by this."""
    if at_least is None or header.format not in JPEG:
        return 1
    wanted = at_least if orientation >= 5 else at_least[::-1]  # (width, height), as the file has it
    for n in REDUCED:
        if all(side % n == 0 and side // n >= least for side, least in zip(header.size, wanted)):
            return n
    return 1


def _decode(data: bytes, header: Image.Image, reduction: int) -> np.ndarray | None:
    """Decode to (H, W, 3) RGB, not turned; None if the file does not hold what its header says."""
    if header.format in JPEG and not jpeg_ends(data):
        return None  # cut short, which OpenCV before 5 accepts
    apng = header.info.get("default_image", False)  # OpenCV reads its animation, not its first picture
    if header.has_transparency_data or header.mode in BY_PILLOW or apng:
        return _on_white(header)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), RGB | REDUCED.get(reduction, 0))
    if image is None:
        return _on_white(header) if header.format in OPTIONAL else None
    width, height = header.size
    return image if image.shape[:2] == (height // reduction, width // reduction) else None


def _on_white(image: Image.Image) -> np.ndarray | None:
    """Make (H, W, 3) RGB on white of a PIL image; None if it is broken, or its values have no known range."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        return None
    try:
        if image.mode.startswith("I"):
            image = _eight_bits(image)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return np.array(image.convert("RGB"))
    except Exception:  # noqa: BLE001 - Pillow's readers raise errors of many kinds on broken files
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Take the upper 8 of 16 bits of grey, as OpenCV does; Pillow's convert would cut values above 255."""
    deep = np.asarray(image)
    grey = Image.fromarray((deep >> 8).astype(np.uint8))
    if "transparency" in image.info:
        opaque = deep != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return grey


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture, (H, W, 3), as its EXIF orientation says."""
    if orientation == 1:
        return image
    picture = Image.fromarray(image)
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(ImageOps.exif_transpose(picture))


MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a JPEG's scan; FF00 and RSTn belong to the scan
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
STARTS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}


def kind_of(data: bytes) -> str:
    """Name the kind of an image file by its first bytes: JPEG, PNG, WebP, GIF, BMP, TIFF or other."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for start, kind in STARTS.items() if data.startswith(start)), "other")


def cut_short(data: bytes) -> str:
    """Say what is missing from a JPEG, PNG, WebP, GIF or BMP file; "" if nothing is, or the kind is another.

    A JPEG that was cut and then given an end marker is not recognised.

    >>> jpeg = b"\\xff\\xd8\\xff\\xda\\x00\\x02abc\\xff\\xd9"
    >>> cut_short(jpeg), cut_short(jpeg[:-2])
    ('', 'the JPEG has no end marker')
    """
    kind = kind_of(data)
    if kind == "JPEG":
        return "" if jpeg_ends(data) else "the JPEG has no end marker"
    if kind == "PNG":
        return _png_problem(data)
    if kind == "GIF":
        return "" if data.rstrip(b"\0").endswith(b"\0;") else "the GIF has no trailer"
    sizes = {"WebP": int.from_bytes(data[4:8], "little") + 8, "BMP": int.from_bytes(data[2:6], "little")}
    needs = sizes.get(kind, 0)
    return f"the {kind} needs {needs} bytes and has {len(data)}" if len(data) < needs else ""


def jpeg_ends(data: bytes) -> bool:
    """Say whether a JPEG has its end marker.

    It walks over the segments, so that an end marker inside one (of a thumbnail) does not count. It ignores
    what follows the end (a phone's film or sound), and what stands between segments.
    """
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
        if kind == 0xDA:  # a scan follows; it ends at the next marker
            found = MARKER.search(data, at)
            if found is None:
                return False
            at = found.end() - 2
    return False


def _png_problem(data: bytes) -> str:
    """Walk over the chunks: each must be complete, its checksum right, and IEND the last."""
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
