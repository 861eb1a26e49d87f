"""Checks of numbers and choices that settings share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers that a setting may be, and how to say so."""

    words: str
    holds: Callable[[Any], bool]


AT_LEAST_1 = Range("at least 1", lambda x: x >= 1)

NOT_NEGATIVE = Range("a number >= 0", lambda x: 0 <= x < math.inf)

ABOVE_0 = Range("a number above 0", lambda x: 0 < x < math.inf)

ABOVE_0_OR_NONE = Range("a number above 0, or None", lambda x: x is None or ABOVE_0.holds(x))

ZERO_OR_ONE = Range("0 or 1", lambda x: x in (0, 1))

LIMIT = Range("a number above 0, or inf for no limit", lambda x: x > 0)

UNIT = Range("in [0, 1]", lambda x: 0 <= x <= 1)

UNIT_OR_NONE = Range("in [0, 1], or None", lambda x: x is None or UNIT.holds(x))

SHARE_ABOVE_0_OR_NONE = Range("in (0, 1], or None", lambda x: x is None or 0 < x <= 1)

COUNT_OR_NONE = Range("at least 0, or None", lambda x: x is None or x >= 0)


def require_numbers(settings: Any, allowed: Range, *names: str) -> None:
    """Raise ValueError unless the named fields of `settings` lie in the allowed range."""
    for name in names:
        if not allowed.holds(value := getattr(settings, name)):
            raise ValueError(f"{name} must be {allowed.words}, not {value}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError, with the valid choices, unless `value` is one of them."""
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")
