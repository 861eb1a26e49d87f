"""What an agent of `notes` can get right without reading anybody, from the questions alone.

Of a sum of two numbers an agent knows one. Pairs of numbers belong to one split each, so chance on
the few held-out pairs is not what it is over all numbers: training says nothing about them, and
some rules that fit no training pair fit many of them. No model is asked here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from maporl_env.types import Question

Pairs = Mapping[tuple[int, int], int]
"""How often an agent was told the first number and the other agent the second."""


def told_pairs(questions: Iterable[Question]) -> Pairs:
    """Return how often each number was told beside each other one, by both agents' sides.

    Raises:
        ValueError: a question that does not tell each of two agents one number.
    """
    pairs: Counter[tuple[int, int]] = Counter()
    for question in questions:
        one, other = told(question)
        pairs.update([(one, other), (other, one)])
    return pairs


def told(question: Question) -> tuple[int, int]:
    """Return the numbers that the two agents are told; see :func:`told_pairs`."""
    numbers = [re.findall(r"\d+", note) for note in question.private]
    if [len(found) for found in numbers] != [1, 1]:
        raise ValueError(f"question {question.id!r} does not tell two agents one number each")
    one, other = (int(found) for [found] in numbers)
    return one, other


def all_pairs(questions: Iterable[Question], each: int) -> list[Question]:
    """Return the first `each` questions of every pair of numbers, in the order of the pairs.

    Among them every number of one agent goes with every number of the other equally often, so
    whatever rule an agent follows that reads nobody, it guesses the other's number in 1/9 of them
    (of numbers from 1 to 9).

    Raises:
        ValueError: a pair that fewer questions tell.
    """
    of_pair: defaultdict[tuple[int, int], list[Question]] = defaultdict(list)
    for question in questions:
        of_pair[told(question)].append(question)
    numbers = {number for pair in of_pair for number in pair}
    for pair in product(sorted(numbers), repeat=2):
        if len(of_pair[pair]) < each:
            raise ValueError(f"{len(of_pair[pair])} questions tell {pair}, fewer than {each}")
    return [question for pair in sorted(of_pair) for question in of_pair[pair][:each]]


def guesses(training: Sequence[Question], held_out: Sequence[Question]) -> dict[str, Any]:
    """Return how often guesses of the other's number are right in held-out questions.

    Returns:
        "rule" and "right": the luckiest of ten fixed rules, chosen by the held-out answers: always
        adding the same number from 1 to 9, or doubling the own one. "adding" and "added": the
        luckiest number to add. "learnt": adding the number that training tells most often beside
        the own one. "bound": adding the one that the held-out questions tell most often beside it,
        which no agent that reads nobody can exceed.
    """
    seen, asked = told_pairs(training), told_pairs(held_out)
    adding = {number: right(asked, lambda own, n=number: [n]) for number in range(1, 10)}
    number = max(adding, key=adding.__getitem__)
    doubled = right(asked, lambda own: [own])
    rule = "doubles its own number" if doubled > adding[number] else f"always adds {number}"
    return {
        "rule": rule,
        "right": round(max(doubled, adding[number]), 4),
        "adding": number,
        "added": round(adding[number], 4),
        "learnt": round(right(asked, lambda own: likeliest(seen, own)), 4),
        "bound": round(right(asked, lambda own: likeliest(asked, own)), 4),
    }


def right(asked: Pairs, guessed: Callable[[int], Sequence[int]]) -> float:
    """Return the share of right guesses: one of `guessed(own)`, drawn evenly."""
    shares = 0.0
    for (own, other), times in asked.items():
        numbers = guessed(own)
        shares += times * (other in numbers) / max(len(numbers), 1)
    return shares / sum(asked.values())


def likeliest(pairs: Pairs, own: int) -> list[int]:
    """Return the numbers that were told most often beside the own one; several if tied."""
    beside = {other: times for (one, other), times in pairs.items() if one == own}
    most = max(beside.values(), default=0)
    return [other for other, times in beside.items() if times == most]


def in_words(found: Mapping[str, Any]) -> str:
    """Return what `guesses` found as a sentence."""
    return (
        f"An agent that reads nobody and always adds {found['adding']} is right in "
        f"{found['added']:.3f} of these questions; the luckiest of ten such rules, one that "
        f"{found['rule']}, in {found['right']:.3f}; one that adds what training tells most often "
        f"beside its number in {found['learnt']:.3f}; and whatever it does, in at most "
        f"{found['bound']:.3f}."
    )
