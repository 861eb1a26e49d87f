r"""A question that nobody can answer without asking: only the user knows today's price.

    pen . how much ?                  (both)
    7                                 (the user alone: `Question.hidden`)

    agent: how much ?   user: 7
    agent: \boxed{ 7 }

For protocol `dialogue` with two turns: one message to ask or to waste, one to answer. An item has
every price from 1 to 12, so that without asking no rule is right more than once in twelve. The
words are those of `shopping`, and so of the built-in models, which know nothing of asking: see
`maporl_agents.tiny.demonstrations`.

Splits: an item is in one split alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from maporl_env.protocols.dialogue import read_as_user
from maporl_env.tasks import shopping
from maporl_env.tasks.base import Task
from maporl_env.types import Question

PRICES = range(1, 13)
ASK = "how much ?"
"""The message that gets the price."""
NOTHING = "."
"""A message without content: of an agent that does not ask, and the reply to it."""


@cache
def load() -> Task:
    """Return the task: "train" (480 questions), "validation" (96) and "test" (192)."""
    items = list(shopping.ITEMS)
    random.Random("prices").shuffle(items)
    parts = {"test": items[:16], "validation": items[16:24], "train": items[24:]}
    splits = {split: tuple(_questions(part, split)) for split, part in parts.items()}
    return Task(name="prices", splits=splits, template=shopping.TEMPLATE)


def question(item: str, price: int) -> Question:
    """Return the question about an item, whose price is its hidden reference and its answer."""
    return Question(
        id=f"prices/{item}-{price}",
        prompt=f"{item} . how much ?",
        answer=str(price),
        kind="number",
        hidden=str(price),
    )


def user(views: Sequence[str]) -> list[str]:
    """Return the replies of a scripted user: the price, if the last message asks for it."""
    read = [read_as_user(view) for view in views]
    asked = [one.reference and one.asked and one.asked[-1].split() == ASK.split() for one in read]
    return [one.reference if does else NOTHING for one, does in zip(read, asked, strict=True)]


def _questions(items: Sequence[str], split: str) -> list[Question]:
    made = [question(item, price) for item in items for price in PRICES]
    random.Random(f"prices/{split}").shuffle(made)
    return made
