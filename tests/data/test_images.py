"""Images: every kind of file to RGB, broken ones to an error, and the transform against timm's own."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ccakit.data.images import image_size, read_image
from ccakit.data.transform import ImageTransform
from ccakit.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the files that are read here")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (23, 31, 4)).astype(np.uint8)
RGB, GREY = PIXELS[..., :3], PIXELS[..., 0]


def file(path: Path, image, **options) -> Path:
    image.save(path, **options)
    return path


def test_rgb_grey_and_palette(tmp_path: Path) -> None:
    grey = np.repeat(GREY[..., None], 3, axis=2)
    for ending in (".png", ".bmp", ".tiff"):
        assert np.array_equal(read_image(file(tmp_path / f"rgb{ending}", Image.fromarray(RGB))), RGB)
        assert np.array_equal(read_image(file(tmp_path / f"grey{ending}", Image.fromarray(GREY))), grey)
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(read_image(file(tmp_path / "p.png", palette)), np.asarray(palette.convert("RGB")))
    black_white = Image.fromarray(GREY > 99)
    assert np.array_equal(read_image(file(tmp_path / "1.png", black_white))[..., 0], 255 * (GREY > 99))


def test_jpeg_agrees_with_pillow(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(RGB, (0, 0), 3)
    for kind in ("RGB", "L"):
        for progressive in (True, False):
            path = file(tmp_path / "a.jpg", Image.fromarray(smooth).convert(kind), progressive=progressive)
            want = np.asarray(Image.open(path).convert("RGB")).astype(int)
            assert np.abs(read_image(path) - want).max() <= 3


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    white = Image.new("RGBA", image.size, "white")
    want = np.asarray(Image.alpha_composite(white, image).convert("RGB")).astype(int)
    assert np.abs(read_image(file(tmp_path / "a.png", image)) - want).max() <= 1
    assert np.abs(read_image(file(tmp_path / "a.webp", image, lossless=True, exact=True)) - want).max() <= 1
    grey = image.convert("LA")
    want = np.asarray(Image.alpha_composite(white, grey.convert("RGBA")).convert("RGB")).astype(int)
    assert np.abs(read_image(file(tmp_path / "la.png", grey)) - want).max() <= 1


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    for pixels in (GREY, RGB[..., ::-1], np.dstack([RGB[..., ::-1], np.full_like(GREY, 255)])):
        path = tmp_path / "16.png"
        path.write_bytes(cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes())
        want = np.repeat(GREY[..., None], 3, axis=2) if pixels.ndim == 2 else RGB
        assert np.array_equal(read_image(path), want)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_exif_rotation(tmp_path: Path, orientation: int, ending: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(cv2.GaussianBlur(RGB, (0, 0), 3))
    path = file(tmp_path / f"a{ending}", smooth, exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    image = read_image(path)
    assert image.shape == want.shape and np.abs(image - want).max() <= 4


def test_names_that_are_not_ascii(tmp_path: Path) -> None:
    path = file(tmp_path / "été 図 .png", Image.fromarray(RGB))
    assert np.array_equal(read_image(str(path)), RGB)


def test_what_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(DataError, match="is missing"):
        read_image(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)
    for content, word in ((b"", "is empty"), (b"<html>", "is broken"), (b"\xff\xd8\xff", "is broken")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=word) as caught:
            read_image(path)
        assert caught.value.path == path and caught.value.remedy
    file(path, Image.fromarray(GREY.astype(np.float32)), format="TIFF")  # floats: no range is known
    with pytest.raises(DataError, match="is broken, or no image"):
        read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_cut_and_corrupted_files(tmp_path: Path, kind: str) -> None:
    """A file cut short is refused; one with bytes changed is refused or read, and nothing else is raised."""
    buffer, path = io.BytesIO(), tmp_path / "a"
    Image.fromarray(RGB).save(buffer, kind)
    data, rng = buffer.getvalue(), np.random.default_rng(1)
    for end in (1, len(data) // 4, len(data) // 2, len(data) - 20):
        path.write_bytes(data[:end])
        with pytest.raises(DataError):
            read_image(path)
    for _ in range(60):
        bad = bytearray(data)
        bad[rng.integers(len(bad))] = rng.integers(256)
        path.write_bytes(bad)
        try:
            image = read_image(path)
        except DataError as error:
            assert error.path == path
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_a_jpegs_end_does_not_matter(tmp_path: Path, progressive: bool) -> None:
    """Phones append films; these hold end markers and scans of their own by chance."""
    whole, path = io.BytesIO(), tmp_path / "a.jpg"
    Image.fromarray(RGB).save(whole, "JPEG", progressive=progressive)
    path.write_bytes(whole.getvalue())
    wanted = read_image(path)
    for seed in range(5):
        trailer = np.random.default_rng(seed).integers(0, 256, 500_000, np.uint8).tobytes()
        assert b"\xff\xda" in trailer
        path.write_bytes(whole.getvalue() + trailer)
        np.testing.assert_array_equal(read_image(path), wanted)


CONFIG = dict(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_mode="center")


@pytest.mark.parametrize("size", [(3, 224, 224), (3, 64, 64), (3, 96, 48)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
def test_transform_is_timms(size: tuple[int, int, int], interpolation: str, crop_pct: float) -> None:
    data = pytest.importorskip("timm.data")
    config = dict(CONFIG, input_size=size, interpolation=interpolation, crop_pct=crop_pct)
    theirs, ours = data.create_transform(**config), ImageTransform.from_timm(config)
    std = torch.tensor(CONFIG["std"]).view(3, 1, 1)
    for shape in ((300, 200), (200, 301), (28, 28), (224, 224), (517, 731)):
        image = cv2.GaussianBlur(RNG.integers(0, 256, (*shape, 3)).astype(np.uint8), (0, 0), 2)
        want, got = theirs(Image.fromarray(image)), ours(image)
        assert got.shape == want.shape == size and got.dtype == torch.float32
        assert ((got - want).abs() * std * 255).max() < 2.01, "more than rounding"


def test_transform_settings() -> None:
    transform = ImageTransform((96, 48), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "nearest", 0.8)
    again = ImageTransform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert again == transform and hash(again) == hash(transform)
    same = ImageTransform((4, 6), (0, 0, 0), (1, 1, 1), "nearest", 1.0)
    image = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    assert torch.allclose(same(image), torch.from_numpy(image).permute(2, 0, 1) / 255)
    for bad in (
        {"interpolation": "best"},
        {"crop_pct": 0},
        {"size": (0, 4)},
        {"std": (1, 1, 0)},
        {"size": (3,)},
    ):
        with pytest.raises(ValueError):
            ImageTransform(**bad)
    with pytest.raises(ValueError, match="crop_mode"):
        ImageTransform.from_timm({"crop_mode": "squash"})


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_from_the_header_is_that_of_the_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, mode in (("a.jpg", "RGB"), ("b.png", "RGBA"), ("c.png", "L"), ("d.png", "P")):
        Image.new(mode, (30, 20)).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == read_image(tmp_path / name).shape[:2]
    (tmp_path / "e.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="e.png: is broken"):
        image_size(tmp_path / "e.png")


def test_the_view_is_the_part_that_the_crop_keeps() -> None:
    """Columns that count from left to right: the crop's first and last column tell where it lies."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, 0).repeat(3, 2)
    transform = ImageTransform((50, 50), (0, 0, 0), (1, 1, 1), "bilinear", 0.5)
    x0, y0, x1, y1 = transform.view(100, 200)
    seen = 255 * transform(ramp)[0, 0]
    assert (x0, x1) == pytest.approx(((seen[0].item()) / 200, (seen[-1].item() + 1) / 200), abs=0.005)
    assert (y0, y1) == (0.25, 0.75)


