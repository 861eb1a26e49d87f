"""Turns in which not all agents speak, are scored or are paid."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from pettingzoo.test import api_test, seed_test

from maporl_env import debate_v0, replay, rewards
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.credit import Credit
from maporl_env.debate import Debate
from maporl_env.penalties import Penalties
from maporl_env.types import Question, Transcript

from .debates import UNAVOIDABLE
from .partial_turns import Ushers

QUESTION = Question("q", "What is 2 + 2?", "4", hidden="the reference")
RIGHT, WRONG = "\\boxed{4}", "\\boxed{5}"
OPTIONS: dict[str, Any] = {"task": [QUESTION], "num_agents": 3, "protocol": Ushers(num_turns=4)}


def played(debate: Debate, texts: dict[tuple[int, str], str] | None = None) -> list[str]:
    """Play to the end, each turn scored by a rising score; return who spoke when."""
    order = []
    while not debate.over:
        agent = debate.speakers[0]
        order.append(f"{debate.played}{agent[-1]}")
        debate.post(agent, (texts or {}).get((debate.played, agent), RIGHT))
        if debate.awaits_scores:
            due = debate.due()
            debate.settle([(debate.played + 1) / 8 + place / 16 for place in range(len(due))])
    return order


def started(**credit: Any) -> Debate:
    debate = Debate(Ushers(num_turns=4), 3, credit=Credit(**credit))
    debate.reset(QUESTION)
    return debate


def test_who_speaks_is_scored_and_paid_is_what_the_protocol_says() -> None:
    debate = started()
    assert played(debate) == ["00", "01", "10", "11", "12", "20", "21", "30", "31", "32"]
    transcript = debate.transcript
    assert transcript.ends == (2, 5, 7, 10)
    assert [len(transcript.of_turn(t)) for t in range(5)] == [2, 3, 2, 3, 0]
    assert {m.agent for m in transcript.messages if not m.scored} == {"agent_1"}
    assert {m.agent for m in transcript.messages if not m.paid} == {"agent_2"}
    assert {m.agent for m in transcript.messages if not m.votes} == {"agent_1"}
    assert [m.score for m in transcript.of_turn(1)] == [2 / 8, None, 2 / 8 + 1 / 16]
    assert debate.outcome() == (4,)
    assert debate.terminated


def test_messages_of_one_stage_are_published_together() -> None:
    debate = started()
    debate.post("agent_1", "early")
    assert not debate.transcript.messages
    assert "early" not in debate.observation("agent_0")
    with pytest.raises(ValueError, match="agent_2 may not speak now; next: agent_0"):
        debate.post("agent_2", "me too")
    debate.post("agent_0", "late")
    assert [m.agent for m in debate.transcript.messages] == ["agent_0", "agent_1"]


def test_the_order_within_a_stage_changes_nothing() -> None:
    one, other = started(), started()
    for debate, order in ((one, (0, 1)), (other, (1, 0))):
        for agent in order:
            debate.post(f"agent_{agent}", f"from {agent}")
        debate.settle([0.5])
    assert one.transcript == other.transcript
    assert one.observation("agent_2") == other.observation("agent_2")


def test_rewards_are_of_the_messages_that_exist() -> None:
    """Worked out: scores by turn are 1/8 | 2/8, 5/16 | 3/8 | 4/8, 9/16 of agents 0 and 2."""
    debate = started(gamma=0.5)
    played(debate)
    means = [1 / 8, (2 / 8 + 5 / 16) / 2, 3 / 8, (4 / 8 + 9 / 16) / 2]
    later = [0.5 * means[1] + 0.25 * means[2] + 0.125 * means[3], 0, 0, 0]
    expected = np.zeros((4, 3))
    expected[0, 0] = (1 / 8 + later[0]) / 1.875
    expected[0, 1] = later[0] / 0.875  # not scored: paid with what follows
    expected[2, 0] = (3 / 8 + 0.5 * means[3]) / 1.5
    expected[2, 1] = means[3]
    expected[1, 0] = (2 / 8 + 0.5 * means[2] + 0.25 * means[3]) / 1.75
    expected[1, 1] = (0.5 * means[2] + 0.25 * means[3]) / 0.75
    expected[3, 0] = 4 / 8  # agent 1 has nothing after its last message
    np.testing.assert_allclose(debate.rewards(), expected, atol=1e-12)
    mask = expected > 0
    np.testing.assert_array_equal(debate.scored(), mask)


@pytest.mark.parametrize(
    ("horizon", "share", "of_agent_1"),
    [
        ("last", "team", [17 / 32] * 4),
        ("current", "team", [1 / 8, 9 / 32, 3 / 8, 17 / 32]),
        ("last", "own", [0.0] * 4),
        ("discounted", "own", [0.0] * 4),
    ],
)
def test_an_unscored_message_under_other_credit_rules(
    horizon: Any, share: Any, of_agent_1: list[float]
) -> None:
    debate = started(horizon=horizon, share=share)
    played(debate)
    np.testing.assert_allclose(debate.rewards()[:, 1], of_agent_1, atol=1e-12)
    np.testing.assert_array_equal(debate.scored()[:, 1], np.array(of_agent_1) > 0)


def test_a_fault_is_no_rule() -> None:
    """A score that the verifier failed to give leaves its message without a reward."""
    debate = started()
    debate.post("agent_0", RIGHT)
    debate.post("agent_1", RIGHT)
    debate.settle([None])
    debate.truncate("enough")
    assert debate.transcript.messages[0].scored
    assert not debate.scored().any()


def test_penalties_and_bonuses_are_of_paid_messages() -> None:
    debate = started(penalties=Penalties(no_answer=1.0), alpha=(1.0, 1.0), beta=(1.0, 1.0))
    played(debate, {(1, "agent_2"): "hm", (2, "agent_1"): "hm"})
    table = debate.rewards()
    assert not table[:, 2].any()
    assert table[2, 1] < 0


def test_no_two_meanings_of_one_message() -> None:
    with pytest.raises(ValueError, match="both valid, which means scored, and unscored"):
        rewards.turn_rewards([[1.0]], unscored=[[True]])


def test_json_keeps_the_turns() -> None:
    debate = started()
    played(debate)
    again = Transcript.from_json(debate.transcript.to_json())
    assert again == debate.transcript
    assert again.until(2).ends == (2, 5)
    assert "ends" not in Transcript(QUESTION, ("agent_0",)).to_dict()


def test_a_recording_is_played_as_it_was_said() -> None:
    batch = BatchedDebate(DebateConfig(**OPTIONS), 1)
    batch.reset()
    while asked := batch.prompts():
        batch.step([f"{p.agent} in {p.turn}" for p in asked])
    [transcript] = batch.transcripts
    recording = replay.Recording.of_transcript(transcript)
    assert recording.num_turns == 4
    again = replay.play([recording], protocol=Ushers(num_turns=4)).transcripts[0]
    assert [m.text for m in again.messages] == [m.text for m in transcript.messages]
    assert replace(recording, texts=((), (), ("x",)), turns=((), (), (1,))).text(0, 3) == ""


@pytest.mark.parametrize("options", [{}, {"reward_mode": "score"}, {"observation": "tokens"}])
def test_official_tests(options: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(debate_v0.env(**OPTIONS, **options), num_cycles=40)
    assert {str(warning.message) for warning in caught} <= UNAVOIDABLE
    seed_test(lambda: debate_v0.env(**OPTIONS, **options), num_cycles=10)


@pytest.mark.parametrize("mode", ["terminal", "score"])
def test_aec_pays_what_the_table_says(mode: Any) -> None:
    env = debate_v0.env(**OPTIONS, reward_mode=mode)
    env.reset(seed=0)
    total = dict.fromkeys(env.possible_agents, 0.0)
    while env.agents:
        agent = env.agent_selection
        _, reward, over, _, _ = env.last()
        total[agent] += reward
        env.step(None if over else RIGHT)
    if mode == "terminal":
        table = env.unwrapped.debate.rewards().sum(axis=0)
        assert total == pytest.approx(dict(zip(env.possible_agents, table, strict=True)), abs=1e-6)
    else:  # agent 0 is right four times; the others are not scored, or not paid
        assert total == {"agent_0": 4.0, "agent_1": 0.0, "agent_2": 0.0}


@pytest.mark.parametrize("learner", [0, 1, 2])
def test_one_learner_among_partners(learner: int) -> None:
    read: list[str] = []
    env = gymnasium.make(
        "maporl/Debate-v0",
        partners=lambda asked: [read.append(one) or RIGHT for one in asked],
        learner=learner,
        **OPTIONS,
    )
    env.reset(seed=0)
    steps, over = 0, False
    while not over:
        _, _, over, _, _ = env.step(RIGHT)
        steps += 1
    assert steps == (2 if learner == 2 else 4)
    assert len(read) == 10 - steps


def test_parallel_and_vector_views_are_refused_with_the_reason() -> None:
    for make in (
        lambda: debate_v0.parallel_env(**OPTIONS),
        lambda: gymnasium.make_vec("maporl/Debate-v0", num_envs=2, **OPTIONS),
    ):
        with pytest.raises(ValueError, match="does not let all agents speak at once in every"):
            make()


def test_worked_examples_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="those of Ushers are not: set shots=0"):
        DebateConfig(**{**OPTIONS, "task": "shopping"}, shots=1).load()


def test_the_reference_is_read_by_the_privileged_alone() -> None:
    question = replace(QUESTION, private=("zero", "one", "two"))
    debate = Debate(Ushers(num_turns=2), 3)
    debate.reset(question)
    for index, agent in enumerate(debate.agents):
        text = debate.observation(agent)
        assert ("the reference" in text) == (index == 2)
        assert [t for t in question.private if f"told: {t}" in text] == [question.private[index]]
