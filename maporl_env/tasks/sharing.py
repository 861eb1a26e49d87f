r"""A built-in task that no agent can solve alone: what is left when coins are shared out.

    Mia has 47 coins and gets 38 , shared by 3 . how many are left ?
    \boxed{ 1 }

The answer is (a + b) mod 3. The shipped model `tiny-sharing` answers at once, without any working,
and was pre-trained on guesses: alone it is right in one case of three, and sampling it more sharply
does not help. Whatever rises over the turns of a debate is therefore use of the debate: of the
verdicts that are shown (`reward_feedback=True`), of the own earlier answers and of the others'.
This is the setting of the paper's Experiment 1 in the small: the same model on both sides.

From the second turn on a message reads the verdicts back and names its move:

    scores 0.0 1.0 take 2 \boxed{ 2 }

Splits: the 4,950 unordered pairs {a, b} are divided once and for all; a pair in "test" or
"validation" occurs in no question of another split in either order.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import cache

from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.shopping import split_pairs
from maporl_env.tasks.worked import marked
from maporl_env.types import Question

NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Sam", "Lea", "Max")
MOVES = ("keep", "take", "redo")
FRIENDS = 3
AMOUNTS = range(1, 100)
NUM_TEST_PAIRS = 990
NUM_VALIDATION_PAIRS = 400

TEMPLATE = Template(
    instruction="",
    opening="{question}",
    peers="",
    peer="\nagent {number} {fence} {text} {fence}{verdict}",
    verdict=" their score {score:.1f}",
    own_verdict="\nyour score {score:.1f}",
    again="",
    cue="\nyou : ",
    nobody="\nnobody else .",
    example="{text}\n",
)
"""Shared by `coins`. As short as possible; the question is at the top of every view."""


def answer(value: int, move: str | None = None, scores: Sequence[float] = ()) -> str:
    """Return a message as the tiny model writes it: verdicts read back, move, boxed answer.

    Args:
        value: the answer.
        move: one of `MOVES`; None in the first turn, when there is nothing to act on.
        scores: the verdicts shown, the own one first.
    """
    if move is None:
        return f"\\boxed{{ {value} }}"
    read_back = " ".join(f"{score:.1f}" for score in scores)
    return f"scores {read_back} {move} {value} \\boxed{{ {value} }}"


def worked(question: Question, agents: int) -> list[list[str]]:
    """Return the answer of every agent as in a first turn; see `Task.worked`."""
    boxed = question.kind == "number"
    text = answer(int(question.answer)) if boxed else marked(question.answer, question.kind)
    return [[text] * agents]


def pairs() -> dict[str, list[tuple[int, int]]]:
    """Return the unordered pairs of amounts by split, in a fixed shuffled order."""
    shuffled = list(itertools.combinations_with_replacement(AMOUNTS, 2))
    random.Random("sharing/pairs").shuffle(shuffled)
    return split_pairs(shuffled, NUM_TEST_PAIRS, NUM_VALIDATION_PAIRS)


def questions(split: str) -> Iterator[Question]:
    """Yield every question of a split, both orders of each pair, in shuffled order."""
    rng = random.Random(f"sharing/{split}")
    ordered = sorted({pair for a, b in pairs()[split] for pair in ((a, b), (b, a))})
    rng.shuffle(ordered)
    for a, b in ordered:
        yield Question(
            id=f"sharing/{a}-{b}",
            prompt=f"{rng.choice(NAMES)} has {a} coins and gets {b} , shared by {FRIENDS} . "
            "how many are left ?",
            answer=str((a + b) % FRIENDS),
            kind="number",
        )


@cache
def load() -> Task:
    """Return the task with splits "train", "validation" and "test"."""
    return Task(
        name="sharing",
        splits={split: tuple(questions(split)) for split in pairs()},
        template=TEMPLATE,
        worked=worked,
    )
