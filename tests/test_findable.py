"""What a stranger finds first: citation, workflows, badges, issue forms, the notebook for Colab."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="needs the extra train")

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 without tomli")

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_badges_are_true() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    [(least, most)] = re.findall(r"badge/python-(3\.\d+)_--_(3\.\d+)-", text)
    listed = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if ":: Python :: 3." in c]
    assert (least, most) == (listed[0], listed[-1])
    assert PROJECT["requires-python"] == f">={least}"
    tested = read(".github/workflows/checks.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert tested == listed
    assert re.findall(r"badge/licence-(\w+)-", text) == [PROJECT["license"]]
    [pettingzoo] = re.findall(r"badge/PettingZoo-%3E%3D([\d.]+)-", text)
    assert any(d.startswith(f"pettingzoo>={pettingzoo}") for d in PROJECT["dependencies"])


@pytest.mark.parametrize("page", ["compare", "scale", "which-scheme"])
def test_pages_that_strangers_look_for_stand_at_the_top(page: str) -> None:
    assert (ROOT / "docs" / f"{page}.md").is_file()
    assert f"docs/{page}.md" in (ROOT / "README.md").read_text("utf-8")
    contents = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert page in contents.splitlines()  # of the site


def test_every_page_is_in_the_list_of_pages() -> None:
    docs = ROOT / "docs"
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.md")} - {"index.md"}
    listed = set(re.findall(r"\(([^()]+\.md)\)", (docs / "index.md").read_text("utf-8")))
    made = ("explanation/results/", "reference/api/")  # tables and modules, linked page by page
    assert {page for page in pages - listed if not page.startswith(made)} == set()


def test_workflows_run_commands_that_are_there() -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.M))
    commands = []
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job in read(str(path.relative_to(ROOT)))["jobs"].values():
            commands += [step["run"] for step in job["steps"] if "run" in step]
    assert "bash .ci/run" in commands
    for command in commands:
        words = shlex.split(command.split("${{")[0])
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= verbs
        else:
            assert (ROOT / words[-1]).is_file(), command


def test_every_bridge_has_its_job() -> None:
    script = (ROOT / "scripts" / "test_bridges.sh").read_text("utf-8")
    [order] = re.findall(r"^order=\(([^)]*)\)$", script, re.M)
    jobs = read(".github/workflows/bridges.yml")["jobs"]
    assert jobs["bridge"]["strategy"]["matrix"]["bridge"] == order.split()


def test_issue_forms_have_what_github_asks_for() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert forms
    for path in forms:
        form = read(str(path.relative_to(ROOT)))
        assert {"name", "description", "body"} <= form.keys()
        for field in form["body"]:
            assert field["attributes"]["label"]


def cells() -> list[str]:
    notebook = json.loads((ROOT / "examples" / "colab.ipynb").read_text("utf-8"))
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def test_the_second_cell_of_the_notebook_trains() -> None:
    install, train, *_ = cells()
    [extra] = re.findall(r"maporl\[(\w+)\]", install)
    assert extra in PROJECT["optional-dependencies"]
    assert train.startswith("!maporl train ")


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_the_commands_of_the_notebook_run(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    small = "--steps 1 --questions-per-step 2 --eval.questions 4 --eval.validation-questions 2"
    for cell in cells():
        if not cell.startswith("!"):
            continue
        command = cell.removeprefix("!") + (f" {small}" if "train" in cell else "")
        program = Path(sys.executable).parent / shlex.split(command)[0]
        done = subprocess.run(
            [str(program), *shlex.split(command)[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "first" / "curve.png").is_file()


@pytest.mark.timeout(500)  # half a second on a free core
def test_the_environment_plays_without_modules_of_unix() -> None:
    """As on Windows, where they are missing; training is not promised there."""
    program = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
from maporl_env import debate_v0
env = debate_v0.parallel_env(num_agents=2, num_turns=2)
env.reset(seed=0)
while env.agents:
    env.step({agent: "\\\\boxed{1}" for agent in env.agents})
print("played")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=400
    )
    assert done.stdout == "played\n", done.stderr
