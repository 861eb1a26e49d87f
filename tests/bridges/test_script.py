"""scripts/test_bridges.sh: a library that does not import fails its job, not passes by skips."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    *("plain", "sb3", "torchrl", "supersuit", "tianshou"),
    *("rllib", "benchmarl", "agilerl", "reasoning", "textarena", "openenv", "verifiers"),
    *("mutual", "overcooked", "boxes", "loggers", "modelco", "trl"),
)
FAKE = """#!/usr/bin/env bash
# An interpreter whose environments can do all but import what is named in $MISSING.
echo "$*" >>"$CALLS"
if [[ $1 == -m && $2 == venv ]]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
[[ $1 != -c || -z $MISSING || $2 != *$MISSING* ]]
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(FAKE)
    path.chmod(0o755)
    return path


def run(python: Path, library: str, missing: str) -> tuple[int, str, list[str]]:
    """Return the exit status, the errors, and the calls of the interpreter."""
    calls = python.parent / "calls"
    calls.write_text("")
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "test_bridges.sh"), library],
        env={**os.environ, "PYTHON": str(python), "CALLS": str(calls), "MISSING": missing},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr, calls.read_text().splitlines()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_before_its_tests(python: Path, library: str) -> None:
    status, _, calls = run(python, library, missing="")
    assert status == 0
    [(imports, what)] = [(n, call) for n, call in enumerate(calls) if call.startswith("-c import ")]
    assert "-m pytest" in calls[imports + 1]
    assert calls[imports - 1].startswith("-m pip install")
    module = what.removeprefix("-c import ").split(",")[0]
    assert module.split(".")[0] in {
        *("maporl_agents", "stable_baselines3", "ray", "reasoning_gym", "trackio"),
        library,
        *(["model_collaboration"] if library == "modelco" else []),
    }


def test_modelco_comes_last_and_without_the_torch_that_it_pins(python: Path) -> None:
    *_, last, imports, tests = run(python, "modelco", missing="")[2]
    assert last == "-m pip install -q --no-deps modelco==1.1.2"
    assert imports.startswith("-c import")
    assert "tests/bridges/test_modelco.py" in tests


def test_a_library_that_does_not_import_fails(python: Path) -> None:
    status, error, calls = run(python, "sb3", missing="sb3_contrib")
    assert status == 1
    assert error == "failed: sb3\n"
    assert not any("-m pytest" in call for call in calls)


def test_an_unknown_library_is_named(python: Path) -> None:
    status, error, calls = run(python, "sb4", missing="")
    assert status == 2
    assert "unknown library 'sb4': choose of plain sb3" in error
    assert not calls
