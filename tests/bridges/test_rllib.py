"""RLlib: independent PPO, a policy for each agent, by `examples/rllib_on_the_game.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray.rllib", reason="needs the extra rllib")

import ray
import torch
from arena import RULES, Ledger, assert_learnt, example
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.core.columns import Columns

EXAMPLE = example("rllib_on_the_game")


@pytest.fixture
def _ray() -> Iterator[None]:
    with torch.random.fork_rng():  # RLlib seeds the process-global generators
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()


def test_the_example_plays_the_game_of_these_tests() -> None:
    assert EXAMPLE.RULES == RULES


@pytest.mark.usefixtures("_ray")
def test_independent_ppo_learns_and_sees_every_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    seen: list[list[float]] = []
    learner: PPO = EXAMPLE.make_config(Ledger, seen).build_algo()
    for _ in range(EXAMPLE.ITERATIONS):
        learner.train()
    ledger = learner.env_runner.env.envs[0].unwrapped.par_env
    assert np.sum(seen, axis=0) == pytest.approx(ledger.table().sum(axis=0))

    def act(observations: np.ndarray) -> np.ndarray:
        chosen = []
        for column, agent in enumerate(EXAMPLE.AGENTS):
            batch = {Columns.OBS: torch.from_numpy(observations[:, column])}
            logits = learner.get_module(agent).forward_inference(batch)["action_dist_inputs"]
            chosen.append(torch.distributions.Categorical(logits=logits).sample())
        return torch.stack(chosen, dim=1).numpy()

    with torch.no_grad():
        assert_learnt("RLlib, independent PPO", act, to_the_end=False)  # seen: 3.334 of 3.4
    learner.stop()
