"""The README is true: its programs run, its commands can be typed, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (maporl [^|\n]*?)(?: +#.*)?$", README, re.MULTILINE)


def test_the_program_prints_what_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"```python\n([^`]*)```\n\n((?:    [^\n]*\n)+)", README)
    [(program, output)] = shown
    exec(compile(program, "README.md", "exec"), {})
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed == [line[4:] for line in output.splitlines()]


@pytest.mark.parametrize("line", [line for line in COMMANDS if "--resume" not in line])
def test_the_commands_can_be_typed(line: str) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    from maporl_agents.cli import _command

    assert README.index("source .venv/bin/activate") < README.index(f"    {line}")
    assert _command(line.split()[1:]) is not None


@pytest.mark.thorough
@pytest.mark.timeout(600)  # on a machine that others use too
def test_the_example_of_training_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    from maporl_agents.training import experiment

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "share_cores", lambda num_bases: None)
    blocks = [part.partition("```")[0] for part in README.split("```python\n")[1:]]
    [block] = [block for block in blocks if "maporl_agents.train" in block]
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    exec(compile(block, "README.md", "exec", dont_inherit=True), {"__name__": "example"})
    assert "runs/brief" in capsys.readouterr().out
    assert (tmp_path / "runs/brief/results.json").is_file()


@pytest.mark.parametrize("page", ["README.md", "examples/README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", sorted(p.relative_to(ROOT) for p in ROOT.glob("docs/**/*.md")))
def test_links_of_the_docs_lead_somewhere(page: Path) -> None:
    test_links_lead_somewhere(str(page))


def test_gymnasium_imports_the_package_for_a_name_that_says_so() -> None:
    code = (
        "import sys, gymnasium\n"
        "assert 'maporl_env' not in sys.modules\n"
        "gymnasium.make('maporl_env:maporl/Debate-v0', num_agents=2).reset(seed=0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert '"maporl_env:maporl/Debate-v0"' in README
