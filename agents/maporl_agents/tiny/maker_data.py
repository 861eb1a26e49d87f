"""Pre-training data of `tiny-maker`: programs and plans of authors who are right now and then.

Half of the rows are about `expressions`, half about `routes`. The author of a program writes one
that passes the hidden tests, or one that passes only the shown ones, a line through them. The
author of a plan goes to the goal without a detour and pays no heed to walls. As in `shopping_data`
the moves of later turns ignore correctness, and there are copying drills.
"""

from __future__ import annotations

import random
from functools import partial

from maporl_agents.text.chat import Chat
from maporl_agents.tiny.rows import DrawRow, Row, learn_from
from maporl_agents.tiny.shopping_data import (
    conversation,
    drill_transcript,
    pick_kind,
    transcript_of,
)
from maporl_env.protocols import SimultaneousDebate
from maporl_env.tasks import expressions, routes, sharing
from maporl_env.types import Question

LINE_SHARE = 0.5
"""How often an author takes the line through the shown tests, where it is another program."""


def reader(chat: Chat, *, one_turn_share: float, drill_share: float) -> DrawRow:
    """Return the function that draws the rows.

    Args:
        chat: of the model's tokenizer.
        one_turn_share: share of transcripts that end after the first turn.
        drill_share: share that are copying drills; the rest have three turns.
    """
    tasks = [(expressions.load(), program), (routes.load(), plan)]
    asked = [(task.split("train"), write) for task, write in tasks]
    protocol = SimultaneousDebate(template=sharing.TEMPLATE)

    def draw(rng: random.Random, _cooling: bool) -> Row:
        questions, author = rng.choice(asked)
        question = rng.choice(questions)
        write = partial(author, question)
        kind = pick_kind(one_turn_share, drill_share, rng)
        if kind == "drill":
            history = drill_transcript(question, write, rng)
        else:
            history = transcript_of(question, 1 if kind == "one turn" else 3, write, rng)
        ids, start = conversation(history, chat, protocol, last_only=kind == "drill")
        return Row(kind, ids, learn_from(start, ids))

    return draw


def program(question: Question, rng: random.Random) -> str:
    """Return the message of an author of programs."""
    line = line_through(question)
    taken = line if line and rng.random() < LINE_SHARE else question.answer
    return f"\\boxed{{ {taken} }}"


def line_through(question: Question) -> str:
    """Return the line through the shown tests, a * x + b; "" if a or b is none it writes."""
    (x, y), (other_x, other_y) = expressions.shown_tests(question)
    slope, rest = divmod(other_y - y, other_x - x)
    start = y - slope * x
    return f"{slope} * x + {start}" if not rest and slope > 0 <= start else ""


def plan(question: Question, rng: random.Random) -> str:
    """Return the message of an author of plans, who does not see the walls."""
    board = routes.board_of(question)
    return f"\\boxed{{ {rng.choice(routes.shortest(board._replace(walls=())))} }}"
