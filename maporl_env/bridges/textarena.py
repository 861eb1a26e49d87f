"""Games of TextArena as PettingZoo environments, and outside environments by name.

    env = TextArenaGame("PublicGoodsGame-v0", players=2, points="total_scores", num_rounds=1)
    make = env_maker("textarena:PublicGoodsGame-v0,players=2,points=total_scores,num_rounds=1")
    make = env_maker("my_games.py:make_env")

TextArena (the extra "textarena") draws from the global random numbers of Python and numpy. Each
game here keeps its own state of both and puts the others back, so that copies side by side do not
disturb each other or the rest of the program.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pettingzoo import AECEnv

from maporl_env.missing_extra import missing_extra
from maporl_env.observations.spaces import DebateSpace, DebateText
from maporl_env.reading.written_values import value_of
from maporl_env.types import AgentID
from maporl_env.user_functions import function_named

PREFIX = "textarena"
MAX_CHARS = 10_000
"""Longest action in characters; a longer one is cut."""


class TextArenaGame(AECEnv):
    """One game of TextArena, as an AEC environment of text observations and text actions.

    The agent that TextArena asks for is `agent_selection`; all end together. By default an agent is
    paid what TextArena gives at the end, mostly 1 for a win, 0 for a draw and -1 for a loss or an
    invalid move. With `points` it is paid what the entry of that name in the game's state gained
    for it, after each step, and nothing at the end.

    A game whose own code fails on a message is truncated, without a reward for that step, and
    counted in `faults`.

    Args:
        name: of the game, as TextArena registers it, e.g. "IteratedMatchingPennies-v0-train".
        players: how many play.
        points: an entry of the game's state with a number per player; "" for the game's rewards.
        scale: what rewards are multiplied by.
        together: pay each agent the mean over the agents, which makes any game cooperative.
        **options: arguments of the game's class, e.g. `num_rounds=1`.

    Raises:
        ImportError: the library is not installed.
        ValueError: no such game, or arguments that it does not take.
    """

    metadata = {  # noqa: RUF012 - PettingZoo's form
        "name": "textarena_v0",
        "render_modes": ["ansi"],
        "is_parallelizable": False,
        "render_fps": 1,
    }

    def __init__(
        self,
        name: str,
        players: int = 2,
        *,
        points: str = "",
        scale: float = 1.0,
        together: bool = False,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.render_mode = render_mode
        self.points, self.scale, self.together = points, scale, together
        self.possible_agents: list[AgentID] = [f"agent_{index}" for index in range(players)]
        self.agents: list[AgentID] = []
        self.faults = 0
        self._make = _maker(name, options)
        self._random: Any = None
        self._space = DebateSpace()
        self._seen: dict[AgentID, str] = {}
        with self._own_random():
            self._make()  # a mistake is told now

    def observation_space(self, agent: AgentID) -> DebateSpace:
        """Return the space of all texts."""
        return self._space

    def action_space(self, agent: AgentID) -> DebateSpace:
        """Return the space of all texts."""
        return self._space

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        """Start a game; without a seed the random numbers of the last one go on."""
        if seed is not None or self._random is None:
            self._random = _seeded(0 if seed is None else seed)
        self.agents = self.possible_agents[:]
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[AgentID, dict[str, Any]] = {agent: {} for agent in self.agents}
        self._seen = dict.fromkeys(self.agents, "")
        with self._own_random():
            self.game = self._make()
            self.game.reset(num_players=len(self.agents), seed=int(random.getrandbits(31)))
            self._paid = self._totals()
            self._look()

    def observe(self, agent: AgentID) -> DebateText:
        """Return what an agent read last: of the one that speaks next, its prompt."""
        return DebateText(self._seen.get(agent, ""))

    def step(self, action: str | None) -> None:
        """Let the selected agent say something."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        if not isinstance(action, str):
            raise ValueError(f"{agent}: an action is a text, not {type(action).__name__}")
        text = action[:MAX_CHARS].encode("utf-8", "replace").decode()
        self._cumulative_rewards[agent] = 0.0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        with self._own_random():
            try:
                done, _ = self.game.step(text)
                self._pay(bool(done))
                if done:
                    self.terminations = dict.fromkeys(self.agents, True)
                else:
                    self._look()
            except Exception:  # the code of a game, on a text that a model wrote
                self.faults += 1
                self.rewards = dict.fromkeys(self.agents, 0.0)
                self.truncations = dict.fromkeys(self.agents, True)
        self._accumulate_rewards()

    def render(self) -> str | None:
        """Return what each agent read last."""
        if self.render_mode is None:
            return None
        return "\n\n".join(f"{agent}:\n{text}" for agent, text in self._seen.items())

    def _look(self) -> None:
        """Read who speaks next and what it sees."""
        player, observation = self.game.get_observation()
        self.agent_selection = self.possible_agents[player]
        self._seen[self.agent_selection] = str(observation)

    def _totals(self) -> list[float]:
        """Return the points of each player so far; zeros where the game's own rewards count."""
        if not self.points:
            return [0.0] * len(self.possible_agents)
        found = self.game.state.game_state.get(self.points)
        try:
            return [float(found[player]) for player in range(len(self.possible_agents))]
        except (TypeError, KeyError, IndexError, ValueError):
            names = ", ".join(map(str, self.game.state.game_state))
            raise ValueError(
                f"this game's state has no number per player in {self.points!r}; it has {names}"
            ) from None

    def _pay(self, done: bool) -> None:
        """Set the rewards of a step."""
        if self.points:
            totals = self._totals()
            gained = [now - before for now, before in zip(totals, self._paid, strict=True)]
            self._paid = totals
        elif done:
            given, _ = self.game.close()
            gained = [float((given or {}).get(p, 0.0)) for p in range(len(self.possible_agents))]
        else:
            return
        if self.together:
            gained = [sum(gained) / len(gained)] * len(gained)
        self.rewards = {a: self.scale * r for a, r in zip(self.agents, gained, strict=True)}

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        """Run the code of a game with random numbers of its own."""
        outside = random.getstate(), np.random.get_state()  # noqa: NPY002
        if self._random is None:
            self._random = _seeded(0)
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])  # noqa: NPY002
        try:
            yield
        finally:
            self._random = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.setstate(outside[0])
            np.random.set_state(outside[1])  # noqa: NPY002


