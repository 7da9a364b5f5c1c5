"""The tower: no import runs up and none goes round, by the table of rooms in docs/architecture.md."""

from __future__ import annotations

import ast
import re

import pytest
from places import ROOT

PACKAGE = ROOT / "ccakit"
TABLE = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs/architecture.md").read_text("utf-8"), re.M)
MOST_AT_THE_TOP = 12


def room_of(module: str) -> str:
    """The room of a module of the package: its folder, or the module itself at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def modules() -> dict[str, ast.Module]:
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("ccakit", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        found[name] = ast.parse(file.read_text("utf-8"))
    return found


MODULES = modules()


def imported(name: str, tree: ast.Module) -> set[str]:
    """The modules of the package that a module imports, anywhere in it."""
    package = name if (PACKAGE.parent / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = node.module if not node.level else ".".join(filter(None, (parent, node.module)))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
    return {module for module in found if module in MODULES} - {name}


IMPORTS = {name: imported(name, tree) for name, tree in MODULES.items()}


def test_every_room_is_in_the_table_and_none_is_twice():
    rooms = {room_of(name) for name in MODULES}
    assert len(TABLE) == len(set(TABLE)) and set(TABLE) == rooms


def test_there_are_few_modules_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("name", MODULES)
def test_no_import_runs_up(name):
    """A room may import those below it in the table, and itself."""
    place = TABLE.index(room_of(name))
    up = {other for other in IMPORTS[name] if TABLE.index(room_of(other)) < place}
    assert not up, f"{name} is below {', '.join(sorted(up))}"


def test_no_import_goes_round():
    """Each module can be put after all that it imports."""
    left = {name: set(found) for name, found in IMPORTS.items()}
    while free := [name for name, found in left.items() if not found & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"a circle among {', '.join(sorted(left))}"
