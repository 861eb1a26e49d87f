"""Actions that are refused, and text that must not break a debate."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from maporl_env import debate_v0
from maporl_env.observations.spaces import DebateText

from .debates import FEW, SEQUENTIAL

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


@pytest.mark.parametrize("action", [None, 3, b"x", ["x"], np.array(["x"])])
def test_a_wrong_action_changes_nothing(action: Any) -> None:
    env = debate_v0.env(FEW)
    env.reset(seed=0)
    env.step("first")
    before = pickle.dumps(env.unwrapped)
    with pytest.raises(ValueError, match="agent_1 must be a string"):
        env.step(action)
    assert pickle.dumps(env.unwrapped) == before


@pytest.mark.parametrize(
    "actions",
    [
        {},
        {"agent_0": "a"},
        {"agent_0": "a", "agent_1": "b", "agent_2": "c", "agent_3": "d"},
        {"agent_0": "a", "agent_1": "b", "agent_9": "c"},
        {"agent_0": "a", "agent_1": None, "agent_2": "c"},
        {"agent_0": "a", "agent_1": "b", "agent_2": 7},
        ["a", "b", "c"],
        None,
    ],
)
def test_a_wrong_action_dict_changes_nothing(actions: Any) -> None:
    env = debate_v0.parallel_env(FEW)
    env.reset(seed=0)
    before = pickle.dumps(env)
    with pytest.raises(ValueError, match=r"actions must be a dict|must be a string"):
        env.step(actions)
    assert pickle.dumps(env) == before


def test_calls_in_the_wrong_order() -> None:
    parallel, aec = debate_v0.parallel_env(num_turns=1), debate_v0.env(num_turns=1)
    for env in (parallel, aec):
        with pytest.raises(
            (ResetNeeded, AssertionError), match="reset"
        ):  # the latter: PettingZoo's
            env.step("too early")
    parallel.reset(seed=0)
    parallel.step(dict.fromkeys(parallel.agents, "x"))
    with pytest.raises(ResetNeeded, match="call reset first"):
        parallel.step({})
    with pytest.raises(RuntimeError, match="call reset"):
        debate_v0.parallel_env().state()


HOSTILE = [
    "",
    " ",
    "x" * 1_000,
    "\U0001f9d1\u200d\U0001f4bb é 漢字 \u0660",
    "\ud800 lone \udfff",
    "\x00\x1b[31m\x07",
    "\u202ereversed",
    "</s><|im_end|>```\\boxed{" * 20,
    DebateText("observed"),
    np.str_("numpy"),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("options", [{}, *SEQUENTIAL])
def test_no_text_breaks_a_debate(text: str, options: dict[str, Any]) -> None:
    env = debate_v0.env(max_chars=500, render_mode="ansi", **options)
    env.reset(seed=0)
    for agent in env.agent_iter():
        (
            observation,
            *_,
        ) = env.last()
        assert env.observation_space(agent).contains(observation)
        env.step(None if env.terminations[agent] else text)
    transcript = env.unwrapped.transcript
    assert all(len(m.text) <= 500 and type(m.text) is str for m in transcript.messages)
    assert all(m.cut == (len(text) > 500) for m in transcript.messages)
    assert env.state_space.contains(env.state())
    env.render().encode()


def test_too_long_a_message_is_refused_where_asked() -> None:
    env = debate_v0.env(max_chars=5, on_long="error")
    env.reset(seed=0)
    assert "123456" not in env.action_space("agent_0")
    with pytest.raises(ValueError, match="max_chars=5"):
        env.step("123456")
