r"""The built-in task: adding up a shopping bill whose prices no single agent knows.

    Mia buys 3 pen and 2 hat . how much ?
    3 * 6 = 18 , 2 * 8 = 16 , \boxed{ 34 }

There are 64 items with fixed prices, which the question does not state. The shipped tiny agents
were pre-trained so that agent 0 knows the prices of the first half of the items and agent 1 of the
second: alone an agent knows both prices of a question in 24 % of cases, so they must pool what they
know.
Words are separated by spaces because the built-in model has a word-level tokenizer.

Splits: the 2,016 pairs of items are divided once and for all; a pair in "test" or "validation"
occurs in no question of another split in any order or quantity.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.worked import marked
from maporl_env.types import Question

ITEMS = [
    *("pen", "hat", "cup", "map", "key", "bag", "fan", "jar"),
    *("mug", "net", "pan", "rug", "saw", "tie", "toy", "bat"),
    *("pin", "log", "pot", "tub", "rod", "nut", "gem", "ink"),
    *("bell", "belt", "boot", "cane", "chip", "clay", "coat", "cork"),
    *("bed", "bow", "box", "cap", "car", "comb", "doll", "drum"),
    *("fork", "kite", "lamp", "lock", "ring", "rope", "shoe", "vase"),
    *("desk", "dish", "flag", "gift", "hose", "hook", "mask", "nail"),
    *("oven", "pipe", "plug", "sofa", "sock", "tent", "tray", "wire"),
]
PRICES = dict(
    zip(
        ITEMS,
        (
            *(6, 8, 3, 11, 1, 9, 5, 12, 2, 7, 10, 4, 6, 3, 8, 1),
            *(12, 5, 7, 10, 2, 9, 4, 11, 1, 8, 3, 6, 10, 2, 7, 5),
            *(9, 2, 12, 5, 7, 11, 4, 10, 3, 8, 6, 1, 12, 5, 9, 2),
            *(4, 11, 1, 8, 6, 3, 10, 7, 5, 12, 2, 9, 11, 4, 1, 6),
        ),
        strict=True,
    )
)
QUANTITIES = (1, 2, 3)
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Sam", "Lea", "Max")
NUM_TEST_PAIRS = 400
NUM_VALIDATION_PAIRS = 200

Pair = TypeVar("Pair")

TEMPLATE = Template(
    instruction="in \\boxed{{ }}",
    opening="{question} {instruction}",
    peers="\nturn {turn} :",
    peer="\nagent {number} {fence} {text} {fence}{verdict}",
    verdict=" score {score:.0f}",
    own_verdict="\nyour score {score:.0f}",
    again="\nagain {question} {instruction}",
    cue="\nyou : ",
    nobody="\nthink once more .",
    example="{text}\n",
)


def known_items(agent: int) -> list[str]:
    """Return the items whose prices the tiny agent of this index was taught (halves, by parity)."""
    half = len(ITEMS) // 2
    return ITEMS[:half] if agent % 2 == 0 else ITEMS[half:]


def solution(quantities: tuple[int, int], prices: tuple[int, int]) -> str:
    """Return the worked answer, as the tiny agents write it, for given (perhaps wrong) prices."""
    (n, m), (p, q) = quantities, prices
    return f"{n} * {p} = {n * p} , {m} * {q} = {m * q} , \\boxed{{ {n * p + m * q} }}"


def worked(question: Question, agents: int) -> list[list[str]]:
    """Return the worked answer of every agent, in one turn; see `Task.worked`."""
    n, first, m, second = question.id.split("/")[1].split("-")
    text = solution((int(n), int(m)), (PRICES[first], PRICES[second]))
    if question.kind != "number":
        text = f"{text.partition(' , ' + chr(92))[0]}\n{marked(question.answer, question.kind)}"
    return [[text] * agents]


def item_pairs() -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of items by split, in a fixed shuffled order."""
    pairs = list(itertools.combinations(ITEMS, 2))
    random.Random(0).shuffle(pairs)
    return split_pairs(pairs, NUM_TEST_PAIRS, NUM_VALIDATION_PAIRS)


def split_pairs(pairs: Sequence[Pair], num_test: int, num_validation: int) -> dict[str, list[Pair]]:
    """Return shuffled pairs by split: the first are for "test", the last for "validation"."""
    end = len(pairs) - num_validation
    return {
        "test": list(pairs[:num_test]),
        "train": list(pairs[num_test:end]),
        "validation": list(pairs[end:]),
    }


def questions(pairs: list[tuple[str, str]], rng: random.Random) -> Iterator[Question]:
    """Yield every question about the pairs, both orders and all quantities, in shuffled order."""
    combinations = [
        (first, second, n, m)
        for pair in pairs
        for first, second in (pair, pair[::-1])
        for n, m in itertools.product(QUANTITIES, repeat=2)
    ]
    rng.shuffle(combinations)
    for first, second, n, m in combinations:
        yield Question(
            id=f"shopping/{n}-{first}-{m}-{second}",
            prompt=f"{rng.choice(NAMES)} buys {n} {first} and {m} {second} . how much ?",
            answer=str(n * PRICES[first] + m * PRICES[second]),
            kind="number",
        )


@cache
def load() -> Task:
    """Return the task: "train" (25,488 questions), "validation" (3,600) and "test" (7,200)."""
    return Task(
        name="shopping",
        splits={
            split: tuple(questions(pairs, random.Random(f"shopping/{split}")))
            for split, pairs in item_pairs().items()
        },
        template=TEMPLATE,
        worked=worked,
    )
