"""docs/reference/environment.md is true: its snippets run, and its tables are complete."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from maporl_env import debate_v0
from maporl_env.answers import KINDS
from maporl_env.config import RENDER_MODES, DebateConfig
from maporl_env.protocols import PROTOCOLS
from maporl_env.tasks import TASKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "environment.md"
TEXT = PAGE.read_text(encoding="utf-8")
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def table_words(heading: str) -> set[str]:
    """The `code` words in the first column of the tables of a section."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return {word.strip('"') for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_the_snippets_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    snippets = list(SNIPPET.finditer(TEXT))
    assert len(snippets) >= 12
    names: dict[str, Any] = {"__name__": "snippets"}
    for snippet in snippets:
        line = TEXT.count("\n", 0, snippet.start(1))
        code = compile("\n" * line + snippet[1], str(PAGE), "exec", dont_inherit=True)
        exec(code, names)


def test_a_protocol_takes_about_thirty_lines() -> None:
    [ring] = [s[1] for s in SNIPPET.finditer(TEXT) if "class Ring" in s[1]]
    body = ring[ring.index("@dataclass") : ring.index("ring = debate_v0")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 32


def test_every_option_is_explained() -> None:
    assert table_words("Every option") == {field.name for field in fields(DebateConfig)}


def test_every_protocol_task_kind_and_render_mode_is_listed() -> None:
    assert table_words("Protocols") - {"protocol="} == set(PROTOCOLS)
    assert table_words("Tasks and splits") - {"task="} == set(TASKS)
    assert table_words("Rendering") - {"render_mode="} == set(RENDER_MODES)
    for kind in KINDS:
        assert f"`{kind}`" in TEXT


def test_the_infos_are_those_of_the_environment() -> None:
    env = debate_v0.parallel_env(observation="tokens", action="token", num_agents=2)
    _, infos = env.reset(seed=0)
    assert table_words("Infos") == set(infos["agent_0"])


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links
    assert set(links) <= anchors
