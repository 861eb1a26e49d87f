"""Who moves whom: how often agents and majorities change, given each other, and what was paid."""

from __future__ import annotations

from typing import Any

from maporl_agents.outcomes import Side, rate
from maporl_agents.study_results import Arm, Stage, Study
from maporl_agents.verdicts import Verdict, difference, estimate, rise_verdict
from maporl_agents.webpage.sources import STAGES

Case = tuple[bool, Side, str]
CASES: tuple[tuple[str, str, Case], ...] = (
    ("α₁", "A wrong agent among right peers becomes right", (False, "right", "own")),
    ("α₀", "A wrong agent among wrong peers becomes right", (False, "wrong", "own")),
    ("α₁", "A right agent among right peers stays right", (True, "right", "own")),
    ("α₀", "A right agent among wrong peers stays right", (True, "wrong", "own")),
    ("β₁", "Wrong peers of a right agent become right", (True, "wrong", "others")),
    ("β₀", "Wrong peers of a wrong agent become right", (False, "wrong", "others")),
    ("β₁", "Right peers of a right agent stay right", (True, "right", "others")),
    ("β₀", "Right peers of a wrong agent stay right", (False, "right", "others")),
)
"""What `alpha` and `beta` pay for (Tables 1 and 2): weight, words, (own, others, of whom)."""

WEIGHTS = {"α₀": "alpha0", "α₁": "alpha1", "β₀": "beta0", "β₁": "beta1"}


def incentives(study: Study) -> dict[str, Any] | None:
    """Return how often agents and majorities moved, per arm and stage; None if nobody counted."""
    measured = [(arm, stage) for arm in study.arms for stage in STAGES]
    cases = CASES
    if all(_is_of_pairs(arm, stage) for arm, stage in measured):
        # a peer's move is a move of its own: the rows for beta would say the same again
        cases = tuple((f"{weight}, β{weight[1]}", words, case) for weight, words, case in CASES[:4])
    columns = [
        {
            "label": arm.label,
            "stage": stage,
            "role": arm.role,
            "cells": [_cell(arm, stage, case) for *_, case in cases],
        }
        for arm, stage in measured
    ]
    columns = [column for column in columns if any(column["cells"])]
    if not columns:
        return None
    return {"cases": [[weight, words] for weight, words, _ in cases], "columns": columns}


def _is_of_pairs(arm: Arm, stage: Stage) -> bool:
    """Return whether two agents were measured, or nobody who had a peer."""
    found = (seed.find(stage, "sampled") for seed in arm.seeds)
    return all(len(m.turns[0].accuracy) <= 2 for m in found if m and m.transitions)


def _cell(arm: Arm, stage: Stage, case: Case) -> dict[str, Any] | None:
    """Return mean, half width, and count over seeds; None where nobody had that past."""
    rates = transition_rates(arm, case, stage)
    if not rates:
        return None
    own, others, of = case
    found = [seed.find(stage, "sampled") for seed in arm.seeds]
    counts = [rate(m.transitions, own=own, others=others, of=of)[1] for m in found if m]
    share = estimate(list(rates.values()))
    return {"mean": share.mean, "half": share.half_width, "count": sum(counts)}


def incentive_verdicts(study: Study) -> list[Verdict]:
    """Say whether each incentive moved the transitions it pays for, against the arm without any.

    Arms are told by ``settings["incentive"]``: "none", "alpha0", "alpha1", "beta0" or "beta1". All
    transitions are worded so that the incentive is meant to make them more frequent.
    """
    arms = {arm.settings.get("incentive"): arm for arm in study.arms}
    found = []
    for name, arm in arms.items():
        for weight, words, case in CASES:
            if name not in (None, "none") and WEIGHTS[weight] == name and "none" in arms:
                own, base = transition_rates(arm, case), transition_rates(arms["none"], case)
                if own.keys() & base.keys():
                    change = difference(own, base)
                    found.append(rise_verdict(arm.name, f"{words}, against no bonus", change))
    return found


def transition_rates(arm: Arm, case: Case, stage: Stage = "after") -> dict[int, float]:
    """Return {seed: share of the messages with this past that were, or saw, right next}."""
    own, others, of = case
    found = {result.seed: result.find(stage, "sampled") for result in arm.seeds}
    rates = {
        seed: rate(measurement.transitions, own=own, others=others, of=of)[0]
        for seed, measurement in found.items()
        if measurement is not None
    }
    return {seed: share for seed, share in rates.items() if share is not None}
