"""Verifiers as reward functions of TRL, called as its GRPO trainer does; tasks as rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from maporl_env.bridges.trl import reward_function, rows
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey

QUESTIONS = [Question("a", "2 + 2?", "4"), Question("b", "does it follow?", "neutral", "nli")]


def test_rows_and_rewards_fit_together() -> None:
    """The trainer repeats each row, generates, and hands columns over as keyword lists."""
    data = rows(QUESTIONS, system="be brief")
    assert data[0]["prompt"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "2 + 2?"},
    ]
    batch = [row for row in data for _ in range(2)]
    prompts = [row["prompt"] for row in batch]
    said = [r"\boxed{4}", r"\boxed{5}", r"\boxed{Neutral}", "no idea"]
    completions = [[{"role": "assistant", "content": text}] for text in said]
    columns = {key: [row[key] for row in batch] for key in data[0] if key != "prompt"}
    reward = reward_function(AnswerKey())
    found = reward(
        prompts=prompts,
        completions=completions,
        completion_ids=[[1], [2], [3], [4]],
        trainer_state=None,
        log_extra=None,
        **columns,
    )
    assert found == [1.0, 0.0, 1.0, 0.0]
    assert reward.__name__ == "AnswerKey"
    # Plain texts, and no columns but the answer.
    assert reward(["2 + 2?"] * 2, said[:2], answer=["4", "4"]) == [1.0, 0.0]


def test_the_verifier_sees_the_question_and_is_asked_once() -> None:
    seen: list[Question] = []

    def verifier(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        seen.extend(questions)
        return [0.5] * len(responses)

    reward_function(verifier)([row["prompt"] for row in rows(QUESTIONS)], ["x", "y"], answer=[4, 5])
    assert [q.prompt for q in seen] == ["2 + 2?", "does it follow?"]
    assert [q.answer for q in seen] == ["4", "5"]


def test_a_fault_is_no_zero() -> None:
    def broken(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        return [1.0, float("nan")]

    with pytest.warns(RuntimeWarning, match=r"^broken gave no reward \(not a number\)$"):
        found = reward_function(broken)(["p", "p"], ["x", "y"], answer=["1", "1"])
    assert found == [1.0, None]


def test_a_verifier_that_raises_is_warned_of_and_can_be_asked() -> None:
    reward = reward_function(AnswerKey())
    assert reward(["p"], [r"\boxed{4}"], answer=["4"]) == [1.0]
    assert reward.scorer.last_error is None
    with pytest.warns(RuntimeWarning, match="AnswerKey gave no reward.*gold answer 'four'"):
        assert reward(["p", "p"], ["x", "y"], answer=["four", "4"]) == [None, None]
    assert reward.scorer.last_error is not None
    assert "not readable as 'number'" in reward.scorer.last_error
    assert reward.scorer.faults == {"raised": 2}


@pytest.mark.filterwarnings("error")
def test_a_message_that_cannot_be_judged_is_no_fault_to_warn_of() -> None:
    reward = reward_function(lambda questions, texts: [None, 0.5])
    assert reward(["p", "p"], ["x", "y"], answer=["1", "1"]) == [None, 0.5]


@pytest.mark.parametrize("completion", [[], [{"role": "assistant", "content": None}]])
def test_an_empty_message_is_wrong_and_no_error(completion: object) -> None:
    assert reward_function(AnswerKey())(["p"], [completion], answer=["4"]) == [0.0]


def test_content_in_parts_is_read() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed{4}"}]}]
    assert reward_function(AnswerKey())(["p"], [parts], answer=["4"]) == [1.0]


def test_without_answers_it_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="no column 'answer'"):
        reward_function(AnswerKey())(["p"], ["x"])
