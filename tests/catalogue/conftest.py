"""The shop's catalogue, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from catalogue_shop import fill_shop, make_shop
from made_once import made_once


def _make_filled(folder: Path) -> None:
    make_shop(folder)
    fill_shop(folder)


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> Path:
    """A folder with photos, shop.csv, run and catalogue; tests only read it."""
    return made_once(tmp_path_factory, "shop", _make_filled)


@pytest.fixture
def shop(filled, tmp_path) -> Path:
    """A copy of the shop, whose catalogue knows its own photos and run."""
    folder = tmp_path / "shop"
    shutil.copytree(filled, folder)
    fill_shop(folder)
    return folder
