"""Overcooked as a PettingZoo environment: cooks with one shared reward.

    env = OvercookedGame("cramped_room", horizon=400)

The extra "overcooked" brings the package of that name (0.2.1), a port of Overcooked-AI (Carroll et
al. 2019, arXiv 1910.05789). Cooks put onions into a pot, wait until the soup is cooked, and bring
it on a dish to where it is served. Its transition function is used and not its environment class
`Overcooked`, whose `step` computes a potential that ends with IndexError where a cook holds
an onion and no pot is empty (release 0.2.1), and which writes a plan into the installed package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from maporl_env.env_bases.members import EnvMembers, warn_not_rendered
from maporl_env.missing_extra import missing_extra
from maporl_env.types import AgentID

ACTIONS = ("up", "down", "right", "left", "stay", "interact")
"""Names of the discrete actions 0 to 5."""
HELD = ("onion", "tomato", "dish", "soup")
SOUP_NUMBERS = 6
Vector = NDArray[np.float32]


class OvercookedGame(EnvMembers, ParallelEnv[AgentID, Any, Any]):
    """A kitchen; truncated after `horizon` turns.

    An observation is the state, followed by which cook one is, one-hot. The state holds, each as
    0 or 1 unless said: of each cook its cell among those it can stand on, the direction it looks,
    what it holds; of each pot how many ingredients (0 to 3), whether it cooks, is ready, and the
    share of its time that has passed; of onion, tomato, dish and soup, how many lie on counters, in
    fours; the share of the horizon that has passed.

    Args:
        layout: name of a kitchen, such as "cramped_room".
        horizon: turns of a game, at least 1.
        shaping: weight of the package's rewards on the way to a soup, which all cooks get; a soup
            that is served pays 20. 0 for soups alone.
        render_mode: None, or "ansi".

    Attributes:
        kitchen: the package's game, which holds places and recipes.
        now: the package's state.
        soups: served in this game.

    Raises:
        ImportError: the package is not installed.
        ValueError: an unknown layout, or an impossible value.
    """

    def __init__(
        self,
        layout: str = "cramped_room",
        *,
        horizon: int = 400,
        shaping: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        super().__init__()
        if horizon < 1 or render_mode not in (None, "ansi"):
            raise ValueError(
                f"horizon must be at least 1 and render_mode one of None, ansi, not {horizon} and "
                f"{render_mode!r}"
            )
        self.kitchen = _kitchen(layout)
        self.horizon, self.shaping, self.render_mode = horizon, shaping, render_mode
        self.metadata = {"name": "overcooked_v0", "render_modes": ["ansi"]}
        self.possible_agents = [f"agent_{n}" for n in range(self.kitchen.num_players)]
        self.agents = []
        self._cells = list(self.kitchen.get_valid_player_positions())
        self._pots = list(self.kitchen.get_pot_locations())
        self.now = self.kitchen.get_standard_start_state()
        self.soups = 0
        size = len(self.state())
        self.state_space = Box(0.0, np.inf, (size,), np.float32)
        seen = Box(0.0, np.inf, (size + len(self.possible_agents),), np.float32)
        self._observation_spaces = dict.fromkeys(self.possible_agents, seen)
        self._action_spaces = {agent: Discrete(len(ACTIONS)) for agent in self.possible_agents}

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[AgentID, Vector], dict[AgentID, dict[str, Any]]]:
        """Begin a game; nothing is drawn, so the seed does not matter."""
        self.now = self.kitchen.get_standard_start_state()
        self.agents, self.soups = self.possible_agents[:], 0
        return self._observations(), {agent: {"soups": 0} for agent in self.agents}

    def step(self, actions: Mapping[AgentID, Any]) -> tuple[Any, ...]:
        """Let all cooks act at once.

        Raises:
            ValueError: an action outside 0 to 5.
        """
        cooks = self.agents
        chosen = [_action(cook, actions[cook]) for cook in cooks]
        _own_recipes(self.kitchen)
        self.now, told = self.kitchen.get_state_transition(self.now, chosen)
        served = float(sum(told["sparse_reward_by_agent"]))
        self.soups += served > 0
        reward = served + self.shaping * float(sum(told["shaped_reward_by_agent"]))
        over = self.now.timestep >= self.horizon
        observations = self._observations()
        infos = {cook: {"soups": self.soups} for cook in cooks}
        if over:
            self.agents = []
        ended = dict.fromkeys(cooks, False), dict.fromkeys(cooks, over)
        return observations, dict.fromkeys(cooks, reward), *ended, infos

    def state(self) -> Vector:
        """Return the state; see the class."""
        now, parts = self.now, []
        for cook in now.players:
            place = self._cells.index(cook.position)
            held = cook.held_object.name if cook.held_object is not None else ""
            parts += [float(place == n) for n in range(len(self._cells))]
            parts += [float(cook.orientation == way) for way in ((0, -1), (0, 1), (1, 0), (-1, 0))]
            parts += [float(held == name) for name in HELD]
        for pot in self._pots:
            parts += _soup(now.objects.get(pot))
        lying = [thing.name for place, thing in now.objects.items() if place not in self._pots]
        parts += [lying.count(name) / 4 for name in HELD]
        return np.array([*parts, now.timestep / self.horizon], dtype=np.float32)

    def _observations(self) -> dict[AgentID, Vector]:
        state, own = self.state(), np.eye(len(self.possible_agents), dtype=np.float32)
        return {
            agent: np.concatenate([state, own[index]])
            for index, agent in enumerate(self.possible_agents)
        }

    def render(self) -> str | None:
        """Return the kitchen as text, in render mode "ansi"."""
        if self.render_mode is None:
            warn_not_rendered()
            return None
        return str(self.kitchen.state_string(self.now))


def _soup(soup: Any) -> list[float]:
    """Return what is told of a pot, `SOUP_NUMBERS` + 1 numbers."""
    if soup is None:
        return [1.0] + [0.0] * SOUP_NUMBERS
    count = len(soup.ingredients)
    cooked = 0.0 if soup.is_idle else 1 - soup.cook_time_remaining / soup.cook_time
    amounts = [float(count == number) for number in range(4)]
    return [*amounts, float(soup.is_cooking), float(soup.is_ready), cooked]


def _kitchen(layout: str) -> Any:
    try:
        from overcooked import OvercookedGridworld
    except ImportError as error:
        raise ImportError(
            missing_extra("the game Overcooked", "overcooked", "overcooked")
        ) from error
    try:
        return OvercookedGridworld.from_layout_name(layout)
    except FileNotFoundError as error:
        raise ValueError(f"Overcooked has no layout {layout!r:.60}") from error


def _own_recipes(kitchen: Any) -> None:
    """Give the package's recipes, which are global, those of one kitchen."""
    from overcooked import Recipe

    if Recipe.configuration() != kitchen.recipe_config:
        Recipe.configure(kitchen.recipe_config)


def _action(cook: AgentID, action: Any) -> Any:
    from overcooked import Action

    if not 0 <= int(action) < len(ACTIONS):
        raise ValueError(f"{cook}: an action is 0 to {len(ACTIONS) - 1}, not {action!r:.40}")
    return Action.ALL_ACTIONS[int(action)]
