r"""Built-in tasks of private facts: each agent is told a part of what the question asks for.

`notes`, two agents:

    How many apples do Ann and Ben have together?
    You were told: Ann's apples: 3.                 (agent 0 alone)
    You were told: Ben has 4 apples.                (agent 1 alone)
    \boxed{7}

Questions ask for sums, differences and comparisons (the largest number less the smallest). No agent
can know the answer before it has read the others, and all know it as soon as each has said what it
was told. So whatever is right in the first turn is guessed.

`notes_misled`, three agents: one of the two numbers is told to all three, but to one of them a
wrong one, which the two others contradict; the other number is told to one agent alone (with
`shared` to all). An agent alone is right if it was told the second number and is not misled: in two
of nine cases.

Options are written behind the name, `notes:agents=3,most=50,ask=sum+difference`, or given to `load`
as keywords; see :class:`Options`.

Splits: every set of numbers (in any order) belongs to one split, whatever the options are: to
"test" two of ten sets, to "validation" one, to "train" the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

from maporl_env.tasks.base import Task
from maporl_env.tasks.notes_words import (
    COMPARISONS,
    COMPARISONS_OF_TWO,
    DIFFERENCES,
    NOTES,
    SUMS,
    TEMPLATES,
)
from maporl_env.tasks.worked import marked
from maporl_env.tasks.written_options import read_options
from maporl_env.types import Question

NAMES = ("Ann", "Ben", "Cem", "Dora", "Emil", "Fay", "Gil", "Hana", "Ivo", "Jun", "Kim", "Lea")
THINGS = ("apple", "book", "button", "card", "coin", "marble", "pear", "plum", "shell", "stamp")

KINDS = ("sum", "difference", "comparison")
MAX_TRIES = 10_000


class Fact(NamedTuple):
    """The number of things that a person has."""

    name: str
    thing: str
    number: int

    def words(self, rng: random.Random) -> str:
        """Return the fact as a sentence in one of the wordings `NOTES`."""
        things = f"{self.thing}s"
        counted = f"{self.number} {self.thing if self.number == 1 else things}"
        words = rng.choice(NOTES)
        return words.format(name=self.name, things=things, number=self.number, counted=counted)


@dataclass(frozen=True)
class Options:
    """Options of the questions of `notes`. Made by `load`.

    Attributes:
        agents: 2 or 3; the debate must have as many.
        notes: numbers that a question asks about, from 2; 0 for one per agent. With more notes than
            agents some are told several, with fewer some are told none.
        least: smallest number, at least 0.
        most: largest number.
        ask: kinds of questions, of "sum", "difference" and "comparison".
        distract: each agent is also told a number that the question does not ask about.
        train: number of training questions; likewise `validation` and `test`.
        validation: see `train`.
        test: see `train`.
        seed: draws other questions; no set of numbers changes its split.
        brief: prompts of few words with one example, for small models that continue plain text;
            messages are one line, and answers of kind "answer_line" (`answers`).

    Raises:
        ValueError: options that make no questions.
    """

    agents: int = 2
    notes: int = 0
    least: int = 2
    most: int = 20
    ask: tuple[str, ...] = KINDS
    distract: bool = False
    train: int = 4_000
    validation: int = 200
    test: int = 400
    seed: int = 0
    brief: bool = False

    def __post_init__(self) -> None:
        if self.agents not in (2, 3):
            raise ValueError(f"agents must be 2 or 3, not {self.agents}")
        if self.notes != 0 and not 2 <= self.notes <= len(NAMES) - 1:
            raise ValueError(f"notes must be 0 or from 2 to {len(NAMES) - 1}, not {self.notes}")
        if not 0 <= self.least < self.most:
            raise ValueError(
                f"least and most must be 0 <= least < most, not {self.least}, {self.most}"
            )
        if not self.ask or not set(self.ask) <= set(KINDS):
            raise ValueError(f"ask must be some of {', '.join(KINDS)}, not {'+'.join(self.ask)}")
        if min(self.train, self.validation, self.test) < 1:
            raise ValueError("train, validation and test must be at least 1")

    def __str__(self) -> str:
        """Return the options that differ from the defaults, as written behind the task's name."""
        return ",".join(
            f"{f.name}={'+'.join(v) if isinstance(v, tuple) else v}"
            for f in dataclasses.fields(self)
            if (v := getattr(self, f.name)) != f.default
        )

    @property
    def facts(self) -> int:
        """The number of facts that a question asks about."""
        return self.notes or self.agents


