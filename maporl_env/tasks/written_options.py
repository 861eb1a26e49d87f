"""Options of a task that are written behind its name, as in "notes:agents=3,most=50"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from maporl_env.similar_names import hint

T = TypeVar("T")


def read_options(task: str, kind: type[T], written: str, given: Mapping[str, Any]) -> T:
    """Return options from text and keywords.

    Args:
        task: its name, for errors.
        kind: the dataclass of its options.
        written: "agents=3,most=50"; a list is written "sum+difference".
        given: fields of the dataclass.

    Raises:
        ValueError: an option that does not exist, stands twice, or has a value that is refused.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = dict(given)
    for text in filter(None, map(str.strip, written.split(","))):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise ValueError(f"options of task {task!r} are written KEY=VALUE, not {text!r}")
        if name in values:
            raise ValueError(f"options of task {task!r} set {name} twice")
        values[name] = _value(task, name, value, fields[name].default if name in fields else value)
    for name in values:
        if name not in fields:
            raise ValueError(f"task {task!r} has no option {name!r}: {hint(name, fields)}")
    for name, value in values.items():
        if isinstance(fields[name].default, tuple):
            values[name] = (value,) if isinstance(value, str) else tuple(value)
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"task {task!r}: {error}") from error


def _value(task: str, name: str, text: str, default: Any) -> Any:
    """Return the value of an option that is written as text, of the type of its default."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"option {name} of task {task!r} is true or false, not {text!r}")
        return text.lower() == "true"
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise ValueError(
                f"option {name} of task {task!r} is a whole number, not {text!r}"
            ) from None
    return tuple(text.split("+")) if isinstance(default, tuple) else text
