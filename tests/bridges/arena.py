"""What every outside library must do with the collaboration game: learn in it, and lose no reward.

Five turns, and four collaborations bring the synergy. Two who collaborate until then earn
2 * 0.2 + 3 = 3.4 each, two who never do earn 5 * 0.4 = 2.0, which is less than chance earns (2.23):
a learner that gives up collaborating fails.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pettingzoo.utils import BaseParallelWrapper

from maporl_env import collaboration_v0
from maporl_env.collaboration_v0 import logit_equilibrium, outcome
from maporl_env.types import AgentID

RULES: dict[str, Any] = {"num_turns": 5, "threshold": 4}
EPISODES = 400

Act = Callable[[np.ndarray], Any]
"""What both agents see in several games, (games, 2, 3) float32, to their actions, (games, 2)."""


def example(name: str) -> ModuleType:
    """Return a script of `examples/` as a module; it is not run."""
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Ledger(BaseParallelWrapper[AgentID, Any, Any]):
    """The game, with a record of what it pays: one dict per step."""

    def __init__(self) -> None:
        super().__init__(collaboration_v0.parallel_env(**RULES))
        self.paid: list[dict[AgentID, float]] = []

    def step(self, actions: Any) -> Any:
        results = super().step(actions)
        self.paid.append(results[1])
        return results

    def table(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Return what steps first to last paid, (steps, 2)."""
        return np.array([list(row.values()) for row in self.paid[first:last]])


def returns(act: Act) -> np.ndarray:
    """Play `EPISODES` games in lock step; return what an agent earned in each, the mean of both."""
    games = [collaboration_v0.parallel_env(**RULES) for _ in range(EPISODES)]
    seen = [list(game.reset()[0].values()) for game in games]
    earned = np.zeros(EPISODES)
    for _ in range(RULES["num_turns"]):
        chosen = np.asarray(act(np.array(seen))).reshape(EPISODES, 2)
        for number, (game, actions) in enumerate(zip(games, chosen.tolist(), strict=True)):
            observations, rewards, *_ = game.step(dict(zip(game.agents, actions, strict=True)))
            seen[number] = list(observations.values())
            earned[number] += np.mean(list(rewards.values()))
    return earned


def random_returns(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return returns(lambda seen: rng.integers(2, size=seen.shape[:2]))


def assert_learnt(name: str, act: Act, *, to_the_end: bool = True) -> None:
    """The policy earns more than chance by three standard errors of the difference.

    And, learnt `to_the_end`, within .1 of what two agents earn who are hardly paid for entropy
    (tau = .01): so an agent that has found half of the way fails.
    """
    learnt, chance = returns(act), random_returns()
    error = math.sqrt((learnt.var(ddof=1) + chance.var(ddof=1)) / EPISODES)
    exact = outcome(0.5, 0.5, **RULES).expected_return
    best = logit_equilibrium(tau=0.01, **RULES).outcome.expected_return
    print(
        f"\n{name}: {learnt.mean():.3f} per episode, chance {chance.mean():.3f} "
        f"(exactly {exact:.3f}), standard error {error:.3f}, {EPISODES} episodes"
    )
    assert abs(chance.mean() - exact) < 4 * error  # the yardstick itself is right
    assert learnt.mean() > chance.mean() + 3 * error
    assert not to_the_end or abs(learnt.mean() - best) < 0.1
