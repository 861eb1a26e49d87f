"""Tests that an agent wrote itself, run against a program in the sandbox.

They decide no reward: only when agents stop, and which lessons they read (LessonL). Only lines of
the form `assert ...` are taken, each of which must be Python on its own.

    maporl train --game.protocol maporl_env.verifiers.self_tests:CodeLessons --game.task mbpp
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from maporl_env.answers import extract_program
from maporl_env.protocols.lessons_in_order import Grade, LessonsInOrder
from maporl_env.sandbox import MAX_SOURCE_CHARS, Job, Sandbox
from maporl_env.types import Question
from maporl_env.verifiers.programs import MAX_TOLD, parse

MOST_TESTS = 20
"""Further ones are not run."""


def assertions(text: str) -> tuple[str, ...]:
    """Return the lines of a message's program that are whole assertions, each once."""
    found = extract_program(text) or ""
    lines = (line.strip() for line in found.splitlines() if line.lstrip().startswith("assert "))
    return tuple(dict.fromkeys(line for line in lines if _is_assertion(line)))[:MOST_TESTS]


def _is_assertion(line: str) -> bool:
    try:
        [statement] = ast.parse(line).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return isinstance(statement, ast.Assert) and not isinstance(statement.test, ast.Constant)


@dataclass(frozen=True)
class SelfTests:
    """Returns the share of an agent's own tests that a program passes; equal ones run once.

    Attributes:
        sandbox: where programs run; None makes one when the first is run.
    """

    sandbox: Sandbox | None = None
    _known: dict[tuple[str, tuple[str, ...], str], float] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __call__(self, question: Question, tests: str, attempt: str) -> float | None:
        """Return the share, in [0, 1]; None if there are no tests or the sandbox gave no answer.

        Args:
            question: of kind "code", whose answer is a `Suite`: it names the function.
            tests: message with the tests.
            attempt: message with the program; 0 without one.

        Raises:
            ValueError: a question without a `Suite`.
        """
        suite = parse(question.answer)
        lines, program = assertions(tests), extract_program(attempt, suite.name)
        source = "\n".join([suite.preamble, *lines])
        if not lines or len(source) > MAX_SOURCE_CHARS:
            return None
        if program is None:
            return 0.0
        key = (suite.name + "\n" + suite.preamble, lines, program)
        if key not in self._known:
            sandbox = self.sandbox or Sandbox()
            result = sandbox.run(Job(program, suite.name, source, preamble=suite.preamble))
            if result.outcome in ("invalid", "lost"):
                return None
            if len(self._known) >= MAX_TOLD:
                self._known.clear()
            self._known[key] = 1.0 if result.outcome == "passed" else result.share
        return self._known[key]


@dataclass(frozen=True, slots=True)
class CodeLessons(LessonsInOrder):
    """`LessonsInOrder` whose tests run in the sandbox.

    Attributes:
        grade: runs the tests; a pure function.
    """

    grade: Grade = field(default_factory=SelfTests)
