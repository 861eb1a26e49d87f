"""Settings dataclasses from plain values (JSON, YAML, keywords), each checked against its type."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from maporl_env.similar_names import did_you_mean

C = TypeVar("C")

RETIRED = {"micro_episodes": ("micro_tokens", "the largest number of tokens in one pass")}
"""Settings of earlier versions: the one to set instead, and its meaning. Saved ones are ignored."""

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def from_dict(cls: type[C], data: Mapping[str, Any]) -> C:
    """Build a settings dataclass from nested plain values, e.g. from the config.json of a run.

    Args:
        cls: the dataclass.
        data: field -> value; a group of settings is a mapping. Fields left out get the default
            that `cls` gives them.

    Raises:
        ValueError: a name is unknown, or a value is of another type than its field; says where.
    """
    made: C = _settings(cls, data, "")
    return made


def refuse_retired(name: str) -> None:
    """Raise ValueError, naming the setting that took its place, if a setting was retired.

    Args:
        name: with its groups, as in "ppo.epochs" or "--ppo.epochs".
    """
    group, dot, last = name.rpartition(".")
    if not dot:
        group, last = ("--", name[2:]) if name.startswith("--") else ("", name)
    if (found := RETIRED.get(last.replace("-", "_"))) is None:
        return
    now, meaning = found
    now = now.replace("_", "-") if name.startswith("--") else now
    raise ValueError(f"{name} is no longer a setting: set {group}{dot}{now}, {meaning}")


def without_retired(cls: type[Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return saved settings without those that were retired since."""
    hints = get_type_hints(cls)
    return {
        name: without_retired(hints[name], value)
        if isinstance(value, Mapping) and is_dataclass(hints.get(name))
        else value
        for name, value in saved.items()
        if name in hints or name not in RETIRED
    }


def _settings(cls: type[Any], written: Mapping[Any, Any], where: str) -> Any:
    """Build a settings dataclass, each value checked against the type of its field."""
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls) if field.init]
    for name in written:
        if name not in known:
            refuse_retired(where + str(name))
            raise ValueError(
                f"unknown setting {where}{name}{nearest(str(name), known)}; known here are "
                f"{', '.join(known)}"
            )
    started = _defaults(cls)
    return cls(
        **{
            name: _value(hints[name], value, where + name, started.get(name))
            for name, value in written.items()
        }
    )


def _defaults(cls: type[Any]) -> dict[str, Any]:
    """Return the default of each section of a dataclass, of which a recipe changes some fields."""
    return {
        field.name: field.default_factory()
        for field in fields(cls)
        if field.default_factory is not MISSING
    }


def _value(hint: Any, value: Any, where: str, started: Any = None) -> Any:
    """Return a value as its field wants it; ValueError if it is of another type."""
    if isinstance(hint, type) and is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"{where} is a group of settings: write them below it as name: value")
        return _settings(hint, (vars(started) if started else {}) | value, f"{where}.")
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        others = [choice for choice in get_args(hint) if choice is not type(None)]
        hint = others[0] if len(others) == 1 else Union
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(
                f"{where} is {value!r}: choose one of {', '.join(map(str, get_args(hint)))}"
            )
        return value
    if get_origin(hint) is tuple:
        return _row(hint, value, where)
    return _scalar(hint, value, where)


def _row(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} is {value!r}, but it is a list: write [{value}]")
    if kinds[-1] is not ... and len(value) != len(kinds):
        raise ValueError(f"{where} has {len(value)} entries, and must have {len(kinds)}")
    kinds = kinds[:1] * len(value) if kinds[-1] is ... else kinds
    return tuple(
        _value(kind, item, f"{where}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind not in _WORDS:  # a type that users gave a field of their own settings
        return tuple(value) if isinstance(value, list) else value
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-5, without a point, as text
        except (TypeError, ValueError, OverflowError):
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {value!r}, but it must be {_WORDS[kind]}")


def nearest(name: str, known: Collection[str]) -> str:
    """Return " (did you mean ...?)" with the most similar of some names; "" if none is."""
    near = did_you_mean(name, known)
    return f" ({near})" if near else ""
