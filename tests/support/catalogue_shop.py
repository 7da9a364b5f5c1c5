"""A small shop: pictures, a table of them, a small model, and how its catalogue is filled."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from saved_models import saved_model

import ccakit
from ccakit.catalogue import index
from ccakit.catalogue.items import items_of_table
from ccakit.catalogue.store import open_table
from ccakit.errors import DataError
from ccakit.models.saved import save_model

COUNT = 24
HEADER = "file,price,brand,tone,Unit Weight\n"


def picture(number: int) -> Image.Image:
    """A picture of 40 x 40 pixels that no other number has."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3)).astype(np.uint8))


def rows_of(folder: Path) -> dict[str, dict]:
    """Read all rows of the shop's catalogue, by id."""
    table, _ = open_table(str(folder / "catalogue"))
    return {each["id"]: each for each in table.to_arrow().to_pylist()}


def row(number: int) -> str:
    """The table's line of a picture."""
    tone, brand = ("dark", "light", "")[number % 3], "acme" if number % 2 else "x"
    return f"pic {number:02d}.png,{10 + number}.5,{brand},{tone},{number}\n"


def make_shop(folder: Path) -> None:
    torch.manual_seed(0)
    save_model(folder / "run", saved_model())
    (folder / "photos").mkdir()
    for number in range(COUNT):
        picture(number).save(folder / "photos" / f"pic {number:02d}.png")
    (folder / "shop.csv").write_text(HEADER + "".join(map(row, range(COUNT))), encoding="utf-8")


def fill_shop(folder: Path, **options) -> index.Report:
    """Fill folder/"catalogue" with the shop's table, in batches of 4, two in a commit."""
    items = items_of_table(folder / "shop.csv", folder / "photos")
    options = {"batch_size": 4, "commit": 8, **options}
    return index.fill(
        str(folder / "catalogue"), ccakit.load(folder / "run"), str(folder / "run"), items, **options
    )


# --- what a process of its own does


def fill_alone(folder: str, options: str = "{}") -> None:
    """Fill the shop's catalogue, in one of several processes or alone."""
    fill_shop(Path(folder), **json.loads(options))


def fill_and_die(folder: str, point: str) -> None:
    """Fill the shop's catalogue, and be killed at a point: KIND NUMBER [MILLISECONDS].

    embed 3: before the fourth batch is embedded. before 1: before the second commit; after 1: after it.
    during 1 5: five milliseconds after the second commit has begun.
    """
    kind, number, *delay = point.split()
    calls = {"embed": 0, "merge": 0}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def embed(self, batch):
        if kind == "embed" and calls["embed"] == int(number):
            die()
        calls["embed"] += 1
        return real_embed(self, batch)

    def merge(*given, **options):
        now = calls["merge"] == int(number)
        calls["merge"] += 1
        if now and kind == "before":
            die()
        if now and kind == "during":
            threading.Timer(int(delay[0]) / 1000, die).start()
        real_merge(*given, **options)
        if now and kind in ("after", "during"):
            die()

    real_embed, real_merge = index.Filling._embed, index.merge
    index.Filling._embed, index.merge = embed, merge
    fill_shop(Path(folder))


def fill_on_a_full_disk(folder: str) -> None:
    """Fill the shop's catalogue where no file can grow beyond 2,000 bytes, and print the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        fill_shop(Path(folder))
    except DataError as error:
        print(error, flush=True)
