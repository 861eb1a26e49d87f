"""The defects that `mutants.py` puts into the code, and the quick tests that have to catch them."""

from __future__ import annotations

from . import (
    algorithms,
    answers,
    config,
    environment,
    losses,
    measure,
    models,
    play,
    studies,
    trees,
    update,
)
from .mutant import Defects, Mutant

ROOMS: tuple[tuple[Defects, ...], ...] = (
    environment.DEFECTS,
    losses.DEFECTS,
    update.DEFECTS,
    algorithms.DEFECTS,
    trees.DEFECTS,
    play.DEFECTS,
    models.DEFECTS,
    studies.DEFECTS,
    config.DEFECTS,
    answers.DEFECTS,
    measure.DEFECTS,
)

TESTS = {defects.file: defects.tests for room in ROOMS for defects in room}

MUTANTS = [
    Mutant(defects.file, old, new)
    for room in ROOMS
    for defects in room
    for old, new in defects.changes
]

__all__ = ["MUTANTS", "TESTS", "Mutant"]
