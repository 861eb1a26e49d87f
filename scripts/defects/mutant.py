"""One defect, and the defects of one file with the tests that have to catch them."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One defect: `old` stands exactly once in `file` and becomes `new`."""

    file: str
    old: str
    new: str


class Defects(NamedTuple):
    """The defects of one file, each as (old, new), and the quick tests that have to catch them."""

    file: str
    tests: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]
