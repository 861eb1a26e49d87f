"""The mutation check can be carried out: its defects fit the code as it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "mutants.py"


def test_every_mutant_still_stands_exactly_once_in_its_file() -> None:
    spec = importlib.util.spec_from_file_location("mutants", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    assert len(mutants.MUTANTS) >= 40
    assert mutants.stale(mutants.MUTANTS) == []
    changed = mutants.MUTANTS[0]._replace(old="no such text")
    assert mutants.stale([changed]) == [changed]
