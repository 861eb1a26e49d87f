"""ReAd on PettingZoo environments: discrete and text actions, AEC and Parallel, and bad input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from pettingzoo import AECEnv, ParallelEnv

from maporl_env.env_bases.members import start_agents
from maporl_env.games.boxes_v0 import parallel_env as boxes
from maporl_env.revision.revise import ScoringFailed, Threshold, Try
from maporl_env.revision.teams import Alone, InOrder, Jointly, Situation, play, shared_reward
from maporl_env.revision.values import SubsetCritic, SubsetValues

Q = np.array([[4.0, 0.0], [1.0, 2.0]])


class Matrix(ParallelEnv[str, Any, Any]):
    """The worked game, in two turns."""

    metadata = {"name": "matrix_v0"}  # noqa: RUF012

    def __init__(self) -> None:
        self.possible_agents = ["one", "two"]

    def action_space(self, agent: str) -> Discrete:
        return Discrete(2)

    def observation_space(self, agent: str) -> Box:
        return Box(0, 2, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.agents, self.turn = self.possible_agents[:], 0
        return self.seen(), {}

    def seen(self) -> dict[str, Any]:
        return {agent: np.array([self.turn], np.float32) for agent in self.possible_agents}

    def step(self, actions: Mapping[str, int]) -> Any:
        self.turn += 1
        reward = float(Q[actions["one"], actions["two"]])
        over = self.turn == 2
        if over:
            self.agents = []
        both = self.possible_agents
        return self.seen(), dict.fromkeys(both, reward), dict.fromkeys(both, over), {}, {}


class Table(SubsetCritic):
    """The exact critic of the worked game under mu, which keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def q(self, state: Any, actions: Sequence[Any] = ()) -> float | None:
        self.asked.append(tuple(actions))
        if len(actions) == 2:
            return float(Q[tuple(actions)])
        return [2.0, 1.75][actions[0]] if actions else 1.875


def turn_of(env: Matrix) -> int:
    return env.turn


def saying(*actions: Any) -> Any:
    """A policy that goes through some actions again and again."""
    stream = iter(actions * 50)
    return lambda situation: next(stream)


MU = saying(1)


def test_agents_commit_in_order_and_drafts_stay_unseen() -> None:
    seen: list[Situation] = []

    def propose(situation: Situation) -> int:
        seen.append(situation)
        return 1 - len(situation.tries) % 2

    episode = play(Matrix(), InOrder(propose, Table(), Threshold(0.0), MU), turn_of, seed=0)
    assert [step.actions for step in episode.steps] == [(0, 0), (0, 0)]
    assert [step.state for step in episode.steps] == [0, 1]
    assert (episode.total, episode.proposals) == (8.0, 8)
    told = [(s.agent, s.fixed, [t.proposal for t in s.tries]) for s in seen[:4]]
    assert told == [("one", (), []), ("one", (), [1]), ("two", (0,), []), ("two", (0,), [1])]


def test_a_joint_plan_is_sent_back_until_it_is_good() -> None:
    plans = [{"one": 0, "two": 1}, {"one": 1}, {"one": 0, "two": 7}, {"one": 0, "two": 0}]
    critic = Table()

    def plan(observations: Any, tries: Sequence[Try]) -> Mapping[str, int]:
        assert list(observations) == ["one", "two"]
        return plans[len(tries)]

    episode = play(Matrix(), Jointly(plan, critic, Threshold(1.0), MU), turn_of, max_turns=1)
    assert [step.actions for step in episode.steps] == [(0, 0)]
    first, second = episode.revisions
    assert [one.score for one in first.tries] == [-1.875, None, None, 2.125]
    assert (second.tries, episode.proposals) == ((), 4)
    assert critic.asked == [(0, 1), (), (0, 0), ()]  # plans that are none are not scored


def test_where_nothing_passes_mu_acts() -> None:
    for team in (
        InOrder(saying(1), Table(), Threshold(9.0, 2), MU),
        Jointly(lambda seen, tries: {"one": 0, "two": 1}, Table(), Threshold(9.0, 2), MU),
    ):
        episode = play(Matrix(), team, turn_of)
        assert [step.actions for step in episode.steps] == [(1, 1), (1, 1)]
        assert all(one.fell_back for one in episode.revisions)


def random_arm(seed: int) -> Any:
    noise = np.random.default_rng(seed)
    return lambda situation: int(noise.choice(np.flatnonzero(situation.observation["action_mask"])))


