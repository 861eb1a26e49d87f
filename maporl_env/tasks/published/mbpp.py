"""MBPP: write a short Python function from one sentence and its tests (Austin et al., 2021).

An answer is a program in a fenced block, run against the published tests in the sandbox.

Splits, by the number of the problem as published:

    train          601 to 974
    validation     511 to 600
    test           11 to 510
    prompt         1 to 10, meant for worked examples

Options, written as in "mbpp:shown_tests=1": see :class:`Options`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maporl_env.tasks.base import Task
from maporl_env.tasks.hub import read_hub, source
from maporl_env.tasks.published.humaneval import TEMPLATE
from maporl_env.tasks.published.rows import (
    deferred_parts,
    files_of,
    list_of,
    made,
    read_any,
    text_of,
)
from maporl_env.tasks.splits import Numbered, Row, Splits
from maporl_env.tasks.written_options import read_options
from maporl_env.types import Question
from maporl_env.verifiers.programs import CodeTests, Suite

HUB_NAME = "google-research-datasets/mbpp"
SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601)}
SPLITS["train"] = range(601, 975)


@dataclass(frozen=True)
class Options:
    """Options of the problems. Made by `load`.

    Attributes:
        shown_tests: tests of a problem that agents read, at least 1 (the function's name stands in
            them alone). All of its tests are run.
        sanitized: from the hub, the problems that were revised by hand (427 of 974).

    Raises:
        ValueError: less than one test.
    """

    shown_tests: int = 3
    sanitized: bool = False

    def __post_init__(self) -> None:
        if self.shown_tests < 1:
            raise ValueError(f"shown_tests must be at least 1, not {self.shown_tests}")


def load(data: str | Path | None = None, options: str = "") -> Task:
    """Return the task; its verifier, unless another one is chosen, is `CodeTests`.

    Args:
        data: the published mbpp.jsonl or sanitized-mbpp.json, or a folder of such files, or
            "google-research-datasets/mbpp". None: the folder `$MAPORL_DATA/mbpp` if there is one,
            else the hub.
        options: as text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed row, with its place.
    """
    place = source("mbpp", data, HUB_NAME)
    chosen = read_options("mbpp", Options, options, {})
    splits: Splits
    if isinstance(place, Path):
        files = files_of(place) if place.is_dir() else [place]
        splits = _by_number((row for file in files for row in read_any(file)), chosen)
    else:
        splits = deferred_parts(lambda: _by_number(_of_hub(place, chosen), chosen), list(SPLITS))
    return Task("mbpp", splits, template=TEMPLATE, make_verifier=CodeTests)


def _of_hub(name: str, options: Options) -> list[Numbered]:
    config = "sanitized" if options.sanitized else "full"
    return [row for split in SPLITS for row in read_hub(name, config, split)]


def _by_number(rows: Iterable[Numbered], options: Options) -> Splits:
    parts: dict[str, list[Numbered]] = {}
    for where, row in rows:
        parts.setdefault(_split_of(row, where), []).append((where, row))
    read = partial(_question, options)
    if not parts:
        raise ValueError("mbpp: the file holds no problem")
    return {
        name: made(parts[name], f"mbpp/{name}", read, bool, {}) for name in SPLITS if name in parts
    }


def _split_of(row: Row, where: str) -> str:
    try:
        number = int(row["task_id"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{where}: no whole number in column 'task_id'") from None
    for name, numbers in SPLITS.items():
        if number in numbers:
            return name
    raise ValueError(f"{where}: task_id {number} is none of the published 1 to 974")


def _question(options: Options, row: Row, where: str, name: str) -> Question:
    words = text_of(row, "text" if "text" in row else "prompt", where)
    tests = [str(test) for test in list_of(row, "test_list", where)]
    setup = row.get("test_setup_code") or "\n".join(
        list_of(row, "test_imports", where) if row.get("test_imports") else ()
    )
    try:
        suite = Suite(
            _name_of(text_of(row, "code", where), tests),
            f"{setup}\n" if setup else "",
            "\n".join(tests) + "\n",
        )
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{where}: {error}") from error
    shown = "\n".join(tests[: options.shown_tests])
    prompt = f"{words.strip()}\nThe function must pass these tests:\n```python\n{shown}\n```"
    return Question(f"mbpp/{row['task_id']}", prompt, str(suite), kind="code")


def _name_of(solution: str, tests: list[str]) -> str:
    """Return the name of the function that the tests call and the published solution defines.

    Raises:
        ValueError: they have no name in common.
    """
    defined = {
        node.name
        for node in ast.parse(solution).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for test in tests:
        for node in ast.walk(ast.parse(test)):
            if isinstance(node, ast.Name) and node.id in defined:
                return node.id
    raise ValueError("the tests call no function that the published code defines")
