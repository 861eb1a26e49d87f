r"""The built-in task of joint answers: two clerks write the same bill, rewarded for agreement.

    Mia buys 3 pen and 2 bed . how much ?
    3 * 6 = 18 , 2 * 9 = 18 , \boxed{ 36 }

The shop is that of `shopping`, cut down to 16 items: every question has one item whose price the
tiny agent 0 was taught and one that agent 1 was taught. Neither reads the other. The score of the
two messages together is the share of items on whose price both agree: no answer key takes part, so
all that either can learn about the prices it lacks comes from the partner, through the joint score.
That the bills become *right* is measured with the answer key, and not rewarded.

Splits: a pair of items in "test" or "validation" occurs in no question of another split, though
each item does.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache

from maporl_env.tasks import shopping
from maporl_env.tasks.base import Task
from maporl_env.types import Question

ITEMS = (shopping.ITEMS[:8], shopping.ITEMS[32:40])
"""Those whose prices agent 0 knows, and those whose prices agent 1 knows."""
NUM_TEST_PAIRS = 16
NUM_VALIDATION_PAIRS = 8

_LINE = re.compile(r"(?<!\d)(\d{1,4}) \* (\d{1,4}) =")
_ASKED = re.compile(r" buys (\d+) \w+ and (\d+) ")


def pairs() -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of items by split, one of each agent's, in a fixed shuffled order."""
    shuffled = list(itertools.product(*ITEMS))
    random.Random("receipts").shuffle(shuffled)
    return shopping.split_pairs(shuffled, NUM_TEST_PAIRS, NUM_VALIDATION_PAIRS)


def questions(split: str) -> Iterator[Question]:
    """Yield every question about the pairs of a split, both orders and all quantities, shuffled."""
    for question in shopping.questions(pairs()[split], random.Random(f"receipts/{split}")):
        name = question.id.replace("shopping", "receipts")
        yield Question(name, question.prompt, question.answer, question.kind)


def agreement(question: Question, parts: Sequence[str]) -> float:
    """Return the share of the question's two lines that all parts write alike, in [0, 1].

    A line counts if its quantity is the one that was asked for; a part without it agrees with none.
    """
    asked = _ASKED.search(question.prompt)
    if asked is None or not parts:
        raise ValueError(f"question {question.id!r} is no bill of two items, or there is no part")
    bills = [_LINE.findall(part) for part in parts]
    agreed = [
        all(len(bill) > line and bill[line] == bills[0][line] for bill in bills)
        and int(bills[0][line][0]) == int(asked[line + 1])
        for line in range(2)
    ]
    return sum(agreed) / 2


class Agreement:
    """The verifier of the task: `agreement` of the parts in a joint answer, a JSON list of them."""

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        """Return one score per joint answer."""
        return [
            agreement(question, json.loads(text))
            for question, text in zip(questions, responses, strict=True)
        ]


@cache
def load() -> Task:
    """Return the task: "train" (720 questions), "validation" (144) and "test" (288)."""
    return Task(
        name="receipts",
        splits={split: tuple(questions(split)) for split in pairs()},
        template=shopping.TEMPLATE,
        make_verifier=Agreement,
        joiner=json.dumps,
        worked=shopping.worked,
    )