@pytest.mark.thorough
def test_a_table_of_random_play_speeds_up_boxes() -> None:
    """One box on a row of three cells: proposals at random, filtered by what random play earned."""
    cells = {"0.5_0.5": ["box_red"], "0.5_2.5": ["target_red"]}

    def made() -> boxes:
        env = boxes(1, 3, 1, max_cycles=50)
        start = env.reset
        env.reset = lambda seed=None, options=None: start(seed, {"cells": cells})  # type: ignore[method-assign]
        return env

    def cell_of(env: Any) -> Any:
        return env.boxes[0].cell

    mu, critic = random_arm(0), SubsetValues(0.8)
    drifted = [play(made(), Alone(mu), cell_of) for _ in range(60)]
    for episode in drifted:
        critic.add(episode.steps)
    team = InOrder(mu, critic, Threshold(0.0, 50), mu)
    lengths = [len(play(made(), team, cell_of).steps) for _ in range(20)]
    assert set(lengths) == {3}  # right, right, onto the target
    assert np.mean([len(episode.steps) for episode in drifted]) > 6


def test_text_actions_and_those_against_the_mask() -> None:
    env = boxes(1, 3, 1, text=True, max_cycles=3)
    said: list[str] = []

    def propose(situation: Situation) -> str:
        said.append(situation.observation)
        return "wait"

    episode = play(env, Alone(propose), lambda env: env.answer())
    assert len(episode.steps) == 3
    assert "You are the arm of" in said[0]
    masked = boxes(1, 3, 1, max_cycles=2)
    critic = SubsetValues()
    team = InOrder(saying(5), critic, Threshold(0.0, 2), lambda situation: 0)
    episode = play(masked, team, lambda env: 0, seed=3)
    refused = [one for one in episode.revisions if one.fell_back]
    assert refused
    assert all(one.score is None for revision in refused for one in revision.tries)


class Ended(AECEnv[str, Any, Any]):
    """Two agents; the game ends with the first's second action, before the second can answer."""

    metadata = {"name": "ended_v0", "is_parallelizable": False}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["one", "two"]

    def action_space(self, agent: str) -> Discrete:
        return Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        start_agents(self)
        self.agent_selection, self.moves = "one", []

    def observe(self, agent: str) -> list[Any]:
        return list(self.moves)

    def step(self, action: Any) -> None:
        if self.terminations[self.agent_selection]:
            self._was_dead_step(action)
            return
        self.moves.append((self.agent_selection, action))
        self.rewards = dict.fromkeys(self.agents, 1.0)
        if len(self.moves) == 3:
            self.terminations = dict.fromkeys(self.agents, True)
        self.agent_selection = "two" if self.agent_selection == "one" else "one"


@pytest.mark.parametrize("joint", [False, True])
def test_a_game_that_ends_before_an_agent_has_drafted_does_not_ask_it(joint: bool) -> None:
    critic, asked = SubsetValues(), []
    env = Ended()

    def propose(situation: Situation) -> int:
        asked.append((situation.agent, len(situation.observation)))
        return 2

    alone = play(env, Alone(propose), lambda env: len(env.moves))
    assert asked == [("one", 0), ("two", 1), ("one", 2)]
    assert [step.actions for step in alone.steps] == [(2, 2), (2, None)]
    assert [step.reward for step in alone.steps] == [2.0, 1.0]
    critic.add(alone.steps)
    both = {"one": 2, "two": 2}
    critic._sums[2, (2, 2)] = 1.0, 1  # a plan cannot know that the game will end
    team = (
        Jointly(lambda seen, tries: both, critic, Threshold(0.0), propose)
        if joint
        else InOrder(propose, critic, Threshold(0.0), propose)
    )
    again = play(env, team, lambda env: len(env.moves))
    assert again.steps == alone.steps
    assert env.agents == []


class Broken(Table):
    """A critic that fails in the second turn."""

    def q(self, state: Any, actions: Sequence[Any] = ()) -> float | None:
        if state == 1:
            raise OSError("connection\nreset")
        return super().q(state, actions)


@pytest.mark.parametrize(
    "team",
    [
        InOrder(saying(0), Broken(), Threshold(0.0), MU),
        Jointly(lambda seen, tries: {"one": 0, "two": 0}, Broken(), Threshold(0.0), MU),
    ],
)
def test_a_critic_that_raises_loses_no_turn(team: Any) -> None:
    with pytest.raises(
        ScoringFailed, match=r"the critic failed on proposal 1, .*OSError"
    ) as caught:
        play(Matrix(), team, turn_of)
    assert [step.actions for step in caught.value.steps] == [(0, 0)]
    assert caught.value.tries == ()
    assert isinstance(caught.value.__cause__, OSError)


def test_other_bad_input_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="one shared reward"):
        shared_reward({"one": 1.0, "two": -1.0})
    assert shared_reward({}) == 0.0
    with pytest.raises(ValueError, match="gave one 9, which is not among its legal actions"):
        play(Matrix(), Alone(saying(9)), turn_of)
