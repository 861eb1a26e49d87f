r"""A built-in task of plans: walk over a board of 5 x 5 places, around walls.

    from 0 1 to 2 3 not 1 1 , 2 2 , 4 0 . moves ?
    \boxed{ n n e e }

A place is its column and row. Moves are e (column + 1), w, n (row + 1) and s. A plan is right if it
ends at the goal in at most eight moves, without leaving the board or entering a wall. Before a plan
is carried out one can see where it ends (`EndsAtGoal`), not whether it meets a wall.
Words are separated by spaces because the built-in model has a word-level tokenizer.

Splits: by start and goal; a pair in "test" or "validation" occurs in no question of another split.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from maporl_env.answers import last_box
from maporl_env.tasks.base import Task
from maporl_env.tasks.sharing import TEMPLATE
from maporl_env.tasks.shopping import split_pairs
from maporl_env.types import Question

SIZE = 5
MAX_MOVES = 8
NUM_WALLS = 3
MOVES = {"e": (1, 0), "w": (-1, 0), "n": (0, 1), "s": (0, -1)}
NUM_TEST_PAIRS = 100
NUM_VALIDATION_PAIRS = 40
BOARDS = {"train": 20, "validation": 8, "test": 8}
"""Boards of each pair of start and goal."""

Place = tuple[int, int]

PLACES: list[Place] = [(x, y) for x in range(SIZE) for y in range(SIZE)]
_PLACE = re.compile(r"(\d) (\d)")


class Board(NamedTuple):
    """What a question asks: a way from a start to a goal around walls."""

    start: Place
    goal: Place
    walls: tuple[Place, ...]


def board_of(question: Question) -> Board:
    """Return the board in the prompt of a question."""
    start, goal, *walls = [(int(x), int(y)) for x, y in _PLACE.findall(question.prompt)]
    return Board(start, goal, tuple(walls))


def plan_of(text: str) -> list[str] | None:
    """Return the moves of a message; None without a box, for other words, or too many."""
    box = last_box(text)
    words = [] if box is None else box[: 4 * MAX_MOVES].split()
    known = words and all(word in MOVES for word in words) and len(words) <= MAX_MOVES
    return words if known and len(str(box).split()) == len(words) else None


def places(start: Place, plan: Sequence[str]) -> list[Place]:
    """Return the places that a plan leads over, the start first."""
    found = [start]
    for move in plan:
        dx, dy = MOVES[move]
        found.append((found[-1][0] + dx, found[-1][1] + dy))
    return found


class RightPlan:
    """The verifier of the task: 1 for a plan that is right, else 0."""

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        """Return one score per response."""
        return [self._one(board_of(q), text) for q, text in zip(questions, responses, strict=True)]

    def _one(self, board: Board, text: str) -> float:
        plan = plan_of(text)
        if plan is None:
            return 0.0
        way = places(board.start, plan)
        return float(way[-1] == board.goal and all(self.allows(board, place) for place in way))

    def allows(self, board: Board, place: Place) -> bool:
        """Return whether a plan may lead over a place."""
        return all(0 <= x < SIZE for x in place) and place not in board.walls


class EndsAtGoal(RightPlan):
    """What can be known before a plan is carried out: whether it ends at the goal."""

    def allows(self, board: Board, place: Place) -> bool:
        """All places: walls are not looked at."""
        return True


def shortest(board: Board) -> list[str]:
    """Return the plans without a detour that are right, in the order of their letters."""
    (x, y), (to_x, to_y) = board.start, board.goal
    across, up = abs(to_x - x), abs(to_y - y)
    words = ("e" if to_x > x else "w", "n" if to_y > y else "s")
    ways = sorted(
        tuple(words[step not in chosen] for step in range(across + up))
        for chosen in itertools.combinations(range(across + up), across)
    )
    right = RightPlan()
    return [
        " ".join(way)
        for way in ways
        if all(right.allows(board, place) for place in places(board.start, way))
    ]


def boards(start: Place, goal: Place, count: int, rng: random.Random) -> Iterator[Board]:
    """Yield boards of a pair that have a right plan without a detour, and also a wrong one."""
    free = [place for place in PLACES if place not in (start, goal)]
    open_ways = len(shortest(Board(start, goal, ())))
    for _ in range(count):
        while True:
            board = Board(start, goal, tuple(rng.sample(free, NUM_WALLS)))
            if 0 < len(shortest(board)) < open_ways:
                yield board
                break


def pairs() -> dict[str, list[tuple[Place, Place]]]:
    """Return pairs of start and goal by split: both coordinates differ, at most 6 moves apart."""
    every = [(a, b, (abs(a[0] - b[0]), abs(a[1] - b[1]))) for a in PLACES for b in PLACES]
    usable = [(a, b) for a, b, (dx, dy) in every if dx and dy and dx + dy <= 6]
    random.Random("routes/pairs").shuffle(usable)
    return split_pairs(usable, NUM_TEST_PAIRS, NUM_VALIDATION_PAIRS)


def questions(split: str) -> Iterator[Question]:
    """Yield the questions of a split in shuffled order."""
    rng = random.Random(f"routes/{split}")
    asked = [
        board for start, goal in pairs()[split] for board in boards(start, goal, BOARDS[split], rng)
    ]
    rng.shuffle(asked)
    for number, board in enumerate(asked):
        start, goal = ("{} {}".format(*place) for place in (board.start, board.goal))
        walls = " , ".join("{} {}".format(*place) for place in board.walls)
        yield Question(
            id=f"routes/{split}/{number}",
            prompt=f"from {start} to {goal} not {walls} . moves ?",
            answer=shortest(board)[0],
            kind="scored",
        )


def worked(question: Question, agents: int) -> list[list[str]]:
    """Return the plan of every agent, in one turn; see `Task.worked`."""
    return [[f"\\boxed{{ {question.answer} }}"] * agents]


@cache
def load() -> Task:
    """Return the task with splits "train", "validation" and "test"."""
    return Task(
        name="routes",
        splits={split: tuple(questions(split)) for split in BOARDS},
        template=TEMPLATE,
        make_verifier=RightPlan,
        worked=worked,
    )
