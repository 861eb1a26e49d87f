"""What the views of the collaboration game share, and its observations.

The environments are `collaboration_v0.raw_env` (AEC) and `collaboration_v0.parallel_env`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maporl_env.collaboration.game import ALONE, COLLABORATE, NUM_AGENTS, CollaborationGame, Rules
from maporl_env.env_bases.members import EnvMembers, warn_not_rendered
from maporl_env.similar_names import make
from maporl_env.types import AgentID

RENDER_MODES = ("human", "ansi", "rgb_array")
CELL = 24  # pixels
UNPLAYED, SYNERGY = (235, 235, 235), (60, 160, 80)
COLORS = {ALONE: (214, 120, 60), COLLABORATE: (50, 110, 190)}
WORDS = {ALONE: "alone", COLLABORATE: "collaborates"}

Observation = NDArray[np.float32]
Picture = NDArray[np.uint8]
Infos = dict[AgentID, dict[str, Any]]


class CollaborationBase(EnvMembers):
    """The common part of the AEC and the Parallel environment: all but the order of calls.

    Attributes:
        rules: of the game.
        game: the episode.
        state_space: of :meth:`state`.
    """

    def __init__(
        self,
        *args: Any,
        render_mode: str | None = None,
        max_cycles: int | None = None,
        **options: Any,
    ) -> None:
        if render_mode not in (None, *RENDER_MODES):
            raise ValueError(
                f"unknown render_mode {render_mode!r}: choose one of None, "
                f"{', '.join(RENDER_MODES)}"
            )
        rules = make(Rules, *args, **options)
        self.rules = rules if max_cycles is None else replace(rules, num_turns=max_cycles)
        self.possible_agents = [f"agent_{agent_index}" for agent_index in range(NUM_AGENTS)]
        self.render_mode = render_mode
        self.metadata = {
            "name": "collaboration_v0",
            "render_modes": list(RENDER_MODES),
            "render_fps": 1,
            "is_parallelizable": True,
        }
        self._observation_spaces = {agent: observation_box() for agent in self.possible_agents}
        self._action_spaces = {agent: Discrete(2) for agent in self.possible_agents}
        self.state_space = observation_box()
        self._game: CollaborationGame | None = None
        self._printed = 0

    @property
    def max_cycles(self) -> int:
        """The number of turns. A new value holds from the next reset on."""
        return self.rules.num_turns

    @max_cycles.setter
    def max_cycles(self, num_turns: int) -> None:
        self.rules = replace(self.rules, num_turns=num_turns)

    @property
    def game(self) -> CollaborationGame:
        """The episode; ResetNeeded before the first reset."""
        if self._game is None:
            raise ResetNeeded("no game has begun: call reset first")
        return self._game

    def begin(self, options: Mapping[str, Any] | None) -> None:
        """Begin a game; a wrong option raises before anything has changed."""
        options = options or {}
        self._game = start(self.rules, options)
        self._printed = 0

    def check(self, agent: AgentID, action: Any) -> int:
        """Return an action as an int; ValueError if it is none."""
        if not self._action_spaces[agent].contains(action):
            raise ValueError(
                f"the action of {agent} must be {ALONE} (alone) or {COLLABORATE} (collaborate), "
                f"not {action!r}"
            )
        return int(action)

    def observe(self, agent: AgentID) -> Observation:
        """Return the observation of an agent; ValueError for an unknown agent."""
        if agent not in self._action_spaces:
            raise ValueError(f"no agent {agent!r}: choose one of {', '.join(self.possible_agents)}")
        return observation(self.game)

    def state(self) -> Observation:
        """Return the state before a turn, (3,) float32; it equals the observation."""
        return observation(self.game)

    def current_infos(self) -> Infos:
        """Return fresh infos of all agents."""
        return {agent: info(self.game) for agent in self.possible_agents}

    def render(self) -> str | Picture | None:
        """Show the game: return it ("ansi", "rgb_array"), or print what is new ("human")."""
        if self.render_mode is None:
            warn_not_rendered()
            return None
        if self.render_mode == "rgb_array":
            return picture(self.game)
        if self.render_mode == "ansi":
            return lines(self.game)
        print(lines(self.game, self._printed), end="", flush=True)
        self._printed = len(self.game.turns)
        return None


def start(rules: Rules, options: Mapping[str, Any]) -> CollaborationGame:
    """Return a new game; ValueError if the options name a state that no game reaches."""
    turn, count = (options.get(name) for name in ("turn", "collaborations"))
    return CollaborationGame(rules, 0 if turn is None else turn, 0 if count is None else count)


def observation_box() -> Box:
    """Return a new space of observations."""
    return Box(0.0, 1.0, (3,), np.float32)


def observation(game: CollaborationGame) -> Observation:
    """Return turns left / T, collaborations missing / K, and 1 with synergy; (3,) float32."""
    rules = game.rules
    left, missing = rules.num_turns - game.turn, rules.threshold - game.count
    numbers = (left / rules.num_turns, missing / rules.threshold, game.synergy)
    return np.array(numbers, dtype=np.float32)


def info(game: CollaborationGame) -> dict[str, Any]:
    """Return a fresh info with constant keys and dtypes."""
    return {
        "turn": np.int64(game.turn),
        "collaborations": np.int64(game.count),
        "synergy": game.synergy,
    }


def lines(game: CollaborationGame, first: int = 0) -> str:
    """Return a line of text for each turn that was played, from the first-th on."""
    begun = game.turn - len(game.turns)
    texts = []
    for number, turn in list(enumerate(game.turns, start=begun + 1))[first:]:
        acts = ", ".join(f"agent_{agent} {WORDS[a]}" for agent, a in enumerate(turn.actions))
        paid = ", ".join(f"{reward:g}" for reward in turn.rewards)
        texts.append(f"Turn {number}: {acts}; paid {paid}{' (synergy)' if turn.synergy else ''}\n")
    return "".join(texts)


def picture(game: CollaborationGame) -> Picture:
    """Return a picture, uint8 (H, W, 3).

    A column per turn: a row per agent, blue where it collaborated, orange where it acted alone; and
    a green bar below a turn with synergy.
    """
    begun = game.turn - len(game.turns)
    cells = np.full((NUM_AGENTS + 1, game.rules.num_turns, 3), UNPLAYED, dtype=np.uint8)
    cells[NUM_AGENTS] = 255
    for column, turn in enumerate(game.turns, start=begun):
        cells[:NUM_AGENTS, column] = [COLORS[action] for action in turn.actions]
        if turn.synergy:
            cells[NUM_AGENTS, column] = SYNERGY
    pixels = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)
    pixels[::CELL], pixels[:, ::CELL] = 255, 255
    return pixels
