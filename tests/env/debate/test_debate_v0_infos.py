"""Infos, rewards and truncation as the environment returns them."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0
from maporl_env.types import Question

from .debates import GOLD, SEQUENTIAL, SETTINGS

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


def test_the_gold_answer_is_nowhere_before_the_end() -> None:
    env = debate_v0.env(reward_feedback=True, render_mode="ansi")
    env.reset(options={"question": GOLD})
    while not any(env.terminations.values()):
        agent = env.agent_selection
        for told in (env.observe(agent), env.render(), str(env.infos), env.unwrapped.state_text()):
            assert GOLD.answer not in told
        assert GOLD.answer not in str(env.unwrapped.chat(agent))
        env.step("I do not know")


@pytest.mark.parametrize("options", [*SETTINGS, *SEQUENTIAL])
def test_infos_have_one_schema_and_are_nobody_elses(options: dict[str, Any]) -> None:
    env = debate_v0.env(**options)
    env.reset(seed=0)
    seen: list[Any] = []

    def schema(info: dict[str, Any]) -> list[Any]:
        return [(key, np.asarray(value).dtype, np.shape(value)) for key, value in info.items()]

    expected = schema(env.infos["agent_0"])
    assert [key for key, *_ in expected] == [
        "turn", "verifier_score", "verifier_score_ready", "turn_rewards", "turn_rewards_ready",
    ]  # fmt: skip
    while env.agents:
        for info in env.infos.values():
            assert schema(info) == expected
            assert np.isfinite(info["turn_rewards"]).all()
            if not env.terminations[env.agent_selection]:  # taking leave tells nothing new
                assert all(info is not other for other in seen)
                seen.append(info)
        before = pickle.dumps(env.unwrapped.debate)
        env.infos[env.agent_selection]["turn_rewards"][:] = 99
        assert pickle.dumps(env.unwrapped.debate) == before
        dead = env.terminations[env.agent_selection]
        env.step(None if dead else "\\boxed{1}")


def test_infos_tell_turn_score_and_the_table_at_the_end() -> None:
    env = debate_v0.parallel_env(num_agents=2, num_turns=2, gamma=0.5)
    _, infos = env.reset(options={"question": Question("q", "2 + 2?", "4")})
    assert infos["agent_0"]["turn"] == 0
    assert not infos["agent_0"]["verifier_score_ready"]
    infos = env.step({"agent_0": "\\boxed{4}", "agent_1": "\\boxed{5}"})[4]
    assert [infos[a]["verifier_score"] for a in env.agents] == [1, 0]
    assert infos["agent_0"]["verifier_score_ready"]
    assert infos["agent_0"]["turn_rewards"].tolist() == [0, 0]
    assert not infos["agent_0"]["turn_rewards_ready"]
    infos = env.step({"agent_0": "\\boxed{4}", "agent_1": "\\boxed{5}"})[4]
    # (1 + 0.5 * 0.5) / 1.5 and (0 + 0.5 * 0.5) / 1.5
    assert infos["agent_0"]["turn_rewards"] == pytest.approx([1.25 / 1.5, 1])
    assert infos["agent_1"]["turn_rewards"] == pytest.approx([0.25 / 1.5, 0])
    assert infos["agent_1"]["turn"] == 2
    assert infos["agent_1"]["turn_rewards_ready"]


def test_a_verifier_fault_is_told_and_counted() -> None:
    env = debate_v0.parallel_env(
        num_agents=2, num_turns=1, verifier=lambda questions, texts: [float("nan"), 0.5]
    )
    env.reset(seed=0)
    _, rewards, terminations, _, infos = env.step({"agent_0": "a", "agent_1": "b"})
    assert [infos[a]["verifier_score_ready"] for a in infos] == [False, True]
    assert rewards == {"agent_0": 0.0, "agent_1": 0.5}
    assert env.faults == {"not a number": 1}
    assert all(terminations.values())


def test_score_mode_pays_each_turn_its_score() -> None:
    env = debate_v0.parallel_env(num_agents=2, num_turns=2, reward_mode="score")
    env.reset(options={"question": Question("q", "2 + 2?", "4")})
    assert env.step({"agent_0": "\\boxed{4}", "agent_1": "x"})[1] == {"agent_0": 1, "agent_1": 0}
    assert env.step({"agent_0": "y", "agent_1": "\\boxed{4}"})[1] == {"agent_0": 0, "agent_1": 1}


@pytest.mark.parametrize("mode", ["terminal", "score"])
def test_truncation_from_outside(mode: str) -> None:
    options = {"num_agents": 2, "reward_mode": mode}
    parallel, aec = debate_v0.parallel_env(**options), debate_v0.env(**options)
    pinned = {"question": Question("q", "2 + 2?", "4")}
    parallel.reset(options=pinned)
    parallel.step(dict.fromkeys(parallel.agents, "\\boxed{4}"))
    _, rewards, terminations, truncations, _ = parallel.truncate("generation timed out")
    paid = 1.0 if mode == "terminal" else 0.0  # "score" has paid the turn already
    assert rewards == {"agent_0": paid, "agent_1": paid}
    assert all(truncations.values())
    assert not any(terminations.values())
    assert parallel.agents == []
    aec.reset(options=pinned)
    totals = dict.fromkeys(aec.possible_agents, 0.0)
    for step, _ in enumerate(aec.agent_iter()):
        if step == 3:  # one message of the second turn is pending
            aec.unwrapped.truncate("generation timed out")
        _, reward, terminated, truncated, _ = aec.last()
        totals[aec.agent_selection] += reward
        assert not terminated
        aec.step(None if truncated else "\\boxed{4}")
    assert totals == {"agent_0": 1.0, "agent_1": 1.0}
