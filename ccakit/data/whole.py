"""Whether an image file is whole, by its container alone: an end that is missing, a checksum that does not fit.

Decoders forgive: OpenCV gives a JPEG that ends early with its lower part grey, and may pass over a PNG's checksum.
"""

from __future__ import annotations

import re
import struct
import zlib

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
    starts = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
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
