"""RLlib: independent PPO, a policy for each agent, through its own PettingZoo wrapper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray.rllib", reason="needs the extra rllib")

import ray
import torch
from arena import Ledger, assert_learnt
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

AGENTS = ("agent_0", "agent_1")
STEPS, ITERATIONS = 800, 7


@pytest.fixture
def _ray() -> Iterator[None]:
    with torch.random.fork_rng():  # RLlib seeds the process-global generators
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()


def make_config(seen: list[list[float]]) -> PPOConfig:
    """Everything in this process; `seen` gets what each sample for the learners paid."""

    def on_sample_end(*, samples: list[Any], **_: Any) -> None:
        for episode in samples:
            parts = [episode.agent_episodes.get(agent) for agent in AGENTS]
            seen.append([float(np.sum(part.get_rewards())) if part else 0.0 for part in parts])

    register_env("collaboration", lambda _: ParallelPettingZooEnv(Ledger()))
    return (
        PPOConfig()
        .environment("collaboration", disable_env_checking=True)  # its check would play
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .callbacks(on_sample_end=on_sample_end)
        .multi_agent(policies=set(AGENTS), policy_mapping_fn=lambda agent, *_, **__: agent)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32]))
        .training(
            train_batch_size=STEPS,
            minibatch_size=200,
            num_epochs=5,
            lr=3e-3,
            gamma=1.0,
            lambda_=0.95,
            entropy_coeff=0.01,
        )
        .debugging(seed=0, log_level="ERROR")
    )


@pytest.mark.usefixtures("_ray")
def test_independent_ppo_learns_and_sees_every_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    seen: list[list[float]] = []
    learner: PPO = make_config(seen).build_algo()
    for _ in range(ITERATIONS):
        learner.train()
    ledger = learner.env_runner.env.envs[0].unwrapped.par_env
    assert np.sum(seen, axis=0) == pytest.approx(ledger.table().sum(axis=0))

    def act(observations: np.ndarray) -> np.ndarray:
        chosen = []
        for column, agent in enumerate(AGENTS):
            batch = {Columns.OBS: torch.from_numpy(observations[:, column])}
            logits = learner.get_module(agent).forward_inference(batch)["action_dist_inputs"]
            chosen.append(torch.distributions.Categorical(logits=logits).sample())
        return torch.stack(chosen, dim=1).numpy()

    with torch.no_grad():
        assert_learnt("RLlib, independent PPO", act, to_the_end=False)  # seen: 3.334 of 3.4
    learner.stop()
