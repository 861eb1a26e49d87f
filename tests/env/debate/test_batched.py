"""Many debates in lock step: what it costs, what it tells, and that it changes no debate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.debate import Debate
from maporl_env.prompts import render
from maporl_env.types import Question

QUESTIONS = [Question(f"q/{n}", f"What is {n} + {n}?", str(2 * n)) for n in range(8)]


class CountingVerifier:
    """Scores by length, and remembers how often it was asked."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        self.calls.append(len(responses))
        return [(len(text) % 7) / 6.5 for text in responses]


def make_batch(batch_size: int = 4, **options: Any) -> BatchedDebate:
    options = {"task": QUESTIONS, "num_agents": 3, "num_turns": 3, **options}
    return BatchedDebate(DebateConfig(**options), batch_size)


def say(prompt: Any) -> str:
    index = prompt.agent_index
    return f"{'x' * (prompt.debate + index)} \\boxed{{{prompt.turn + index}}}"


def play(batch: BatchedDebate) -> int:
    """Play to the end; return the number of generation calls."""
    calls = 0
    while prompts := batch.prompts():
        batch.step([say(prompt) for prompt in prompts])
        calls += 1
    return calls


@pytest.mark.parametrize(("protocol", "calls"), [("debate", 3), ("joint", 3), ("sequential", 9)])
def test_a_debate_costs_a_generation_call_and_a_verifier_call_per_turn(
    protocol: str, calls: int
) -> None:
    verifier = CountingVerifier()
    batch = make_batch(protocol=protocol, verifier=verifier)
    batch.reset(QUESTIONS[:4])
    assert play(batch) == calls
    assert verifier.calls == [12, 12, 12]
    assert batch.over
    assert batch.prompts() == []


@pytest.mark.parametrize("options", [{}, {"protocol": "sequential"}, {"reward_feedback": True}])
def test_a_batch_plays_what_single_debates_play(options: dict[str, Any]) -> None:
    batch = make_batch(verifier=CountingVerifier(), **options)
    batch.reset(QUESTIONS[:4])
    play(batch)
    for index in range(4):
        alone = make_batch(1, verifier=CountingVerifier(), **options)
        alone.reset([QUESTIONS[index]])
        while prompts := alone.prompts():
            alone.step([say(prompt._replace(debate=index)) for prompt in prompts])
        assert alone.transcripts[0] == batch.transcripts[index]
        assert (alone.turn_rewards()[0] == batch.turn_rewards()[index]).all()


def test_prompts_come_by_debate_and_seat_and_say_everything() -> None:
    batch = make_batch()
    batch.reset(QUESTIONS[:2])
    batch.step(["x"] * 6)
    prompts = batch.prompts()
    assert [(p.debate, p.agent_index, p.agent, p.turn) for p in prompts] == [
        (debate, seat, f"agent_{seat}", 1) for debate in range(2) for seat in range(3)
    ]
    for prompt in prompts:
        assert prompt.text == render(prompt.view)
        assert QUESTIONS[prompt.debate].prompt in prompt.text
        assert [text for who, text in prompt.view if who == "own"] == ["x"]


def test_debates_that_agree_early_drop_out() -> None:
    verifier = CountingVerifier()
    batch = make_batch(stop="consensus", verifier=verifier)
    batch.reset(QUESTIONS[:3])
    sizes = []
    while prompts := batch.prompts():
        sizes.append(len(prompts))
        # Debate 1 agrees in turn 0, debate 0 in turn 1, debate 2 never.
        agreed = {1: 0, 0: 1, 2: 9}
        batch.step(
            [f"\\boxed{{{0 if p.turn >= agreed[p.debate] else p.agent_index}}}" for p in prompts]
        )
    assert sizes == [9, 6, 3]
    assert verifier.calls == [9, 6, 3]
    assert batch.played.tolist() == [2, 1, 3]
    mask = batch.score_mask()
    assert mask.shape == (3, 3, 3)
    assert mask.sum(axis=(1, 2)).tolist() == [6, 3, 9]
    assert (batch.turn_rewards()[~mask] == 0).all()


def test_rewards_are_those_of_each_debate_in_full_precision() -> None:
    batch = make_batch(verifier=CountingVerifier())
    batch.reset(QUESTIONS[:4])
    play(batch)
    rewards = batch.turn_rewards()
    assert rewards.dtype == np.float64
    for index, transcript in enumerate(batch.transcripts):
        scores = np.array([m.score for m in transcript.messages]).reshape(3, 3)
        team = scores.mean(axis=1)
        g = 0.3
        first = (scores[0] + g * team[1] + g**2 * team[2]) / (1 + g + g**2)
        expected = [first, (scores[1] + g * team[2]) / (1 + g), scores[2]]
        np.testing.assert_allclose(rewards[index], expected)


