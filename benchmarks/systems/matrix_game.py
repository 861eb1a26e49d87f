"""A game of one turn and two agents, whose values are known: it can be worked out by hand.

The first agent picks a row and the second, who sees it, a column of ``PAYS``; both get the number
there. ``CHANCES`` are those of mu: 1.875 on average, of 4 at most.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Discrete
from pettingzoo import ParallelEnv

PAYS = ((4.0, 0.0), (1.0, 2.0))
CHANCES = {(): (0.5, 0.5), (0,): (0.5, 0.5), (1,): (0.25, 0.75)}
"""Of each action, by the actions before it."""


class MatrixGame(ParallelEnv):  # type: ignore[misc]
    """The game; observations say nothing."""

    metadata: ClassVar[dict[str, Any]] = {"name": "matrix"}
    best = max(map(max, PAYS))

    def __init__(self) -> None:
        self.possible_agents = ["agent_0", "agent_1"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Discrete:
        return Discrete(1)

    def action_space(self, agent: str) -> Discrete:
        return Discrete(2)

    def state(self) -> np.ndarray[Any, Any]:
        return np.zeros(1, dtype=np.float32)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.agents = list(self.possible_agents)
        return dict.fromkeys(self.agents, 0), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        row, column = (int(actions[agent]) for agent in self.possible_agents)
        names, self.agents = self.agents, []
        paid = dict.fromkeys(names, PAYS[row][column])
        over, on = dict.fromkeys(names, True), dict.fromkeys(names, False)
        return dict.fromkeys(names, 0), paid, over, on, {agent: {} for agent in names}
