r"""The procedural tasks of the library reasoning-gym, by name: `reasoning_gym:NAME`.

    load_task("reasoning_gym:chain_sum")
    load_task("reasoning_gym:basic_arithmetic,min_digits=1,max_digits=2,train=2000,seed=3")

Options behind the name are those of the data set (its configuration class), and four of our own:
`train`, `validation` and `test`, the largest numbers of questions, and `seed`. A list is written as
JSON: `operators=["+","-"]`.

Answers stand in `\boxed{}` and are scored by the data set's own scorer; a message is right if its
score is at least 0.5. See `tasks.reasoning_stream` for the splits and `verifiers.reasoning` for
the scorer.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from maporl_env.answers import last_box
from maporl_env.similar_names import hint
from maporl_env.tasks.base import Deferred, Task
from maporl_env.tasks.reasoning_stream import (
    MAX_SEED,
    NO_KEY,
    UNSUITABLE,
    Stream,
    config_classes,
)
from maporl_env.tasks.worked import marked
from maporl_env.types import Question
from maporl_env.verifiers.reasoning import ReasoningGymVerifier

PREFIX = "reasoning_gym"
COUNTS = {"train": 1_000, "validation": 100, "test": 200}
"""Largest numbers of questions where an option does not say another."""


def load(written: str = "", data: str | Path | None = None) -> Task:
    """Return a task.

    Args:
        written: the data set's name, and options behind it: "chain_sum,min_terms=2,train=500".
        data: none can be given.

    Raises:
        ImportError: the library is not installed.
        ValueError: no such data set or option, or a value that it refuses.
    """
    if data is not None:
        raise ValueError(f"task {PREFIX!r} makes its own questions: leave out data={str(data)!r}")
    name, *options = (part.strip() for part in parts_of(written))
    classes = config_classes()
    if name not in classes:
        raise _unknown(name, list(classes))
    values = _values(name, classes[name], options)
    return _load(name, json.dumps(values, sort_keys=True))


@lru_cache(maxsize=8)
def _load(name: str, options: str) -> Task:
    settings = {option: _as_given(value) for option, value in json.loads(options).items()}
    counts = {split: settings.pop(split, count) for split, count in COUNTS.items()}
    seed = settings.pop("seed", 0)
    for option, value, most in (
        *((s, n, None) for s, n in counts.items()),
        ("seed", seed, MAX_SEED),
    ):
        least = 0 if option == "seed" else 1
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise ValueError(f"option {option} of task '{PREFIX}:{name}' is {bounds}, not {value}")
    try:
        stream = Stream(name, settings, seed, counts)
    except ValueError as error:
        raise ValueError(f"task '{PREFIX}:{name}': {error}") from error
    return Task(
        name=f"{PREFIX}:{name}",
        splits={split: Deferred(partial(stream.questions, split)) for split in counts},
        make_verifier=partial(ReasoningGymVerifier, stream),
        worked=worked,
    )


def worked(question: Question, agents: int) -> list[list[str]]:
    """Return the data set's own answer in a box, from every agent in one turn; see `Task.worked`.

    Raises:
        ValueError: the data set gives none, as some do that have a scorer alone.
    """
    if question.answer == NO_KEY:
        raise ValueError(
            f"question {question.id!r} has no answer to show as a worked example, because its data "
            "set has a scorer alone: set shots=0"
        )
    plain = marked(question.answer, question.kind)
    escaped = question.answer.replace("{", "\\{").replace("}", "\\}")
    whole = last_box(plain) == question.answer
    return [[plain if whole else marked(escaped, question.kind)] * agents]


def _as_given(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _unknown(name: str, known: list[str]) -> ValueError:
    if name in UNSUITABLE:
        return ValueError(f"{name!r} is no task of its own: {UNSUITABLE[name]}")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    near += [one for one in known if name and name in one and one not in near][:3]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    asked = f"no data set {name!r} in reasoning_gym" if name else "no data set is named"
    return ValueError(
        f"{asked}: {hint or 'write reasoning_gym:NAME with one of ' + ', '.join(known)}"
    )


def parts_of(written: str) -> list[str]:
    """Return the parts of a text between commas that stand in no bracket and no quotation marks."""
    parts, depth, quoted = [""], 0, False
    for sign in written:
        quoted ^= sign == '"'
        depth += 0 if quoted else (sign in "[{(") - (sign in "]})")
        if sign == "," and depth <= 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _values(name: str, config: type, options: list[str]) -> dict[str, Any]:
    """Return the options of a data set, each of the type that it declares."""
    kinds = {f.name: f.type for f in dataclasses.fields(config) if f.name != "size"}
    kinds = {**{n: k for n, k in _declared(config).items() if n in kinds}, "seed": int}
    kinds |= dict.fromkeys(COUNTS, int)
    values: dict[str, Any] = {}
    for text in filter(None, options):
        option, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise ValueError(f"options of task '{PREFIX}:{name}' are KEY=VALUE, not {text!r}")
        if option in values:
            raise ValueError(f"options of task '{PREFIX}:{name}' set {option} twice")
        if option not in kinds:
            near = hint(option, kinds)
            raise ValueError(f"task '{PREFIX}:{name}' has no option {option!r}: {near}")
        values[option] = _value(name, option, value, kinds[option])
    return values


def _declared(config: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(config)
    except (NameError, TypeError):  # a name of the library's that only its type checker sees
        return {field.name: Any for field in dataclasses.fields(config)}


def _value(name: str, option: str, text: str, kind: Any) -> Any:
    """Return an option's value; ValueError if it is not of the declared type."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = {"True": True, "False": False, "None": None}.get(text, text)
    kinds = _kinds(kind)
    if str in kinds and not isinstance(value, str) and not kinds & {bool, int, float, Any}:
        value = text
    if kinds & {list, tuple, typing.Sequence} and isinstance(value, str | int | float):
        value = [text if isinstance(value, int | float) else value]
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wanted = tuple(k for k in kinds if isinstance(k, type))
    fits = Any in kinds or isinstance(value, (*wanted, *((list,) if tuple in kinds else ())))
    if isinstance(value, bool) and wanted and bool not in kinds and Any not in kinds:
        fits = False
    if not fits:
        words = " or ".join(sorted(k.__name__ for k in wanted)) or str(kind)
        raise ValueError(
            f"option {option} of task '{PREFIX}:{name}' is of type {words}, not {text!r}"
        )
    return value


def _kinds(kind: Any) -> set[Any]:
    """Return the plain types that a declared type allows."""
    if kind is Any:
        return {Any}
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(one) for one in typing.get_args(kind)))
    if origin is typing.Literal:
        return {type(one) for one in typing.get_args(kind)}
    return {origin or kind}
