r"""# Boxes: arms on a grid carry boxes to targets of their colour (after BoxNet).

| | |
|---|---|
| Agents | `agent_0`, ...: one arm per cell, row by row |
| Actions | `Discrete(1 + 5 boxes)`, or text |
| Observations | vector and action mask, or text |
| Parallel | yes; moves are carried out in the order of the agents |
| Make | `pettingzoo.make("parallel", "maporl/boxes-v0")` |

## Rules

BoxNet is from Chen et al., "Scalable multi-robot collaboration with large language models"
(arXiv 2309.15943); reasoning-gym asks it as one question (`boxnet`). Each arm waits, or moves
one box of its own cell to a neighbouring cell or onto a target of the box's colour in its cell. A
box on its target leaves the game with that target, and all agents are paid 1. A cell holds at most
`capacity` boxes; a move into a full cell has no effect, so that the order of the arms matters. The
game ends when all boxes are delivered and is truncated after `max_cycles` turns.

## Actions

0 waits; 1 + 5 b + d moves box b, d = 0 .. 3 up, down, left, right, 4 onto its target. With `text`
the last `move(box_red, square[0.5, 1.5])` or `move(box_red, target_red)` of a message counts: cells
are named by the middles of row and column, and a message without one waits. An action that cannot
be carried out waits; the agent's info says so: `legal` is False.

## Observation

`observation`, float32: for each box the one-hot cell where it stands (all 0: delivered), for each
target likewise, then the agent's own cell. `action_mask`, int8: what can be carried out now, but
for the other arms. `state()` is the vector without the own cell. With `text`: what lies where,
and the moves of the own arm.

## Reset options

`cells`: a dict from cells ("0.5_1.5") to items ("box_red", "target_red"), as reasoning-gym holds
it. Else boxes and targets are drawn by the seed: boxes in different cells, no box at its target.

## Version history

* v0: initial version
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from maporl_env.env_bases.members import EnvMembers, warn_not_rendered
from maporl_env.observations.spaces import DebateSpace, DebateText
from maporl_env.types import AgentID

__all__ = ["Item", "parallel_env"]

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
TO_TARGET = len(STEPS)
TEXT_LIMIT = 100_000
_MOVE = re.compile(
    r"move\(box_(\w{1,20}), ?(?:(target)_(\w{1,20})|square\[(\d{1,3})\.5, ?(\d{1,3})\.5\])\)"
)

Cell = tuple[int, int]


class Item(NamedTuple):
    """A box or a target: its colour and cell, None once it is delivered."""

    colour: str
    cell: Cell | None


class parallel_env(EnvMembers, ParallelEnv[AgentID, Any, Any]):
    """The game.

    Args:
        rows: of the grid, at least 1.
        columns: of the grid; at least two cells in all.
        boxes: 1 to 6, and no more than cells.
        capacity: boxes that a cell can hold; None for any number, as BoxNet has it.
        text: observations and actions are texts.
        max_cycles: turns after which the game is truncated.
        render_mode: None, or "ansi": `render` returns the grid as text.

    Raises:
        ValueError: an impossible value.
    """

    def __init__(
        self,
        rows: int = 2,
        columns: int = 3,
        boxes: int = 3,
        *,
        capacity: int | None = 1,
        text: bool = False,
        max_cycles: int = 20,
        render_mode: str | None = None,
    ) -> None:
        super().__init__()
        cells = rows * columns
        if rows < 1 or columns < 1 or cells < 2 or max_cycles < 1:
            raise ValueError("a grid needs two cells or more, and a game at least one turn")
        if not 1 <= boxes <= min(len(COLOURS), cells):
            raise ValueError(f"boxes must be 1 to {min(len(COLOURS), cells)}, not {boxes}")
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity must be at least 1, or None, not {capacity}")
        if render_mode not in (None, "ansi"):
            raise ValueError(f"unknown render_mode {render_mode!r}: choose one of None, ansi")
        self.grid = [(row, column) for row in range(rows) for column in range(columns)]
        self.number, self.capacity, self.text = boxes, capacity, text
        self.max_cycles, self.render_mode = max_cycles, render_mode
        self.metadata = {"name": "boxes_v0", "render_modes": ["ansi"]}
        self.possible_agents = [f"agent_{index}" for index in range(cells)]
        self.agents = []
        self._observation_spaces = {agent: self._seen_space() for agent in self.possible_agents}
        self._action_spaces = {
            agent: DebateSpace(TEXT_LIMIT) if text else Discrete(1 + 5 * boxes)
            for agent in self.possible_agents
        }
        self.state_space = Box(0.0, 1.0, (2 * boxes * cells,), np.float32)
        self._rng = np.random.default_rng()
        self.boxes: list[Item] = []
        self.targets: list[Item] = []
        self.plan: list[dict[str, str]] = []

    def _seen_space(self) -> Any:
        if self.text:
            return DebateSpace(TEXT_LIMIT)
        size = (2 * self.number + 1) * len(self.grid)
        mask = Box(0, 1, (1 + 5 * self.number,), np.int8)
        return Dict({"observation": Box(0.0, 1.0, (size,), np.float32), "action_mask": mask})

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[AgentID, Any], dict[AgentID, dict[str, Any]]]:
        """Begin a game; see the rules above.

        Raises:
            ValueError: `options["cells"]` is no such grid, or has another number of boxes.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        given = (options or {}).get("cells")
        self.boxes, self.targets = self._drawn() if given is None else self._read(given)
        self.agents, self.plan = self.possible_agents[:], []
        return self._observations(), {agent: {"legal": True} for agent in self.agents}

    def _drawn(self) -> tuple[list[Item], list[Item]]:
        places = self._rng.permutation(len(self.grid))[: self.number]
        boxes = [Item(COLOURS[index], self.grid[int(place)]) for index, place in enumerate(places)]
        targets = []
        for box in boxes:
            others = [cell for cell in self.grid if cell != box.cell]
            targets.append(Item(box.colour, others[int(self._rng.integers(len(others)))]))
        return boxes, targets

    def _read(self, given: Mapping[str, Any]) -> tuple[list[Item], list[Item]]:
        names = {_name(cell): cell for cell in self.grid}
        boxes: list[Item] = []
        targets: list[Item] = []
        for name, items in given.items():
            for item in items:
                kind, _, colour = str(item).partition("_")
                if name not in names or kind not in ("box", "target") or not colour:
                    raise ValueError(f"cell {name!r:.40} with {item!r:.40} is not of this grid")
                (boxes if kind == "box" else targets).append(Item(colour, names[name]))
        colours = [sorted(one.colour for one in items) for items in (boxes, targets)]
        if len(boxes) != self.number or colours[0] != colours[1]:
            raise ValueError(
                f"cells must hold {self.number} boxes and a target of the colour of each, not "
                f"boxes {colours[0]} and targets {colours[1]}"
            )
        return boxes, targets

    def step(self, actions: Mapping[AgentID, Any]) -> tuple[Any, ...]:
        """Carry out one action of each arm, in the order of the agents."""
        before = len(self._left())
        self.plan.append({})
        infos = {}
        for index, agent in enumerate(self.agents):
            legal = self._do(index, actions[agent])
            infos[agent] = {"legal": legal}
        left = len(self._left())
        agents, over = self.agents, len(self.plan) >= self.max_cycles
        rewards = dict.fromkeys(agents, float(before - left))
        ends = dict.fromkeys(agents, not left), dict.fromkeys(agents, bool(left) and over)
        observations = self._observations()
        if not left or over:
            self.agents = []
        return observations, rewards, *ends, infos

    def _do(self, index: int, action: Any) -> bool:
        """Let an arm act; return whether that could be done."""
        move = self._move_of(index, action) if self.text else int(action) - 1
        if move is None or move < 0:
            return True
        if not self._can(index, move):
            return False
        box, way = divmod(move, 5)
        colour, cell = self.boxes[box]
        assert cell is not None
        if way == TO_TARGET:
            place = self.targets.index(Item(colour, cell))
            self.boxes[box] = self.targets[place] = Item(colour, None)
            said = f"target_{colour}"
        else:
            goal = self._goal(cell, way)
            self.boxes[box] = Item(colour, goal)
            said = f"square[{goal[0] + 0.5}, {goal[1] + 0.5}]"
        self.plan[-1][_agent(cell)] = f"move(box_{colour}, {said})"
        return True

    def _can(self, index: int, move: int) -> bool:
        """Return whether an arm can make a move now."""
        box, way = divmod(move, 5)
        if not 0 <= box < self.number or self.boxes[box].cell != self.grid[index]:
            return False
        colour, cell = self.boxes[box]
        assert cell is not None
        if way == TO_TARGET:
            return Item(colour, cell) in self.targets
        goal = self._goal(cell, way)
        held = sum(one.cell == goal for one in self.boxes)
        return goal in self.grid and (self.capacity is None or held < self.capacity)

    def _goal(self, cell: Cell, way: int) -> Cell:
        return cell[0] + STEPS[way][0], cell[1] + STEPS[way][1]

    def _move_of(self, index: int, text: str) -> int | None:
        """Return the move that a message names, None if it names none; may be impossible."""
        named = _MOVE.findall(str(text)[-TEXT_LIMIT:])
        if not named:
            return None
        colour, target, wanted, row, column = named[-1]
        here = self.grid[index]
        for box, one in enumerate(self.boxes):
            if one == Item(colour, here):
                if target:
                    return 5 * box + TO_TARGET if wanted == colour else 5 * self.number
                goal = int(row), int(column)
                ways = [way for way in range(TO_TARGET) if self._goal(here, way) == goal]
                return 5 * box + ways[0] if ways else 5 * self.number
        return 5 * self.number  # no such box here: cannot be carried out

    def _left(self) -> list[Item]:
        return [box for box in self.boxes if box.cell is not None]

    def state(self) -> NDArray[np.float32]:
        """Return the cells of boxes and targets, one-hot, all 0 once delivered."""
        rows = np.zeros((2 * self.number, len(self.grid)), dtype=np.float32)
        for row, item in zip(rows, (*self.boxes, *self.targets), strict=True):
            if item.cell is not None:
                row[self.grid.index(item.cell)] = 1.0
        return rows.ravel()

    def mask(self, index: int) -> NDArray[np.int8]:
        """Return which actions an arm can carry out now, (1 + 5 boxes,); waiting always."""
        moves = range(5 * self.number)
        return np.array([1, *(self._can(index, move) for move in moves)], dtype=np.int8)

    def _observations(self) -> dict[AgentID, Any]:
        if self.text:
            return {agent: self._told(index) for index, agent in enumerate(self.agents)}
        state, own = self.state(), np.eye(len(self.grid), dtype=np.float32)
        return {
            agent: {
                "observation": np.concatenate([state, own[index]]),
                "action_mask": self.mask(index),
            }
            for index, agent in enumerate(self.agents)
        }

    def _told(self, index: int) -> DebateText:
        moves = [self._words(int(move)) for move in np.flatnonzero(self.mask(index)[1:])]
        return DebateText(
            f"{self._lines()}\nYou are the arm of {_square(self.grid[index])}. You can wait"
            f"{''.join(f', {move}' for move in moves)}."
        )

    def _words(self, move: int) -> str:
        box, way = divmod(move, 5)
        colour, cell = self.boxes[box]
        assert cell is not None
        goal = f"target_{colour}" if way == TO_TARGET else _square(self._goal(cell, way))
        return f"move(box_{colour}, {goal})"

    def _lines(self) -> str:
        lines = []
        for cell in self.grid:
            here = [f"box_{one.colour}" for one in self.boxes if one.cell == cell]
            here += [f"target_{one.colour}" for one in self.targets if one.cell == cell]
            lines.append(f"{_square(cell)}: {', '.join(here) or 'empty'}")
        return "\n".join(lines)

    def answer(self) -> str:
        """Return the moves so far as JSON: a list of turns, in the form of BoxNet."""
        return json.dumps(self.plan)

    def render(self) -> str | None:
        """Return what lies where as text, in render mode "ansi"."""
        if self.render_mode is None:
            warn_not_rendered()
            return None
        return self._lines()


def _name(cell: Cell) -> str:
    return f"{cell[0] + 0.5}_{cell[1] + 0.5}"


def _square(cell: Cell) -> str:
    return f"square[{cell[0] + 0.5}, {cell[1] + 0.5}]"


def _agent(cell: Cell) -> str:
    return f"Agent[{cell[0] + 0.5}, {cell[1] + 0.5}]"
