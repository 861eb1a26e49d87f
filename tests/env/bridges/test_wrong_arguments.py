"""Arguments that the single-agent and the vector view refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gymnasium.vector import AutoresetMode

from maporl_env.bridges.single_agent import SingleAgentDebate
from maporl_env.bridges.vector import VectorDebate


def vector(**options: Any) -> VectorDebate:
    return VectorDebate(**{"num_envs": 4, **options})


@pytest.mark.parametrize("make", [SingleAgentDebate, vector])
@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"partners": [["a"]]}, ValueError, "a list of 2: one for each of agent_1, agent_2"),
        ({"partners": "hello"}, ValueError, "one callable, or a list"),
        ({"partners": ["hi", "ho"]}, ValueError, "partner agent_1 must be a callable"),
        ({"partners": [["a"], []]}, ValueError, "partner agent_2 must be a callable"),
        ({"learner": 3}, ValueError, "an agent index from 0 to 2"),
        ({"num_agent": 3}, TypeError, "did you mean 'num_agents'"),
    ],
)
def test_both_refuse(
    make: Callable[..., Any], arguments: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"num_envs": 0}, "positive multiple of the 1"),
        ({"learner": "all"}, "multiple of the 3 learners"),
        ({"learner": "none"}, "an agent index from 0 to 2"),
        ({"autoreset_mode": AutoresetMode.NEXT_STEP}, "SAME_STEP or DISABLED"),
        ({"protocol": "sequential"}, "does not let all agents speak at once"),
        ({"observation": "tokens", "action": "token"}, "vectorization_mode='sync'"),
    ],
)
def test_the_vector_view_refuses(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        vector(**arguments)
