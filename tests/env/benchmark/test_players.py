"""The user's own agents as players of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maporl_env.benchmark import function_agents, named_agents, score_case, scripted_agents

from .cases import LONE, by_turn, small


def test_a_function_reads_what_agents_read() -> None:
    """It answers with the first coin that it reads, in all debates of a batch at once."""
    calls = []

    def first_coin(prompts: Sequence[str]) -> list[str]:
        calls.append(len(prompts))
        return [rf"\boxed{{ {p.split(' two of ')[1].split()[0]} }}" for p in prompts]

    case = replace(LONE, num_questions=150)
    result = score_case(function_agents("first coin", first_coin), case)
    assert calls == [100] * 3 + [50] * 3
    right = sum(q.prompt.split(" two of ")[1].split()[0] == q.answer for q in case.questions())
    assert by_turn(result) == pytest.approx([right / 150] * 3)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda prompts: [][0], "turn 1: they failed with IndexError: list index out of range"),
        (lambda prompts: ["x"], "1 texts for 40 prompts"),
        (lambda prompts: "x" * len(prompts), "expected a list of texts, not str"),
        (lambda prompts: None, "expected a list of texts, not NoneType"),
        (lambda prompts: [None] * len(prompts), "expected texts, but one is NoneType"),
        (lambda prompts: (p for p in prompts), "expected a list of texts, not generator"),
    ],
)
def test_players_that_fail_are_named(function: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        score_case(function_agents("mine", function), replace(LONE, num_questions=40))
    assert str(caught.value).startswith("agents 'mine', case coins/self_correction/1x3, turn 1: ")


def test_hostile_messages_are_only_wrong(tmp_path: Path) -> None:
    text = "\ud800 | ``` \\boxed{" + "{" * 1000 + "\n| --- |\n<!-- benchmark:end --> \x1b[2J \x00"
    players = function_agents(text, lambda prompts: [text] * len(prompts))
    result = score_case(players, small("coins/debate/5x2", 3))
    assert by_turn(result) == [0.0, 0.0]
    assert [turn.invalid for turn in result.turns] == [1.0, 1.0]


def test_functions_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speakers_of_mine.py").write_text(
        "def speak(prompts):\n    return ['?'] * len(prompts)\nword = 'no function'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    players = named_agents("speakers_of_mine:speak")
    assert by_turn(score_case(players, replace(LONE, num_questions=3))) == [0.0] * 3
    about = {"kind": "function", "function": "speakers_of_mine:speak"}
    assert players.about == {**about, "fingerprint": players.about["fingerprint"]}
    with pytest.raises(ValueError, match=r"agents .speakers_of_mine:word. is not a function"):
        named_agents("speakers_of_mine:word")
    with pytest.raises(ValueError, match=r"cannot be found .*no attribute 'speek'"):
        named_agents("speakers_of_mine:speek")
    with pytest.raises(ValueError, match=r"cannot be found .*No module named 'no_such'"):
        named_agents("no_such:speak")
    with pytest.raises(ValueError, match="no agents 'majorty': choose one of keep, majority"):
        named_agents("majorty")


@pytest.mark.parametrize(("name", "accuracy"), [("magic", 0.5), ("keep", 1.1), ("keep", -0.1)])
def test_scripted_agents_have_names_and_probabilities(name: str, accuracy: float) -> None:
    with pytest.raises(ValueError, match=r"no scripted agents|accuracy is a probability"):
        scripted_agents(name, accuracy)