# --- kinds of files, limits, reduced decoding


@lru_cache
def photo(height: int, width: int, seed: int) -> np.ndarray:
    """Spectrum 1/f as in photographs, with sharp-edged shapes on it."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    f[0, 0] = 1
    waves = [
        np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / f, s=(height, width)) for _ in range(2)
    ]
    mixed = np.stack([waves[0] + share * waves[1] for share in (0, 0.3, 0.6)], axis=-1)
    image = np.clip((mixed - mixed.mean()) / mixed.std() * 45 + 128, 0, 255).astype(np.uint8)
    for _ in range(20):
        corners = cv2.convexHull((rng.random((4, 2)) * [width, height]).astype(np.int32))
        cv2.fillConvexPoly(image, corners, rng.integers(0, 256, 3).tolist(), lineType=cv2.LINE_AA)
    return image


@pytest.fixture(scope="module")
def garments(tmp_path_factory) -> list[np.ndarray]:
    """Two drawn garments, large."""
    from ccakit.data.drawn import redraw, write_garments
    from ccakit.data.layout import read_dataset

    root = tmp_path_factory.mktemp("garments")
    write_garments(root, 2, 2, 2, size=32, progress=False)
    about = read_dataset(root).about
    return [redraw(about, "test", i, 1024) for i in range(2)]


PLAIN = ImageTransform(mean=(0, 0, 0), std=(1, 1, 1))  # 224 of 248 pixels


@pytest.mark.parametrize(
    "shape,shrunk", [((992, 992), 2), ((992, 1984), 2), ((1984, 2976), 4), ((3968, 3968), 8)]
)
@pytest.mark.parametrize("quality", [75, 95])
def test_reduced_decoding_is_within_tolerance(
    tmp_path: Path, shape: tuple, shrunk: int, quality: int
) -> None:
    for seed in range(2):
        image = np.tile(photo(992, 992, seed), (shape[0] // 992, shape[1] // 992, 1))
        check_reduced(file(tmp_path / "a.jpg", Image.fromarray(image), quality=quality), shrunk)


def check_reduced(path: Path, shrunk: int) -> None:
    """The tolerance that `ccakit.data.images` states: 1 in the mean, 24 at most, of 255."""
    whole, reduced = read_image(path), read_image(path, at_least=PLAIN.at_least)
    assert reduced.shape == (whole.shape[0] // shrunk, whole.shape[1] // shrunk, 3)
    difference = 255 * (PLAIN(whole) - PLAIN(reduced)).abs()
    assert difference.mean() <= 1 and difference.max() <= 24
    assert PLAIN.view(*whole.shape[:2]) == PLAIN.view(*reduced.shape[:2])


def test_drawn_garments_reduced_are_within_tolerance(tmp_path: Path, garments: list[np.ndarray]) -> None:
    for garment in garments:
        for options in ({}, {"progressive": True}, {"subsampling": 0}):
            check_reduced(file(tmp_path / "a.jpg", Image.fromarray(garment), quality=90, **options), 2)
        check_reduced(file(tmp_path / "grey.jpg", Image.fromarray(garment).convert("L"), quality=90), 2)


@pytest.mark.parametrize("shape,kind", [((990, 2000), "JPEG"), ((1001, 1000), "JPEG"), ((1000, 1000), "PNG")])
def test_what_is_not_reduced(tmp_path: Path, shape: tuple, kind: str) -> None:
    """Too small for twice the target, sides that do not divide, and kinds that gain nothing."""
    path = file(tmp_path / "a", Image.new("RGB", shape[::-1]), format=kind)
    assert read_image(path, at_least=PLAIN.at_least).shape[:2] == shape
    assert ImageTransform(interpolation="nearest").at_least is None


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_reduced_and_turned(tmp_path: Path, orientation: int) -> None:
    """at_least is of the turned picture: 1000 x 500 stored, seen as 500 x 1000, or the other way round."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = file(tmp_path / "a.jpg", Image.fromarray(photo(500, 1000, 0)), exif=exif)
    whole = read_image(path)
    assert whole.shape[:2] == image_size(path) == ((500, 1000) if orientation == 3 else (1000, 500))
    tall, wide = read_image(path, at_least=(400, 200)), read_image(path, at_least=(200, 400))
    reduced, other = (wide, tall) if orientation == 3 else (tall, wide)
    assert other.shape == whole.shape and reduced.shape[0] == whole.shape[0] // 2
    small = cv2.resize(whole, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - reduced).mean() < 2


