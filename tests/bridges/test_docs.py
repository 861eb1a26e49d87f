"""docs/bridges.md is true: its snippets run, and the files and tests it names are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "bridges.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 6


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the snippets of the page have defined so far; they go on from each other."""
    return {"__name__": "snippet"}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet: str, names: dict[str, Any]) -> None:
    if "sb3_contrib" in snippet or "stable_baselines3" in snippet:
        pytest.importorskip("sb3_contrib", reason="needs the extra sb3")
    if "maporl_agents" in snippet:
        pytest.importorskip("torch", reason="needs the extra train")
    exec(compile(snippet, "docs/bridges.md", "exec", dont_inherit=True), names)


def test_the_files_it_names_exist() -> None:
    named = set(re.findall(r"`((?:tests|examples|scripts)/[\w/*.]+)", TEXT))
    assert len(named) >= 7
    assert all(list(ROOT.glob(name)) for name in named)
