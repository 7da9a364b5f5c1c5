"""Draws the default data, garments, with all labels, one label an image, or rare labels.

What is drawn: figures that wear FashionAI's eight attributes and 54 values, with FashionAI's frequencies, and
the region of each attribute. `ccakit demo` draws the same pictures, with all labels.

The labels (--labels):
  all   every attribute that a picture shows
  one   one attribute an image, as in FashionAI
  rare  the pictures of `all`; in train, sleeve length is labelled as there, and the others on few of the
        images: skirt length on 24%, coat length 20%, pant length 10%, collar 5%, lapel 4%, neckline 3%, neck
        design 2%, the images drawn by --seed. Valid and test keep all labels.

What is written: the images under OUT, the lists, triplets_test.txt (10,000 triplets of each attribute) and
meta.json. Run again, it draws nothing; a folder of other data is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import guarded

from ccakit.data.drawn import LABELS, write_garments
from ccakit.data.layout import read_dataset


def main(argv: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help="folder to write, e.g. data/garments_rare")
    made.add_argument("--labels", choices=LABELS, default="all", help="see above (%(default)s)")
    for name, n in (("train", 6_000), ("valid", 1_000), ("test", 2_500)):
        made.add_argument(f"--{name}", type=int, default=n, metavar="N", help="images of it (%(default)s)")
    made.add_argument("--size", type=int, default=128, metavar="PIXELS", help="of a side (%(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of pictures and labels (%(default)s)")
    given = made.parse_args(argv)
    counts = (given.train, given.valid, given.test)
    options = dict(size=given.size, seed=given.seed, labels=given.labels)

    def work() -> None:
        write_garments(given.out, *counts, **options)
        train = read_dataset(given.out, ["train"])["train"]
        print(f"{given.out}: {', '.join(map(str, counts))} images of train, valid, test; labelled in train:")
        labelled = (train.label_matrix() >= 0).mean(axis=0)
        for name, share in zip(train.attributes.names, labelled):
            print(f"  {100 * share:5.1f}%  {name}")

    guarded(work)


if __name__ == "__main__":
    main()
