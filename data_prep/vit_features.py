"""Keeps the features of a frozen vision transformer after several of its blocks: `make vit-features`.

One pass of the trunk for all of them. For each block N of --read-blocks it keeps what comes out of the blocks
before N, which is what `ccakit train --freeze all --read-block N` wants of an image; with it, a run takes a
minute where the images alone would take many. Before it begins it times some images, and says how many
minutes and how much disk all of them will take. Run again, it computes only what is not there.

What is written: files in DATA/.features, float16, (1 + patches) x width numbers an image and a block.
Garments are drawn where DATA is data/garments and not there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import guarded
from vit_small import TRUNK

from ccakit.commands import demo
from ccakit.data.drawn import write_garments
from ccakit.data.inputs import ImageInputs, features_file, keep_depths
from ccakit.data.layout import read_dataset
from ccakit.data.split import SPLITS
from ccakit.data.transform import ImageTransform
from ccakit.models.registry import create_model

TIMED = 64  # images that are timed before the work begins


def estimate(models: list, splits: list[ImageInputs], folder: Path) -> str:
    """Time the first images of a split; say what the missing features of all will take."""
    missing = {}
    for inputs in splits:
        absent = [m for m in models if not features_file(m, inputs, folder).exists()]
        missing[inputs.split.name] = (len(inputs) if absent else 0, len(inputs) * len(absent))
    images, outputs = (sum(part) for part in zip(*missing.values()))
    if not images:
        return f"{folder} holds them all"
    deepest, some = max(models, key=lambda m: m.trunk.frozen), splits[0]
    count = min(TIMED, len(some))
    stem = deepest.trunk.folded().stem
    started = time.perf_counter()
    tokens = stem(some.load(range(count)))
    seconds = (time.perf_counter() - started) / count
    size = 2 * tokens[0].numel() * outputs / 2**30
    rate = f"{1 / seconds:.0f} images/s"
    return (
        f"{images:,} images at {rate}: about {images * seconds / 60:.0f} min and {size:.1f} GiB in {folder}"
    )


def main(argv: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=Path("data/garments"), help="the data set (%(default)s)")
    made.add_argument("--trunk", default=TRUNK, help="a timm vision transformer (%(default)s)")
    made.add_argument("--image-size", type=int, default=126, metavar="PIXELS", help="of a side (%(default)s)")
    made.add_argument("--read-blocks", type=int, nargs="+", default=[4, 6, 8, 9, 10, 12], metavar="N")
    made.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="(%(default)s)")
    made.add_argument("--no-pretrained", action="store_true", help="random weights, for tests")
    given = made.parse_args(argv)

    def work() -> None:
        if given.data == demo.Config.data:
            write_garments(given.data, demo.Config.train, demo.Config.valid, demo.Config.test)
        dataset = read_dataset(given.data, given.splits)
        recipe = dict(conditions=1, trunk=given.trunk, image_size=given.image_size, freeze="all")
        recipe["pretrained"] = not given.no_pretrained
        models = [create_model("tf-csn", read_block=block, **recipe) for block in given.read_blocks]
        transform = ImageTransform.from_timm(models[0].trunk.pretrained_cfg)
        splits = [ImageInputs(dataset[name], transform) for name in given.splits]
        folder = given.data / ".features"
        print(f"{given.trunk} at {given.image_size} px, before blocks {given.read_blocks}", flush=True)
        print(estimate(models, splits, folder), flush=True)
        started = time.perf_counter()
        for inputs in splits:
            keep_depths(models, inputs, folder)
            print(
                f"{inputs.split.name}: {len(inputs):,} images, {time.perf_counter() - started:.0f} s",
                flush=True,
            )

    guarded(work)


if __name__ == "__main__":
    main()
