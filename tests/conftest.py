"""What all tests share: one thread, seeds, drawn garments, and ASEN's split files."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

from places import ROOT

# Before torch is imported, and for every process that a test starts: one thread, and the same imports.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
PATHS = [str(ROOT), str(ROOT / "tests/support"), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(PATHS)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from built_once import built_once  # noqa: E402

torch.set_num_threads(1)
cv2.setNumThreads(1)
timm.create_model = built_once(timm.create_model)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == 1, f"{left} threads are left to the tests after this one: their runs get other last digits"


@pytest.fixture(scope="session")
def draw(tmp_path_factory):
    """draw(train, valid, test): a new folder with so many garments, drawn at 64 pixels."""
    from ccakit.data.drawn import write_garments

    @cache
    def first(*counts: int, **options) -> Path:
        root = tmp_path_factory.mktemp("drawn") / "garments"
        write_garments(root, *counts, size=64, workers=1, progress=False, **options)
        return root

    def drawn(*counts: int, name: str = "garments", **options) -> Path:
        return shutil.copytree(first(*counts, **options), tmp_path_factory.mktemp("data") / name)

    return drawn


@pytest.fixture(scope="module")
def browser():
    """A headless browser; the test is skipped where there is none."""
    from in_browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def splits() -> Path:
    """The folder of ASEN's split files, which are not part of this repository."""
    folder = Path(os.environ.get("CCAKIT_SPLITS", ROOT.parent / "shared" / "splits"))
    if not folder.is_dir():
        pytest.skip(f"ASEN's split files are not at {folder}; set CCAKIT_SPLITS to run this test")
    return folder
