"""Penalties for length, repetition, a missing answer and a missing end of a message."""

from __future__ import annotations

import pytest

from maporl_env.credit import Credit
from maporl_env.penalties import Penalties
from maporl_env.types import Message

from .by_hand import make_debate, play


def test_penalties_are_paid_by_the_message_that_earned_them_and_by_no_other() -> None:
    penalties = Penalties(too_short=0.125, min_words=2, no_answer=0.25, repetition=0.5)
    debate = make_debate(2, 2, credit=Credit(penalties=penalties))
    fine = "so it is \\boxed{4}"
    say = [["\\boxed{4}", fine], ["la la la la " * 4 + "\\boxed{1}", "no idea at all"]]
    play(debate, lambda t, a: say[t][a], [[0, 0], [0, 0]])
    assert debate.rewards().tolist() == [[-0.125, 0], [-0.5, -0.25]]


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("one two", 0.125),  # fewer than three
        ("one two three", 0.0),
        ("a b " * 2, 0.0),  # "a b" twice, which it may
        ("a b " * 3, 0.5),
    ],
)
def test_penalties_at_their_limits(text: str, cost: float) -> None:
    limits = Penalties(too_short=0.125, min_words=3, repetition=0.5, max_repeats=2, ngram=2)
    assert limits.of(Message(0, "agent_0", text), "number") == cost


def test_a_cut_message_pays_no_penalty_for_a_missing_answer() -> None:
    credit = Credit(penalties=Penalties(no_answer=1.0))
    debate = make_debate(2, 1, credit=credit, max_chars=5)
    play(debate, lambda t, a: ["long \\boxed{4}", "short"][a], [[0, 0]])
    assert [m.cut for m in debate.transcript.messages] == [True, False]
    assert [m.text for m in debate.transcript.messages] == ["long ", "short"]
    assert debate.rewards().tolist() == [[0, -1]]


def test_a_cut_message_pays_for_having_no_end_whoever_cut_it() -> None:
    credit = Credit(penalties=Penalties(unfinished=0.25))
    debate = make_debate(3, 1, credit=credit, max_chars=5)
    for agent, text, cut in zip(
        debate.agents, ["too long", "whole", "by me"], [0, 0, 1], strict=True
    ):
        debate.accept(agent, text, cut=bool(cut))
    debate.settle([0.0] * 3)
    assert [m.cut for m in debate.transcript.messages] == [True, False, True]
    assert debate.rewards().tolist() == [[-0.25, 0, -0.25]]


@pytest.mark.parametrize("cost", [{"too_short": -1.0}, {"no_answer": float("nan")}, {"ngram": 0}])
def test_wrong_penalties_are_refused(cost: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(cost))} must be"):
        Penalties(**cost)  # type: ignore[arg-type]
