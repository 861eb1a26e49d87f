"""Defects in sampled trees and the pairs drawn from them."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/trees/sample_tree.py",
        (
            "tests/agents/trees/test_joint_trees.py",
            "tests/agents/trees/test_sample_tree.py",
        ),
        (
            ("own.get(prompt.agent_index, ())", "own.get(0, ())"),
            ("{**node.own, **spoken}", "spoken"),
            ("for one in node.requests\n", "for one in node.requests[::-1]\n"),
            ("messages[len(node.history.messages) :]", "messages"),
            ("statistics.fmean(known) if", "known[0] if"),
            ("if len(known) == len(scores) else None", "if known else None"),
            ('if joining == "aligned":', 'if joining == "cross":'),
            ("debate=node.place * group_size + sample", "debate=node.place * group_size"),
            ("node.place * len(node.actions) + action", "action"),
        ),
    ),
    Defects(
        "agents/maporl_agents/trees/branches.py",
        (
            "tests/agents/trees/test_joint_trees.py",
            "tests/agents/trees/test_sample_tree.py",
        ),
        (
            ("rewards[node.turn, speakers]", "rewards[node.turn]"),
            ("= reward is not None", "= True"),
        ),
    ),
    Defects(
        "agents/maporl_agents/trees/joint_returns.py",
        (
            "tests/agents/trees/test_joint_returns.py",
            "tests/agents/algorithms/test_magrpo_credit.py",
        ),
        (
            ("reward + gamma * fmean(later)", "reward + fmean(later)"),
            ("return [value for value in found if value is not None]", "return []"),
        ),
    ),
    Defects(
        "agents/maporl_agents/trees/preference_pairs.py",
        ("tests/agents/trees/test_preference_pairs.py",),
        (
            ("one.value == 1", "one.value >= 0"),
            ("for one in judged if one.positive]", "for one in judged]"),
            ("if good.positive and not bad.positive", "if good.positive"),
            ("good.value, bad.value)", "bad.value, good.value)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/trees/tree_values.py",
        ("tests/agents/trees/test_tree_values.py",),
        (
            ("sample.score > RIGHT", "sample.score >= RIGHT"),
            (
                "[value > threshold for value in values.generator]",
                "[value >= threshold for value in values.generator]",
            ),
            ("sum(of, Fraction(0)) / len(of)", "sum(of, Fraction(0))"),
            ("values[sample.place] > threshold", "values[sample.place] >= threshold"),
        ),
    ),
)
