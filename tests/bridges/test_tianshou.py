"""Tianshou: two PPO learners of its own, each with its policy, learn the collaboration game."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tianshou", reason="needs the extra tianshou")

import torch
from arena import RULES, assert_learnt
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, PettingZooEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

from maporl_env import collaboration_v0
from maporl_env.bridges.tianshou import SimultaneousOnPolicy, settle

LANES, GAMES, EPOCHS = 10, 100, 12  # environments; games per collection; collections
AGENTS = ("agent_0", "agent_1")


@pytest.fixture(autouse=True)
def _generator() -> Iterator[None]:
    with torch.random.fork_rng():  # Tianshou draws from the process-global generator
        torch.manual_seed(0)
        yield


class AECLedger(collaboration_v0.raw_env):
    """The game, with a record of what it pays: one row per turn."""

    def __init__(self) -> None:
        super().__init__(**RULES)
        self.paid: list[list[float]] = []

    def step(self, action: Any) -> None:
        super().step(action)
        if self.agent_selection == AGENTS[0]:  # the turn is over
            self.paid.append([self.rewards[agent] for agent in AGENTS])


class Watched(SimultaneousOnPolicy):
    """Keeps what each learner was given: the rewards of its own steps, summed per update."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[list[float]] = []

    def _preprocess_batch(self, batch: Any, buffer: Any, indices: np.ndarray) -> Any:
        parts = super()._preprocess_batch(batch, buffer, indices)
        self.seen.append([float(parts[agent].rew.sum()) for agent in AGENTS])
        return parts


class GameNet(Net):
    """Reads what the agent sees; Tianshou's wrapper puts a mask of the discrete actions beside."""

    def forward(self, obs: Any, *arguments: Any, **options: Any) -> Any:
        return super().forward(obs.obs, *arguments, **options)


def make_ppo(env: PettingZooEnv) -> PPO:
    def net() -> Net:
        return GameNet(state_shape=3, hidden_sizes=[32])

    policy = ProbabilisticActorPolicy(
        actor=DiscreteActor(preprocess_net=net(), action_shape=2, softmax_output=False),
        dist_fn=lambda logits: torch.distributions.Categorical(logits=logits),
        action_space=env.action_space,
        action_scaling=False,
        action_bound_method=None,
    )
    critic = DiscreteCritic(preprocess_net=net())
    return PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=3e-3), gamma=1.0)


def make_collector(policy: Any) -> Collector:
    lanes = DummyVectorEnv([lambda: PettingZooEnv(AECLedger())] * LANES)
    return Collector(
        policy, lanes, VectorReplayBuffer(GAMES * 2 * RULES["num_turns"] + LANES, LANES)
    )


def paid_by(collector: Collector) -> np.ndarray:
    """Return what the games of a collector paid both agents, in total."""
    return np.sum([np.sum(lane.env.env.paid, axis=0) for lane in collector.env.workers], axis=0)


def test_independent_ppo_learns_and_sees_every_reward() -> None:
    env = PettingZooEnv(collaboration_v0.env(**RULES))
    learners = Watched(algorithms=[make_ppo(env) for _ in AGENTS], env=env)
    collector = make_collector(learners)
    learners.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=EPOCHS,
            epoch_num_steps=GAMES * 2 * RULES["num_turns"],
            collection_step_num_env_steps=None,
            collection_step_num_episodes=GAMES,
            batch_size=250,
            update_step_num_repetitions=5,
            show_progress=False,
        )
    )
    assert len(learners.seen) == EPOCHS
    assert np.sum(learners.seen, axis=0) == pytest.approx(paid_by(collector))

    def act(seen: np.ndarray) -> np.ndarray:
        chosen = [
            learners.get_algorithm(agent).policy(of_one(seen[:, column])).act
            for column, agent in enumerate(AGENTS)
        ]
        return torch.stack(chosen, dim=1).numpy()

    with torch.no_grad():
        assert_learnt("Tianshou, independent PPO", act)


def of_one(seen: np.ndarray) -> Batch:
    return Batch(obs=Batch(obs=seen), info=Batch())


def collect(games: int) -> tuple[Collector, Any]:
    env = PettingZooEnv(collaboration_v0.env(**RULES))
    collector = make_collector(Watched(algorithms=[make_ppo(env) for _ in AGENTS], env=env).policy)
    collector.reset()
    collector.collect(n_episode=games)
    return collector, collector.buffer


def rewards_of(agent: str, buffer: Any) -> np.ndarray:
    return buffer.rew[buffer.obs.agent_id == agent][:, AGENTS.index(agent)]


def test_its_own_wrapper_pays_only_the_agent_that_acts_last() -> None:
    """Why the adapter is there."""
    collector, buffer = collect(LANES)
    assert not rewards_of("agent_0", buffer).any()
    assert rewards_of("agent_1", buffer).sum() == pytest.approx(paid_by(collector)[1])
    ended = buffer.terminated[buffer.obs.agent_id == "agent_0"]
    assert not ended.any()


def test_settled_steps_are_paid_end_and_lead_on() -> None:
    collector, buffer = collect(LANES)
    places = buffer.sample_indices(0)
    for _ in range(2):  # settling twice changes nothing
        settle(buffer, places, dict(zip(AGENTS, range(2), strict=True)))
        for column, agent in enumerate(AGENTS):
            assert rewards_of(agent, buffer).sum() == pytest.approx(paid_by(collector)[column])
            own = places[buffer.obs.agent_id[places] == agent].reshape(LANES, -1)
            assert buffer.terminated[own].tolist() == [[False] * 4 + [True]] * LANES
            assert (buffer.obs_next.obs[own[:, :-1]] == buffer.obs.obs[own[:, 1:]]).all()
            turns_left = buffer.obs_next.obs[own][..., 0]
            assert turns_left[0] == pytest.approx(np.array([4, 3, 2, 1, 0]) / 5)


def test_pay_before_the_first_own_step_goes_to_that_step() -> None:
    """agent_0 acts first and costs agent_1 a half at once; by hand, one game of two turns."""
    rewards = np.array([[0.0, -0.5], [1.0, 2.0], [0.0, 0.25], [4.0, 8.0]])
    seen, after = np.arange(4.0).reshape(4, 1), np.arange(1.0, 5.0).reshape(4, 1)
    over = np.array([False, False, False, True])
    buffer = SimpleNamespace(
        rew=rewards,
        done=over.copy(),
        terminated=over.copy(),
        truncated=np.zeros(4, bool),
        obs=SimpleNamespace(obs=seen, agent_id=np.array([*AGENTS, *AGENTS])),
        obs_next=SimpleNamespace(obs=after),
    )
    for _ in range(2):  # settling twice changes nothing
        settle(buffer, np.arange(4), dict(zip(AGENTS, range(2), strict=True)))
        assert rewards.tolist() == [[1.0, 0.0], [0.0, 1.75], [4.0, 0.0], [0.0, 8.0]]


def test_unfinished_games_are_refused() -> None:
    _, buffer = collect(LANES)
    before = buffer.rew.copy()
    with pytest.raises(ValueError, match="collect whole games"):
        settle(buffer, buffer.sample_indices(0)[:-1], dict(zip(AGENTS, range(2), strict=True)))
    assert (buffer.rew == before).all()
