"""Limits on tokens per turn, alone and beside limits per agent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.play.rollout import play
from maporl_agents.play.window_check import full_length, too_long
from maporl_agents.training.make_game import debate_config, make_game
from maporl_env.types import Question


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"turn_max_new_tokens": (3, 5)}, [[3, 3], [5, 5], [5, 5]]),
        ({"turn_max_new_tokens": (4,)}, [[4, 4]] * 3),
        (
            {"turn_max_new_tokens": (2, 6), "agent_max_new_tokens": (4, 9)},
            [[2, 2], [4, 6], [4, 6]],
        ),
        ({"agent_max_new_tokens": (4, 9)}, [[4, 9]] * 3),
    ],
)
def test_a_message_has_the_limit_of_its_turn_and_agent(
    limits: dict[str, tuple[int, ...]], tokens: list[list[int]]
) -> None:
    sampling = Sampling(**limits)  # type: ignore[arg-type]
    assert [[sampling.limit_of(a, t) for a in range(2)] for t in range(3)] == tokens
    assert sampling.limited_to(7).limit_of(1, 2) == 7


def test_messages_of_each_turn_are_as_long_as_they_may_be() -> None:
    game = make_game(GameConfig(num_agents=2, num_turns=3))
    team = make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=3, seed=0)
    sampling = Sampling(turn_max_new_tokens=(2, 5, 3))
    questions = game.questions("test")[:2]
    for engine in (None, full_length(team)):
        rollouts = play(team, game.debates(2), questions, sampling, seed=0, engine=engine)
        lengths = [len(one.ids) for rollout in rollouts for one in rollout.completions]
        assert all(n <= most for n, most in zip(lengths, [2, 2, 5, 5, 3, 3] * 2, strict=True))
    assert lengths == [2, 2, 5, 5, 3, 3] * 2


def test_the_window_check_goes_by_turns() -> None:
    team = make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=3, seed=0)
    config = debate_config(GameConfig(num_agents=2, num_turns=3))
    asked = [Question("q", " ".join(["pen"] * 20), "1")]
    long = Sampling(max_new_tokens=90)
    assert too_long(team, config, long, asked)
    short = replace(long, turn_max_new_tokens=(10, 10, 90))
    assert not too_long(team, config, short, asked)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="turn_max_new_tokens must be at least 1 each"):
        Sampling(turn_max_new_tokens=(3, 0))
