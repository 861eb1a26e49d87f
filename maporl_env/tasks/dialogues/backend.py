"""Programming for a user: the wish is vague, the details stand in a reference that he alone reads.

    Write the Python function `parking_fee(minutes)` ... Only the user knows the details: ask.

    def parking_fee(minutes):               (the user alone: `Question.hidden`)
        # free, first, minutes: The first 20 minutes are free.
        ...

For protocol `dialogue`, at most 10 turns: the agent asks, and its last message holds a program,
which is right if all of `NUM_TESTS` hidden tests pass in the sandbox. Neither the tests (the gold
answer) nor the reference stand in anything that the agent reads. The questions are this project's
own, after the kind of ColBench's backend tasks (SWEET-RL, arXiv 2503.15478); they are small
functions of a few families with drawn numbers (`families`), so they measure whether an
agent asks, not how well it programs.

The user may be a language model, a person, or the scripted `user` here, who answers from the
comments of the reference in his view: `--team.partners 1=backend --team.train-agents 0`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache

from maporl_env.prompts import Template
from maporl_env.protocols.dialogue import MARKER, UserReading, read_as_user
from maporl_env.tasks.base import Task
from maporl_env.tasks.dialogues.families import FAMILIES, Family
from maporl_env.types import Question
from maporl_env.verifiers.programs import CodeTests, Suite

NUM_TESTS = 10
SIZES = {"train": 60, "validation": 12, "test": 20}
"""Questions of each family."""
MAX_REPLY = 400
"""Characters of a reply, as of the paper's user."""
UNKNOWN = "I do not know."
GREETING = "Ask me about the details."
_FACT = re.compile(r"^\s*# ([\w ,]+): (.+)$", re.MULTILINE)
_WORD = re.compile(r"[a-z]+")

TEMPLATE = Template(
    instruction=(
        f"Ask the user. When you know enough, write {MARKER} and behind it the whole function in "
        "one block between ```python and ```."
    )
)


def question(family: Family, numbers: dict[str, int], rng: random.Random, name: str) -> Question:
    """Return the question of a family with given numbers; its tests call it with drawn inputs."""
    calls: dict[str, object] = {}
    while len(calls) < NUM_TESTS:
        inputs = family.draw_inputs(rng, numbers)
        written = ", ".join(map(repr, inputs))
        calls[f"{family.name}({written})"] = family.value(numbers, *inputs)
    tests = "".join(f"assert {call} == {value!r}\n" for call, value in calls.items())
    return Question(
        id=f"backend/{name}",
        prompt=(
            f"Write the Python function `{family.signature}`, which {family.purpose}. Only the "
            "user knows the details."
        ),
        answer=str(Suite(family.name, "", tests)),
        kind="code",
        hidden=family.reference(numbers),
    )


def questions(family: Family) -> Iterator[tuple[str, Question]]:
    """Yield (split, question): no two of a family have the same numbers."""
    rng = random.Random(f"backend/{family.name}")
    seen: set[tuple[int, ...]] = set()
    for split, size in SIZES.items():
        for place in range(size):
            numbers = family.draw_numbers(rng)
            while tuple(numbers.values()) in seen:
                numbers = family.draw_numbers(rng)
            seen.add(tuple(numbers.values()))
            yield split, question(family, numbers, rng, f"{split}/{family.name}-{place}")


@cache
def load() -> Task:
    """Return the task: "train", "validation" and "test", all families in each."""
    made = [one for family in FAMILIES for one in questions(family)]
    splits = {name: [q for split, q in made if split == name] for name in SIZES}
    for name, asked in splits.items():
        random.Random(f"backend/{name}").shuffle(asked)
    return Task("backend", splits, template=TEMPLATE, make_verifier=CodeTests)


def user(views: Sequence[str]) -> list[str]:
    """Return the replies of a scripted user, who knows no more than stands in his view.

    He says what his reference notes about the words of the last message, at most two sentences,
    never code; and that he does not know, if it notes nothing.
    """
    return [_reply(read_as_user(view)) for view in views]


def _reply(reading: UserReading) -> str:
    asked = set(_WORD.findall(reading.asked[-1].lower())) if reading.asked else set()
    facts = [
        sentence
        for topics, sentence in _FACT.findall(reading.reference)
        if asked & set(_WORD.findall(topics.lower()))
    ]
    if facts:
        return " ".join(facts[:2])[:MAX_REPLY]
    return UNKNOWN if asked else GREETING
