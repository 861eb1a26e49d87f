"""SuperSuit: its vector environment feeds PPO of Stable-Baselines3; both agents share a policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("supersuit", reason="needs the extra supersuit")
pytest.importorskip("stable_baselines3", reason="needs the extra supersuit")

import supersuit
import torch
from arena import Ledger, assert_learnt
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed

GAMES, STEPS, ROLLOUTS = 4, 125, 12


@pytest.fixture(autouse=True)
def _generators() -> Iterator[None]:
    """SB3 draws from process-global generators, and `PPO(seed=)` fails on SuperSuit's wrapper."""
    numpys = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        set_random_seed(0)
        yield
    np.random.set_state(numpys)  # noqa: NPY002


class Rewards(BaseCallback):
    """Keeps what PPO was paid, one array (STEPS, lanes) per rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.seen.append(self.locals["rollout_buffer"].rewards.copy())


def make_envs() -> Any:
    """Return lanes: agent_0 and agent_1 of the first game, then those of the second, ..."""
    game = supersuit.pettingzoo_env_to_vec_env_v1(Ledger())
    return supersuit.concat_vec_envs_v1(game, GAMES, base_class="stable_baselines3")


def test_it_learns_and_sees_every_reward() -> None:
    envs, rewards = make_envs(), Rewards()
    learner = PPO(
        "MlpPolicy", envs, n_steps=STEPS, batch_size=250, n_epochs=5, learning_rate=3e-3,
        gamma=1.0, ent_coef=0.01, device="cpu",
    )  # fmt: skip
    learner.learn(ROLLOUTS * STEPS * 2 * GAMES, rewards)
    ledgers = [game.par_env for game in envs.venv.vec_envs]
    paid = np.concatenate([ledger.table() for ledger in ledgers], axis=1)
    assert np.concatenate(rewards.seen) == pytest.approx(paid)

    def act(seen: np.ndarray) -> np.ndarray:
        return learner.predict(seen.reshape(-1, 3))[0]

    assert_learnt("SuperSuit, PPO of SB3", act)


def test_a_seed_for_ppo_is_refused_by_its_wrapper() -> None:
    """Why the test above seeds by hand; `DebateVecEnv` and others of ours take a seed."""
    with pytest.raises(AttributeError, match="seed"):
        PPO("MlpPolicy", make_envs(), seed=0, device="cpu")
