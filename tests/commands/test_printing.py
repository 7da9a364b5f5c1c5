"""What is computed is written before it is printed, and no terminal's encoding can end a command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from ccakit.cli import main

NAME = "Ärmel 色 कखग"


@pytest.fixture(scope="module")
def garments(draw):
    """Garments of which one attribute has letters of three scripts."""
    root = draw(40, 16, 16)
    text = (root / "meta.json").read_text("utf-8")
    (root / "meta.json").write_text(text.replace("neck_design", NAME), "utf-8")
    return root


@pytest.fixture(scope="module")
def run(garments, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    small = ["--image-size", "32", "--lite-width", "32", "--lite-heads", "2", "--batch-size", "8"]
    flags = ["--data", str(garments), "--out", str(out), *small, "--budget", "steps=2"]
    assert main(["train", *flags]) == 0
    return out


class Gone(io.StringIO):
    """A terminal that is gone, a pipe whose reader has ended, a full disk."""

    def write(self, text: str) -> int:
        raise OSError(32, "Broken pipe")


def commands(run, garments, out):
    """Each command that computes and prints, and the file that must be there afterwards."""
    return {
        "evaluate": (["evaluate", "--run", run, "--out", out / "m.json"], out / "m.json"),
        "embed": (["embed", "--run", run, "--out", out / "e.safetensors"], out / "e.safetensors"),
        "audit": (["audit", garments, "--plot", out / "audit.png"], out / "audit.png"),
        "export": (["export", "--run", run, "--out", out / "model"], out / "model/README.md"),
    }


@pytest.mark.parametrize("name", ["evaluate", "embed", "audit", "export"])
def test_results_are_on_disk_where_printing_fails(run, garments, tmp_path, monkeypatch, capsys, name):
    argv, file = commands(run, garments, tmp_path)[name]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Gone())
        assert main(list(map(str, argv))) == 1
    assert file.is_file()
    assert capsys.readouterr().err.splitlines()[-1] == f"ccakit {name}: [Errno 32] Broken pipe"


@pytest.mark.parametrize(
    "name,encoding",
    [
        ("evaluate", "gbk"),
        ("evaluate", "latin-1"),
        ("evaluate", "ascii"),
        ("evaluate", "utf-8"),
        ("audit", "gbk"),
    ],
)
def test_letters_that_the_terminal_lacks_are_printed_as_numbers(
    run, garments, tmp_path, monkeypatch, name, encoding
):
    argv, file = commands(run, garments, tmp_path)[name]
    argv = ["audit", garments, "--no-images"] if name == "audit" else argv
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        assert main([*map(str, argv), "--json"]) == 0
        terminal.flush()
    printed = terminal.buffer.getvalue().decode(encoding)
    assert NAME.encode(encoding, "backslashreplace").decode(encoding) in printed
    result = json.loads(printed.splitlines()[-1])
    if name == "evaluate":
        assert NAME in result["map_per_attribute"] and json.loads(file.read_text("utf-8")) == result


@pytest.mark.parametrize("word", ["größe", "色", b"\xff"])
def test_an_error_names_a_file_in_any_encoding(word):
    """As a process of its own, as the streams are the terminal's: letters, and bytes that are no letters."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "ccakit", "random", "--data", word]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 1 and done.stderr.startswith(b"ccakit random: ")
    assert len(done.stderr.splitlines()) == 1
