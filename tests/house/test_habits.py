"""What people meet at the root: the checks before a commit, and the issue forms."""

from __future__ import annotations

import re

import pytest
import yaml
from places import ROOT

FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
HOOKS = {
    hook["id"]: {**hook, "rev": source.get("rev")}
    for source in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    for hook in source["hooks"]
}


def test_commits_are_checked_by_the_ruff_of_the_project():
    pinned = re.search(r'"ruff==([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))[1]
    assert HOOKS["ruff-check"]["rev"] == HOOKS["ruff-format"]["rev"] == f"v{pinned}"


def test_widget_state_in_a_notebook_is_found_before_a_commit():
    hook = HOOKS["no-widget-state"]
    assert hook["language"] == "pygrep" and re.search(hook["files"], "notebooks/07_the_switcher.ipynb")
    state = '"metadata": {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}'
    assert re.search(hook["entry"], state)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert not re.search(hook["entry"], notebook.read_text("utf-8")), notebook.name


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_complete_and_names_files_that_exist(path):
    text = path.read_text("utf-8")
    form = yaml.safe_load(text)
    assert form["name"] and form["description"] and form["body"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) and all(field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])
    for file in re.findall(r"\b(?:ccakit|docs|data_prep)/[\w/]+\.\w+", text):
        assert (ROOT / file).is_file(), file


def test_there_is_a_form_for_faults_the_paper_and_data():
    assert [path.stem for path in FORMS] == ["bug_report", "new_data_set", "paper_question"]
