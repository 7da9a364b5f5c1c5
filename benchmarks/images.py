"""Images: from a JPEG file of 512 pixels to what a model takes, against torchvision; and the share that loading takes.

    python -m benchmarks.images                 # about 2 minutes

Decoding, one thread a side, the same files (drawn garments of 512 x 512 with a photograph's grain, quality 90), each
side with timm's evaluation transform to 224 pixels (bicubic to 248, central crop, mean and std):

- ours: what `ImageInputs` does: `read_image` and `ImageTransform`;
- ImageFolder: torchvision's, with Pillow, and its transforms v1;
- torchvision v2: `torchvision.io.decode_image` and transforms v2, on tensors.

Largest and mean differences of the pixels are given in steps of 255 before mean and std; beyond 24 (what `read_image`
allows itself where it decodes at reduced size) or 2.5 in the mean, the sides do not agree. Floor: decoding alone, of
bytes in memory, by the faster of OpenCV and torchvision, as every pixel has to be decoded once (512 pixels are less
than twice the target, so that nothing can be left out). What is above it: resize by torch on uint8, mean and std on
float32, the file and its header (kind, size, EXIF). Where the floor is more than half of a peer's time, twice its speed
cannot be had with the same pixels.

Waiting: the share of the demo trunk's training time in which the loop waits for its batch, at the demo's settings
(kept features of the frozen CNN) and, for comparison, when images are read in each step and the whole trunk is trained.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.common import Row, agree, alternate, begin, options, report, use_threads

SIDE, QUALITY, LARGEST, MEAN = 512, 90, 24.0, 2.5


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """Drawn garments with grain whose power falls with frequency, as a photograph's."""
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
    """Largest and mean difference from each peer, in steps of 255; Disagreement where they are too large."""
    mine, found = torch.stack(ours(files)), {}
    for name, peer in PEERS.items():
        theirs = torch.stack(peer(files))
        largest = agree(f"pixels of ours and {name}", mine * 127.5, theirs * 127.5, LARGEST)
        mean = agree(f"mean pixel difference from {name}", (mine - theirs).abs().mean() * 127.5, 0.0, MEAN)
        found[name] = largest, mean
    return found


def decoding(given, folder: Path) -> list[Row]:
    use_threads(1)
    files = write_jpegs(folder, 8 if given.quick else 64)
    blobs = [np.fromfile(file, np.uint8) for file in files]
    differences = check(files)
    sides = {
        "ours": lambda: ours(files),
        "opencv": lambda: by_opencv(blobs),
        "decode": lambda: by_torchvision(blobs),
    }
    sides |= {name: partial(peer, files) for name, peer in PEERS.items()}
    times = alternate(sides, given.rounds)
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
            f"{count / times[name]:.0f} images/s; pixels differ by {largest:.1f} of 255 at most, by {mean:.2f} "
            f"in the mean; {times.spread(name, 'ours')}"
        )
        ratio, best = times.ratio(name, "ours"), times.ratio(name, floor)
        rows.append(Row(f"{name} / ours", ratio, "times its time", ">= 2", best, note))
    use_threads(given.threads)
    return rows


def waiting(given, folder: Path) -> list[Row]:
    """The loader's share of training time."""
    from ccakit.data.drawn import write_garments

    sizes = (64, 10, 10) if given.quick else (768, 10, 10)
    write_garments(folder / "data", *sizes, workers=1, progress=False)
    rows = []
    ways = {
        "demo's settings (kept features)": (dict(), "<= 0.05"),
        "images read in each step, all trained": (dict(freeze="none", cache=False), ""),
        "the same, a loader process": (dict(freeze="none", cache=False, workers=1), ""),
    }
    for name, (settings, limit) in ways.items():
        steps, batch = (2, 16) if given.quick else (12 if settings else 120, 64)
        share, rate = waits(folder, {**settings, "batch_size": batch}, steps)
        rows.append(
            Row(f"waiting for data: {name}", share, "of training time", limit, note=f"{rate:.0f} images/s")
        )
    return rows


def waits(folder: Path, settings: dict, count: int) -> tuple[float, float]:
    """The share of time spent waiting for batches over `count` steps (one more before), and images/s."""
    from ccakit.data.layout import read_dataset
    from ccakit.training.batches import Loader, Steps
    from ccakit.training.config import TrainConfig
    from ccakit.training.trainer import Trainer

    dataset = read_dataset(folder / "data")
    trainer = Trainer(TrainConfig(data=folder / "data", out=folder / "run", **settings), dataset, True)
    trainer.open_training()
    trainer.model.train()
    epochs = (Steps(trainer.objective, epoch, trainer.inputs) for epoch in range(100))
    loaders = (Loader(steps, 0, trainer.config.workers) for steps in epochs)
    loaded = (loader.next() for loader in loaders for _ in loader.steps.batches)
    trainer.step(*next(loaded))
    begun, waited, images = time.perf_counter(), 0.0, 0
    for _ in range(count):
        asked = time.perf_counter()
        inputs, extra = next(loaded)
        waited += time.perf_counter() - asked
        trainer.step(inputs, extra)
        images += len(inputs)
    seconds = time.perf_counter() - begun
    return waited / seconds, images / seconds


def main(argv: list[str] | None = None) -> dict:
    given = begin(options(__doc__), argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = decoding(given, Path(folder) / "jpegs") + waiting(given, Path(folder))
    return report("images", rows, given)


if __name__ == "__main__":
    main()
