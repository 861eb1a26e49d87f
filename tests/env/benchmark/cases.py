"""Cases of the benchmark by name, and small ones."""

from __future__ import annotations

from dataclasses import replace

from maporl_env.benchmark import CASES, Case, CaseResult

BY_NAME = {case.name: case for case in CASES}
LONE = BY_NAME["coins/self_correction/1x3"]


def small(name: str, questions: int = 40) -> Case:
    """A case of the suite with fewer questions."""
    return replace(BY_NAME[name], num_questions=questions)


def by_turn(result: CaseResult) -> list[float]:
    return [turn.team.mean for turn in result.turns]
