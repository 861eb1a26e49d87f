"""Hints for a name that nothing has: the most similar known one, or all of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar

__all__ = ["alike", "did_you_mean", "hint", "make", "require_choice", "require_known"]

Made = TypeVar("Made")
CUTOFF = 0.75
"""Similarity (`difflib.SequenceMatcher.ratio`) from which two names are taken for one."""


def alike(name: object, known: Collection[object], most: int = 1) -> list[str]:
    """Return the known names that a wrong one is likely to mean, the most similar first.

    Names are alike if they differ in about one letter of four, capitals aside, or if one begins
    with the other (from two letters on). Of "--out" and "--timeout" neither is true.

    Args:
        name: the wrong name.
        known: the names there are.
        most: how many to return at most.
    """
    written = str(name).lower()
    names = {str(one).lower(): str(one) for one in known}
    near = difflib.get_close_matches(written, names, n=most, cutoff=CUTOFF)
    begun = [one for one in names if len(written) > 1 and one.startswith(written)]
    begun += [one for one in names if len(one) > 2 and written.startswith(one)]
    found = dict.fromkeys([*near, *sorted(begun, key=lambda one: abs(len(one) - len(written)))])
    return [names[one] for one in found][:most]


def did_you_mean(name: object, known: Collection[object]) -> str:
    """Return "did you mean 'x'?" with the most similar known name; "" if none is alike."""
    near = alike(name, known)
    return f"did you mean {near[0]!r}?" if near else ""


def hint(name: object, known: Collection[object]) -> str:
    """Return `did_you_mean`, or "choose one of a, b" if no known name is similar."""
    return did_you_mean(name, known) or f"choose one of {', '.join(map(str, known))}"


def require_known(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise TypeError for the first option that is not known; it names the most similar one."""
    for name in options:
        if name not in known:
            raise TypeError(f"unknown option {name!r}: {hint(name, known)}")


def make(kind: type[Made], *args: Any, **options: Any) -> Made:
    """Return an object of a dataclass; TypeError names the nearest field for an unknown option."""
    require_known(options, [field.name for field in fields(kind)])  # type: ignore[arg-type]
    return kind(*args, **options)


def require_choice(name: str, value: object, valid: tuple[object, ...]) -> None:
    """Raise ValueError for a value that is not valid; it names the valid ones."""
    if value not in valid:
        near = did_you_mean(value, valid)
        raise ValueError(
            f"unknown {name} {value!r}: choose one of {', '.join(map(str, valid))}"
            + (f"; {near}" if near else "")
        )