def smooth(kind: str):
    return Image.fromarray(cv2.GaussianBlur(PIXELS, (0, 0), 3)).convert("RGB").convert(kind)


def by_pillow(path: Path) -> np.ndarray:
    """On white, by Pillow alone."""
    image = Image.open(path).convert("RGBA")
    return np.asarray(
        Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    ).astype(int)


@pytest.mark.parametrize(
    "name,kind,options",
    [
        ("a.jpg", "CMYK", {}),
        ("a.tiff", "CMYK", {}),
        ("a.tiff", "LAB", {}),
        ("a.tiff", "YCbCr", {}),
        ("a.png", "P", {"transparency": 3}),
        ("a.png", "P", {"transparency": bytes(range(256))}),
        ("a.gif", "P", {}),
        ("a.gif", "P", {"transparency": 3}),
        ("a.png", "L", {"transparency": 120}),
        ("a.png", "LA", {}),
        ("a.png", "RGB", {"transparency": (120, 120, 120)}),
        ("a.webp", "RGBA", {"lossless": True}),
        ("a.bmp", "P", {}),
        ("a.webp", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (31, 23))]}),
        ("a.tiff", "P", {}),
        ("a.webp", "L", {}),
        ("a.png", "1", {}),
        ("a.jp2", "RGB", {}),
        ("a.ppm", "L", {}),
        ("a.tiff", "RGBA", {}),
    ],
)
def test_kinds_agree_with_pillow(tmp_path: Path, name: str, kind: str, options: dict) -> None:
    image = Image.fromarray(PIXELS).convert(kind) if kind in ("RGBA", "LA") else smooth(kind)
    path = file(tmp_path / name, image, **options)
    got = read_image(path)
    assert got.dtype == np.uint8 and image_size(path) == got.shape[:2] == (23, 31)
    assert np.abs(got - by_pillow(path)).max() <= 2


