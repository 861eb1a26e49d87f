r"""`shopping` for protocol `dialogue`: a user who alone has the price list corrects the agent.

    Mia buys 3 pen and 2 hat . how much ?                     (both)
    3 * 6 = 18 , 2 * 8 = 16                                   (the user alone: `Question.hidden`)

    agent: 3 * 6 = 18 , 2 * 5 = 10 , \boxed{ 28 }
    user:  2 * 8 = 16
    agent: 3 * 6 = 18 , 2 * 8 = 16 , \boxed{ 34 }

The questions and splits are those of `shopping`, and so are the built-in models: alone an agent
knows both prices in 24 % of cases. What rises is use of the user, who may be the scripted one here
(`--team.partners 1=bills --team.train-agents 0`) or a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from maporl_env.protocols.dialogue import UserReading, read_as_user
from maporl_env.tasks import shopping
from maporl_env.tasks.base import Task
from maporl_env.types import Question

BETWEEN = " , "
NOTHING_WRONG = "."
"""The reply to a message that holds all lines of the bill."""


@cache
def load() -> Task:
    """Return the task; its splits are those of `shopping`."""
    task = shopping.load()
    splits = {name: tuple(map(with_bill, questions)) for name, questions in task.splits.items()}
    return replace(task, name="bills", splits=splits)


def with_bill(question: Question) -> Question:
    """Return a question of `shopping` whose reference are the lines of its bill."""
    [[text]] = shopping.worked(question, 1)
    lines = text.split(BETWEEN)[:-1]  # without the answer
    name = question.id.replace("shopping/", "bills/")
    return replace(question, id=name, hidden=BETWEEN.join(lines))


def user(views: Sequence[str]) -> list[str]:
    """Return the replies of a scripted user: the lines of the bill that the last message lacks."""
    return [_reply(read_as_user(view)) for view in views]


def _reply(reading: UserReading) -> str:
    said = reading.asked[-1].split(BETWEEN) if reading.asked else []
    written = {" ".join(line.split()) for line in said}
    lines = [line for line in reading.reference.split(BETWEEN) if line and line not in written]
    return BETWEEN.join(lines) or NOTHING_WRONG
