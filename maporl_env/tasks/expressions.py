r"""A built-in task of small programs: find the expression behind two shown tests.

    f ( 1 ) = 5 , f ( 3 ) = 11 . f ( x ) = ?
    \boxed{ 3 * x + 2 }

A program is an expression in x of whole numbers, `+`, `-`, `*` and parentheses. It is right if it
passes four hidden tests, which nobody reads; any expression that does is. The shown tests can be
run by anybody (`ShownTests`), but do not decide: a line runs through any two points of a parabola.
Words are separated by spaces because the built-in model has a word-level tokenizer.

Splits: programs are divided once and for all; a program in "test" or "validation" occurs in no
question of another split, at whatever shown tests.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache

from maporl_env.answers import last_box
from maporl_env.tasks.base import Task
from maporl_env.tasks.sharing import TEMPLATE
from maporl_env.tasks.shopping import split_pairs
from maporl_env.types import Question

SHOWN = (1, 2, 3, 4)
"""Arguments of the shown tests, of which a question has two."""
HIDDEN = (0, 5, 6, 7)
"""Arguments of the hidden tests."""
NUM_TEST, NUM_VALIDATION = 40, 20
MAX_WORDS = 40
LARGEST = 10**12
"""An intermediate result beyond it ends a program."""

_WORD = re.compile(r"\s*(\d{1,6}|[x+*()-])")
_TEST = re.compile(r"f \( (\d+) \) = (\d+)")
_RANK = {"+": 1, "-": 1, "*": 2}
_APPLY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def programs() -> list[str]:
    """Return all programs: lines a * x + b, and parabolas x * x + b and x * x + a * x + b."""
    lines = [f"{a} * x + {b}" for a, b in itertools.product(range(1, 10), range(20))]
    parabolas = [f"x * x + {b}" for b in range(1, 20)]
    both = [f"x * x + {a} * x + {b}" for a, b in itertools.product(range(2, 6), range(10))]
    return [*lines, *parabolas, *both]


@lru_cache(maxsize=16_384)
def compiled(text: str) -> tuple[str, ...] | None:
    """Return an expression in reverse Polish order, by Dijkstra's shunting yard; None for none."""
    words = words_of(text)
    if words is None:
        return None
    done: list[str] = []
    waiting: list[str] = []
    operand = True  # whether one comes next
    for word in words:
        if operand != (word == "(" or word == "x" or word.isdigit()):
            return None
        if word == "(":
            waiting.append(word)
        elif word == ")":
            while waiting and waiting[-1] != "(":
                done.append(waiting.pop())
            if not waiting:
                return None
            waiting.pop()
        elif word in _RANK:
            while waiting and _RANK.get(waiting[-1], 0) >= _RANK[word]:
                done.append(waiting.pop())
            waiting.append(word)
            operand = True
        else:
            done.append(word)
            operand = False
    if operand or "(" in waiting:
        return None
    return (*done, *reversed(waiting))


def words_of(text: str) -> list[str] | None:
    """Return the words of an expression; None for other words, none, or more than `MAX_WORDS`."""
    found: list[str] = []
    place, text = 0, text.rstrip()
    while place < len(text):
        match = _WORD.match(text, place)
        if match is None or len(found) == MAX_WORDS:
            return None
        found.append(match[1])
        place = match.end()
    return found or None


def value_of(program: str, x: int) -> int | None:
    """Return f(x) of a program; None for what is no program, or becomes too large."""
    stack: list[int] = []
    for word in compiled(program) or ():
        if word in _APPLY:
            second, first = stack.pop(), stack.pop()
            stack.append(_APPLY[word](first, second))
            if abs(stack[-1]) > LARGEST:
                return None
        else:
            stack.append(x if word == "x" else int(word))
    return stack[0] if stack else None


def shown_tests(question: Question) -> list[tuple[int, int]]:
    """Return the tests in the prompt of a question, (x, f(x)) each."""
    return [(int(x), int(y)) for x, y in _TEST.findall(question.prompt)]


def hidden_tests(question: Question) -> list[tuple[int, int]]:
    """Return the tests that decide, (x, f(x)) each."""
    pairs = (test.split(":") for test in question.hidden.split())
    return [(int(x), int(y)) for x, y in pairs]


class Tests:
    """A verifier: 1 for a boxed program that passes all tests of its question, else 0.

    Args:
        tests_of: returns the tests of a question, (x, f(x)) each.
    """

    def __init__(self, tests_of: Callable[[Question], Sequence[tuple[int, int]]]) -> None:
        self.tests_of = tests_of

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        """Return one score per response."""
        return [self._one(q, text) for q, text in zip(questions, responses, strict=True)]

    def _one(self, question: Question, text: str) -> float:
        program = last_box(text)
        if program is None or not (tests := self.tests_of(question)):
            return 0.0
        return float(all(value_of(program, x) == y for x, y in tests))


class HiddenTests(Tests):
    """The verifier of the task: the hidden tests."""

    def __init__(self) -> None:
        super().__init__(hidden_tests)


class ShownTests(Tests):
    """What can be known before the hidden tests are: whether the shown ones pass."""

    def __init__(self) -> None:
        super().__init__(shown_tests)


def questions(split: str, chosen: Sequence[str]) -> Iterator[Question]:
    """Yield every question about some programs, two shown tests each, in shuffled order."""
    rng = random.Random(f"expressions/{split}")
    asked = list(itertools.product(chosen, itertools.combinations(SHOWN, 2)))
    rng.shuffle(asked)
    for program, xs in asked:
        told = " , ".join(f"f ( {x} ) = {value_of(program, x)}" for x in xs)
        yield Question(
            id=f"expressions/{program.replace(' ', '')}/{'-'.join(map(str, xs))}",
            prompt=f"{told} . f ( x ) = ?",
            answer=program,
            kind="scored",
            hidden=" ".join(f"{x}:{value_of(program, x)}" for x in HIDDEN),
        )


def worked(question: Question, agents: int) -> list[list[str]]:
    """Return the program of every agent, in one turn; see `Task.worked`."""
    return [[f"\\boxed{{ {question.answer} }}"] * agents]


@cache
def load() -> Task:
    """Return the task with splits "train", "validation" and "test"."""
    shuffled = programs()
    random.Random("expressions/programs").shuffle(shuffled)
    splits = split_pairs(shuffled, NUM_TEST, NUM_VALIDATION)
    return Task(
        name="expressions",
        splits={split: tuple(questions(split, chosen)) for split, chosen in splits.items()},
        template=TEMPLATE,
        make_verifier=HiddenTests,
        worked=worked,
    )
