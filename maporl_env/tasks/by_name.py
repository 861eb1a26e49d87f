"""`load_task`: a task by its name, by the path of a file, or as a list of questions.

To add a named task, put a function `load(data=None) -> Task` into :data:`TASKS`, or leave it in a
file of your own and name it: "module:name" or "file.py:name".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

from maporl_env.answers import read_gold
from maporl_env.similar_names import did_you_mean
from maporl_env.tasks import (
    coins,
    cowrite,
    expressions,
    files,
    notes,
    optimise,
    reasoning,
    receipts,
    routes,
    sharing,
    shopping,
    summaries,
)
from maporl_env.tasks.base import Task
from maporl_env.tasks.dialogues import backend, bills, prices
from maporl_env.tasks.published import (
    anli,
    competition_math,
    gsm8k,
    hotpotqa,
    humaneval,
    mbpp,
    multiple_choice,
    tinygsm,
)
from maporl_env.types import Question
from maporl_env.user_functions import given_as, is_own_name, object_named, whole_name


def built_in(load: Callable[[], Task]) -> Callable[..., Task]:
    """Return the loader of a task that makes its own questions: ValueError if data are given."""

    def load_own(data: str | Path | None = None) -> Task:
        task = load()
        if data is not None:
            raise ValueError(
                f"task {task.name!r} makes its own questions: leave out data={str(data)!r}"
            )
        return task

    return load_own


TASKS: dict[str, Callable[..., Task]] = {
    "shopping": built_in(shopping.load),
    "gsm8k": gsm8k.load,
    "anli": anli.load,
    "tinygsm": tinygsm.load,
    "humaneval": humaneval.load,
    "math": competition_math.load,
    "mbpp": mbpp.load,
    **multiple_choice.LOADERS,
    "hotpotqa": hotpotqa.load,
    "sharing": built_in(sharing.load),
    "coins": built_in(coins.load),
    "receipts": built_in(receipts.load),
    "expressions": built_in(expressions.load),
    "routes": built_in(routes.load),
    "bills": built_in(bills.load),
    "prices": built_in(prices.load),
    "backend": built_in(backend.load),
    "notes": built_in(notes.load),
    "notes_misled": built_in(notes.load_misled),
    "cowrite": cowrite.load,
    "optimise": built_in(optimise.load),
    "summaries": summaries.load,
    "sections": partial(summaries.load, style="sections"),
    reasoning.PREFIX: partial(reasoning.load, ""),
}

BUILT_IN = ("shopping", "sharing", "coins", "receipts", "bills", "prices")
"""Those in the words of the shipped tiny models; their answers are short."""

WITH_OPTIONS: dict[str, Callable[[str], Task]] = {
    "notes": notes.load,
    "notes_misled": notes.load_misled,
}
"""Tasks of their own questions whose name may be followed by options ("notes:agents=3,most=50")."""

PUBLISHED_WITH_OPTIONS: dict[str, Callable[..., Task]] = {
    "math": competition_math.load,
    "mbpp": mbpp.load,
    **multiple_choice.LOADERS,
    "hotpotqa": hotpotqa.load,
}
"""Published tasks with options; called as `load(data, options)`."""


def load_task(task: str | Path | Sequence[Question] | Task, data: str | Path | None = None) -> Task:
    """Return a task.

    Args:
        task: a name of :data:`TASKS`, for some with options behind it (:data:`WITH_OPTIONS`,
            :data:`PUBLISHED_WITH_OPTIONS`); the path of a .jsonl or .csv file, or of a folder of
            them; a list of questions (which is its own training and test set); a `Task`; or
            "module:name" or "file.py:name", which holds one of these two or a function that returns
            one. Such a function is called once in a process.
        data: for a name only: the file, folder or hub name to read; a function is called with it.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: an unknown name, a malformed file, or a gold answer that cannot be read.
    """
    if isinstance(task, str) and task in TASKS:
        return TASKS[task](data)
    if isinstance(task, str) and (made := _with_options(task, data)) is not None:
        return made
    if isinstance(task, str) and given_as(task) is not None:
        task = given_as(task)
    if isinstance(task, str) and is_own_name(task) and not Path(task).exists():
        return _own(whole_name(task), None if data is None else str(data))
    if data is not None:
        raise ValueError(f"data is for a named task ({', '.join(TASKS)}), not for {task!r}")
    if isinstance(task, Task):
        return task
    if isinstance(task, str | Path):
        return _from_path(task)
    questions = [q for q in task if isinstance(q, Question)] if isinstance(task, Sequence) else []
    if questions and len(questions) == len(task):
        return _from_list(questions)
    raise ValueError(
        "a task is a name, a path, a Task, or a list of at least one Question, not "
        f"{str(task)[:60] or 'an empty text'}"
    )


def _with_options(task: str, data: str | Path | None) -> Task | None:
    """Return the task of a name with options; None if it is no such name."""
    name, _, options = task.partition(":")
    if name in PUBLISHED_WITH_OPTIONS and "=" in options:
        return PUBLISHED_WITH_OPTIONS[name](data, options)
    if data is not None:
        return None
    if name == reasoning.PREFIX:
        return reasoning.load(options)
    # A module of the user's that is called so holds names, in which there is no "=".
    return WITH_OPTIONS[name](options) if name in WITH_OPTIONS and "=" in options else None


@lru_cache(maxsize=8)
def _own(name: str, data: str | None) -> Task:
    """Return the task that a user's module or file holds, or that its function returns."""
    try:
        found = object_named(name)
    except ValueError as error:
        raise ValueError(f"task {error}") from error
    if callable(found):
        try:
            found = found() if data is None else found(data)
        except Exception as error:
            raise ValueError(f"task {name!r} raised {type(error).__name__}: {error}") from error
    elif data is not None:
        raise ValueError(f"task {name!r} is no function, which data={data!r} could be given to")
    if isinstance(found, Task):
        return found
    questions = list(found) if isinstance(found, Sequence) else []
    if not questions or not all(isinstance(question, Question) for question in questions):
        raise ValueError(
            f"task {name!r} is {type(found).__name__}: it must be, or return, a Task or a list of "
            "at least one Question"
        )
    return _from_list(questions)


def _from_path(path: str | Path) -> Task:
    if str(path) and Path(path).exists():
        return files.load(Path(path))
    if Path(path).suffix.lower() in files.SUFFIXES or len(Path(path).parts) > 1:
        raise FileNotFoundError(f"no such file: {path}")
    near = f" ({found})" if (found := did_you_mean(path, TASKS)) else ""
    raise ValueError(
        f"unknown task {str(path)!r}{near}: choose one of {', '.join(TASKS)}, or give the path of "
        "a .jsonl or .csv file, or your own as module:name or file.py:name"
    )


def _from_list(questions: Sequence[Question]) -> Task:
    for question in questions:
        try:
            read_gold(question.answer, question.kind)
        except ValueError as error:
            raise ValueError(f"question {question.id!r}: {error}") from error
    return Task(
        name="questions",
        splits={"train": questions, "test": questions},
        template=files.template_for(questions),
    )
