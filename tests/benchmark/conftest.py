"""The data of the benchmark's tests, and a benchmark that is run once for all that only read it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_once import made_once
from small_benchmarks import MODELS, watch_training

from ccakit.cli import main
from ccakit.data.drawn import write_garments


@pytest.fixture(scope="session")
def garments(tmp_path_factory) -> Path:
    def make(folder: Path) -> None:
        write_garments(folder / "garments", 64, 20, 30, size=64, progress=False)

    return made_once(tmp_path_factory, "benchmark_data", make) / "garments"


@pytest.fixture(scope="session")
def finished(garments, tmp_path_factory) -> Path:
    """The folder of a benchmark by the command line, its speeds measured."""

    def make(folder: Path) -> None:
        flags = {"data": garments, "out": folder / "out", "models": ",".join(MODELS), "seeds": "0,1"}
        flags |= {"budget": "epochs=1", "image-size": 64, "batch-size": 16, "lr": 3e-3}
        words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
        assert main(["benchmark", *words, "--json"]) == 0

    return made_once(tmp_path_factory, "benchmark_finished", make) / "out"


@pytest.fixture()
def folder(finished, tmp_path) -> Path:
    """A copy of the finished benchmark's folder, to continue from."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture()
def trained(monkeypatch) -> list[tuple]:
    """Which (mode, model, seed) a test trains, in order."""
    return watch_training(monkeypatch)
