"""The face: `import ccakit` gives nine names, costs nothing, and reads well."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import ccakit

# What `import ccakit` adds: modules from outside, changed environment variables, seconds of a
# processor.
COST = """
import os, sys, time
before, environment, started = {*sys.modules}, dict(os.environ), time.process_time()
import ccakit
seconds = time.process_time() - started
added = {name.partition(".")[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names} - {"ccakit"}
print(seconds, sorted(added), environment == dict(os.environ))
"""


def test_importing_ccakit_loads_and_changes_nothing():
    done = subprocess.run([sys.executable, "-c", COST], capture_output=True, text=True, check=True)
    seconds, rest = done.stdout.strip().split(" ", 1)
    assert rest == "[] True" and float(seconds) < 0.05


@pytest.mark.parametrize("name", ccakit.__all__)
def test_every_name_of_the_face_is_there_and_explained(name):
    assert name in dir(ccakit) and inspect.getdoc(getattr(ccakit, name))
    assert f"ccakit.{name}(" in (ccakit.__doc__ or "")


def test_another_name_is_an_error_that_lists_those_that_exist():
    with pytest.raises(AttributeError, match="no attribute 'trian'; it has: create_model, evaluate, .*train"):
        ccakit.trian  # noqa: B018
