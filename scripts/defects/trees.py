"""Defects in sampled trees and the pairs drawn from them."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/trees/joint_tree.py",
        ("tests/agents/algorithms/test_magrpo.py",),
        (
            ("statistics.fmean(known) if", "known[0] if"),
            ("if len(known) == len(scores) else None", "if known else None"),
            ('if joining == "aligned":', 'if joining == "cross":'),
        ),
    ),
    Defects(
        "agents/maporl_agents/trees/preference_pairs.py",
        ("tests/agents/algorithms/test_malt.py",),
        (
            ("one.value == 1", "one.value >= 0"),
            ("for one in judged if one.positive]", "for one in judged]"),
            ("if good.positive and not bad.positive", "if good.positive"),
            ("good.value, bad.value)", "bad.value, good.value)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/trees/tree_values.py",
        ("tests/agents/algorithms/test_malt.py", "tests/agents/algorithms/test_magrpo.py"),
        (
            ("sample.score > RIGHT", "sample.score >= RIGHT"),
            (
                "[value > threshold for value in values.generator]",
                "[value >= threshold for value in values.generator]",
            ),
            ("reward + gamma * fmean(_returns(", "reward + fmean(_returns("),
            ("return sum(values, Fraction(0)) / len(values)", "return sum(values, Fraction(0))"),
        ),
    ),
)
