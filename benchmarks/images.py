"""Images: from a JPEG file of 512 pixels to a model's input, against torchvision; and the share of loading.

    python -m benchmarks.images                 # about 2 minutes

Decoding, one thread for each side, the same files (drawn garments of 512 x 512 with the grain of a
photograph, quality 90), each side with timm's evaluation transform to 224 pixels (bicubic to 248, central
crop, mean and std):

- ours: `read_image` and `ImageTransform`, as in `ImageInputs`;
- ImageFolder: torchvision's, with Pillow, and its transforms v1;
- torchvision v2: `torchvision.io.decode_image` and transforms v2, on tensors.

The differences of the pixels, largest and mean, are in steps of 255 before mean and std. The sides do not
agree beyond 24 (which `read_image` allows where it decodes at reduced size), or beyond 2.5 in the mean.
Floor: decoding alone, of bytes in memory, by the faster of OpenCV and torchvision. Every pixel has to be
decoded once: 512 pixels are less than twice the target, so that nothing can be left out. The time above it:
resize by torch on uint8, mean and std on float32, the file and its header (kind, size, EXIF). Where the floor
is more than half of a peer's time, nothing can be twice as fast with the same pixels.

Waiting: the share of training time in which the loop waits for its batch, at the settings of the demo (kept
features of the frozen CNN) and, for comparison, where each step reads images and trains the whole trunk.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.common import Row, agree, alternate, begin, make_parser, ready_trainer, report, use_threads

CLAIMS = {
    "ImageFolder / ours": ">= 2",
    "torchvision v2 / ours": ">= 2",
    "waiting for data: demo's settings (kept features)": "<= 0.05",
}
SIDE, QUALITY, LARGEST, MEAN = 512, 90, 24.0, 2.5


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """Write drawn garments with grain whose power falls with frequency, as that of a photograph does."""
    from ccakit.garments.draw import draw_garment

    files = []
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)) + 1 / SIDE
    for index in range(count):
        rng = np.random.default_rng(index)
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        grain = np.fft.irfft2(phase / frequency, s=(SIDE, SIDE))
        image = draw_garment(index, SIDE).image + 12 * (grain / grain.std())[..., None]
        files.append(folder / "all" / f"{index:04d}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(str(files[-1]), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return files


def ours(files: list[Path]) -> list[torch.Tensor]:
    from ccakit.data.images import read_image
    from ccakit.data.transform import ImageTransform

    transform = ImageTransform()
    return [transform(read_image(file, at_least=transform.at_least)) for file in files]


def image_folder(files: list[Path]) -> list[torch.Tensor]:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [
        transforms.Resize(248, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    folder = ImageFolder(files[0].parent.parent, transforms.Compose(steps))
    return [folder[index][0] for index in range(len(files))]


def torchvision_v2(files: list[Path]) -> list[torch.Tensor]:
    from torchvision.io import decode_image
    from torchvision.transforms import InterpolationMode, v2

    transform = v2.Compose(
        [
            v2.Resize(248, InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    return [transform(decode_image(str(file), mode="RGB")) for file in files]


def by_opencv(blobs: list[np.ndarray]) -> None:
    for blob in blobs:
        cv2.imdecode(blob, cv2.IMREAD_COLOR)


def by_torchvision(blobs: list[np.ndarray]) -> None:
    from torchvision.io import decode_jpeg

    for blob in blobs:
        decode_jpeg(torch.from_numpy(blob))


PEERS = {"ImageFolder": image_folder, "torchvision v2": torchvision_v2}


def check(files: list[Path]) -> dict[str, tuple[float, float]]:
    """Give the largest and the mean difference from each peer, in steps of 255; Disagreement if too large."""
    mine, found = torch.stack(ours(files)), {}
    for name, peer in PEERS.items():
        theirs = torch.stack(peer(files))
        largest = agree(f"pixels of ours and {name}", mine * 127.5, theirs * 127.5, LARGEST)
        mean = agree(f"mean pixel difference from {name}", (mine - theirs).abs().mean() * 127.5, 0.0, MEAN)
        found[name] = largest, mean
    return found


def decoding(options, folder: Path) -> list[Row]:
    """Measure ours and the peers, from files to inputs."""
    use_threads(1)
    files = write_jpegs(folder, 8 if options.quick else 64)
    blobs = [np.fromfile(file, np.uint8) for file in files]
    differences = check(files)
    sides = {
        "ours": lambda: ours(files),
        "opencv": lambda: by_opencv(blobs),
        "decode": lambda: by_torchvision(blobs),
    }
    sides |= {name: partial(peer, files) for name, peer in PEERS.items()}
    times = alternate(sides, options.rounds)
    size = np.mean([len(blob) for blob in blobs]) / 1024
    floor, count = min(("opencv", "decode"), key=lambda side: times[side]), len(files)
    note = (
        f"decoding alone: OpenCV {count / times['opencv']:.0f}, torchvision {count / times['decode']:.0f}; "
        f"files of {size:.0f} KiB"
    )
    rows = [Row("ours", count / times["ours"], "images/s a core", floor=count / times[floor], note=note)]
    for name in PEERS:
        largest, mean = differences[name]
        note = (
            f"{count / times[name]:.0f} images/s; pixels differ by {largest:.1f} of 255 at most, "
            f"by {mean:.2f} in the mean; {times.spread(name, 'ours')}"
        )
        ratio, best = times.ratio(name, "ours"), times.ratio(name, floor)
        rows.append(Row(f"{name} / ours", ratio, "times its time", floor=best, note=note))
    use_threads(options.threads)
    return rows


def waiting(options, folder: Path) -> list[Row]:
    """Measure the share of training time that the loop waits for its batches."""
    from ccakit.data.drawn import write_garments

    sizes = (64, 10, 10) if options.quick else (768, 10, 10)
    write_garments(folder / "data", *sizes, workers=1, progress=False)
    rows = []
    ways = {
        "demo's settings (kept features)": {},
        "images read in each step, all trained": dict(freeze="none", cache=False),
        "the same, a loader process": dict(freeze="none", cache=False, workers=1),
    }
    for name, settings in ways.items():
        steps, batch = (2, 16) if options.quick else (12 if settings else 120, 64)
        share, rate = waits(folder, {**settings, "batch_size": batch}, steps)
        rows.append(Row(f"waiting for data: {name}", share, "of training time", note=f"{rate:.0f} images/s"))
    return rows


def waits(folder: Path, settings: dict, count: int) -> tuple[float, float]:
    """Run `count` steps after a first one: the share of time spent waiting for batches, and images/s."""
    from ccakit.training.batches import Loader, Steps

    trainer = ready_trainer(folder, **settings)
    epochs = (Steps(trainer.objective, epoch, trainer.inputs) for epoch in range(100))
    loaders = (Loader(steps, 0, trainer.config.workers) for steps in epochs)
    loaded = (loader.next() for loader in loaders for _ in loader.steps.batches)
    trainer.step(*next(loaded))
    started, waited, images = time.perf_counter(), 0.0, 0
    for _ in range(count):
        asked = time.perf_counter()
        inputs, extra = next(loaded)
        waited += time.perf_counter() - asked
        trainer.step(inputs, extra)
        images += len(inputs)
    seconds = time.perf_counter() - started
    return waited / seconds, images / seconds


def main(argv: list[str] | None = None) -> dict:
    options = begin(make_parser(__doc__), argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = decoding(options, Path(folder) / "jpegs") + waiting(options, Path(folder))
    return report("images", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
