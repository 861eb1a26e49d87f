"""Two agents write one program: a helper `aux` and the function that is asked for (MAGRPO).

Liu et al., arXiv 2508.04652, on HumanEval. Both write at once; their programs are joined and run
against the published tests, in the sandbox. The reward rises in levels:

| what | worth |
|---|---|
| `aux` is defined and returns a value | .4 |
| the function that is asked for is defined (else the sum ends) | .6 |
| the joined program can be parsed (else the sum ends) | .5 |
| share of the tests that hold | 1 |
| some test holds and the function calls `aux` | .5 |
| ... and it is more than a wrapper around that call | 1 |
| ... but it throws the result of such a call away | -.5 |

So the last three, the working together (1.5), outweigh the tests (1). With `correct_first` these
and the helper count only where *all* tests hold: then a program never earns more than one that
passes more tests (a right one at least 2.1, a wrong one less).

The verifier gives reward / 4, in [0, 1].
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from maporl_env import prompts
from maporl_env.answers import extract_answer
from maporl_env.prompts import Template
from maporl_env.sandbox import Result, Sandbox
from maporl_env.tasks.base import Task
from maporl_env.tasks.published import humaneval
from maporl_env.types import Question
from maporl_env.verifiers.programs import parse as parse_suite
from maporl_env.verifiers.programs import run_once_each

HELPER = "aux"
MAX_REWARD = 4.0
MAX_CHARS = 20_000
"""A longer program is not looked into: it has no functions."""

ROLES = (
    f"You write a helper function `{HELPER}` that somebody else's solution can call. Write only "
    "the helper.",
    f"You write the function that is asked for. You can call a helper `{HELPER}`, which somebody "
    "else writes at the same time; do not write it yourself.",
)
TEMPLATE = Template(instruction="Write your function in one block between ```python and ```.")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def join_programs(parts: Sequence[str]) -> str:
    """Return one message with the programs of all parts in one block, in order of the agents."""
    programs = [extract_answer(part, "code") for part in parts]
    source = "\n\n".join(str(program) for program in programs if program is not None)
    fence = prompts.fence(source)
    return f"{fence}python\n{source}\n{fence}"


@dataclass(frozen=True)
class Structure:
    """Properties of a joined program that are read without running it.

    Attributes:
        parses: whether it is Python.
        helper: whether `aux` is defined and returns a value.
        main: whether the function that is asked for is defined.
        calls: whether that function calls `aux`.
        wrapper: whether it does nothing else.
        ignores: whether it throws the result of such a call away.
    """

    parses: bool = False
    helper: bool = False
    main: bool = False
    calls: bool = False
    wrapper: bool = False
    ignores: bool = False


def look_into(program: str, name: str) -> Structure:
    """Return the structure of a program in which `name` is asked for. Runs nothing."""
    tree = _parse(program)
    if tree is None:
        return _of_pieces(program, name)
    functions = {f.name: f for f in tree.body if isinstance(f, Function)}
    helper, main = functions.get(HELPER), functions.get(name)
    return Structure(
        parses=True,
        helper=helper is not None and _returns_value(helper),
        main=main is not None,
        calls=main is not None and any(_is_call(node) for node in ast.walk(main)),
        wrapper=main is not None and _is_wrapper(main),
        ignores=main is not None
        and any(isinstance(n, ast.Expr) and _is_call(n.value) for n in ast.walk(main)),
    )


def _of_pieces(program: str, name: str) -> Structure:
    """Return the functions of a program that is not valid Python as a whole, parsed one by one."""
    pieces = program.split("\ndef ") if len(program) <= MAX_CHARS else []
    trees = [_parse(piece if i == 0 else f"def {piece}") for i, piece in enumerate(pieces)]
    found = [f for tree in trees if tree for f in tree.body if isinstance(f, Function)]
    return Structure(
        helper=any(f.name == HELPER and _returns_value(f) for f in found),
        main=any(f.name == name for f in found),
    )


def _parse(program: str) -> ast.Module | None:
    if len(program) > MAX_CHARS:
        return None
    try:
        return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _returns_value(function: Function) -> bool:
    returns = (node for node in ast.walk(function) if isinstance(node, ast.Return))
    return any(node.value is not None for node in returns)


def _is_call(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == HELPER


def _is_wrapper(main: Function) -> bool:
    """Whether a function only hands on `aux(...)`: returned at once, or by way of one name."""
    body = list(_without_docstring(main))
    if len(body) == 1 and isinstance(body[0], ast.Return):
        return _is_call(body[0].value)
    match body:
        case [
            ast.Assign(targets=[ast.Name(id=stored)], value=value),
            ast.Return(value=ast.Name(id=returned)),
        ]:
            return stored == returned and _is_call(value)
    return False


def _without_docstring(function: Function) -> Iterator[ast.stmt]:
    for place, statement in enumerate(function.body):
        text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not (place == 0 and text):
            yield statement


def cowriting_reward(
    structure: Structure, passed_share: float, *, correct_first: bool = False
) -> float:
    """Return the reward of a joined program, in [0, 4]; see the module's table.

    Args:
        structure: what the program looks like.
        passed_share: share of the tests that hold, in [0, 1].
        correct_first: reward the helper and its use only where all tests hold.
    """
    together = passed_share == 1 if correct_first else passed_share > 0
    reward = 0.4 * (structure.helper and (together or not correct_first))
    if not structure.main:
        return reward
    reward += 0.6
    if not structure.parses:
        return reward
    reward += 0.5 + passed_share
    if together and structure.calls:
        reward += 0.5 + 1.0 * (not structure.wrapper) - 0.5 * structure.ignores
    return reward


@dataclass(frozen=True)
class CoWriting:
    """The verifier: `cowriting_reward` / 4 of joined programs, which are run in the sandbox.

    A failure of the sandbox itself gives no score.

    Attributes:
        correct_first: see `cowriting_reward`.
        sandbox: as of `verifiers.programs.CodeTests`, its errors too.
    """

    correct_first: bool = False
    sandbox: Sandbox = field(default_factory=Sandbox)

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score in [0, 1] per joint answer; equal programs for a question run once."""
        asked = [
            (question.answer, str(extract_answer(text, "code") or ""))
            for question, text in zip(questions, responses, strict=True)
        ]
        looks = {pair: look_into(pair[1], parse_suite(pair[0]).name) for pair in asked}
        whole = [pair for pair, look in looks.items() if look.main and look.parses]
        results = run_once_each(self.sandbox, whole)
        return [self._one(looks[pair], results.get(pair)) for pair in asked]

    def _one(self, structure: Structure, result: Result | None) -> float | None:
        if result is not None and result.outcome in ("invalid", "lost"):
            return None
        share = 0.0 if result is None else result.share
        reward = cowriting_reward(structure, share, correct_first=self.correct_first)
        return reward / MAX_REWARD


def load(data: str | Path | None = None) -> Task:
    """Return HumanEval as a task for two; arguments and errors as `humaneval.load`.

    The 164 problems are one split, "test", in HumanEval; here every fourth one is "test", every
    eighth "validation" and the others are "train", so figures are no HumanEval scores.
    """
    problems = humaneval.load(data).split("test")
    asked = [replace(problem, id=f"cowrite/{problem.id}") for problem in problems]
    return Task(
        name="cowrite",
        splits={
            "train": [q for i, q in enumerate(asked) if i % 8 not in (3, 6, 7)],
            "validation": asked[6::8],
            "test": asked[3::4],
        },
        template=TEMPLATE,
        make_verifier=CoWriting,
        joiner=join_programs,
        roles=ROLES,
    )
