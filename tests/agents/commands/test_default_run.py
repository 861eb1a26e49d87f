"""A run with the usual settings loads nothing that only a part of all runs needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 without tomli")

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
LOGGERS = {"wandb", "trackio", "mlflow"}
NO_FEATURES = ("train", "dev", "docs", "render")  # Pillow comes with Matplotlib
PROGRAM = """
import sys
from maporl_agents.cli import main
try:
    main({words!r})
except SystemExit as stop:
    assert not stop.code
print("loaded:", *sorted({extras!r} & set(sys.modules)))
"""
SMALL = (
    "train --steps 1 --questions-per-step 2 --game.num-turns 1 --sampling.max-new-tokens 4 "
    "--eval.questions 2 --eval.validation-questions 2 --eval.no-greedy --team.device cpu --runs"
)


def of_extras() -> set[str]:
    """Return the modules that extras bring, besides those that every training needs."""
    extras: dict[str, Any] = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    wanted = extras["optional-dependencies"]
    named = {
        re.split(r"[\[<>=; ]", package)[0].replace("-", "_")
        for extra, packages in wanted.items()
        if extra not in NO_FEATURES
        for package in packages
    }
    brought = {re.split(r"[\[<>=; ]", package)[0] for package in wanted["train"]}
    return (named | LOGGERS) - brought


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_no_extra_is_loaded(tmp_path: Path) -> None:
    extras = of_extras()
    assert {"textarena", "math_verify", "gguf", "fastapi", "stable_baselines3"} <= extras
    program = PROGRAM.format(words=[*SMALL.split(), str(tmp_path)], extras=extras)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert [folder.name for folder in tmp_path.iterdir()] == ["maporl-shopping"]
