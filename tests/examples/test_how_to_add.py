"""The how-to pages on parts of one's own: their files are written, and their commands are run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from maporl_agents.cli import main
from maporl_agents.commands import chosen_team
from maporl_agents.training import experiment

pytestmark = pytest.mark.thorough

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
SHORT = {
    "train": "--steps 2 --checkpoint-every 1 --questions-per-step 4 --eval.questions 2 "
    "--sampling.max-new-tokens 24 --game.num-turns 2",
    "eval": "--limit 2 --max-new-tokens 6",
    "plan": "--rehearsal-seconds 0 --questions-per-step 2 --eval.questions 2 "
    "--sampling.max-new-tokens 6 --game.num-turns 2",
}
"""Flags that keep a command short."""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go there; commands leave the threads to the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chosen_team, "share_cores", lambda num_bases: None)
    monkeypatch.setattr(experiment, "share_cores", lambda num_bases: None)


def written(page: str) -> list[list[str]]:
    """Write the files of a page here; return its commands."""
    text = page_text(page)
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
        Path(name).write_text(code, encoding="utf-8")
    return [shlex.split(line)[1:] for line in re.findall(r"^ {4}(maporl .*)$", text, re.MULTILINE)]


def run(words: list[str]) -> None:
    """Run a command of a page, cut short."""
    resumes, helps = "--resume" in words, "--help-all" in words
    with pytest.raises(SystemExit) as stop:
        main([*words, *([] if resumes or helps else shlex.split(SHORT.get(words[0], "")))])
    assert not stop.value.code, words


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("add-a-protocol.md", "late"),
        ("add-a-task.md", "prices"),
        ("add-a-verifier.md", "brief"),
        ("add-feedback.md", "brevity"),
    ],
)
def test_a_part_of_ones_own_is_trained_and_measured(page: str, file: str) -> None:
    train, measure, *more = written(page)
    run(train)
    config = json.loads(Path("runs", file, "config.json").read_text(encoding="utf-8"))
    whole = str(Path(f"{file}.py").resolve())
    assert any(str(value).startswith(f"{whole}:") for value in config["game"].values())
    assert len(metrics(Path("runs", file))) == 2
    for command in (measure, *more):
        run(command)


def test_an_algorithm_of_ones_own_trains_resumes_and_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, helped, resume, measure, report = written("add-an-algorithm.md")
    run(helped)
    assert "--optimizer.learning-rate" in capsys.readouterr().out
    run(train)
    folder = Path("runs", "leader")
    whole = {path: path.read_bytes() for path in saved(folder, 2)}
    uncut = metrics(folder)
    shutil.rmtree(next((folder / "checkpoints").glob("step-*2")))
    with pytest.warns(UserWarning, match="no such checkpoint"):
        run(resume)
    assert [path.read_bytes() for path in saved(folder, 2)] == list(whole.values())
    assert strip(metrics(folder)) == strip(uncut)
    run(measure)
    run(report)
    assert (folder / "report.html").is_file()


def test_only_the_leader_is_trained() -> None:
    train, *_ = written("add-an-algorithm.md")
    run(train)
    folder = Path("runs", "leader")
    moved = {
        path.parent.name: path.read_bytes() != later.read_bytes()
        for path, later in zip(saved(folder, 1), saved(folder, 2), strict=True)
    }
    assert moved == {"agent_0": True, "agent_1": False}


def test_the_leader_is_planned_with_its_update_once_it_declares_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the page says: without `work` the update is left out, with it it is counted."""
    written("add-an-algorithm.md")
    [declared] = re.findall(r"With `(work=.*?)` in the `Scheme`", page_text("add-an-algorithm.md"))
    code = Path("leader.py").read_text(encoding="utf-8")
    code = code.replace("import Scheme\n", "import Scheme, StepWork\n")
    Path("whole.py").write_text(code.replace("LEADER = Scheme(", f"LEADER = Scheme({declared},"))
    for file, included in (("leader.py", False), ("whole.py", True)):
        run(["plan", "--scheme", f"{file}:LEADER"])
        said = " ".join(capsys.readouterr().out.split())
        assert ("while in update" in said) == included
        assert ("LEADER computes between play and the optimiser step" in said) != included


def page_text(page: str) -> str:
    return (PAGES / page).read_text(encoding="utf-8")


def saved(folder: Path, step: int) -> list[Path]:
    """Return the weights of each policy in a checkpoint."""
    checkpoints = {int(p.name[5:]): p for p in (folder / "checkpoints").glob("step-*")}
    return sorted((checkpoints[step] / "policies").rglob("*.safetensors"))


def strip(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: x for name, x in row.items() if "second" not in name} for row in rows]
