r"""A built-in companion of `sharing`: which two coins pay a price?

    Mia pays 17 with two of 3 5 9 12 . the bigger coin ?
    \boxed{ 12 }

Of four different coins exactly one pair adds up to the price (5 + 12); the question asks for its
bigger coin. That is never the smallest of the four, and each of the others equally often, one
question each per set: any guess that ignores the price is right in one case of three at most.
Answers run from 2 to 30. The words are those of `sharing` (template, moves, verdicts), so that what
is learnt in one task can be tried in the other.

Splits: by the set of four coins; a set occurs in one split only, at any price.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from functools import cache

from maporl_env.tasks import sharing
from maporl_env.tasks.base import Task
from maporl_env.types import Question

VALUES = range(1, 31)
NUM_SETS = {"test": 1_000, "train": 4_000, "validation": 500}

CoinSet = tuple[int, int, int, int]


def coin_sets() -> dict[str, list[CoinSet]]:
    """Return sets of four different coins, ascending, by split, in a fixed shuffled order."""
    rng = random.Random("coins/sets")
    sets = list(itertools.combinations(VALUES, 4))
    rng.shuffle(sets)
    usable = (s for s in sets if len(payments(s)) == 3)
    return {split: list(itertools.islice(usable, count)) for split, count in NUM_SETS.items()}


def payments(coins: CoinSet) -> dict[int, list[tuple[int, int]]]:
    """Return, by bigger coin, the pairs of coins whose sum no other pair makes."""
    pairs = list(itertools.combinations(coins, 2))
    ways = Counter(map(sum, pairs))
    unique = [pair for pair in pairs if ways[sum(pair)] == 1]
    return {big: [p for p in unique if p[1] == big] for big in sorted({p[1] for p in unique})}


def questions(split: str) -> Iterator[Question]:
    """Yield the questions of a split in shuffled order, each with its coins in random order."""
    rng = random.Random(f"coins/{split}")
    asked = [
        (coins, rng.choice(pairs))
        for coins in coin_sets()[split]
        for pairs in payments(coins).values()
    ]
    rng.shuffle(asked)
    for coins, pair in asked:
        shown = " ".join(map(str, rng.sample(coins, len(coins))))
        yield Question(
            id=f"coins/{'-'.join(map(str, coins))}/{sum(pair)}",
            prompt=f"{rng.choice(sharing.NAMES)} pays {sum(pair)} with two of {shown} . "
            "the bigger coin ?",
            answer=str(pair[1]),
            kind="number",
        )


@cache
def load() -> Task:
    """Return the task with splits "train", "validation" and "test"."""
    return Task(
        name="coins",
        splits={split: tuple(questions(split)) for split in NUM_SETS},
        template=sharing.TEMPLATE,
        worked=sharing.worked,
    )
