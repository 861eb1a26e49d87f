"""The VecEnv over debates: same game as everywhere, the calls it costs, what SB3 asks of it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete

pytest.importorskip("stable_baselines3", reason="needs the extra sb3")

from maporl_env.bridges.sb3 import DebateVecEnv
from maporl_env.bridges.tokens import TokenDebate
from maporl_env.bridges.vector import VectorDebate
from maporl_env.types import Question

SMALL: dict[str, Any] = {"observation_tokens": 600, "message_tokens": 4}
QUESTIONS = [Question(f"q{n}", f"what is {n} + 1?", str(n + 1)) for n in range(5)]


def echo(prompts: Sequence[str]) -> list[str]:
    """A partner that answers by the length of what it reads."""
    return [rf"\boxed{{{len(prompt) % 7}}}" for prompt in prompts]


class Length:
    """A verifier that scores the length of a text and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        self.calls += 1
        return [len(text) / 10 for text in responses]


def test_token_lanes_are_the_single_agent_view() -> None:
    """Each lane of one learner plays what TokenDebate plays with the same seed and ids."""
    options = {"task": QUESTIONS, "num_agents": 2, "num_turns": 2, "verifier": Length(), **SMALL}
    vec = DebateVecEnv(3, echo, **options)
    vec.seed(5)
    seen = vec.reset()
    lone = [TokenDebate(echo, **options) for _ in range(3)]
    for n, env in enumerate(lone):
        assert (env.reset(seed=5 + n)[0] == seen[n]).all()
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(40):
        ids = rng.integers(1, 258, size=3)  # 257 ends a message
        ids[rng.random(3) < 0.3] = 257
        masks = vec.env_method("action_masks")
        seen, rewards, dones, infos = vec.step(ids)
        for n, env in enumerate(lone):
            assert (masks[n] == env.action_masks()).all()
            observation, reward, over, cut, info = env.step(int(ids[n]))
            assert rewards[n] == pytest.approx(reward)
            assert dones[n] == (over or cut)
            assert (infos[n]["turn_rewards"] == info["turn_rewards"]).all()
            if dones[n]:
                ends += 1
                assert (infos[n]["terminal_observation"] == observation).all()
                assert infos[n]["TimeLimit.truncated"] is False
                observation, _ = env.reset()
            assert (observation == seen[n]).all()
    assert ends > 3


def test_whole_messages_are_the_gymnasium_vector_view() -> None:
    options = {"task": QUESTIONS, "num_agents": 2, "num_turns": 2, "verifier": Length(), **SMALL}
    vec = DebateVecEnv(4, learner="all", action="message", **options)
    other = VectorDebate(4, learner="all", observation="tokens", **options)
    assert vec.action_space == MultiDiscrete([258] * 4)
    vec.seed(3)
    assert (vec.reset() == other.reset(seed=[3, 4, 5, 6])[0]).all()
    rng = np.random.default_rng(1)
    for _ in range(5):
        rows = rng.integers(0, 258, size=(4, 4))
        seen, rewards, dones, _ = vec.step(rows)
        observations, expected, over, cut, _ = other.step(rows)
        assert (seen == observations).all()
        assert rewards == pytest.approx(expected)
        assert (dones == (over | cut)).all()
    assert vec.env_method("action_masks")[0].shape == (4 * 258,)


@pytest.mark.parametrize("reward_mode", ["terminal", "score"])
def test_rewards_are_conserved_and_calls_are_few(reward_mode: str) -> None:
    """6 debates of 2 turns: 2 calls of the partner, 2 of the verifier; all that is paid comes."""
    verifier, asked = Length(), []

    def partner(prompts: Sequence[str]) -> list[str]:
        asked.append(len(prompts))
        return echo(prompts)

    vec = DebateVecEnv(
        6,
        partner,
        task=QUESTIONS,
        num_agents=3,
        num_turns=2,
        action="message",
        verifier=verifier,
        reward_mode=reward_mode,
        **SMALL,
    )
    vec.seed(0)
    vec.reset()
    total = np.zeros(6)
    scores = np.zeros(6)
    for turn in range(2):
        rows = np.full((6, 4), 50 + turn)
        rows[::2, 2:] = 0
        _, rewards, dones, infos = vec.step(rows)
        total += rewards
        scores += [info["verifier_score"] for info in infos]
    assert dones.all()
    assert asked == [12, 12]
    assert verifier.calls == 2
    paid = np.array([info["turn_rewards"].sum() for info in infos])
    assert total == pytest.approx(paid if reward_mode == "terminal" else scores)
    assert scores == pytest.approx([0.4, 0.8] * 3)


