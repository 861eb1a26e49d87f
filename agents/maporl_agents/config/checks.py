"""Annotations of settings that say which numbers a field may be; see `maporl_env.declared`."""

from __future__ import annotations

import math
from typing import Annotated, Any

from maporl_env.declared import Checked, Range
from maporl_env.similar_names import require_choice

__all__ = [
    "Above0",
    "Above0OrNone",
    "AtLeast1",
    "AtLeast2",
    "BelowOne",
    "Checked",
    "Count",
    "CountOrNone",
    "Limit",
    "NotNegative",
    "Range",
    "ShareOrNone",
    "Unit",
    "UnitOrNone",
    "ZeroOrOne",
    "require_choice",
]


def _above_0(x: Any) -> bool:
    return bool(0 < x < math.inf)


def _in_unit(x: Any) -> bool:
    return bool(0 <= x <= 1)


NOT_NEGATIVE = Range("a number >= 0", lambda x: 0 <= x < math.inf)

AtLeast1 = Annotated[int, Range("at least 1", lambda x: x >= 1)]

AtLeast2 = Annotated[int, Range("at least 2", lambda x: x >= 2)]

ZeroOrOne = Annotated[int, Range("0 or 1", lambda x: x in (0, 1))]

Count = Annotated[int, NOT_NEGATIVE]

CountOrNone = Annotated[int | None, Range("at least 0, or None", lambda x: x is None or x >= 0)]

NotNegative = Annotated[float, NOT_NEGATIVE]

Above0 = Annotated[float, Range("a number above 0", _above_0)]

Above0OrNone = Annotated[
    float | None, Range("a number above 0, or None", lambda x: x is None or _above_0(x))
]

Limit = Annotated[float, Range("a number above 0, or inf for no limit", lambda x: x > 0)]

Unit = Annotated[float, Range("in [0, 1]", _in_unit)]

UnitOrNone = Annotated[
    float | None, Range("in [0, 1], or None", lambda x: x is None or _in_unit(x))
]

BelowOne = Annotated[float, Range("in [0, 1)", lambda x: 0 <= x < 1)]

ShareOrNone = Annotated[
    float | None, Range("in (0, 1], or None", lambda x: x is None or 0 < x <= 1)
]
