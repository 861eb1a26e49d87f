"""A built-in task: make a slow Python function faster, with the same results (LessonL's setting).

The prompt shows the function in a fenced block: it must return the same values.

Eleven small functions written for this project, each slow for a reason of its own (a nested loop,
a list searched again and again, a recursion without memory, ...), with arguments drawn by seed; any
number of questions can be made. A rewrite is run on these arguments in the sandbox and scored by
its measured speed-up (`maporl_env.verifiers.speedups`), 10 times as fast being worth 1.

Splits differ in arguments and constants, not in functions: this measures whether a team finds
rewrites, not whether it generalises to functions of another kind.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from maporl_env.prompts import Template
from maporl_env.tasks.base import Deferred, Task
from maporl_env.tasks.slow_functions import FAMILIES, Family
from maporl_env.types import Question
from maporl_env.verifiers.programs import Suite
from maporl_env.verifiers.speedups import Speedups

TEMPLATE = Template(
    instruction="Write the whole function, faster, in one block between ```python and ```."
)
SIZES = {"train": 66, "validation": 22, "test": 44}
PROMPT = "Make this function faster. It must return the same values.\n```python\n{source}\n```"


def question(family: Family, split: str, number: int) -> Question:
    """Return a question about a slow function, its constants and arguments drawn by its id."""
    name = f"optimise/{split}/{family.name}/{number}"
    rng = random.Random(name)
    constant = rng.choice(family.constants) if family.constants else 0
    cases = family.cases(rng)
    source = family.slow.replace("CONSTANT", str(constant)).strip()
    checks = zip(cases, results(family, constant, cases), strict=True)
    tests = "".join(f"assert {family.name}({case}) == {value!r}\n" for case, value in checks)
    prompt = PROMPT.format(source=source)
    return Question(name, prompt, str(Suite(family.name, "", tests)), kind="code")


def results(family: Family, constant: int, cases: Sequence[str]) -> list[Any]:
    """Return the right results, by the fast version (which the tests compare with the slow one)."""
    names: dict[str, Any] = {}
    exec(family.fast.replace("CONSTANT", str(constant)), names)
    return [eval(f"{family.name}({case})", names) for case in cases]


def questions(split: str, count: int) -> list[Question]:
    """Return `count` questions of a split, the functions in turn."""
    return [
        question(FAMILIES[place % len(FAMILIES)], split, place // len(FAMILIES))
        for place in range(count)
    ]


def load() -> Task:
    """Return the task; its verifier, unless another one is chosen, is `Speedups`."""
    splits = {name: Deferred(partial(questions, name, count)) for name, count in SIZES.items()}
    return Task("optimise", splits, template=TEMPLATE, make_verifier=Speedups)
