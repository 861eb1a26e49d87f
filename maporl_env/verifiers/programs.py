"""Programs as answers: their gold "answer" is a set of tests, and the verifier runs these.

The tests of a question are one text, so that a `Question` stays a line of JSON:

    # candidate: double
    from typing import List          what a program may rely on without writing it
    # --- tests ---
    assert double(4) == 8            trusted; runs in another process than the program

A question of kind "code" has such a text as its `answer`; see `sandbox` for the
processes in which program and tests run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from maporl_env.answers import extract_program
from maporl_env.jail.checker import compile_tests
from maporl_env.sandbox import Job, Result, Sandbox
from maporl_env.types import Question

DIVIDER = "\n# --- tests ---\n"
_HEADER = re.compile(r"# candidate: ([^\W\d]\w*)\n")


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one question.

    Attributes:
        name: of the function under test.
        preamble: trusted Python put before the program and before the tests: imports, helpers,
            also the function's stub.
        tests: trusted Python with assertions about `name`.
    """

    name: str
    preamble: str
    tests: str

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"{self.name!r} is not the name of a function")
        if DIVIDER.strip() in self.preamble:
            raise ValueError(f"the preamble may not hold the line {DIVIDER.strip()!r}")
        try:
            compile_tests(f"{self.preamble}\n{self.tests}")
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"the tests of {self.name!r} cannot be run: {error}") from error

    def __str__(self) -> str:
        return f"# candidate: {self.name}\n{self.preamble}{DIVIDER}{self.tests}"

    @classmethod
    def parse(cls, text: str) -> Suite:
        """Inverse of `str`; ValueError if the text is no suite or its tests are no Python."""
        header = _HEADER.match(text)
        preamble, divider, tests = text[header.end() - 1 if header else 0 :].partition(DIVIDER)
        if header is None or not divider:
            raise ValueError(
                f"tests start with a line '# candidate: NAME' and have a line {DIVIDER.strip()!r}, "
                f"not {text[:60]!r}"
            )
        return cls(header[1], preamble.removeprefix("\n"), tests)

    def job(self, program: str) -> Job:
        """Return the job that tests a program."""
        tests = f"{self.preamble}\n{self.tests}"
        return Job(program, self.name, tests, preamble=self.preamble)


parse = lru_cache(maxsize=4096)(Suite.parse)
"""`Suite.parse`, cached."""


Submission = tuple[str, str | None]
"""(tests, program); None where a message has no program."""


def run_once_each(sandbox: Sandbox, asked: Iterable[Submission]) -> dict[Submission, Result]:
    """Return the result of each different submission, run once; none for those without program."""
    different = list(dict.fromkeys(pair for pair in asked if pair[1] is not None))
    jobs = [parse(tests).job(program) for tests, program in different if program is not None]
    return dict(zip(different, sandbox.run_many(jobs), strict=True)) if jobs else {}


@dataclass(frozen=True)
class CodeTests:
    """A verifier that runs programs against the tests of their questions.

    The score is 0 for a message without a program, and for a program that dies or exceeds a limit.
    There is no score where the tests are invalid or the sandbox itself fails.

    Attributes:
        partial: score the share of assertions that hold, instead of 1 for all and else 0. Each
            assertion that is written counts alike, however often a loop runs it.
        sandbox: where programs run.

    Raises:
        sandbox.SandboxUnavailable: when made, where programs cannot be isolated.
    """

    partial: bool = False
    sandbox: Sandbox = field(default_factory=Sandbox)

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score per response. Equal programs for a question run once.

        Raises:
            ValueError: a question whose answer is no :class:`Suite`.
        """
        asked = [
            (question.answer, extract_program(text, parse(question.answer).name))
            for question, text in zip(questions, responses, strict=True)
        ]
        results = run_once_each(self.sandbox, asked)
        return [0.0 if pair[1] is None else self._judge(results[pair]) for pair in asked]

    def _judge(self, result: Result) -> float | None:
        if result.outcome in ("invalid", "lost"):
            return None
        if self.partial:
            return result.share
        return float(result.outcome == "passed")


@dataclass(frozen=True)
class Diagnostics:
    """Feedback on a joint program for the next turn: how many tests hold, and the first error.

    For protocol "joint": `feedback=Diagnostics()`. The same program for a question runs once,
    and again only if the sandbox gave no answer.

    Attributes:
        sandbox: where programs run.
    """

    sandbox: Sandbox = field(default_factory=Sandbox)
    _told: dict[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, question: Question, text: str) -> str:
        """Return a report on the last program in a text; ValueError if there are no tests."""
        program = extract_program(text, parse(question.answer).name)
        if program is None:
            return "There is no program in the answer."
        key = (question.answer, program)
        if key in self._told:
            return self._told[key]
        result = self.sandbox.run(parse(key[0]).job(key[1]))
        words = _in_words(result)
        if result.outcome != "lost":  # the next try may succeed
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told[key] = words
        return words


MAX_TOLD = 4096
"""Largest number of programs whose diagnostics are cached."""


def _in_words(result: Result) -> str:
    if result.outcome in ("invalid", "lost"):
        return "The tests could not be run."
    if result.outcome == "passed":
        return "All tests hold."
    held = f"{result.passed} of {result.total} tests hold. " if result.total else ""
    return f"{held}The program {result.outcome}: {result.detail or 'no details'}"
