"""AgileRL: its IPPO on its vector of PettingZoo environments, a policy for each agent.

Two things of AgileRL 2.7.1 are gone round. Agents whose names begin alike share a policy, and then
their steps and their advantages are put in different orders, so that nothing is learnt: here they
have names that begin differently. And `train_multi_agent_on_policy` forgets that a game has ended,
so that returns run on into the next one: the loop is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("agilerl", reason="needs the extra agilerl")

import torch
from agilerl.algorithms import IPPO
from agilerl.vector.pz_async_vec_env import AsyncPettingZooVecEnv
from arena import Ledger, assert_learnt
from pettingzoo.utils import BaseParallelWrapper

NAMES = {"left_0": "agent_0", "right_0": "agent_1"}
AGENTS = tuple(NAMES)
GAMES, STEPS, UPDATES = 2, 250, 12  # games in processes of their own; steps of each per update

Steps = dict[str, list[np.ndarray]]


class Apart(BaseParallelWrapper[str, Any, Any]):
    """The game and its ledger, with agents of other names."""

    def __init__(self) -> None:
        super().__init__(Ledger())

    @property
    def possible_agents(self) -> list[str]:
        return list(NAMES)

    @property
    def agents(self) -> list[str]:
        return [name for name, agent in NAMES.items() if agent in self.env.agents]

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space(NAMES[agent])

    def action_space(self, agent: str) -> Any:
        return self.env.action_space(NAMES[agent])

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return tuple(map(renamed, self.env.reset(seed=seed, options=options)))

    def step(self, actions: dict[str, Any]) -> Any:
        chosen = {NAMES[name]: action for name, action in actions.items()}
        return tuple(map(renamed, self.env.step(chosen)))


def renamed(part: dict[str, Any]) -> dict[str, Any]:
    return {name: part[agent] for name, agent in NAMES.items()}


@pytest.fixture(autouse=True)
def _generators() -> Iterator[None]:
    """AgileRL draws from process-global generators."""
    numpys = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        yield
    np.random.set_state(numpys)  # noqa: NPY002


@pytest.fixture
def envs() -> Iterator[AsyncPettingZooVecEnv]:
    envs = AsyncPettingZooVecEnv([Apart] * GAMES)
    yield envs
    envs.close()


def make_learner() -> IPPO:
    env = Apart()
    return IPPO(
        [env.observation_space(agent) for agent in AGENTS],
        [env.action_space(agent) for agent in AGENTS],
        agent_ids=list(AGENTS),
        net_config={
            "latent_dim": 32,
            "encoder_config": {"hidden_size": [32]},
            "head_config": {"hidden_size": [32]},
        },
        batch_size=250,
        lr=3e-3,
        gamma=1.0,
        update_epochs=5,
    )


def collect(envs: AsyncPettingZooVecEnv, learner: IPPO, start: Any) -> tuple[Any, Steps, Any]:
    """Play STEPS steps in every game; return the experiences, the rewards, and where it stands."""
    seen, ended = start
    parts: list[Steps] = [{agent: [] for agent in AGENTS} for _ in range(6)]
    states, actions, log_probs, rewards, dones, values = parts
    for _ in range(STEPS):
        chosen, chances, _, worth = learner.get_action(seen)
        after, paid, terminated, truncated, _ = envs.step(chosen)
        for agent in AGENTS:
            states[agent].append(seen[agent])
            actions[agent].append(chosen[agent])
            log_probs[agent].append(chances[agent])
            rewards[agent].append(paid[agent])
            dones[agent].append(ended[agent])
            values[agent].append(worth[agent])
        seen = after
        ended = {a: np.logical_or(terminated[a], truncated[a]).astype(float) for a in AGENTS}
    return (*parts, seen, ended), rewards, (seen, ended)


def test_ippo_learns_and_sees_every_reward(envs: AsyncPettingZooVecEnv) -> None:
    learner, given = make_learner(), []
    learner.set_training_mode(True)
    where = (envs.reset()[0], {agent: np.zeros(GAMES) for agent in AGENTS})
    for _ in range(UPDATES):
        experiences, rewards, where = collect(envs, learner, where)
        learner.learn(experiences)
        given.append(np.stack([np.array(rewards[agent]) for agent in AGENTS], axis=-1))
    paid = np.stack(envs.call("table"), axis=1)  # (steps, games, 2), as the games themselves paid
    assert np.concatenate(given) == pytest.approx(paid)

    def act(observations: np.ndarray) -> np.ndarray:
        seen = {agent: observations[:, column] for column, agent in enumerate(AGENTS)}
        chosen = learner.get_action(seen)[0]
        return np.stack([chosen[agent].reshape(-1) for agent in AGENTS], axis=-1)

    assert_learnt("AgileRL, IPPO", act)