def test_a_truncated_debate_says_so_and_pays_its_complete_turns() -> None:
    vec = DebateVecEnv(
        2, echo, task=QUESTIONS, num_agents=2, num_turns=2, verifier=Length(), gamma=1.0, **SMALL
    )
    vec.seed(0)
    vec.reset()
    end = np.array([257, 257])
    vec.step(np.array([66, 66]))  # "A"
    vec.step(end)
    before = vec.get_attr("transcript", 0)[0]
    vec.env_method("truncate", "out of time", indices=[0])
    _, rewards, dones, infos = vec.step(end)
    assert dones.tolist() == [True, True]
    assert [info["TimeLimit.truncated"] for info in infos] == [True, False]
    # One turn was played: the learner wrote "A", one character of ten, so its own score is .1.
    assert rewards[0] == pytest.approx(0.1)
    assert infos[0]["turn_rewards"].tolist() == pytest.approx([0.1, 0.0])
    assert before.texts_of("agent_0") == ("A",)
    assert len(before.messages) == 2
    assert vec.get_attr("transcript", [0])[0].messages == ()  # it has started anew
    vec.step(end)


def test_truncating_every_lane_of_a_debate_is_truncating_it_once() -> None:
    """Two debates of two lanes each; the first reason holds."""
    vec = DebateVecEnv(4, learner="all", task=QUESTIONS, num_agents=2, **SMALL)
    vec.seed(0)
    vec.reset()
    vec.env_method("truncate", "why")
    assert [core.debate.truncation_reason for core in vec.cores] == ["why", "why"]
    vec.lanes[1].truncate("again")
    assert vec.cores[0].debate.truncation_reason == "why"
    _, _, dones, infos = vec.step(np.full(4, 257))
    assert dones.all()
    assert all(info["TimeLimit.truncated"] for info in infos)


def test_a_sequential_protocol_with_one_learner() -> None:
    vec = DebateVecEnv(2, echo, learner=1, task=QUESTIONS, protocol="sequential", **SMALL)
    vec.seed(0)
    vec.reset()
    assert all(len(t.messages) == 1 for t in vec.get_attr("transcript"))  # agent_0 has spoken
    done, steps = np.zeros(2, bool), 0
    while not done.any():
        _, _, done, _ = vec.step(np.array([257, 257]))
        steps += 1
    assert steps == 3  # one per turn
    with pytest.raises(ValueError, match="one learner"):
        DebateVecEnv(6, learner="all", protocol="sequential", **SMALL)


def test_seeds_and_options_hold_for_one_reset() -> None:
    vec = DebateVecEnv(2, echo, task=QUESTIONS, num_agents=2, **SMALL)
    assert vec.seed(8) == [8, 9]
    first = vec.reset()
    drawn = vec.reset()
    vec.seed(8)
    assert (vec.reset() == first).all()
    assert (vec.reset() == drawn).all()
    vec.set_options({"index": 3})
    vec.reset()
    assert [t.question.id for t in vec.get_attr("transcript")] == ["q3", "q3"]
    a, b = vec.seed(), vec.seed()
    assert a != b  # drawn from fresh entropy, not from the global generator


def test_what_stable_baselines_asks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vec = DebateVecEnv(2, echo, task=QUESTIONS, num_agents=2, render_mode="ansi", **SMALL)
    assert isinstance(vec.action_space, Discrete)
    assert vec.has_attr("action_masks")
    assert not vec.has_attr("no_such_thing")
    assert vec.env_is_wrapped(object) == [False, False]
    vec.seed(0)
    vec.reset()
    assert all("Question" in text for text in vec.env_method("render"))
    assert vec.observation_space.contains(vec.reset()[0])
    vec.set_attr("max_cycles", 1)
    vec.reset()
    assert vec.step(np.array([257, 257]))[2].all()
    copied = pickle.loads(pickle.dumps(vec.lanes[0]))
    assert (copied.action_masks() == vec.lanes[0].action_masks()).all()


def test_wrong_calls_change_nothing() -> None:
    vec = DebateVecEnv(2, echo, task=QUESTIONS, num_agents=2, **SMALL)
    with pytest.raises(RuntimeError, match="reset"):
        vec.step(np.array([1, 2]))
    vec.seed(0)
    before = vec.reset()
    with pytest.raises(ValueError, match="1 actions for 2 lanes"):
        vec.step(np.array([1]))
    with pytest.raises(ValueError, match="one token id"):
        vec.step(np.array([1.5, 2.5]))
    assert (vec._observations() == before).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_envs": 0}, "multiple of the 1"),
        ({"num_envs": 4, "learner": "all", "num_agents": 3}, "multiple of the 3"),
        ({"observation": "text"}, "takes numbers"),
        ({"learner": 7}, "agent index from 0"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DebateVecEnv(**options)