def test_missing_scores_are_masked_and_counted() -> None:
    def half_broken(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        return [float("nan") if q.id == "q/1" else 0.5 for q in questions]

    batch = make_batch(verifier=half_broken)
    batch.reset(QUESTIONS[:2])
    play(batch)
    assert batch.score_mask().all(axis=(1, 2)).tolist() == [True, False]
    assert not batch.score_mask()[1].any()
    assert batch.faults == {"not a number": 9}
    assert (batch.turn_rewards()[1] == 0).all()


def test_drawn_questions_repeat_under_a_seed_and_go_on_without() -> None:
    def ids(batch: BatchedDebate, **options: Any) -> list[str]:
        batch.reset(**options)
        return [transcript.question.id for transcript in batch.transcripts]

    first, second = make_batch(8), make_batch(8)
    assert ids(first, seed=1) == ids(second, seed=1)
    assert ids(first) == ids(second)
    assert ids(first, seed=1) != ids(first, seed=2)


def test_reset_in_the_middle_starts_afresh() -> None:
    batch = make_batch()
    batch.reset(QUESTIONS[:4])
    batch.step(["x"] * 12)
    batch.reset(QUESTIONS[4:5])
    assert len(batch.prompts()) == 3
    assert batch.played.tolist() == [0]


def test_wrong_texts_change_nothing() -> None:
    batch = make_batch()
    batch.reset(QUESTIONS[:2])
    with pytest.raises(ValueError, match="5 texts for 6 prompts"):
        batch.step(["x"] * 5)
    with pytest.raises(ValueError, match="6 texts and 5 marks for 6 prompts"):
        batch.step(["x"] * 6, [True] * 5)
    with pytest.raises(ValueError, match="agent_2 must be a string"):
        batch.step(["x"] * 5 + [None])  # type: ignore[list-item]
    assert [debate.pending for debate in batch.debates] == [(), ()]
    assert len(batch.prompts()) == 6


@pytest.mark.parametrize("questions", [[], QUESTIONS[:5]])
def test_too_many_or_no_questions_are_refused(questions: list[Question]) -> None:
    with pytest.raises(ValueError, match="questions for a batch of 4"):
        make_batch(4).reset(questions)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_wrong_batch_size_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1"):
        make_batch(size)


def test_a_batch_can_be_made_from_an_environment_function() -> None:
    for make in (debate_v0.env, debate_v0.parallel_env, DebateConfig):
        batch = BatchedDebate(lambda make=make: make(task=QUESTIONS, num_agents=2), 2)
        batch.reset(QUESTIONS[:2])
        assert len(batch.prompts()) == 4
    with pytest.raises(ValueError, match="must return a debate environment"):
        BatchedDebate(lambda: 3, 2)
    with pytest.raises(ValueError, match="expected a DebateConfig"):
        BatchedDebate("debate", 2)  # type: ignore[arg-type]


def test_one_debate_may_be_truncated() -> None:
    batch = make_batch(2)
    batch.reset(QUESTIONS[:2])
    batch.step(["x"] * 6)
    batch.truncate(0, "generation timed out")
    assert {prompt.debate for prompt in batch.prompts()} == {1}
    assert [debate.truncated for debate in batch.debates] == [True, False]


def test_the_readings_of_long_debates_are_not_rebuilt_every_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cost linear in the transcript: each block of each agent is put into words once."""
    batch = make_batch(1, num_agents=8, num_turns=50)
    protocol = type(batch.game.protocol)
    built = []
    original = protocol.added
    monkeypatch.setattr(
        protocol, "added", lambda self, *args: built.append(args[:2]) or original(self, *args)
    )
    batch.reset(QUESTIONS[:1])
    play(batch)
    assert len(built) == len(set(built)) == 50 * 8
    assert isinstance(batch.debates[0], Debate)


def test_the_first_exception_of_a_verifier_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    errors = iter([KeyError("no model"), KeyError("again"), SystemExit("gone"), OSError("file")])

    def broken(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        raise next(errors)

    batch = make_batch(1, verifier=broken, num_agents=1, num_turns=4)
    batch.reset(seed=0)
    for _ in range(4):
        batch.step(["x"])
    assert batch.faults == {"raised": 4}
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == ["KeyError: 'no model'", "SystemExit: gone", "OSError: file"]
