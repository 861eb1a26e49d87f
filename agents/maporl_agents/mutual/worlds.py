"""Environments for a student that reads hints: what it sees, and what its teacher reads instead.

Each has `hints`, the words a teacher may use; `describe()`, the situation in words; and
`right_hint()`, the word that names the truth, for measurements only. Nobody is paid by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maporl_env.missing_extra import missing_extra

Floats = NDArray[np.float32]


class World(Protocol):
    """What `Hinted` needs of an environment besides Gymnasium's interface."""

    hints: tuple[str, ...]

    def describe(self) -> str:
        """Return the situation in words, for the teacher."""

    def right_hint(self) -> str:
        """Return the hint that names the truth."""


class Chain(gymnasium.Env[Floats, int]):
    """Twelve states in a row; the treasure is at one end, and only the teacher knows at which.

    The student starts in one of the two middle states, sees its place, and moves left or right.
    Either end ends the episode, with reward 1 at the treasure and 0 at the other end; so does the
    time limit. Without a hint no policy earns more than 1/2.

    Args:
        states: number of states, even.
        limit: steps of an episode.
    """

    hints = ("left", "right", "wait")
    words = "the treasure is at the left right end ."

    def __init__(self, states: int = 12, limit: int = 24) -> None:
        self.states, self.limit = states, limit
        self.observation_space = Box(0.0, 1.0, (states,))
        self.action_space: Any = Discrete(2)
        self.place, self.goal, self.time = 0, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode; the end with the treasure is drawn."""
        super().reset(seed=seed)
        self.place = self.states // 2 - int(self.np_random.integers(2))
        self.goal = int(self.np_random.integers(2)) * (self.states - 1)
        self.time = 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Move left (0) or right (1)."""
        self.place += 1 if action else -1
        self.time += 1
        over = self.place in (0, self.states - 1)
        reward = float(over and self.place == self.goal)
        return self._seen(), reward, over, not over and self.time >= self.limit, {}

    def _seen(self) -> Floats:
        seen = np.zeros(self.states, np.float32)
        seen[self.place] = 1.0
        return seen

    def describe(self) -> str:
        """Return where the treasure is."""
        return f"the treasure is at the {self.right_hint()} end ."

    def right_hint(self) -> str:
        """Return "left" or "right"."""
        return "right" if self.goal else "left"


class RedBall(gymnasium.Wrapper[Any, int, Any, int]):
    """BabyAI's GoToRedBallNoDists of `minigrid`: go to the red ball of an otherwise empty room.

    The student sees the 7 x 7 cells before it as numbers, and which way it faces. The teacher reads
    in which direction from the student the ball is.

    Args:
        env: the environment; None makes "BabyAI-GoToRedBallNoDists-v0".

    Raises:
        ModuleNotFoundError: `minigrid` is not installed; names the extra.
    """

    hints = ("left", "right", "ahead", "behind")
    words = "the ball is left right ahead behind ."
    name = "BabyAI-GoToRedBallNoDists-v0"

    def __init__(self, env: Any = None) -> None:
        super().__init__(_made(self.name) if env is None else env)
        self.observation_space = Box(0.0, 1.0, (7 * 7 * 3 + 4,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode in a new room."""
        seen, info = self.env.reset(seed=seed, options=options)
        return self._flat(seen), info

    def step(self, action: int) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Act as in minigrid; rewards are its own."""
        seen, reward, ended, cut, info = self.env.step(action)
        return self._flat(seen), float(reward), ended, cut, info

    def _flat(self, seen: Any) -> Floats:
        facing = np.eye(4, dtype=np.float32)[seen["direction"]]
        return np.concatenate([seen["image"].astype(np.float32).ravel() / 10.0, facing])

    def describe(self) -> str:
        """Return where the ball is, as seen from the student."""
        return f"the ball is {self.right_hint()} ."

    def right_hint(self) -> str:
        """Return the direction in which the ball lies farther; along the view where equal."""
        inner: Any = self.env.unwrapped
        cells = ((x, y) for x in range(inner.width) for y in range(inner.height))
        [ball] = [c for c in cells if getattr(inner.grid.get(*c), "type", "") == "ball"]
        away = np.subtract(ball, inner.agent_pos)
        ahead, aside = int(away @ inner.dir_vec), int(away @ inner.right_vec)
        if abs(ahead) >= abs(aside):
            return "ahead" if ahead > 0 else "behind"
        return "right" if aside > 0 else "left"


def _made(name: str) -> Any:
    try:
        import minigrid  # noqa: F401 - registers its environments
    except ImportError as error:
        raise ModuleNotFoundError(
            missing_extra("the world red_ball", "minigrid", "mutual")
        ) from error
    return gymnasium.make(name)


WORLDS: dict[str, Callable[[], Any]] = {"chain": Chain, "red_ball": RedBall}
"""Makers of worlds by name."""


class Hinted(gymnasium.Wrapper[Any, int, Any, int]):
    """A world whose observation ends with the hint in force, one-hot; zeros without one.

    A hint is in force until the episode ends or another one is given.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        [size] = world.observation_space.shape
        self.world: World = world
        self.hint: int | None = None
        self.observation_space = Box(0.0, 1.0, (size + len(world.hints),))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode without a hint."""
        self.hint = None
        seen, info = self.env.reset(seed=seed, options=options)
        return self._with_hint(seen), info

    def step(self, action: int) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Act, and see the hint again."""
        seen, reward, ended, cut, info = self.env.step(action)
        return self._with_hint(seen), float(reward), ended, cut, info

    def give(self, hint: int | None) -> None:
        """Put a hint in force, from the next observation on."""
        self.hint = hint

    def situation(self) -> tuple[str, str]:
        """Return what the teacher reads, and the right hint."""
        return self.world.describe(), self.world.right_hint()

    def _with_hint(self, seen: Floats) -> Floats:
        return np.concatenate([seen, one_hot(self.hint, len(self.world.hints))])


def one_hot(hint: int | None, count: int) -> Floats:
    """Return a hint as the student sees it, (count,)."""
    shown = np.zeros(count, np.float32)
    if hint is not None:
        shown[hint] = 1.0
    return shown
