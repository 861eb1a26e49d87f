"""Tests of the old import paths: they give the module that has moved, with a warning."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

from maporl_env import moved_modules


def test_an_old_path_gives_the_moved_module_and_says_where_it_is() -> None:
    from maporl_env.verifiers import programs

    spec = programs.__spec__
    sys.modules.pop("maporl_env.code_tests", None)
    with pytest.warns(DeprecationWarning, match="code_tests has moved to maporl_env.verifiers"):
        old = importlib.import_module("maporl_env.code_tests")
    assert old is programs
    assert programs.__spec__ is spec


def test_every_old_path_leads_to_a_module_that_is_there() -> None:
    [paths] = [
        finder.paths
        for finder in sys.meta_path
        if isinstance(finder, moved_modules._Moved) and "maporl_env.web" in finder.paths
    ]
    gone = [new for new in paths.values() if importlib.util.find_spec(new) is None]
    assert gone == []


def test_a_path_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("maporl_env.no_such_module")


def test_importing_the_package_makes_no_old_path() -> None:
    code = "import sys, maporl_env; print('maporl_env.remote' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