def _seeded(seed: int) -> tuple[Any, Any]:
    """Return the states of Python's and numpy's random numbers after a seed."""
    return random.Random(seed).getstate(), np.random.RandomState(seed % 2**32).get_state()


def _maker(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that makes a new game.

    Raises:
        ImportError: the library is not installed.
        ValueError: no such game.
    """
    try:
        library = importlib.import_module("textarena")
    except ImportError as error:
        raise ImportError(
            missing_extra(f"the game textarena:{name}", "textarena", "textarena")
        ) from error
    known = importlib.import_module("textarena.envs.registration").ENV_REGISTRY
    if name not in known:
        near = sorted(game for game in known if name.lower()[:6] in game.lower())[:8]
        hint = f"; alike are {', '.join(near)}" if near else ""
        raise ValueError(f"TextArena {getattr(library, '__version__', '')} has no {name!r}{hint}")

    def make() -> Any:
        try:
            return library.make(name, **options)
        except Exception as error:
            raise ValueError(
                f"TextArena cannot make {name!r} with {options}: {type(error).__name__}: {error}"
            ) from error

    return make


def env_maker(name: str) -> Callable[[], Any]:
    """Return the function that makes an outside environment of a name.

    Args:
        name: "textarena:GAME", with options behind commas as KEY=VALUE: arguments of
            `TextArenaGame` and of the game; or "module:function" or "file.py:function", which
            returns a new AEC or Parallel environment of text.

    Raises:
        ValueError: no such thing.
    """
    kind, colon, written = name.partition(":")
    if kind != PREFIX or not colon:
        try:
            return function_named(name)
        except ValueError as error:
            raise ValueError(f"environment {error}; or name a game as {PREFIX}:GAME") from error
    game, *texts = written.split(",")
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key.isidentifier() or key in options:
            raise ValueError(f"options of {PREFIX}:{game} are KEY=VALUE, each once, not {text!r}")
        options[key] = value_of(value)
    return lambda: TextArenaGame(game, **options)
