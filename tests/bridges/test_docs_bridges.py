"""docs/how-to/bridges.md is true: its snippets run, and the files and tests it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "how-to" / "bridges.md").read_text(encoding="utf-8")
SECTIONS = [
    re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for section in TEXT.split("\n## ")
]
"""The snippets of a section go on from each other."""
PROGRAMS = ["\n".join(snippets) for snippets in SECTIONS if snippets]


def test_there_are_snippets() -> None:
    assert sum(map(len, SECTIONS)) == 6


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_snippets_of_a_section_run(program: str) -> None:
    if "stable_baselines3" in program:
        pytest.importorskip("sb3_contrib", reason="needs the extra sb3")
    if "maporl_agents" in program:
        pytest.importorskip("torch", reason="needs the extra train")
    exec(
        compile(program, "docs/how-to/bridges.md", "exec", dont_inherit=True),
        {"__name__": "snippet"},
    )


def test_the_files_it_names_exist() -> None:
    named = set(re.findall(r"`((?:tests|examples|scripts)/[\w/*.]+)", TEXT))
    assert len(named) >= 7
    assert all(list(ROOT.glob(name)) for name in named)
