"""Overcooked as a PettingZoo environment: the real package, where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("overcooked", reason="needs the extra overcooked")

from pettingzoo.test import parallel_api_test, parallel_seed_test

from maporl_env.bridges.overcooked import ACTIONS, OvercookedGame
from maporl_env.revision.revise import Threshold
from maporl_env.revision.teams import Alone, InOrder, play
from maporl_env.revision.values import SubsetValues

UP, DOWN, RIGHT, LEFT, STAY, INTERACT = range(6)


def cooked(env: OvercookedGame, *actions: int, cook: int = 0) -> list[float]:
    """Let one cook act and the others stay; return the rewards."""
    rewards = []
    for action in actions:
        both = dict.fromkeys(env.agents, STAY)
        both[f"agent_{cook}"] = action
        rewards.append(env.step(both)[1]["agent_0"])
    return rewards


def test_it_is_a_pettingzoo_environment() -> None:
    parallel_api_test(OvercookedGame(horizon=60), num_cycles=100)
    parallel_seed_test(OvercookedGame, num_cycles=20)
    env = OvercookedGame("cramped_room", render_mode="ansi")
    observations, _ = env.reset(seed=0)
    assert env.possible_agents == ["agent_0", "agent_1"]
    assert all(env.observation_space(a).contains(seen) for a, seen in observations.items())
    assert env.state_space.contains(env.state())
    assert "P" in (env.render() or "")
    assert len(ACTIONS) == env.action_space("agent_0").n


def test_a_soup_is_cooked_by_hand() -> None:
    """Three onions, 20 turns, a dish: 3 x 3 + 3 + 5 on the way, and 20 for the soup."""
    env = OvercookedGame("cramped_room")
    env.reset()
    onion = (LEFT, LEFT, INTERACT, RIGHT, UP, INTERACT)
    rewards = [cooked(env, UP, *onion[1:]), cooked(env, *onion), cooked(env, *onion)]
    assert [sum(some) for some in rewards] == [3.0, 3.0, 3.0]
    assert sum(cooked(env, INTERACT)) == 0.0  # it begins to cook
    assert cooked(env, LEFT, DOWN, DOWN, INTERACT)[-1] == 3.0  # a dish
    assert not any(cooked(env, *[STAY] * 20))
    assert cooked(env, UP, RIGHT, UP, INTERACT)[-1] == 5.0  # the soup
    assert cooked(env, DOWN, RIGHT, DOWN, INTERACT)[-1] == 20.0
    assert env.soups == 1
    assert np.isfinite(env.state()).all()


def test_an_onion_in_hand_while_no_pot_is_empty_ends_no_program() -> None:
    """Where the package's own `Overcooked.step` fails with IndexError."""
    env = OvercookedGame("cramped_room")
    env.reset()
    cooked(env, UP, LEFT, INTERACT, RIGHT, UP, INTERACT, LEFT, LEFT, INTERACT, STAY)
    assert [one.held_object.name for one in env.now.players if one.held_object] == ["onion"]
    assert not env.kitchen.get_empty_pots(env.kitchen.get_pot_states(env.now))


def test_a_game_is_truncated_and_rewards_are_shared() -> None:
    env = OvercookedGame(horizon=2)
    env.reset()
    both = dict.fromkeys(env.agents, STAY)
    assert env.step(both)[3] == {"agent_0": False, "agent_1": False}
    _, rewards, ended, truncated, _ = env.step(both)
    assert (set(ended.values()), set(truncated.values())) == ({False}, {True})
    assert len(set(rewards.values())) == 1
    assert env.agents == []


def test_kitchens_side_by_side_keep_their_recipes() -> None:
    """The package holds recipes in one global place; those of the tomato kitchen differ."""

    def rewards(beside: OvercookedGame | None) -> list[float]:
        env, noise, found = OvercookedGame("cramped_room"), np.random.default_rng(0), []
        env.reset()
        for _ in range(150):
            chosen = {agent: int(noise.integers(6)) for agent in env.agents}
            if beside is not None:
                beside.step(chosen)
            found.append(env.step(chosen)[1]["agent_0"])
        return found

    other = OvercookedGame("cramped_room_tomato")
    other.reset()
    assert rewards(other) == rewards(None)


def test_read_plays_it() -> None:
    env, noise = OvercookedGame(horizon=20), np.random.default_rng(0)

    def mu(situation: Any) -> int:
        return int(noise.integers(6))

    critic = SubsetValues(0.9)
    for seed in range(3):
        critic.add(play(env, Alone(mu), lambda env: 0, seed=seed).steps)
    episode = play(env, InOrder(mu, critic, Threshold(0.0, 20), mu), lambda env: 0)
    assert len(episode.steps) == 20
    assert episode.proposals >= 40


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"layout": "no_such_room"}, "no layout 'no_such_room'"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"render_mode": "human"}, "render_mode one of"),
    ],
)
def test_impossible_games_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OvercookedGame(**options)
    env = OvercookedGame()
    env.reset()
    with pytest.raises(ValueError, match="an action is 0 to 5"):
        env.step({"agent_0": 6, "agent_1": 0})
