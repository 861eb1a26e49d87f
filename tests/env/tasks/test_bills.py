"""Task `bills`: a user who alone has the price list corrects the agent."""

from __future__ import annotations

import pytest

from maporl_env.bridges import speakers
from maporl_env.tasks import load_task, shopping
from maporl_env.tasks.dialogues import bills

TASK = load_task("bills")


def test_questions_are_those_of_shopping_with_the_lines_of_the_bill() -> None:
    assert TASK.splits.keys() == shopping.load().splits.keys()
    for ours, theirs in zip(TASK.split("test")[:200], shopping.load().split("test"), strict=False):
        assert (ours.prompt, ours.answer) == (theirs.prompt, theirs.answer)
        sums = [int(line.split(" = ")[1]) for line in ours.hidden.split(bills.BETWEEN)]
        assert sum(sums) == int(ours.answer)
        assert "boxed" not in ours.hidden


BOTH = "3 * 6 = 18 , 2 * 8 = 16"


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("3 * 6 = 18 , 2 * 5 = 10 , \\boxed{ 28 }", "2 * 8 = 16"),
        ("3 * 1 = 3 , 2 * 5 = 10 , \\boxed{ 13 }", BOTH),
        (f"{BOTH} , \\boxed{{ 34 }}", bills.NOTHING_WRONG),
        ("hm", BOTH),
        ("", BOTH),
    ],
)
def test_what_the_user_says(said: str, reply: str) -> None:
    view = (
        f"\nThe reference, which you alone know:\n```\n{BOTH}\n```\n"
        f"\nThe assistant:\n```\n{said}\n```\n"
    )
    assert bills.user([view]) == [reply]


def test_a_user_without_reference_or_message_has_nothing_to_say() -> None:
    assert bills.user([""]) == [bills.NOTHING_WRONG]


def test_who_takes_the_correction_is_right() -> None:
    question = TASK.split("test")[0]
    lines = question.hidden.split(bills.BETWEEN)
    wrong = f"{lines[0]} , 9 * 9 = 81 , \\boxed{{ 99 }}"
    right = f"{question.hidden} , \\boxed{{ {question.answer} }}"
    batch = speakers.play(
        [[wrong, right], bills.user], [question], task="bills", protocol="dialogue", num_turns=2
    )
    [debate] = batch.transcripts
    assert [m.text for m in debate.messages] == [wrong, lines[1], right]
    assert debate.messages[-1].score == 1.0
