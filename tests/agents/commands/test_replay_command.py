"""`maporl play --replay`: recorded text as agents, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maporl_agents.cli import main
from maporl_env.types import Message, Question, Transcript

ROW = {
    "question": "2 + 2?",
    "ground_truth": "A: 4",
    "small": {"solution": "[red]Five.\x1b[2J\nA: 5", "is_correct": False},
    "large": {"solution": "Four.\nA: 4", "is_correct": True},
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return str(path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["play", *arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_recorded_models_are_the_agents(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--replay", file) == 0
    shown = capsys.readouterr().out
    assert "agent_0: small\nagent_1: large\n" in shown
    assert "[red]Five.\\x1b[2J" in shown  # neither markup nor control characters act
    assert "vote: 4, 5    key: 4" in shown
    assert "reward of turn 1: +0.000  +1.000" in shown
    assert "turn 2" not in shown


def test_answers_are_held_over_more_turns(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--replay", file, "--turns", "2") == 0
    shown = capsys.readouterr().out
    assert shown.count("| Four.") == 2
    # gamma 0.3: agent 1 is paid (1 + 0.3 * 0.5) / 1.3 for its first message
    assert "reward of turn 1: +0.115  +0.885" in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--human"], "leave out --human"),
        (["--agents", "3"], "leave out --agents"),
        (["--index", "1"], "question 1 does not exist: there are 1, from 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    file: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--replay", file, *more) == 2
    assert message in capsys.readouterr().err


def test_a_debate_in_which_a_person_intervened_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agents = ("agent_0", "agent_1")
    said = [
        Message(0, "agent_0", "4", 1.0, person="edited"),
        Message(0, "agent_1", "", 0.0, person="vetoed"),
        Message(1, "agent_0", "4", 1.0),
        Message(1, "agent_1", "5", 0.0, person="\x1b[2J"),  # of a file that somebody made
    ]
    path = tmp_path / "watched.jsonl"
    path.write_text(Transcript(Question("q", "2 + 2?", "4"), agents, tuple(said)).to_json() + "\n")
    assert run("--replay", str(path)) == 0
    shown = capsys.readouterr().out
    assert "Turn 1, agent_0 (score 0.00, edited by a person)" in shown
    assert (
        "A person intervened in this debate: agent_0 in turn 1 (edited), agent_1 in turn 1 "
        "(vetoed), agent_1 in turn 2 (\\x1b[2J)"
    ) in " ".join(shown.split())
    assert "\x1b" not in shown
