"""The wheel works outside the repository: it holds every file that ccakit reads, and the demo runs from
it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from places import ROOT

pytestmark = pytest.mark.slow
NOT_PACKAGED = {"__pycache__"}


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the sources: setuptools leaves its build folder where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "ccakit", source / "ccakit", ignore=shutil.ignore_patterns(*NOT_PACKAGED))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    (built,) = folder.glob("ccakit-*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel):
    wanted = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "ccakit").rglob("*")
        if file.is_file() and not NOT_PACKAGED & {*file.parts}
    }
    assert {"ccakit/py.typed", "ccakit/audit/paper.json", "ccakit/hub/model_card.md.jinja"} <= wanted
    assert {name for name in ZipFile(wheel).namelist() if name.startswith("ccakit/")} == wanted


def test_the_demo_runs_from_the_wheel(wheel, tmp_path):
    target, empty = tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(target))
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True)
        assert not done.returncode, done.stderr[-2000:]
        return done.stdout

    where = run(sys.executable, "-c", "import ccakit; print(ccakit.__file__)").strip()
    assert where == str(target / "ccakit/__init__.py")
    run(sys.executable, str(target / "bin/ccakit"), "demo", "--preset", "smoke")
    metrics = json.loads((empty / "runs/smoke/metrics.json").read_text())
    assert metrics["map_weighted"] > metrics["random_map_weighted"]
    run(sys.executable, str(target / "bin/ccakit"), "export", "--run", "runs/smoke", "--out", "exported")
    assert "Drawn by ccakit" in (empty / "exported/README.md").read_text()
