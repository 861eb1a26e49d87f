"""Dataclasses of settings whose annotations say which values a field may have.

For example::

    @dataclass(frozen=True)
    class Limits(Checked):
        processes: Annotated[int, whole(1)] = 1
        isolation: Literal["namespaces", "none"] = "namespaces"
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from maporl_env.similar_names import require_choice


@dataclass(frozen=True)
class Range:
    """The values that a field may have, and how an error says so."""

    words: str
    holds: Callable[[Any], bool]

    def __contains__(self, value: object) -> bool:
        """Whether it is in the range; a value that cannot be compared with numbers is not."""
        try:
            return self.holds(value)
        except TypeError:
            return False


def whole(least: int) -> Range:
    """Return the range of integers from `least` on, NumPy's too, of which booleans are none."""
    return Range(
        f"an integer >= {least}",
        lambda x: isinstance(x, Integral) and not isinstance(x, bool) and int(x) >= least,
    )


FINITE = Range("a finite number", lambda x: not isinstance(x, bool) and math.isfinite(x))

COST = Range("a finite number >= 0", lambda x: 0 <= x < math.inf)


class Checked:
    """Base of a dataclass whose annotations are checked when it is made.

    A field of a `Literal` has one of its values; a field that is `Annotated` with a `Range` lies in
    it. A class with further rules calls `Checked.__post_init__(self)` in its own.

    Raises:
        ValueError: a value that its field may not have; the message says which it may.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, allowed in _allowed(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            if not isinstance(allowed, Range):
                require_choice(name, value, allowed)
            elif value not in allowed:
                raise ValueError(f"{name} must be {allowed.words}, not {value!r}")


@cache
def _allowed(cls: type[Any]) -> dict[str, Range | tuple[object, ...]]:
    """Return the range, or the choices, of each field that declares them, here or in a base."""
    found: dict[str, Range | tuple[object, ...]] = {}
    for base in reversed(cls.__mro__):  # a subclass that sets another default keeps the range
        for name, hint in get_type_hints(base, include_extras=True).items():
            if get_origin(hint) is Literal:
                found[name] = get_args(hint)
            elif get_origin(hint) is Annotated:
                found.update((name, note) for note in hint.__metadata__ if isinstance(note, Range))
    return found
