"""Debates in token ids under the tests of PettingZoo, Gymnasium and SB3, and across processes."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import pettingzoo
import pytest
from gymnasium.spaces import Discrete
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test, seed_test

from maporl_env import debate_v0
from maporl_env.bridges.tokens import TokenDebate

from .. import official
from .token_debates import BOX, CONVERTED, SEQUENTIAL, SETTINGS, SMALL, WRITING

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


@pytest.mark.parametrize("make", [debate_v0.env, debate_v0.raw_env, CONVERTED.to_aec])
@pytest.mark.parametrize("options", SETTINGS)
def test_api(make: Callable[..., Any], options: dict[str, Any]) -> None:
    api_test(make(**options), num_cycles=30)


@pytest.mark.parametrize("options", SEQUENTIAL)
def test_api_of_sequential_protocols(options: dict[str, Any]) -> None:
    api_test(debate_v0.env(**options), num_cycles=30)
    seed_test(lambda: debate_v0.env(**options), num_cycles=10)


@pytest.mark.parametrize("make", [debate_v0.parallel_env, CONVERTED.to_parallel, CONVERTED.twice])
@pytest.mark.parametrize("options", SETTINGS)
def test_parallel_api(make: Callable[..., Any], options: dict[str, Any]) -> None:
    parallel_api_test(make(**options), num_cycles=30)


@pytest.mark.parametrize("aec", [debate_v0.env, CONVERTED.to_aec])
@pytest.mark.parametrize("parallel", [debate_v0.parallel_env, CONVERTED.to_parallel])
@pytest.mark.parametrize("options", SETTINGS)
def test_official_seed_and_state(
    aec: Callable[..., Any], parallel: Callable[..., Any], options: dict[str, Any]
) -> None:
    official.check_seeds_and_state(aec, parallel, options)


# A cycle is a turn where a message is one action: whole messages, or messages of one token.
@pytest.mark.parametrize("options", [BOX, {**WRITING, "message_tokens": 1}])
def test_official_max_cycles_and_render(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.SimpleNamespace(
        env=lambda **more: debate_v0.env(**options, **more),
        parallel_env=lambda **more: debate_v0.parallel_env(**options, **more),
    )
    official.check_max_cycles_and_render(module, capsys, printed="Question few/")


@pytest.mark.parametrize("options", [{}, {"obs_dtype": "float32"}, {"protocol": "sequential"}])
def test_gymnasium_checks_the_token_view_without_a_warning(options: dict[str, Any]) -> None:
    sizes = {"observation_tokens": 700, "message_tokens": 5, "learner": 1, **options}
    writing = gymnasium.make("maporl/TokenDebate-v0", **sizes).unwrapped
    rows = gymnasium.make("maporl/Debate-v0", observation="tokens", **sizes).unwrapped
    assert isinstance(writing, TokenDebate)
    check_env(writing)
    with pytest.warns(UserWarning, match="symmetric and normalized space") as caught:
        check_env(rows)
    assert len(caught) == 1  # ids are no numbers around 0; nothing else is complained of


@pytest.mark.slow  # importing torch takes most of it
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_sb3_checks_the_token_view_without_a_warning(dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # what its imports warn of is not ours
        checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(TokenDebate(**SMALL, obs_dtype=dtype), warn=True)


def test_the_token_view_takes_no_other_action() -> None:
    with pytest.raises(ValueError, match="use SingleAgentDebate"):
        TokenDebate(action="message")


def test_made_by_name() -> None:
    env = pettingzoo.make("parallel", "maporl/debate-v0", observation="tokens", action="token")
    assert isinstance(env.action_space("agent_0"), Discrete)


WHOLE_EPISODES = """
import json
from maporl_env import debate_v0
from maporl_env.bridges.vector import VectorDebate

def show(told):
    print(json.dumps(told, default=lambda array: array.tolist()))

small = dict(observation="tokens", observation_tokens=2000, message_tokens=5)
for options in ({}, small, {**small, "action": "token"}):
    env = debate_v0.parallel_env(**options)
    for place, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(place)
    for seed in (5, None, None):
        show(env.reset(seed=seed))
        while env.agents:
            told = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
            show((told, env.state()))
        show(env.transcript.to_dict())
envs = VectorDebate(6, learner="all", stop="consensus")
show(envs.reset(seed=3))
for turn in range(6):
    show(envs.step([f"\\\\boxed{{{lane // 5}}}" for lane in range(6)]))
"""


@pytest.mark.thorough
def test_whole_episodes_repeat_in_other_processes_with_other_hash_seeds() -> None:
    assert len(official.check_output_in_other_processes(WHOLE_EPISODES).splitlines()) > 50
