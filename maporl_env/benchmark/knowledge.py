"""First messages of scripted agents, each right with a stated probability.

A strategy that only passes messages on needs something to pass on. So each agent of each question
is dealt a first message: with probability `ACCURACY` the right one, else one drawn evenly from the
plausible wrong ones of its task. The deal depends on the question's id and the agent alone, it is
the same in every case, process and strategy, and agents' deals are independent of each other.

| task | plausible answers |
|---|---|
| sharing | 0, 1, 2 |
| coins | the four coins |
| shopping, receipts | bills with prices from 1 to 12, the two drawn evenly |
"""

from __future__ import annotations

import random
import re
from functools import lru_cache

from maporl_env.answers import extract_answer, read_gold
from maporl_env.tasks import sharing, shopping
from maporl_env.types import Question

ACCURACY = 0.5
"""Probability that an agent's first message is right."""

_BILL = re.compile(r" buys (\d+) (\w+) and (\d+) (\w+) ")
_COINS = re.compile(r" two of ([\d ]+) ")


def first_message(question: Question, agent_index: int, accuracy: float = ACCURACY) -> str:
    """Return the first message that is dealt to an agent."""
    rng = random.Random(f"maporl-bench/first/{question.id}/{agent_index}")
    if rng.random() < accuracy:
        return right_message(question)
    return rng.choice(wrong_messages(question))


def random_message(question: Question, agent_index: int, turn: int) -> str:
    """Return one of the plausible messages, all equally likely, for one agent and turn."""
    rng = random.Random(f"maporl-bench/random/{question.id}/{agent_index}/{turn}")
    return rng.choice(plausible_messages(question))


@lru_cache(maxsize=4096)
def wrong_messages(question: Question) -> tuple[str, ...]:
    """Return the plausible messages whose answer is wrong."""
    gold = read_gold(question.answer, question.kind)
    texts = plausible_messages(question)
    return tuple(text for text in texts if extract_answer(text, question.kind) != gold)


def right_message(question: Question) -> str:
    """Return the right answer as it is written in this task."""
    if bill := _BILL.search(question.prompt):
        return _bill(bill, shopping.PRICES[bill[2]], shopping.PRICES[bill[4]])
    return sharing.answer(int(question.answer))


@lru_cache(maxsize=4096)
def plausible_messages(question: Question) -> tuple[str, ...]:
    """Return every plausible message about a question, in order.

    Raises:
        ValueError: the question is of another task than those of the suite.
    """
    if bill := _BILL.search(question.prompt):
        prices = range(1, max(shopping.PRICES.values()) + 1)
        return tuple(_bill(bill, first, second) for first in prices for second in prices)
    if coins := _COINS.search(question.prompt):
        return tuple(sharing.answer(int(coin)) for coin in sorted(coins[1].split(), key=int))
    if question.id.startswith("sharing/"):
        return tuple(sharing.answer(rest) for rest in range(sharing.FRIENDS))
    raise ValueError(f"question {question.id!r} is of no task of the suite: nothing is known of it")


def _bill(asked: re.Match[str], first_price: int, second_price: int) -> str:
    return shopping.solution((int(asked[1]), int(asked[3])), (first_price, second_price))
