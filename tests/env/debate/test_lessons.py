"""Protocol `lessons`: what is selected, how lessons are judged, what agents read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.penalties import Penalties
from maporl_env.protocols import Lessons
from maporl_env.protocols.lesson_bank import Lesson, judged, selected
from maporl_env.protocols.lessons import likeness
from maporl_env.types import Question

QUESTION = Question("q", "Sort the list of numbers.", "7", "number")


@pytest.mark.parametrize(
    ("speedups", "factor"), [((2, 0.5, 3), 1.0333), ((1, 1, 1), 0.9), ((2, 2, 2), 1.1)]
)
def test_a_factor_is_the_mean_over_the_agents(speedups: Sequence[float], factor: float) -> None:
    [one] = judged([Lesson("text", 1.5, 0.0)], [0], speedups)
    assert one.factor == pytest.approx(factor, abs=5e-5)


def test_a_factor_is_set_and_not_multiplied() -> None:
    bank: Sequence[Lesson] = [Lesson("text", 1.5, 0.0)]
    for _ in range(3):
        bank = judged(bank, [0], (1, 1, 1))
    assert bank[0].factor == pytest.approx(0.9)


def test_lessons_that_were_not_shown_keep_their_factor() -> None:
    bank = [Lesson("a", 1.5, 0.0), Lesson("b", 1.5, 0.0, factor=0.95)]
    assert judged(bank, [0], (2.0,))[1] == bank[1]


BANK = [
    Lesson("slow and near", 0.9, 0.9),
    Lesson("fast", 1.6, 0.1),
    Lesson("wrong", 0.0, 0.5),
    Lesson("faster", 2.0, 0.2),
    Lesson("slow and far", 0.8, 0.05),
    Lesson("wrong and near", 0.0, 0.8),
]


def test_half_are_the_fastest_and_the_rest_the_nearest() -> None:
    assert selected(BANK, 4, 1.1, take_all=False) == (3, 1, 0, 5)


def test_a_fast_lesson_whose_readers_fared_badly_leaves_the_fast_half() -> None:
    """1.2 at factor .9 is 1.08, below the cut of 1.1."""
    bank = [*BANK[:1], Lesson("fast", 1.2, 0.1, factor=0.9), *BANK[2:]]
    assert selected(bank, 4, 1.1, take_all=False) == (3, 0, 5, 2)


def test_without_a_cut_all_are_ranked_by_worth() -> None:
    assert selected(BANK, 4, None, take_all=False) == (3, 1, 0, 4)


def test_a_small_bank_is_shown_whole() -> None:
    assert selected(BANK[:3], 4, 1.1, take_all=True) == (0, 1, 2)
    assert selected(BANK, 0, 1.1, take_all=False) == ()
    with pytest.raises(ValueError, match="at least 0"):
        selected(BANK, -1, None, take_all=False)


def played(
    say: Callable[[Prompt], str], scores: Callable[[str], float | None], **options: Any
) -> BatchedDebate:
    config = DebateConfig(
        task=[QUESTION],
        protocol="lessons",
        verifier=lambda questions, texts: [scores(text) for text in texts],
        **{"num_agents": 3, "num_turns": 5, **options},
    )
    batch = BatchedDebate(config, 1)
    batch.reset()
    while prompts := batch.prompts():
        batch.step([say(prompt) for prompt in prompts])
    return batch


def numbered(prompt: Prompt) -> str:
    """Attempts are boxed as 10 x turn + agent; lessons name their turn and agent."""
    if prompt.turn % 2:
        return f"lesson {prompt.turn}.{prompt.agent_index}"
    return f"\\boxed{{{10 * prompt.turn + prompt.agent_index}}}"


def by_number(text: str) -> float | None:
    return int(text.split("{")[1].rstrip("}")) / 100


def test_who_reads_what() -> None:
    seen: dict[tuple[int, int], str] = {}

    def say(prompt: Prompt) -> str:
        seen[prompt.turn, prompt.agent_index] = prompt.text
        return numbered(prompt)

    played(say, by_number)
    for agent in range(3):
        assert "lesson" not in seen[0, agent].lower()
        for other in range(3):  # the second turn: one's own attempt and its result alone
            assert (f"\\boxed{{{other}}}" in seen[1, agent]) == (other == agent)
        assert f"score {agent / 100:.2f}" in seen[1, agent]
        assert [f"lesson 1.{n}" in seen[2, agent] for n in range(3)] == [True] * 3
        assert "boxed{0}" not in seen[2, agent]  # nobody's earlier attempt
        listed = [seen[4, agent].split("Lessons")[1], seen[4, 0].split("Lessons")[1]]
        assert listed[0] == listed[1]  # the same list for all
        assert listed[0].count("lesson ") == 4  # k of 6


def test_lessons_are_judged_before_the_next_ones_are_added() -> None:
    batch = played(numbered, by_number)
    [transcript] = batch.transcripts
    lessons, _ = Lessons(num_turns=5).bank(transcript)
    assert [one.text for one in lessons] == [f"lesson {t}.{a}" for t in (1, 3) for a in range(3)]
    assert [one.factor for one in lessons] == pytest.approx([1.1] * 3 + [1.0] * 3)
    assert [one.speedup for one in lessons] == pytest.approx([0, 0.01, 0.02, 0.2, 0.21, 0.22])


def test_attempts_are_scored_and_rewarded_and_lessons_are_not() -> None:
    batch = played(numbered, by_number)
    [transcript] = batch.transcripts
    assert [m.score is None for m in transcript.messages] == [
        m.turn % 2 == 1 for m in transcript.messages
    ]
    assert not any(m.paid for m in transcript.messages if m.turn % 2)
    paid = played(numbered, by_number, protocol_options={"pay_lessons": True}).transcripts[0]
    assert all(m.paid for m in paid.messages)


def test_lessons_paid_by_their_factor() -> None:
    """All lessons are shown in turn 4, where agent 1 alone fails: 1.1, .9 and 1.1."""

    def scores(text: str) -> float | None:
        value = int(text.split("{")[1].rstrip("}"))
        return 0.0 if value == 41 else value / 100

    batch = played(numbered, scores, protocol_options={"pay_lessons": "factor", "shown": 6})
    table, rewarded = batch.turn_rewards()[0], batch.debates[0].scored()
    mixed = (1.1 + 0.9 + 1.1) / 3 - 1
    assert table[1] == pytest.approx([mixed] * 3)  # set by turn 4, not by turn 2
    assert table[3] == pytest.approx([mixed] * 3)
    assert rewarded.all()
    few = played(numbered, scores, protocol_options={"pay_lessons": "factor", "shown": 1})
    table = few.turn_rewards()[0]
    # k = 1: only the lesson with the largest s x factor is shown, that of agent 2 in each turn.
    assert table[1] == pytest.approx([0, 0, 0.1])
    assert table[3] == pytest.approx([0, 0, mixed])


def test_a_penalty_comes_off_the_factor() -> None:
    batch = played(
        numbered,
        by_number,
        protocol_options={"pay_lessons": "factor"},
        penalties=Penalties(too_short=0.5, min_words=3),
    )
    assert batch.turn_rewards()[0][1] == pytest.approx([-0.4] * 3)


def test_the_answer_is_the_best_attempt_of_all_turns_whatever_the_factors() -> None:
    best_first = played(numbered, lambda text: 1.0 if text == "\\boxed{1}" else 0.1)
    assert best_first.debates[0].outcome() == (1,)
    none = played(numbered, lambda text: None)
    assert none.debates[0].outcome() == ()


def test_a_fault_of_the_verifier_is_no_speed() -> None:
    batch = played(numbered, lambda text: None)
    lessons, _ = Lessons(num_turns=5).bank(batch.transcripts[0])
    assert {one.speedup for one in lessons} == {0.0}


def test_likeness_is_a_cosine_of_words() -> None:
    assert likeness("sort the list", "Sort the list") == pytest.approx(1.0)
    assert likeness("other words", "Sort the list") == 0.0
    assert likeness("", "Sort") == 0.0
    assert likeness("sort it", "sort them") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_turns": 4}, "num_turns must be odd, not 4"),
        ({"protocol_options": {"shown": -1}}, "shown must be an integer >= 0"),
        ({"protocol_options": {"pay_lessons": "score"}}, "pay_lessons must be true, false or"),
        ({"protocol_options": {"scale": 0.0}}, "scale must be a finite number above 0"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        played(numbered, by_number, **options)
