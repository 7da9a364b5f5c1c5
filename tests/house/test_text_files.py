"""Text files are UTF-8 on every machine: no file is read or written in the machine's own encoding."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

FOLDERS = ("ccakit", "data_prep", "figures", "benchmarks")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
AT = {"read_text": 0, "write_text": 1, "open": 1}  # where the encoding (of open: the mode) stands


def without_encoding(source: str) -> list[int]:
    """The lines of a source that read or write text and name no encoding; ruff sees only typed paths.

    >>> without_encoding("a.read_text()\\na.read_text('utf-8')\\nopen(a)\\nopen(a, 'rb')\\nread_text(a, b)")
    [1, 3]
    """
    lines = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
            continue
        method = isinstance(call.func, ast.Attribute) and call.func.attr in ("read_text", "write_text")
        plain = isinstance(call.func, ast.Name) and call.func.id == "open"
        if method and len(call.args) <= AT[call.func.attr]:
            lines.append(call.lineno)
        elif plain:
            mode = call.args[1].value if len(call.args) > 1 else "r"
            lines += [call.lineno] if "b" not in mode else []
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_file_is_opened_with_its_encoding(path: Path) -> None:
    assert without_encoding(path.read_text("utf-8")) == []


def test_the_log_of_a_run_is_utf8(tmp_path: Path) -> None:
    from ccakit.training.reporting import Reporter

    reporter = Reporter(tmp_path, quiet=True)
    assert reporter.handlers[0].encoding == "utf-8"
    reporter.close()


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "ascii"])
def test_data_are_prepared_under_another_encoding(tmp_path: Path, encoding: str) -> None:
    """A table in UTF-8, whose columns and values the machine's own encoding does not have."""
    images, rows = tmp_path / "Bilder", ["Datei,größe,色"]
    images.mkdir()
    for i in range(60):
        (images / f"{i}.png").write_bytes(b"%d" % i)
        rows.append(f"{i}.png,{'naïve' if i % 2 else 'कखग'},{'红色' if i % 3 else 'Ärmel'}")
    (tmp_path / "t.csv").write_text("\n".join([*rows, "0.png,NA,"]), "utf-8")
    command = [sys.executable, ROOT / "data_prep/table.py", "--table", tmp_path / "t.csv"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    environment |= {"PYTHONCOERCECLOCALE": "0", "PYTHONWARNINGS": "error::EncodingWarning"}
    command[1:1] = ["-X", "warn_default_encoding"]
    done = subprocess.run(
        [*command, "--images", images, "--out", tmp_path / "out"], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"wrote " in done.stdout and b"1 cell taken for gaps: 1 'NA'" in done.stdout
    assert "कखग" in (tmp_path / "out/meta.json").read_text("utf-8")
