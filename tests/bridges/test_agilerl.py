"""AgileRL beside `maporl[train]`: its IPPO on its vector of PettingZoo environments.

Three things of AgileRL 2.58.0 are gone round. Agents whose names begin alike share a policy, and
then their steps and their advantages are put in different orders, so that nothing is learnt: here
they have names that begin differently. `train_multi_agent_on_policy` forgets that a game has ended,
so that returns run on into the next one: the loop of the game that is learnt is ours. And masks of
actions in the infos of a vector of environments raise ValueError: `Unmasked` leaves them out.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("agilerl", reason="needs the extra agilerl")

import torch
from agilerl.algorithms import IPPO
from agilerl.training.train_multi_agent_on_policy import train_multi_agent_on_policy
from agilerl.vector.pz_async_vec_env import AsyncPettingZooVecEnv
from arena import Act, Ledger, assert_learnt, random_returns, returns
from pettingzoo.utils import BaseParallelWrapper

from maporl_env import debate_v0

APART = {"left_0": "agent_0", "right_0": "agent_1"}
ALIKE = {"agent_0": "agent_0", "agent_1": "agent_1"}  # then they share a policy
GAMES, STEPS, UPDATES = 2, 250, 12  # games in processes of their own; steps of each per update

Steps = dict[str, list[np.ndarray]]


class Renamed(BaseParallelWrapper[str, Any, Any]):
    """The game and its ledger, with agents of other names."""

    def __init__(self, names: dict[str, str]) -> None:
        super().__init__(Ledger())
        self.names = names

    @property
    def possible_agents(self) -> list[str]:
        return list(self.names)

    @property
    def agents(self) -> list[str]:
        return [name for name, agent in self.names.items() if agent in self.env.agents]

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space(self.names[agent])

    def action_space(self, agent: str) -> Any:
        return self.env.action_space(self.names[agent])

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return tuple(map(self.renamed, self.env.reset(seed=seed, options=options)))

    def step(self, actions: dict[str, Any]) -> Any:
        chosen = {self.names[name]: action for name, action in actions.items()}
        return tuple(map(self.renamed, self.env.step(chosen)))

    def renamed(self, part: dict[str, Any]) -> dict[str, Any]:
        return {name: part[agent] for name, agent in self.names.items()}


class Unmasked(BaseParallelWrapper[str, Any, Any]):
    """A debate written id by id, whose infos say nothing about legal ids."""

    def __init__(self) -> None:
        super().__init__(
            debate_v0.parallel_env(
                num_agents=2,
                num_turns=2,
                observation="tokens",
                action="token",
                observation_tokens=200,
                message_tokens=2,
                obs_dtype="float32",
            )
        )

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        seen, infos = self.env.reset(seed=seed, options=options)
        return seen, {key: {} for key in infos}

    def step(self, actions: dict[str, Any]) -> Any:
        *results, infos = self.env.step(actions)
        return (*results, {key: {} for key in infos})


@pytest.fixture(autouse=True)
def _generators() -> Iterator[None]:
    """AgileRL draws from process-global generators."""
    numpys = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        yield
    np.random.set_state(numpys)  # noqa: NPY002


def make_learner(env: Any, **settings: Any) -> IPPO:
    agents = list(env.possible_agents)
    return IPPO(
        [env.observation_space(agent) for agent in agents],
        [env.action_space(agent) for agent in agents],
        agent_ids=agents,
        net_config={
            "latent_dim": 32,
            "encoder_config": {"hidden_size": [32]},
            "head_config": {"hidden_size": [32]},
        },
        **settings,
    )


def collect(envs: AsyncPettingZooVecEnv, learner: IPPO, start: Any) -> tuple[Any, Steps, Any]:
    """Play STEPS steps in every game; return the experiences, the rewards, and where it stands."""
    seen, ended = start
    agents = list(ended)
    parts: list[Steps] = [{agent: [] for agent in agents} for _ in range(6)]
    states, actions, log_probs, rewards, dones, values = parts
    for _ in range(STEPS):
        chosen, chances, _, worth = learner.get_action(seen)
        after, paid, terminated, truncated, _ = envs.step(chosen)
        for agent in agents:
            states[agent].append(seen[agent])
            actions[agent].append(chosen[agent])
            log_probs[agent].append(chances[agent])
            rewards[agent].append(paid[agent])
            dones[agent].append(ended[agent])
            values[agent].append(worth[agent])
        seen = after
        ended = {a: np.logical_or(terminated[a], truncated[a]).astype(float) for a in agents}
    return (*parts, seen, ended), rewards, (seen, ended)


def train(names: dict[str, str]) -> tuple[Act, np.ndarray, np.ndarray]:
    """Return the learnt policy, what it was trained on, and what the games paid: (S, G, 2)."""
    envs = AsyncPettingZooVecEnv([partial(Renamed, names)] * GAMES)
    try:
        settings = {"batch_size": 250, "lr": 3e-3, "gamma": 1.0, "update_epochs": 5}
        learner, given = make_learner(Renamed(names), **settings), []
        learner.set_training_mode(True)
        where = (envs.reset()[0], {agent: np.zeros(GAMES) for agent in names})
        for _ in range(UPDATES):
            experiences, rewards, where = collect(envs, learner, where)
            learner.learn(experiences)
            given.append(np.stack([np.array(rewards[agent]) for agent in names], axis=-1))
        paid = np.stack(envs.call("table"), axis=1)
    finally:
        envs.close()

    def act(observations: np.ndarray) -> np.ndarray:
        seen = {agent: observations[:, column] for column, agent in enumerate(names)}
        chosen = learner.get_action(seen)[0]
        return np.stack([chosen[agent].reshape(-1) for agent in names], axis=-1)

    return act, np.concatenate(given), paid


def test_ippo_learns_and_sees_every_reward() -> None:
    act, given, paid = train(APART)
    assert given == pytest.approx(paid)
    assert_learnt("AgileRL, IPPO", act)


def test_agents_that_share_a_policy_learn_nothing() -> None:
    """Why the names are changed: the same rewards, the same steps, and no more than chance."""
    act, given, paid = train(ALIKE)
    assert given == pytest.approx(paid)
    learnt, chance = returns(act), random_returns()
    print(f"\nAgileRL, IPPO, one policy: {learnt.mean():.3f}, chance {chance.mean():.3f}")
    assert learnt.mean() < chance.mean() + 0.3  # half of the way to 3.4 would be .6


def test_its_training_loop_plays_a_debate() -> None:
    """Two debates in processes of their own, stepped by its loop, learnt from by its IPPO."""
    envs = AsyncPettingZooVecEnv([Unmasked] * 2)
    try:
        learner = make_learner(Unmasked(), batch_size=16, learn_step=16)
        before = [weight.clone() for weight in learner.actors.parameters()]
        population, fitness = train_multi_agent_on_policy(
            envs, "debate", "IPPO", [learner], max_steps=64, evo_steps=32, eval_steps=8
        )
    finally:
        envs.close()
    assert len(population) == 1
    assert np.isfinite(np.array(fitness, dtype=float)).all()
    moved = [
        not torch.equal(*pair)
        for pair in zip(before, population[0].actors.parameters(), strict=True)
    ]
    assert any(moved)


def test_our_trainer_runs_in_the_same_environment(tmp_path: Path) -> None:
    pytest.importorskip("tyro", reason="needs the extra train")
    command = [
        *(sys.executable, "-m", "maporl_agents.cli", "train", "--runs", str(tmp_path)),
        *("--steps", "1", "--questions-per-step", "2", "--eval.questions", "2"),
        *("--team.device", "cpu", "--sampling.max-new-tokens", "4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("metrics.jsonl")
    assert len(file.read_text("utf-8").splitlines()) == 1
