"""A bank of lessons for one question: which are shown, and how they are judged by what follows.

LessonL (Liu et al., arXiv 2505.23946). A lesson is a short text about a tried solution, kept with
the speed-up s of that solution and a factor, 1 at first. Agents are shown up to k lessons; the
factor of each lesson shown is then set (not multiplied) to the mean over the agents of 1.1 where
the new s is above the lesson's s, else 0.9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

BETTER, WORSE = 1.1, 0.9


@dataclass(frozen=True, slots=True)
class Lesson:
    """A lesson in the bank.

    Attributes:
        text: what was learnt.
        speedup: s of the solution it is about; 0 if that was wrong.
        quality: how relevant it is to the question, such as a cosine of embeddings.
        factor: how its readers fared.
    """

    text: str
    speedup: float
    quality: float
    factor: float = 1.0


def selected(
    bank: Sequence[Lesson], count: int, cut: float | None, *, take_all: bool
) -> tuple[int, ...]:
    """Return the places of the lessons that are shown.

    Up to ceil(count / 2) are those with the largest speedup x factor, of those where it is at least
    `cut`; the others are those with the largest quality. Earlier lessons come first among equals.

    Args:
        bank: the lessons, in the order in which they were added.
        count: how many are shown, k.
        cut: least speedup x factor of a fast one. Paper: 1.1. None ranks all by it alone, as the
            paper does where there is no speed.
        take_all: show the whole bank, as while it holds no more than k.

    Raises:
        ValueError: a negative count.
    """
    if count < 0:
        raise ValueError(f"the number of lessons shown is at least 0, not {count}")
    if take_all or len(bank) <= count:
        return tuple(range(len(bank)))
    fast = sorted(range(len(bank)), key=lambda n: -bank[n].speedup * bank[n].factor)
    if cut is None:
        return tuple(fast[:count])
    fast = [n for n in fast if bank[n].speedup * bank[n].factor >= cut][: math.ceil(count / 2)]
    rest = sorted(set(range(len(bank))) - set(fast), key=lambda n: (-bank[n].quality, n))
    return (*fast, *rest[: count - len(fast)])


def judged(
    bank: Sequence[Lesson], shown: Sequence[int], speedups: Sequence[float]
) -> tuple[Lesson, ...]:
    """Return the bank with the factors of the lessons shown set by the speed-ups that followed.

    Args:
        bank: the lessons.
        shown: places of those that all agents were shown.
        speedups: of the solution of each agent, at least one.
    """
    found = list(bank)
    for place in shown:
        marks = [BETTER if new > bank[place].speedup else WORSE for new in speedups]
        found[place] = replace(bank[place], factor=sum(marks) / len(marks))
    return tuple(found)