@dataclass(frozen=True)
class MisledOptions(Options):
    """Options of the questions of `notes_misled`: three agents, two numbers.

    Attributes:
        shared: both numbers are told to all three; else one of them is told to one agent alone.
    """

    agents: int = 3
    notes: int = 2
    shared: bool = False

    def __post_init__(self) -> None:
        if (self.agents, self.notes) != (3, 2):
            raise ValueError("notes_misled has 3 agents and 2 notes: leave out agents and notes")
        Options.__post_init__(self)


def split_of(numbers: Sequence[int]) -> str:
    """Return the split that a set of numbers belongs to, in whatever order they stand."""
    name = "-".join(map(str, sorted(numbers)))
    part = int.from_bytes(hashlib.sha256(f"notes/{name}".encode()).digest()[:8], "big") % 10
    return "test" if part < 2 else "validation" if part == 2 else "train"


def solve(kind: str, numbers: Sequence[int]) -> int:
    """Return the answer of a question; of a difference, the last number is what is subtracted."""
    if kind == "sum":
        return sum(numbers)
    if kind == "difference":
        return sum(numbers[:-1]) - numbers[-1]
    return max(numbers) - min(numbers)


def _numbers(options: Options, split: str, kind: str, rng: random.Random) -> list[int]:
    """Draw numbers of a split; differences and comparisons come out positive."""
    for _ in range(MAX_TRIES):
        drawn = [rng.randint(options.least, options.most) for _ in range(options.facts)]
        if split_of(drawn) == split and (kind == "sum" or solve(kind, drawn) > 0):
            return drawn
    raise _too_few(options, split)


def _too_few(options: Options, split: str) -> ValueError:
    return ValueError(
        f"there are too few questions about numbers from {options.least} to {options.most} for "
        f"split {split!r}: widen the range, or ask fewer"
    )


def _asked(kind: str, facts: Sequence[Fact], rng: random.Random) -> str:
    """Return a question about facts, in one of the wordings of its kind."""
    *first, last = [fact.name for fact in facts]
    several = len(first) > 1
    comparisons = COMPARISONS if several else COMPARISONS_OF_TWO
    words = {"sum": SUMS, "difference": DIFFERENCES, "comparison": comparisons}[kind]
    return rng.choice(words).format(
        things=f"{facts[0].thing}s",
        all=_listed([*first, last]),
        first=first[0],
        others=f"{_listed(first)} together" if several else first[0],
        last=last,
        do="do" if several else "does",
        have="have" if several else "has",
        be="are" if several else "is",
    )


