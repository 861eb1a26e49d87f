"""Settings whose annotations say which values they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest

from maporl_env.declared import COST, FINITE, Checked, whole


@dataclass(frozen=True)
class Base(Checked):
    count: Annotated[int, whole(2)] = 2
    cost: Annotated[float, COST] = 0.0
    value: Annotated[float, FINITE] = 0.0
    way: Literal["in", "out"] = "in"


@dataclass(frozen=True)
class Derived(Base):
    count: int = 5
    more: Annotated[int, whole(0)] = 0


@pytest.mark.parametrize("cls", [Base, Derived])
@pytest.mark.parametrize(
    ("name", "wrong", "complaint"),
    [
        ("count", 1, "count must be an integer >= 2, not 1"),
        ("count", 2.0, "count must be an integer >= 2, not 2.0"),
        ("count", True, "count must be an integer >= 2, not True"),
        ("count", "3", "count must be an integer >= 2, not '3'"),
        ("cost", None, "cost must be a finite number >= 0, not None"),
        ("cost", "0", "cost must be a finite number >= 0, not '0'"),
        ("value", [], r"value must be a finite number, not \[\]"),
        ("cost", float("inf"), "cost must be a finite number >= 0, not inf"),
        ("cost", float("nan"), "cost must be a finite number >= 0, not nan"),
        ("value", float("nan"), "value must be a finite number, not nan"),
        ("way", "up", "unknown way 'up': choose one of in, out"),
    ],
)
def test_what_a_field_may_not_be_is_refused_by_name(cls, name, wrong, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        cls(**{name: wrong})


def test_numbers_of_numpy_are_numbers() -> None:
    made = Base(count=np.int64(3), cost=np.float32(0.5))
    assert (made.count, made.cost) == (3, 0.5)
    with pytest.raises(ValueError, match="count must be an integer >= 2, not"):
        Base(count=np.int64(1))


def test_a_subclass_keeps_the_ranges_of_its_base_and_adds_its_own() -> None:
    assert Derived(count=2, cost=1.5, value=-3.0, way="out", more=0).count == 2
    with pytest.raises(ValueError, match="more must be an integer >= 0, not -1"):
        Derived(more=-1)
