"""What the README shows is what comes out, and what it points to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_program_prints_what_stands_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"```python\n([^`]*)```\n\n((?:    [^\n]*\n)+)", README)
    [(program, output)] = shown
    exec(compile(program, "README.md", "exec"), {})
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed == [line[4:] for line in output.splitlines()]


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