def _listed(names: Sequence[str]) -> str:
    """Return "Ann", "Ann and Ben", "Ann, Ben and Cem", ..."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _dealt(facts: Sequence[Fact], options: Options, rng: random.Random) -> list[list[Fact]]:
    """Return the facts of each agent: every fact is told to one of them, in turn."""
    told: list[list[Fact]] = [[] for _ in range(options.agents)]
    order = rng.sample(range(options.agents), options.agents)
    for fact, agent in zip(facts, itertools.cycle(order)):
        told[agent].append(fact)
    return told


def _misled(
    kind: str, facts: Sequence[Fact], options: MisledOptions, rng: random.Random
) -> list[list[Fact]]:
    """Return the facts of each agent, of which one agent's contradict the two others'."""
    place, misled = rng.randrange(2), rng.randrange(3)
    owners = range(3) if options.shared else [rng.randrange(3)]
    right = solve(kind, [fact.number for fact in facts])
    wrong = list(facts)
    while solve(kind, [fact.number for fact in wrong]) == right:
        number = rng.randint(options.least, options.most)
        wrong[place] = facts[place]._replace(number=number)
    told = []
    for agent in range(3):
        known = wrong if agent == misled else facts
        told.append([f for i, f in enumerate(known) if i == place or agent in owners])
    return told


def _distraction(facts: Sequence[Fact], options: Options, rng: random.Random) -> Fact:
    """Return a fact beside the question: about another thing, or about somebody else."""
    fact, number = rng.choice(facts), rng.randint(options.least, options.most)
    if rng.random() < 0.5:
        other = rng.choice([thing for thing in THINGS if thing != fact.thing])
        return Fact(fact.name, other, number)
    asked = {one.name for one in facts}
    return Fact(rng.choice([name for name in NAMES if name not in asked]), fact.thing, number)


def questions(task: str, options: Options, split: str) -> Iterator[tuple[Question, str]]:
    """Yield as many different questions of a split as the options say, each with its working."""
    rng = random.Random(f"{task}/{split}/{options.seed}")
    seen: set[str] = set()
    tries = 0
    while len(seen) < getattr(options, split):
        tries += 1
        if tries > getattr(options, split) + MAX_TRIES:
            raise _too_few(options, split)
        question, working = _question(f"{task}/{split}/{len(seen)}", options, split, rng)
        if question.words not in seen:
            seen.add(question.words)
            yield question, working


def _question(name: str, options: Options, split: str, rng: random.Random) -> tuple[Question, str]:
    kind, thing = rng.choice(options.ask), rng.choice(THINGS)
    numbers = _numbers(options, split, kind, rng)
    names = rng.sample(NAMES, len(numbers))
    facts = [Fact(name, thing, number) for name, number in zip(names, numbers, strict=True)]
    if isinstance(options, MisledOptions):
        told = _misled(kind, facts, options, rng)
    else:
        told = _dealt(facts, options, rng)
    if options.distract:
        for known in told:
            known.insert(rng.randint(0, len(known)), _distraction(facts, options, rng))
    question = Question(
        id=name,
        prompt=_asked(kind, facts, rng),
        answer=str(solve(kind, numbers)),
        kind="answer_line" if options.brief else "number",
        private=tuple(" ".join(fact.words(rng) for fact in known) for known in told),
    )
    return question, _working(kind, numbers)


def _working(kind: str, numbers: Sequence[int]) -> str:
    """Return the worked answer, "3 + 4 = 7"."""
    if kind == "comparison":
        return f"{max(numbers)} - {min(numbers)} = {solve(kind, numbers)}"
    last = " + " if kind == "sum" else " - "
    *first, end = map(str, numbers)
    return f"{' + '.join(first)}{last}{end} = {solve(kind, numbers)}"


def worked(question: Question, agents: int, *, task: str, options: Options) -> list[list[str]]:
    """Return two turns: each agent says what it was told, then all work it out."""
    working = {q.id: how for q, how in _training(task, options)}[question.id]
    boxed = question.kind == "number"
    answer = (
        f"{working} {marked(question.answer, 'number')}"
        if boxed
        else marked(working, question.kind)
    )
    return [list(question.private), [answer] * agents]


@lru_cache(maxsize=8)
def _training(task: str, options: Options) -> tuple[tuple[Question, str], ...]:
    return tuple(questions(task, options, "train"))


def load(written: str = "", **options: Any) -> Task:
    """Return the task `notes`.

    Args:
        written: options as text, "agents=3,most=50".
        options: fields of `Options`.

    Raises:
        ValueError: an option that does not exist, or that makes no questions.
    """
    return _load("notes", read_options("notes", Options, written, options))


def load_misled(written: str = "", **options: Any) -> Task:
    """Return the task `notes_misled`; see :func:`load`, with the fields of `MisledOptions`."""
    return _load("notes_misled", read_options("notes_misled", MisledOptions, written, options))


@lru_cache(maxsize=8)
def _load(name: str, options: Options) -> Task:
    return Task(
        name=name,
        splits={
            split: tuple(question for question, _ in questions(name, options, split))
            for split in ("train", "validation", "test")
        },
        template=TEMPLATES[name, options.brief],
        worked=partial(worked, task=name, options=options),
    )
