"""docs/tutorial/first-hour.md is true: its commands and programs run, in the order of the page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from maporl_agents.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "first-hour.md"
AFTER_INSTALLATION = PAGE.read_text(encoding="utf-8").split("## 2. ")[1]
STEP = re.compile(r"```python\n(?P<program>.*?)^```|^    (?P<command>maporl [^\n]*)", re.M | re.S)
SMALL = {
    "train": ["--steps=1", "--questions-per-step=2", "--eval.questions=4"],
    "eval": ["--limit=4"],
}
"""Appended to the commands of the page, so that each takes seconds: a later flag replaces one."""


def run_command(line: str) -> None:
    words = line.split()[1:]
    with pytest.raises(SystemExit) as stop:
        main([*words, *SMALL.get(words[0], [])])
    assert not stop.value.code, line


def run_program(program: str) -> None:
    """Save a block that begins with a file's name; run any other."""
    named = re.match(r"# (\w+\.py)\n", program)
    if named:
        Path(named[1]).write_text(program, encoding="utf-8")
    else:
        exec(compile(program, str(PAGE), "exec", dont_inherit=True), {"__name__": "program"})


@pytest.mark.thorough  # three trainings and four measurements: 20 core-seconds
def test_everything_after_the_installation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rewards", raising=False)
    done = []
    for step in STEP.finditer(AFTER_INSTALLATION):
        if step["command"]:
            run_command(step["command"])
            done.append(step["command"].split()[1])
        else:
            run_program(step["program"])
            done.append("program")
    out = capsys.readouterr().out
    first = ["program", "play", "train", "report", "play", "eval", "program"]
    assert done == [*first, "program", "train", "report", "program"]
    assert "{'agent_0': " in out
    runs = {"first": "report.html", "modest": "report.html", "own-task": "results.json"}
    assert all((tmp_path / "runs" / name / file).is_file() for name, file in runs.items())
