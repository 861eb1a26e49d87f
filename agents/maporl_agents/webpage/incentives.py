"""The table of flips in the HTML report: changes of answers and majorities, and their bonuses."""

from __future__ import annotations

from typing import Any

from maporl_agents.studies.incentives import CASES, Case, flip_count, flip_rates, steps
from maporl_agents.studies.results import Arm, Stage, Study
from maporl_agents.studies.seed_intervals import estimate
from maporl_agents.webpage.sources import STAGES


def incentives(study: Study) -> dict[str, Any] | None:
    """Return rates of flips of agents and majorities, per arm and stage; None if not counted."""
    measured = [(arm, stage) for arm in study.arms for stage in STAGES]
    pairs = all(_is_of_pairs(arm, stage) for arm, stage in measured)
    # in pairs a peer's move is a move of its own: the rows for beta would say the same again
    cases = CASES[:4] if pairs else CASES
    cells = [(case, turn) for turn in steps(study) for case in cases]
    columns = [
        {
            "label": arm.label,
            "stage": stage,
            "role": arm.role,
            "cells": [_cell(arm, stage, case, turn) for case, turn in cells],
        }
        for arm, stage in measured
    ]
    columns = [column for column in columns if any(column["cells"])]
    if not columns:
        return None
    return {"cases": [_title(case, turn, pairs) for case, turn in cells], "columns": columns}


def _title(case: Case, turn: int, pairs: bool) -> list[str]:
    weight = f"{case.symbol}, β{case.symbol[-1]}" if pairs else case.symbol
    return [weight, f"{case.words}, turn {turn + 1} to {turn + 2}"]


def _is_of_pairs(arm: Arm, stage: Stage) -> bool:
    """Return whether at most two agents were measured."""
    found = (seed.find(stage, "sampled") for seed in arm.seeds)
    return all(len(m.turns[0].accuracy) <= 2 for m in found if m and m.transitions)


def _cell(arm: Arm, stage: Stage, case: Case, turn: int) -> dict[str, Any] | None:
    """Return mean, half width, and count over seeds; None where no message has that past."""
    rates = flip_rates(arm, case, turn, stage=stage)
    if not rates:
        return None
    share = estimate(list(rates.values()))
    count = flip_count(arm, case, turn, stage=stage)
    return {"mean": share.mean, "half": share.half_width, "count": count}
