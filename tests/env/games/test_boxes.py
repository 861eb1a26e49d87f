"""Boxes: its rules by hand, texts, and that it is a PettingZoo environment."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pettingzoo
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from maporl_env.games.boxes_v0 import parallel_env

UP, DOWN, LEFT, RIGHT, TARGET = range(1, 6)
ROW = {"0.5_0.5": ["box_red"], "0.5_1.5": ["box_blue"], "0.5_2.5": ["target_red", "target_blue"]}


def row(**options: Any) -> parallel_env:
    """A red and a blue box on a row of three cells, with both targets at its end."""
    env = parallel_env(1, 3, 2, **options)
    env.reset(options={"cells": ROW})
    return env


def acted(env: parallel_env, *actions: Any) -> tuple[float, dict[str, Any]]:
    """Step; return the shared reward and the infos."""
    _, rewards, terminated, truncated, infos = env.step(
        dict(zip(env.possible_agents, actions, strict=True))
    )
    assert len(set(rewards.values())) == 1
    infos["over"] = terminated["agent_0"], truncated["agent_0"]
    return rewards["agent_0"], infos


def test_boxes_are_carried_and_delivered() -> None:
    env = row(render_mode="ansi")
    assert acted(env, 0, 5 + RIGHT, 0)[0] == 0
    assert acted(env, RIGHT, 0, 5 + TARGET)[0] == 1
    assert acted(env, 0, RIGHT, 0)[0] == 0
    assert env.render() == (
        "square[0.5, 0.5]: empty\nsquare[0.5, 1.5]: empty\nsquare[0.5, 2.5]: box_red, target_red"
    )
    reward, infos = acted(env, 0, 0, TARGET)
    assert (reward, infos["over"], env.agents) == (1, (True, False), [])
    assert not env.state().any()
    assert json.loads(env.answer())[1] == {
        "Agent[0.5, 0.5]": "move(box_red, square[0.5, 1.5])",
        "Agent[0.5, 2.5]": "move(box_blue, target_blue)",
    }


def test_a_full_cell_takes_no_box_and_arms_act_in_order() -> None:
    env = row()
    _, infos = acted(env, RIGHT, 5 + RIGHT, 0)  # agent 0 is first: the cell is still full
    assert [infos[agent]["legal"] for agent in env.possible_agents] == [False, True, True]
    assert [box.cell for box in env.boxes] == [(0, 0), (0, 2)]
    free = row(capacity=None)
    acted(free, RIGHT, 0, 0)
    assert [box.cell for box in free.boxes] == [(0, 1), (0, 1)]


def test_what_cannot_be_done_waits_and_is_masked() -> None:
    env = row()
    assert env.mask(0).tolist() == [1] + [0] * 10
    assert np.flatnonzero(env.mask(1)).tolist() == [0, 5 + RIGHT]  # left is full
    for action in (UP, TARGET, 5 + RIGHT):
        _, infos = acted(env, action, 0, 0)
        assert infos["agent_0"]["legal"] is False
    assert [box.cell for box in env.boxes] == [(0, 0), (0, 1)]


def test_the_game_is_truncated() -> None:
    env = row(max_cycles=2)
    assert acted(env, 0, 0, 0)[1]["over"] == (False, False)
    assert acted(env, 0, 0, 0)[1]["over"] == (False, True)


def test_texts_name_moves() -> None:
    env = row(text=True)
    seen = env._observations()["agent_1"]
    assert seen.endswith(
        "You are the arm of square[0.5, 1.5]. You can wait, move(box_blue, square[0.5, 2.5])."
    )
    _, infos = acted(
        env,
        "I wait.",
        "Not move(box_blue, square[0.5, 0.5]) but move(box_blue, square[0.5, 2.5])",
        "move(box_green, target_green)",
    )
    assert [infos[agent]["legal"] for agent in env.possible_agents] == [True, True, False]
    assert env.boxes[1].cell == (0, 2)
    assert acted(env, "", "", "move(box_blue, target_blue)")[0] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ud800",
        "move(" * 10_000,
        "move(box_red, square[999.5, 0.5])",
        "move(box_red, target_blue)",
    ],
)
def test_hostile_messages_end_no_program(text: str) -> None:
    env = row(text=True)
    acted(env, text, text, text)
    assert [box.cell for box in env.boxes] == [(0, 0), (0, 1)]


def test_it_is_a_pettingzoo_environment() -> None:
    for options in ({}, {"text": True}):
        parallel_api_test(parallel_env(**options), num_cycles=30)
        parallel_seed_test(lambda options=options: parallel_env(**options), num_cycles=10)
    made = pettingzoo.make("parallel", "maporl/boxes-v0", boxes=2)
    assert made.unwrapped.number == 2
    env = parallel_env()
    observations, _ = env.reset(seed=1)
    assert all(env.observation_space(a).contains(seen) for a, seen in observations.items())
    assert env.state_space.contains(env.state())


def test_drawn_games_start_unsolved() -> None:
    env = parallel_env(2, 2, 4)
    for seed in range(20):
        env.reset(seed=seed)
        assert len({box.cell for box in env.boxes}) == 4
        assert all(b.cell != t.cell for b, t in zip(env.boxes, env.targets, strict=True))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rows": 1, "columns": 1}, "two cells"),
        ({"boxes": 7}, "boxes must be 1 to 6"),
        ({"capacity": 0}, "capacity must be at least 1"),
        ({"render_mode": "human"}, "render_mode"),
    ],
)
def test_impossible_games_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parallel_env(**options)


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ({"9.5_0.5": ["box_red"]}, "not of this grid"),
        ({"0.5_0.5": ["crate_red"]}, "not of this grid"),
        ({"0.5_0.5": ["box_red", "target_blue"]}, "must hold 3 boxes"),
    ],
)
def test_impossible_grids_are_refused(cells: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parallel_env().reset(options={"cells": cells})


def test_plans_score_with_reasoning_gym() -> None:
    """The moves of a game of random arms are worth as much to reasoning-gym's own scorer."""
    gym = pytest.importorskip("reasoning_gym", reason="needs the extra reasoning")
    data = gym.create_dataset("boxnet", size=6, seed=3, min_row_num=2, max_row_num=2)
    noise = np.random.default_rng(0)
    for item in data:
        facts = item["metadata"]
        env = parallel_env(facts["row_num"], facts["column_num"], 3, capacity=None, max_cycles=60)
        env.reset(options={"cells": facts["initial_state"]})
        delivered = 0.0
        while env.agents:
            moves = [np.flatnonzero(env.mask(i)) for i in range(len(env.agents))]
            delivered += acted(env, *(int(noise.choice(some)) for some in moves))[0]
        assert data.score_answer(env.answer(), item) == pytest.approx(max(0.05, delivered / 3))
