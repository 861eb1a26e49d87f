"""One script, two interfaces: prompts, rewards, infos and transcripts are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec

from maporl_env import debate_v0
from maporl_env.types import Question

QUESTION = Question("q", "What is 2 + 2?", "4")
PINNED = {"question": QUESTION}
SAYS = ("\\boxed{4}", "\\boxed{5}", "nothing", "", "```\\boxed{4}")


def fractional(questions: list[Question], texts: list[str]) -> list[float]:
    """Scores that are neither 0 nor 1 and differ from text to text."""
    return [((7 * place + 3 * len(text)) % 11) / 10.7 for place, text in enumerate(texts)]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"reward_mode": "score", "reward_feedback": True},
    {"verifier": fractional, "gamma": 0.7},
    {"stop": "consensus", "alpha": (1, 2), "beta": (3, 4)},
    {"verifier": fractional, "share": "own", "horizon": "last"},
    {"protocol": "joint", "verifier": fractional},
]


def plain(infos: dict[str, Any]) -> dict[str, Any]:
    return {agent: {k: np.asarray(v).tolist() for k, v in i.items()} for agent, i in infos.items()}


def by_parallel(env: Any, script: list[str]) -> list[Any]:
    """Per turn: observations, rewards and infos; at last what every agent got in all."""
    observations, infos = env.reset(seed=0, options=PINNED)
    told: list[Any] = [(dict(observations), plain(infos))]
    totals = dict.fromkeys(env.possible_agents, 0.0)
    says = iter(script)
    while env.agents:
        actions = {agent: next(says) for agent in env.agents}
        observations, rewards, *_, infos = env.step(actions)
        told.append((dict(observations), dict(rewards), plain(infos)))
        for agent, reward in rewards.items():
            totals[agent] += reward
    return [*told, totals]


def by_aec(env: Any, script: list[str]) -> list[Any]:
    env.reset(seed=0, options=PINNED)
    everybody = env.possible_agents
    told: list[Any] = [({a: env.observe(a) for a in everybody}, plain(env.infos))]
    totals = dict.fromkeys(everybody, 0.0)
    says = iter(script)
    for agent in env.agent_iter():
        _, reward, terminated, truncated, _ = env.last()
        totals[agent] += reward
        if terminated or truncated:
            env.step(None)
            continue
        env.step(next(says))
        if agent == everybody[-1]:
            told.append(
                ({a: env.observe(a) for a in everybody}, dict(env.rewards), plain(env.infos))
            )
    return [*told, totals]


@settings(max_examples=15)
@given(
    st.sampled_from(OPTIONS),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.sampled_from(SAYS), min_size=12, max_size=12),
)
def test_aec_and_parallel_agree(
    options: dict[str, Any], agents: int, turns: int, script: list[str]
) -> None:
    options = {**options, "num_agents": agents, "num_turns": turns}
    aec, parallel = debate_v0.env(**options), debate_v0.parallel_env(**options)
    told = by_parallel(parallel, script)
    assert by_aec(aec, script) == told
    assert aec.unwrapped.transcript == parallel.transcript
    assert by_parallel(aec_to_parallel(debate_v0.env(**options)), script) == told
    assert by_aec(parallel_to_aec(debate_v0.parallel_env(**options)), script)[-1] == told[-1]


@pytest.mark.parametrize("options", [o for o in OPTIONS if "reward_mode" not in o])
def test_what_is_paid_in_all_is_the_sum_of_the_turn_rewards(options: dict[str, Any]) -> None:
    script = list(SAYS[:3]) * 3
    *_, last, totals = by_parallel(debate_v0.parallel_env(**options), script)
    for agent, info in last[-1].items():
        assert totals[agent] == pytest.approx(sum(info["turn_rewards"]), abs=1e-6)
        assert info["turn_rewards_ready"]


def test_rewards_reach_everybody_however_late_they_are_read() -> None:
    env = debate_v0.env(num_agents=3, num_turns=1)
    env.reset(options=PINNED)
    paid = {}
    for agent in env.agent_iter():
        _, reward, terminated, _, _ = env.last()
        if terminated:
            paid[agent] = reward
        env.step(None if terminated else "\\boxed{4}")
    assert paid == {"agent_0": 1.0, "agent_1": 1.0, "agent_2": 1.0}


def test_a_same_turn_message_is_in_no_observation_until_the_turn_is_complete() -> None:
    env = debate_v0.env(num_agents=3, num_turns=2)
    env.reset(options=PINNED)
    before = {agent: env.observe(agent) for agent in env.agents}
    for agent in ("agent_0", "agent_1"):
        env.step(f"said by {agent}")
        assert {a: env.observe(a) for a in env.agents} == before
    env.step("said by agent_2")
    for agent in env.agents:
        assert all(f"said by {other}" in env.observe(agent) for other in env.agents)
