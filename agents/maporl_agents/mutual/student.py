"""The student: PPO of Stable-Baselines3, which acts with hints and judges them.

    delta_t = r_t + gamma V(s_(t+1)) - V(s_t)                   (V = 0 beyond the end of an episode)
    feedback of a hint = mean of delta_t over the steps that it was in force

V is the student's critic, with the hint in its observation or without (`critic_reads_hints`). The
critic changes from segment to segment: feedback is compared within a segment only, see `whitened`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from maporl_agents.mutual.worlds import Floats, Hinted, one_hot

Hint = int | None


@dataclass(frozen=True)
class Segment:
    """What became of one hint per environment. Made by `Student.act`.

    Attributes:
        feedback: (envs,) mean temporal-difference error while the hint was in force.
        returns: returns of the episodes that ended while a hint of the segment was in force.
        unhinted: returns of those that ended without one.
        moved: mean total variation between the policy under the hints given and the policy under
            hints dealt out anew, over the states visited; 0 for a student that ignores hints.
    """

    feedback: NDArray[np.float64]
    returns: tuple[float, ...]
    unhinted: tuple[float, ...]
    moved: float


class _Quiet(PPO):
    """SB3's PPO with a switch; its arithmetic is untouched.

    Attributes:
        frozen: collect, learn nothing.
    """

    frozen = False

    def train(self) -> None:
        """Update unless frozen."""
        if not self.frozen:
            super().train()


class _Keep(BaseCallback):
    """Keeps what was collected: SB3 turns the buffer's order while it trains."""

    def __init__(self, hinted: int, running: NDArray[np.float64], reads: bool) -> None:
        super().__init__()
        self.hinted, self.running, self.reads = hinted, running, reads
        self.deltas: NDArray[np.float64] = np.zeros((0, 0))
        self.in_force: NDArray[np.bool_] = np.zeros((0, 0), bool)
        self.seen: Floats = np.zeros((0, 0, 0), np.float32)
        self.returns: list[tuple[float, bool]] = []

    def _on_step(self) -> bool:
        rewards, dones = self.locals["rewards"], self.locals["dones"]
        self.running += rewards  # SB3 adds the values at time limits later
        hinted = self.model._last_obs[:, -self.hinted :].any(axis=1)
        for env in np.flatnonzero(dones):
            self.returns.append((float(self.running[env]), bool(hinted[env])))
            self.running[env] = 0.0
        return True

    def _on_rollout_end(self) -> None:
        buffer: RolloutBuffer = self.locals["rollout_buffer"]
        self.seen = buffer.observations.copy()
        self.in_force = np.any(self.seen[:, :, -self.hinted :], axis=2)
        visited = np.concatenate([self.seen, self.locals["new_obs"][None]])
        if not self.reads:
            visited[:, :, -self.hinted :] = 0.0
        with torch.no_grad():
            rows = torch.as_tensor(visited.reshape(-1, visited.shape[-1]))
            values = self.model.policy.predict_values(rows).numpy().reshape(visited.shape[:2])
        ended = np.concatenate([buffer.episode_starts[1:], self.locals["dones"][None]])
        self.deltas = td_errors(buffer.rewards, values, ended.astype(bool), buffer.gamma)


def td_errors(
    rewards: Floats, values: Floats, ended: NDArray[np.bool_], gamma: float
) -> NDArray[np.float64]:
    """Return the temporal-difference errors, (steps, envs).

    Args:
        rewards: (steps, envs).
        values: (steps + 1, envs), of the states acted in and of the last ones reached.
        ended: (steps, envs), whether the step ended its episode.
        gamma: discount per step.
    """
    following = np.where(ended, 0.0, gamma * values[1:])
    return (rewards + following - values[:-1]).astype(float)


def whitened(feedback: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return feedback with mean 0 and standard deviation 1; zeros where all is alike."""
    spread = feedback.std()
    return (feedback - feedback.mean()) / spread if spread > 1e-8 else np.zeros_like(feedback)


class Student:
    """A policy without language that reads hints.

    Args:
        make_world: makes one environment, see `worlds`.
        envs: environments side by side; each gets one hint per segment.
        steps: steps of a segment.
        seed: of SB3 and of the environments.
        frozen: act, learn nothing.
        critic_reads_hints: judge hints by the critic as it is; False takes the hint out of what it
            sees.
        settings: further arguments of SB3's PPO.
    """

    def __init__(
        self,
        make_world: Callable[[], Any],
        envs: int,
        steps: int,
        seed: int,
        *,
        frozen: bool = False,
        critic_reads_hints: bool = True,
        **settings: Any,
    ) -> None:
        self.envs = DummyVecEnv([lambda: Hinted(make_world())] * envs)
        self.hints: tuple[str, ...] = self.envs.envs[0].world.hints
        usual: dict[str, Any] = {"n_epochs": 8, "batch_size": envs * steps // 4}
        usual |= {"learning_rate": 3e-3, "gamma": 0.97, "ent_coef": 0.01, "device": "cpu"}
        self.model = _Quiet(
            "MlpPolicy", self.envs, n_steps=steps, seed=seed % 2**32, **usual | settings
        )
        self.model.frozen = frozen
        self.model.set_logger(Logger(None, []))  # SB3's own makes a folder in /tmp per segment
        self._steps, self._running = steps * envs, np.zeros(envs)
        self.critic_reads_hints = critic_reads_hints
        self._rng = np.random.default_rng(seed)
        self.envs.seed(seed)
        self.model._last_obs = self.envs.reset()
        self.model._last_episode_starts = np.ones(envs, bool)

    def situations(self) -> list[tuple[str, str]]:
        """Return, per environment, what the teacher reads and the right hint."""
        return list(self.envs.env_method("situation"))

    def act(self, hints: Sequence[Hint]) -> Segment:
        """Act one segment with a hint per environment, and learn from it unless frozen."""
        count = len(self.hints)
        for env, hint in enumerate(hints):
            self.envs.env_method("give", hint, indices=[env])
        # What was seen last was seen without the new hint.
        self.model._last_obs[:, -count:] = [one_hot(hint, count) for hint in hints]
        keep = _Keep(count, self._running, self.critic_reads_hints)
        self.model.learn(self._steps, callback=keep, reset_num_timesteps=False)
        force = first_episode(keep.in_force)
        steps = force.sum(axis=0)
        feedback = (keep.deltas * force).sum(axis=0) / np.maximum(steps, 1)
        returns = [value for value, hinted in keep.returns if hinted]
        unhinted = [value for value, hinted in keep.returns if not hinted]
        moved = self._moved(keep.seen[force.astype(bool)])
        return Segment(feedback, tuple(returns), tuple(unhinted), moved)

    def _moved(self, seen: Floats) -> float:
        """Return how much the policy moves when the hints of some observations are dealt anew."""
        if not len(seen):
            return 0.0
        others, count = seen.copy(), len(self.hints)
        others[:, -count:] = self._rng.permutation(seen[:, -count:])
        with torch.no_grad():
            policy = self.model.policy
            one, two = (
                policy.get_distribution(torch.as_tensor(rows)).distribution.probs
                for rows in (seen, others)
            )
        return float((one - two).abs().sum(-1).mean() / 2)

    def parameters(self) -> list[torch.Tensor]:
        """Return copies of all weights, to see whether they move."""
        return [one.detach().clone() for one in self.model.policy.parameters()]


def first_episode(in_force: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return where the hint of the segment is in force, (steps, envs): 1 up to the first reset."""
    return np.cumprod(in_force, axis=0).astype(float)
