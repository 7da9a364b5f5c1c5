"""The notebooks find the project from their own folder and from the repository's root."""

from __future__ import annotations

import json
import sys

import pytest
from places import ROOT

import ccakit
from ccakit.evaluation.run import project_folder
from ccakit.show import notebook

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BESIDE = (str(ROOT / "figures"), str(ROOT / "benchmarks"))  # which notebooks must find by themselves
LOCATE = ("import ", "project_folder", "home", "open_demo", "../")


class Found(Exception):
    """The notebook asks for the demo's run, and so has found all that lies beside it."""


def code_cells(file):
    for cell in json.loads(file.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"])


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks"], ids=["root", "own-folder"])
def test_notebooks_find_the_project_from_the_root_and_from_their_own_folder(folder, monkeypatch):
    def open_demo():
        assert project_folder() == ROOT
        raise Found

    monkeypatch.setattr(ccakit, "open_demo", open_demo)
    monkeypatch.setattr(notebook, "in_notebook", lambda: None)
    for file in NOTEBOOKS:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [path for path in sys.path if not in_project(path)])
        for name, module in list(sys.modules.items()):
            if found_at(module).startswith(BESIDE):
                monkeypatch.delitem(sys.modules, name)
        with pytest.raises(Found):
            run_cells(file)


def in_project(path: str) -> bool:
    """Tell whether an entry of sys.path is the working folder, or a folder of the project's own modules."""
    return path in ("", ".", str(ROOT), *BESIDE)


def found_at(module) -> str:
    return getattr(module, "__file__", None) or ""


def run_cells(file) -> None:
    """Run a notebook's cells that locate something, until one raises an error."""
    names = {"__name__": "__main__"}
    for source in code_cells(file):
        if any(word in source for word in LOCATE):
            exec(compile(source, file.name, "exec"), names)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_no_compared_cell_opens_the_demo(file):
    """Where the demo is not there yet, it prints its progress, once: text that nbval would compare."""
    cells = [source for source in code_cells(file) if "NBVAL_CHECK_OUTPUT" in source]
    assert cells and not any("open_demo(" in source for source in cells)
