"""Settings in YAML files: those that come with the package, by name, and anybody's own.

A recipe fits models to a task: what is played, who is trained, and the step sizes that these models
bear. It holds the fields of the settings dataclasses (`maporl_agents.config`) under their own
names; what it leaves out stays at its default. JSON is YAML, so the ``config.json`` of a run is a
recipe too. ``maporl train --recipe NAME_OR_FILE`` starts from one, and flags change it.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from maporl_agents.config import CONFIGS, RunConfig, config_of

FOLDER = Path(__file__).parent
ABOUT, SCHEME = "about", "scheme"


def names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


def recipe(source: str | Path) -> RunConfig:
    """Return the settings of a recipe.

    Args:
        source: one of `names`, or the path of a YAML or JSON file.

    Raises:
        ValueError: there is no such recipe, or it does not describe settings; names the place and
            the nearest or the valid choices.
    """
    file = path_of(source)
    written = _read(file)
    written.pop(ABOUT, None)
    scheme = written.pop(SCHEME, None) or next((name for name in CONFIGS if name in written), None)
    try:
        return _settings(config_of(scheme or "maporl"), written, "")
    except ValueError as error:
        raise ValueError(f"recipe {file.name}: {error}") from error


def checked_settings(cls: type[Any], written: Mapping[str, Any]) -> Any:
    """Return settings of a class from nested values, each checked against its field's type.

    Raises:
        ValueError: a name or a value that does not suit; says where.
    """
    return _settings(cls, written, "")


def about(source: str | Path) -> str:
    """Return the one sentence in which a recipe says what it is for; empty if it has none."""
    return str(_read(path_of(source)).get(ABOUT, ""))


def path_of(source: str | Path) -> Path:
    """Return the file of a recipe; ValueError if there is none."""
    if str(source) in names():
        return FOLDER / f"{source}.yaml"
    path = Path(source)
    if path.is_file():
        return path
    near = _nearest(str(source), names())
    raise ValueError(
        f"there is no recipe {str(source)!r}{near}: name a file, or one of {', '.join(names())}"
    )


_BAD_SCALARS = (ValueError, LookupError, AttributeError)
"""What PyYAML raises for a value that its tag does not allow, e.g. `!!int ""` or a 13th month."""


def _read(file: Path) -> dict[str, Any]:
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, RecursionError, *_BAD_SCALARS) as error:
        raise ValueError(
            f"cannot read {str(file)!r} as a recipe, settings in YAML as `name: value`: {error}"
        ) from error
    if not isinstance(written, dict):
        raise ValueError(f"the recipe {str(file)!r} must hold settings as `name: value`")
    return written


def _settings(cls: type[Any], written: Mapping[Any, Any], where: str) -> Any:
    """Build a settings dataclass, each value checked against the type of its field."""
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls) if field.init]
    for name in written:
        if name not in known:
            raise ValueError(
                f"unknown setting {where}{name}{_nearest(str(name), known)}; known here are "
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
    """Return what a section has where a recipe leaves fields of it out: its owner's default."""
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
        (hint,) = (choice for choice in get_args(hint) if choice is not type(None))
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


def _scalar(kind: type[Any], value: Any, where: str) -> Any:
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-5, without a point, as text
        except (TypeError, ValueError, OverflowError):
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise ValueError(f"{where} is {value!r}, but it must be {wanted.get(kind, kind.__name__)}")


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
