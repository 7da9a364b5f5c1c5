"""Images: every kind of file to RGB, broken ones to an error, and the transform against timm's own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ccakit.data.errors import DataError
from ccakit.data.images import ImageTransform, image_size, read_image

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


def test_names_that_are_not_ascii_and_a_size(tmp_path: Path) -> None:
    path = file(tmp_path / "été 図 .png", Image.fromarray(RGB))
    assert np.array_equal(read_image(str(path)), RGB)
    assert read_image(path, (10, 12)).shape == (10, 12, 3)
    flat = file(tmp_path / "flat.png", Image.new("RGB", (8, 6), (10, 20, 30)))
    assert (read_image(flat, (40, 3)) == [10, 20, 30]).all()


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
    """A picture whose columns count from left to right: the crop's first and last column tell where it lies."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, 0).repeat(3, 2)
    transform = ImageTransform((50, 50), (0, 0, 0), (1, 1, 1), "bilinear", 0.5)
    x0, y0, x1, y1 = transform.view(100, 200)
    seen = 255 * transform(ramp)[0, 0]
    assert (x0, x1) == pytest.approx(((seen[0].item()) / 200, (seen[-1].item() + 1) / 200), abs=0.005)
    assert (y0, y1) == (0.25, 0.75)
