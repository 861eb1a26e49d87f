r"""# Take-away: a zero-sum game in text for two players, solved exactly.

| | |
|---|---|
| Agents | `player_0`, `player_1` |
| Actions | text; the number taken is read from it |
| Observations | text |
| Parallel | no: the players move in turn |
| Make | `pettingzoo.make("aec", "maporl/takeaway-v0")` |
| Self-play | `maporl train --scheme grpo --self-play.game takeaway` |

## Rules

Stones lie on a heap. Each player in turn takes 1 to `most` of them, and whoever takes the last
stone wins: reward 1, and -1 for the other. A message without a number, or with one that may not be
taken, loses at once. The number is that of the last `\boxed{}` of the message, else the first
whole number in it. Games end within `stones[1]` moves.

Play is perfect if it leaves a multiple of `most` + 1 stones (Bouton, Annals of Mathematics 3, 1901,
the case of one heap): the player to move wins if and only if the heap is no such multiple.
`value` says so, and `worst_values` what a strategy earns against its best response.

## Observation

The number of stones and the rules, the same for both players and all moves but for the number.

## Reset options

`stones` is the number at the start. Else the seed draws it from `stones[0]` to `stones[1]`.
`player_0` moves first. Rewards come with the last move; infos have `stones` (int64) and `legal`
(bool: the player's last move was one).

## Version history

* v0: initial version
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from maporl_env.observations.spaces import DebateSpace, DebateText
from maporl_env.types import AgentID

__all__ = ["Strategy", "env", "move_of", "raw_env", "value", "worst_values"]

PLAYERS = ("player_0", "player_1")
TEXT_LIMIT = 100_000
_BOX = re.compile(r"\\boxed\s*\{\s*(\d{1,4})\s*\}")
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?!\w|[.,]\d)")

Strategy = Callable[[int], Mapping[int | None, float]]
"""Stones to the chance of each move; None stands for all messages that lose at once."""


def move_of(text: str) -> int | None:
    """Return the number that a message takes; None if it has none that can be read."""
    if boxes := _BOX.findall(text[-TEXT_LIMIT:]):
        return int(boxes[-1])
    found = _NUMBER.search(text[:TEXT_LIMIT])
    return int(found[0]) if found and len(found[0]) <= 4 else None


def value(stones: int, most: int = 3) -> int:
    """Return the exact value of a heap to the player who moves: 1 or -1.

    Raises:
        ValueError: no stones, or none that may be taken.
    """
    _require(stones, most)
    return 1 if stones % (most + 1) else -1


def worst_values(strategy: Strategy, stones: int, most: int = 3) -> tuple[float, float]:
    """Return what a strategy earns on a heap against its best response: moving, and waiting.

    By backward induction: moving, the mean over its moves of what waiting on the rest earns;
    waiting, the least over the other's moves of what moving on the rest earns.

    Args:
        strategy: the chances of its moves.
        stones: on the heap, at least 1.
        most: stones that may be taken at once.

    Raises:
        ValueError: no stones, or chances that do not add up to 1.
    """
    _require(stones, most)
    moving, waiting = [-1.0], [1.0]  # of an empty heap: the other took the last, or it did itself
    for heap in range(1, stones + 1):
        chances = strategy(heap)
        if abs(sum(chances.values()) - 1) > 1e-6 or min(chances.values()) < 0:
            raise ValueError(f"the chances of the moves on {heap} stones do not add up to 1")
        legal = range(1, min(most, heap) + 1)
        kept = sum(chances.get(take, 0.0) * waiting[heap - take] for take in legal)
        lost = sum(chance for move, chance in chances.items() if move not in legal)
        moving.append(kept - lost)
        waiting.append(min(moving[heap - take] for take in legal))
    return moving[stones], waiting[stones]


def _require(stones: int, most: int) -> None:
    if stones < 1 or most < 1:
        raise ValueError(f"a game needs stones, and moves that take some, not {stones} and {most}")


class raw_env(AECEnv[AgentID, Any, Any]):
    """The game, without wrappers.

    Args:
        stones: smallest and largest heap at the start.
        most: stones that may be taken at once.
        render_mode: None, or "ansi": `render` returns the heap and the moves as text.

    Raises:
        ValueError: an impossible value.
    """

    def __init__(
        self, stones: tuple[int, int] = (4, 12), most: int = 3, render_mode: str | None = None
    ) -> None:
        super().__init__()
        smallest, largest = stones
        if not 1 <= smallest <= largest or most < 1:
            raise ValueError(
                f"stones are the smallest and the largest heap, and most is at least 1, not "
                f"{stones} and {most}"
            )
        if render_mode not in (None, "ansi"):
            raise ValueError(f"unknown render_mode {render_mode!r}: choose one of None, ansi")
        self.heaps, self.most, self.render_mode = (smallest, largest), most, render_mode
        self.metadata = {
            "name": "takeaway_v0",
            "render_modes": ["ansi"],
            "is_parallelizable": False,
        }
        self.possible_agents = list(PLAYERS)
        self.agents: list[AgentID] = []
        self._spaces = {agent: DebateSpace(TEXT_LIMIT) for agent in PLAYERS}
        self._acts = {agent: DebateSpace(TEXT_LIMIT) for agent in PLAYERS}
        self._rng = np.random.default_rng()
        self.taken: list[int | None] = []

    def observation_space(self, agent: AgentID) -> DebateSpace:
        """All texts."""
        return self._spaces[agent]

    def action_space(self, agent: AgentID) -> DebateSpace:
        """All texts."""
        return self._acts[agent]

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """Begin a game; see the rules above.

        Raises:
            ValueError: `options["stones"]` is no number of stones.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        stones = (options or {}).get("stones")
        if stones is None:
            stones = int(self._rng.integers(self.heaps[0], self.heaps[1] + 1))
        _require(stones, self.most)
        self.stones = int(stones)
        self.taken = []
        self.agents = list(PLAYERS)
        self.rewards = dict.fromkeys(PLAYERS, 0.0)
        self._cumulative_rewards = dict.fromkeys(PLAYERS, 0.0)
        self.terminations = dict.fromkeys(PLAYERS, False)
        self.truncations = dict.fromkeys(PLAYERS, False)
        self.infos = {agent: self._info(True) for agent in PLAYERS}
        self.agent_selection = PLAYERS[0]

    def observe(self, agent: AgentID) -> DebateText:
        """Return the number of stones and the rules."""
        return DebateText(
            f"Stones: {self.stones} \nTake 1 to {self.most} of them; whoever takes the last one "
            "wins. Answer with the number that you take: "
        )

    def state(self) -> DebateText:
        """Return what the players see."""
        return self.observe(self.agent_selection)

    def step(self, action: str | None) -> None:
        """Let the player whose turn it is take stones."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        move = move_of(str(action))
        legal = move is not None and 1 <= move <= min(self.most, self.stones)
        self.taken.append(move)
        other = PLAYERS[1 - PLAYERS.index(agent)]
        self._cumulative_rewards[agent] = 0.0
        self.rewards = dict.fromkeys(PLAYERS, 0.0)
        if legal:
            assert move is not None
            self.stones -= move
        if not legal or not self.stones:
            winner = agent if legal else other
            self.rewards = {player: 1.0 if player == winner else -1.0 for player in PLAYERS}
            self.terminations = dict.fromkeys(PLAYERS, True)
        self.infos[agent] = self._info(legal)
        self.infos[other]["stones"] = np.int64(self.stones)
        self.agent_selection = other
        self._accumulate_rewards()

    def _info(self, legal: bool) -> dict[str, Any]:
        return {"stones": np.int64(self.stones), "legal": legal}

    def render(self) -> str | None:
        """Return the heap and the moves so far as text, in render mode "ansi"."""
        if self.render_mode is None:
            return None
        moves = ", ".join("nothing legal" if move is None else str(move) for move in self.taken)
        return f"{self.stones} stones left; taken: {moves or 'none yet'}"

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def env(**options: Any) -> AECEnv[AgentID, Any, Any]:
    """Return the game, guarded against calls in the wrong order; options as :class:`raw_env`."""
    return OrderEnforcingWrapper(raw_env(**options))
