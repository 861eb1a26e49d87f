"""HumanEval: write a Python function from its signature and docstring (Chen et al., 2021).

An answer is a program in a fenced block that defines the whole function. It is run against the
published tests, in the sandbox. The 164 problems are one split, "test": there is no training set,
so none to take a validation set from (`cowrite` divides the same problems).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.files import read_rows
from maporl_env.tasks.hub import read_hub, source
from maporl_env.tasks.splits import Numbered, Row
from maporl_env.types import Question
from maporl_env.verifiers.programs import CodeTests, Suite

HUB_NAME = "openai_humaneval"
FILES = ("HumanEval.jsonl", "HumanEval.jsonl.gz")
COLUMNS = ("task_id", "prompt", "entry_point", "test")
TEMPLATE = Template(instruction="Write the whole function in one block between ```python and ```.")


def load(data: str | Path | None = None) -> Task:
    """Return the task; its verifier, unless another one is chosen, is `CodeTests`.

    Args:
        data: the published .jsonl or .jsonl.gz file, a folder that holds it, or
            "openai_humaneval". None: the folder `$MAPORL_DATA/humaneval` if there is one, else the
            hub.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed row or tests that are no Python, with file and line number.
    """
    place = source("humaneval", data, HUB_NAME)
    rows = read_rows(_file(place)) if isinstance(place, Path) else read_hub(place, None, "test")
    splits = {"test": read_problems(rows)}
    return Task("humaneval", splits, template=TEMPLATE, make_verifier=CodeTests)


def _file(place: Path) -> Path:
    if not place.is_dir():
        return place
    for name in FILES:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"none of {', '.join(FILES)} in folder {place}")


def read_problems(rows: Iterable[Numbered]) -> list[Question]:
    """Return the questions of rows as published; ValueError names the place of a wrong one."""
    questions = [_question(row, where) for where, row in rows]
    if not questions:
        raise ValueError("the file holds no problem")
    return questions


def _question(row: Row, where: str) -> Question:
    missing = [name for name in COLUMNS if not isinstance(row.get(name), str)]
    if missing:
        raise ValueError(f"{where}: no text in column {', '.join(missing)}")
    name = row["entry_point"]
    try:
        suite = Suite(name, row["prompt"], f"{row['test']}\ncheck({name})\n")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    prompt = f"Complete this function.\n```python\n{row['prompt'].rstrip()}\n```"
    return Question(row["task_id"], prompt, str(suite), kind="code")
