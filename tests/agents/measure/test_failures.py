"""Why messages score nothing: wrong answers apart from failures of format, with examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import maporl

from maporl_agents.measure.failures import EXAMPLES, SHOWN, failures, outcome_of
from maporl_env.types import Message, Question, Transcript

SUM = Question("sum", "3 + 4 ?", "7")
LABEL = Question("label", "so ?", "neutral", "nli")
LINE = Question("line", "3 + 4 ?", "7", "answer_line")
PUZZLE = Question("puzzle", "make 7", "3 + 4", "scored")


@pytest.mark.parametrize(
    ("question", "text", "cut", "outcome"),
    [
        (SUM, r"\boxed{7}", False, "right"),
        (SUM, r"\boxed{7}", True, "right"),
        (SUM, r"it is 7, \boxed{8}", False, "wrong"),
        (SUM, "3 + 4 = 7", False, "unmarked"),
        (SUM, "3 + 4 = 7 and", True, "unmarked"),
        (SUM, "that makes 7,000", False, "other"),
        (SUM, "I add 3", True, "cut"),
        (SUM, "I do not know", False, "other"),
        (SUM, r"\boxed{seven}", False, "other"),
        (SUM, " \n", False, "empty"),
        (LABEL, "it is Neutral.", False, "unmarked"),
        (LABEL, "neutrality", False, "other"),
        (LINE, r"\boxed{7}", False, "unmarked"),
        (LINE, "Answer: 7", False, "right"),
        (SUM, "1" * 1_000_000, False, "other"),
    ],
)
def test_a_message_is_right_wrong_or_has_no_answer(
    question: Question, text: str, cut: bool, outcome: str
) -> None:
    assert outcome_of(question, Message(0, "agent_0", text, None, cut)) == outcome


def debate(*turns: list[str], question: Question = SUM) -> Transcript:
    messages = [
        Message(turn, f"agent_{place}", text)
        for turn, texts in enumerate(turns)
        for place, text in enumerate(texts)
    ]
    agents = tuple(f"agent_{place}" for place in range(len(turns[0])))
    return Transcript(question, agents, tuple(messages))


def test_shares_and_examples_of_a_turn() -> None:
    first, second = failures(
        [
            debate(["no", r"\boxed{7}"], [r"\boxed{1}", "7"]),
            debate(["no", "no"], [r"\boxed{2}", r"\boxed{3}"]),
            debate(["\x1b[2J" + "x" * 900, ""]),  # ended early: its last turn counts on
        ]
    )
    assert first.shares == {"other": 4 / 6, "right": 1 / 6, "empty": 1 / 6}
    assert first.format == pytest.approx(5 / 6)
    assert second.shares == {"wrong": 3 / 6, "unmarked": 1 / 6, "other": 1 / 6, "empty": 1 / 6}
    assert [outcome for outcome, _, _ in second.examples] == ["wrong", "unmarked", "other"]
    head, *examples = second.lines()
    assert head.startswith("turn 2, 6 messages: 0.0% right; wrong answers: 50.0%; format failures")
    assert "16.7% the right answer, not marked as it must be" in head
    assert len(examples) == EXAMPLES
    assert "\x1b" not in examples[-1]
    assert len(examples[-1]) < 2 * SHOWN
    assert json.loads(json.dumps(second.to_dict()))["shares"]["wrong"] == 0.5


@pytest.mark.parametrize(
    ("text", "score", "outcome"),
    [
        (r"\boxed{4 + 3}", 1.0, "right"),
        (r"\boxed{4 + 3}", 0.5, "right"),
        (r"\boxed{3 + 4}", 0.1, "wrong"),
        ("It is 3 + 4.", 0.0, "unmarked"),
        ("It is 4 + 3.", 0.0, "other"),
    ],
)
def test_where_a_scorer_tells_what_is_right_its_score_counts(
    text: str, score: float, outcome: str
) -> None:
    message = Message(0, "agent_0", text, score)
    assert outcome_of(PUZZLE, message) == outcome
    unscored = Message(0, "agent_1", text)
    both = Transcript(PUZZLE, ("agent_0", "agent_1"), (message, unscored))
    [turn] = failures([both])
    assert turn.shares == {outcome: 1.0}
    assert turn.count == 1


def test_nothing_is_said_of_programs_and_of_teams_that_are_right() -> None:
    program = Question("code", "write", "tests", "code")
    assert failures([debate(["def f(): pass"], question=program)]) == ()
    [perfect] = failures([debate([r"\boxed{7}"])])
    assert perfect.lines() == []


def test_the_command_tells_them_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert maporl("eval", "--limit", 6, "--turns", 1, "--no-greedy", "--out", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "sampled, turn 1, 12 messages: " in said
    assert "wrong answers: " in said
    assert "format failures: " in said
    [turn] = json.loads(out.read_text())["sampled"]["failures"]
    assert sum(turn["shares"].values()) == pytest.approx(1)
    assert "greedy" not in json.loads(out.read_text())
