"""MALT's values and labels up the tree of samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from maporl_agents.algorithms.malt import tree_values


def bits(*rows: str) -> list[list[int]]:
    return [[int(bit) for bit in row] for row in rows]


def test_two_trees_by_hand() -> None:
    values, labels = tree_values([bits("110", "110", "000"), bits("111", "100", "100")])
    third = pytest.approx
    # (2/3 + 2/3 + 0) / 3 = 4/9: negative, though two of its three verifications are positive
    # (1 + 1/3 + 1/3) / 3 = 5/9: positive, though one of them is
    assert values.generator == [third(4 / 9), third(5 / 9)]
    assert labels.generator == [False, True]
    assert values.verifier == [[third(2 / 3), third(2 / 3), 0], [1, third(1 / 3), third(1 / 3)]]
    assert labels.verifier == [[True, True, False], [True, False, False]]
    assert values.refiner == [bits("110", "110", "000"), bits("111", "100", "100")]
    assert labels.refiner[0] == [[True, True, False], [True, True, False], [False, False, False]]


def pairs(labels: list[bool]) -> int:
    return sum(labels) * (len(labels) - sum(labels))


def test_preference_pairs_by_hand() -> None:
    _, labels = tree_values([bits("110", "110", "000"), bits("111", "100", "100")])
    # p (n - p) of p positive among n: 2*1, 2*1, 0*3 and 3*0, 1*2, 1*2
    assert [[pairs(row) for row in branch] for branch in labels.refiner] == [[2, 2, 0], [0, 2, 2]]
    assert [pairs(row) for row in labels.verifier] == [2, 2]


def test_a_tie_is_negative() -> None:
    values, labels = tree_values([bits("10", "10"), bits("11", "10")])
    assert values.generator == [0.5, 0.75]
    assert labels.generator == [False, True]
    assert labels.verifier == [[False, False], [True, False]]


@pytest.mark.parametrize("size", [6, 10, 14])
def test_a_tie_of_many_thirds_and_sevenths_stays_a_tie(size: int) -> None:
    """Half of all leaves are right, spread unevenly: added up in floats, many of these miss .5."""
    rng = np.random.default_rng(size)
    for _ in range(50):
        leaves = rng.permutation([0, 1] * (size * size // 2)).reshape(1, size, size)
        values, labels = tree_values(leaves.tolist())
        assert values.generator == [0.5]
        assert labels.generator == [False]


def test_the_threshold_is_strict_wherever_it_lies() -> None:
    for right in range(10):
        row = bits("1" * right + "0" * (10 - right))
        assert tree_values([row], threshold=right / 10).labels.verifier == [[False]]
        if right:
            assert tree_values([row], threshold=(right - 1) / 10).labels.verifier == [[True]]


def test_values_are_means_over_the_leaves_of_even_trees() -> None:
    leaves: Any = np.random.default_rng(0).integers(0, 2, (4, 3, 5))
    for given in (leaves, leaves.tolist(), leaves.astype(bool).tolist()):
        values, _ = tree_values(given)
        assert values.generator == pytest.approx(leaves.mean(axis=(1, 2)))
        assert np.array(values.verifier) == pytest.approx(leaves.mean(axis=2))


def test_branches_of_different_length() -> None:
    values, _ = tree_values([bits("1", "0001"), bits("0")])
    # (1 + 1/4) / 2: the mean of the verifications, not of the five leaves
    assert values.generator == [0.625, 0]


def test_a_comment_that_leads_to_the_answer_moves_its_own_value() -> None:
    silent, _ = tree_values([bits("000", "000"), bits("100", "100")])
    spoken, _ = tree_values([bits("000", "111"), bits("100", "100")])
    assert (silent.verifier[0], spoken.verifier[0]) == ([0, 0], [0, 1])
    assert (silent.generator[1], silent.verifier[1]) == (spoken.generator[1], spoken.verifier[1])


@pytest.mark.parametrize(
    ("leaves", "threshold", "complaint"),
    [
        ([], 0.5, "leaves is empty"),
        ([[]], 0.5, r"leaves\[0\] is empty"),
        ([[[1]], [[1], []]], 0.5, r"leaves\[1\]\[1\] is empty"),
        ([[[1, 2]]], 0.5, r"leaves\[0\]\[0\]\[1\] must be 0 \(wrong\) or 1 \(right\), got 2"),
        ([[[math.nan]]], 0.5, "must be 0"),
        (["ab"], 0.5, "must be 0"),
        ([1, 0], 0.5, "nested three deep"),
        ([[1, 0]], 0.5, "nested three deep"),
        ([[[1]]], 1.0, r"threshold must lie in \[0, 1\)"),
        ([[[1]]], -0.1, "threshold must lie in"),
    ],
)
def test_a_wrong_tree_is_refused_with_its_place(
    leaves: Any, threshold: float, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        tree_values(leaves, threshold)