def test_sixteen_bits_in_tiff_and_with_alpha(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    path = file(tmp_path / "a.tiff", Image.fromarray(deep))
    assert np.array_equal(read_image(path), np.repeat(GREY[..., None], 3, axis=2))
    half = np.dstack([RGB[..., ::-1].astype(np.uint16) * 257, np.full(GREY.shape, 32768, np.uint16)])
    path.write_bytes(cv2.imencode(".png", half)[1].tobytes())
    assert np.abs(read_image(path) - (RGB.astype(int) + 255) / 2).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_one_pixel_wide_or_high(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    path = file(tmp_path / "a", Image.new("RGB", shape[::-1], (10, 20, 30)), format=kind)
    image = read_image(path, at_least=PLAIN.at_least)
    assert (
        image.shape == (*shape, 3) and image_size(path) == shape and np.abs(image - [10, 20, 30]).max() <= 3
    )
    seen = 255 * PLAIN(image)
    assert seen.shape == (3, 224, 224) and (seen - torch.tensor([10, 20, 30]).view(3, 1, 1)).abs().max() <= 3


def test_too_narrow_to_enlarge() -> None:
    with pytest.raises(ValueError, match="30000 x 1 pixels, too narrow"):
        PLAIN(np.zeros((1, 30000, 3), np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_large_pictures_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = file(tmp_path / "a", Image.new("RGB", (60, 50)), format=kind)
    assert read_image(path, max_pixels=3000).shape == (50, 60, 3)

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(DataError, match="has 60 x 50 pixels, more than the limit of 2999") as caught:
        read_image(path, max_pixels=2999)
    assert caught.value.path == path and caught.value.remedy == "Make the image smaller."


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG's header may promise anything: 30,000 x 30,000 and more in a few bytes."""
    monkeypatch.setattr(cv2, "imdecode", None)
    for side in (10_000, 30_000, 2**31 - 1):
        header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = [
            struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
            for c in (header, b"IDAT\0\0")
        ]
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        with pytest.raises(DataError, match="a.png: has .* pixels"):
            read_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\0" * 100)
    monkeypatch.setattr("ccakit.data.images.MAX_BYTES", 99)
    with pytest.raises(DataError, match="has 100 bytes, more than the limit of 99"):
        read_image(tmp_path / "b.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="cannot be read .*not a regular file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_with_alpha_behind_the_pixels_and_nonsense(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = file(tmp_path / "a.png", Image.fromarray(PIXELS), exif=exif)
    want = np.rot90(read_image(file(tmp_path / "b.png", Image.fromarray(PIXELS))), -1)
    assert np.array_equal(read_image(path), want) and image_size(path) == (31, 23)
    data = path.read_bytes()
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    behind = data.index(b"IEND") - 4
    path.write_bytes(
        data[:at] + data[end:behind] + data[at:end] + data[behind:]
    )  # allowed, and seen in the wild
    assert np.array_equal(read_image(path), want) and image_size(path) == (31, 23)
    for nonsense in (0, 9, 255):
        exif[0x0112] = nonsense
        assert read_image(file(path, Image.fromarray(PIXELS), exif=exif)).shape == (23, 31, 3)
    path = file(tmp_path / "c.jpg", Image.fromarray(RGB), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(path).shape == (23, 31, 3)


def test_pillow_reads_what_this_opencv_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [file(tmp_path / f"a.{kind}", smooth("RGB")) for kind in ("gif", "webp", "jpg")]
    wanted = [read_image(path).astype(int) for path in paths]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    for path, want in zip(paths, wanted):
        assert np.abs(read_image(path) - want).max() <= 3
    with pytest.raises(DataError, match="is broken"):  # what every OpenCV reads is broken where it says so
        read_image(file(tmp_path / "a.png", smooth("RGB")))


# --- one function: a file, its bytes and a PIL image of it are the same picture


def encoded(kind: str, image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep(*shape: int) -> np.ndarray:
    """16 bits whose lower 8 are not the upper 8."""
    return np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)


def turned(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SAME_PICTURE = {
    "transparent": lambda: encoded("PNG", Image.fromarray(PIXELS)),
    "grey and transparent": lambda: encoded("PNG", Image.fromarray(PIXELS).convert("LA")),
    "a transparent color": lambda: encoded("PNG", Image.fromarray(GREY), transparency=int(GREY[0, 0])),
    "a transparent 16-bit grey": lambda: encoded(
        "PNG", Image.fromarray(deep(23, 31)), transparency=int(deep(23, 31)[0, 0])
    ),
    "a palette": lambda: encoded("PNG", Image.fromarray(RGB).quantize(16)),
    "a palette with alpha": lambda: encoded("PNG", smooth("P"), transparency=bytes(range(256))),
    "a GIF": lambda: encoded("GIF", smooth("P"), transparency=3),
    "16-bit grey": lambda: encoded("PNG", Image.fromarray(deep(23, 31))),
    "16-bit TIFF": lambda: encoded("TIFF", Image.fromarray(deep(23, 31))),
    "16-bit PGM": lambda: b"P5\n31 23\n65535\n" + deep(23, 31).astype(">u2").tobytes(),
    "12-bit PGM": lambda: b"P5\n31 23\n4095\n" + (deep(23, 31) >> 4).astype(">u2").tobytes(),
    "16-bit RGB": lambda: cv2.imencode(".png", deep(23, 31, 3))[1].tobytes(),
    "16-bit RGBA": lambda: cv2.imencode(".png", deep(23, 31, 4))[1].tobytes(),
    "CMYK": lambda: encoded("JPEG", smooth("CMYK")),
    "LAB": lambda: encoded("TIFF", smooth("LAB")),
    "grey": lambda: encoded("PNG", Image.fromarray(GREY)),
    "black and white": lambda: encoded("PNG", Image.fromarray(GREY > 99)),
    "a JPEG": lambda: encoded("JPEG", smooth("RGB")),
    "an animation behind a still": lambda: encoded(
        "PNG", smooth("RGB"), save_all=True, append_images=[Image.fromarray(RGB)] * 2, default_image=True
    ),
    "turned": lambda: encoded("PNG", Image.fromarray(RGB), exif=turned(6)),
    "turned, transparent": lambda: encoded("PNG", Image.fromarray(PIXELS), exif=turned(8)),
    "turned JPEG": lambda: encoded("JPEG", smooth("RGB"), exif=turned(5)),
    "turned TIFF": lambda: encoded("TIFF", Image.fromarray(RGB), exif=turned(6)),
}


@pytest.mark.parametrize("name", SAME_PICTURE)
def test_a_file_its_bytes_and_a_pil_image_are_the_same_picture(tmp_path: Path, name: str) -> None:
    data = SAME_PICTURE[name]()
    path = tmp_path / "picture"
    path.write_bytes(data)
    want = read_image(path)
    assert want.std() > 4
    loaded = Image.open(path)
    loaded.load()
    others = [data, bytearray(data), io.BytesIO(data), Image.open(path), loaded, Image.open(io.BytesIO(data))]
    if "PGM" not in name:  # Pillow's copy no longer knows its format
        others.append(loaded.copy())
    for other in [*others, want, torch.from_numpy(want.copy()).permute(2, 0, 1)]:
        got = read_image(other)
        assert got.dtype == np.uint8 and got.shape == want.shape
        assert np.abs(got.astype(int) - want).max() <= (3 if "JPEG" in name else 1 if "TIFF" in name else 0)
    assert loaded.mode == Image.open(path).mode, "the user's image stays as it was"


def test_the_levels_of_a_12_bit_pgm_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5\n31 23\n4095\n" + (GREY.astype(np.uint16) * 16 + 15).astype(">u2").tobytes())
    assert np.abs(read_image(path)[..., 0].astype(int) - GREY).max() <= 1


def test_pictures_in_memory_that_have_no_range_or_are_broken(tmp_path: Path) -> None:
    """Floats and 32-bit numbers, a cut file, a bomb: what a path is refused for, a PIL image is, too."""
    for kind in (np.float32, np.int32):
        path = file(tmp_path / "a.tiff", Image.fromarray(GREY.astype(kind)))
        for picture in (path, path.read_bytes(), Image.open(path), Image.fromarray(GREY.astype(kind))):
            with pytest.raises(DataError):
                read_image(picture)
    with pytest.raises(DataError, match="a.tiff: cannot be made RGB: nobody knows the range of mode 'I'"):
        read_image(Image.open(path))
    path = file(tmp_path / "a.png", Image.fromarray(RGB))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="a.png: cannot be decoded"):
        read_image(Image.open(path))
    with pytest.raises(DataError, match="has 31 x 23 pixels, more than the limit of 700"):
        read_image(Image.fromarray(RGB), max_pixels=700)


@pytest.mark.parametrize(
    "picture",
    [
        *(PIXELS, GREY, RGB.astype(float), RGB.astype(np.uint16), RGB[:0], None),
        *(torch.zeros(8, 8, 3, dtype=torch.uint8), torch.zeros(3, 0, 8, dtype=torch.uint8)),
    ],
)
def test_arrays_of_which_nobody_knows_what_they_show_are_refused(picture) -> None:
    """Four channels may be RGBA or CMYK, one may be grey or numbers of a palette."""
    with pytest.raises(ValueError, match="is not a picture: give a file, by its path or open, its bytes"):
        read_image(picture)
