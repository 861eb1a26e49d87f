"""MALT's values and labels: means over the leaves of a tree, and of what was sampled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from made_trees import BY_HAND, bits, grown, sample

from maporl_agents.trees.sample_tree import Steps
from maporl_agents.trees.tree_values import Judged, judge, tree_values


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


def values_of(judged: Iterable[Judged]) -> dict[tuple[int, Steps], tuple[float, bool]]:
    return {one.sample.place: (one.value, one.positive) for one in judged}


class TestJudge:
    def test_every_sample_gets_the_value_of_its_place(self) -> None:
        samples = grown(BY_HAND) + grown([bits("1")], tree=4)
        found = values_of(judge(samples, 0.5))
        values, labels = tree_values(BY_HAND)
        assert len(found) == len(samples)
        for g, v, r in itertools.product(range(2), range(3), range(3)):
            assert found[0, (g,)] == (values.generator[g], labels.generator[g])
            assert found[0, (g, v)] == (values.verifier[g][v], labels.verifier[g][v])
            assert found[0, (g, v, r)] == (values.refiner[g][v][r], labels.refiner[g][v][r])
        assert found[4, (0, 0)] == (1.0, True)

    def test_unscored_leaves_count_for_nothing(self) -> None:
        leaves = [[[1.0, None], [None, None]], [[None, None], [None, None]]]
        found = values_of(judge(grown(leaves), 0.5))
        assert found == {
            (0, (0,)): (1.0, True),
            (0, (0, 0)): (1.0, True),
            (0, (0, 0, 0)): (1.0, True),
        }

    def test_a_role_that_is_left_out_changes_no_mean(self) -> None:
        two = [sample((g,)) for g in range(2)]
        two += [
            sample((g, r), score)
            for g, row in enumerate(bits("110", "100"))
            for r, score in enumerate(row)
        ]
        found = values_of(judge(two, 0.5))
        third = pytest.approx
        assert found[0, (0,)] == (third(2 / 3), True)
        assert found[0, (1,)] == (third(1 / 3), False)
        assert found[0, (0, 1)] == (1.0, True)
        assert found[0, (1, 2)] == (0.0, False)
        alone = values_of(judge([sample((0,), 1.0), sample((1,), 0.0)], 0.5))
        assert alone == {(0, (0,)): (1.0, True), (0, (1,)): (0.0, False)}

    def test_a_debate_of_four_messages_is_a_tree_of_four_levels(self) -> None:
        """Leaves 1 1 | 1 0 below one message and 0 0 below another: 3/4 and 0, above them 3/8."""
        rows = {(0, 0, 0): "11", (0, 0, 1): "10", (0, 1, 0): "00"}
        samples = [sample((*path, i), float(bit)) for path, row in rows.items()
                   for i, bit in enumerate(row)]  # fmt: skip
        samples += [sample(path) for path in [*rows, (0, 0), (0, 1), (0,)]]
        values = {path: value for (_, path), (value, _) in values_of(judge(samples, 0.5)).items()}
        assert [values[path] for path in rows] == [1, 0.5, 0]
        assert [values[0, 0], values[0, 1], values[0,]] == [0.75, 0, 0.375]

    def test_a_value_at_the_threshold_is_negative(self) -> None:
        found = values_of(judge(grown([bits("10")]), 0.5))
        assert found[0, (0,)] == found[0, (0, 0)] == (0.5, False)

    def test_a_score_of_a_half_is_not_right(self) -> None:
        found = values_of(judge([sample((0,), 0.5), sample((1,), 0.51)], 0.5))
        assert [value for value, _ in found.values()] == [0.0, 1.0]

    def test_monte_carlo_values_are_unbiased(self) -> None:
        """A generation is right with .3 + .4 u, u in {0, 1} drawn by its verification: mean .5."""
        rng = np.random.default_rng(0)
        found = []
        for _ in range(600):
            kinds = rng.integers(0, 2, 3)
            leaves = (rng.random((3, 3)) < (0.3 + 0.4 * kinds)[:, None]).astype(int)
            found.append(tree_values([leaves.tolist()]).values.generator[0])
        # Var = Var(u) .16 / 3 + mean p(1-p) / 9 = .0133 + .0233 = .0367; standard error .0078
        assert np.mean(found) == pytest.approx(0.5, abs=0.03)
        assert np.var(found) == pytest.approx(0.0367, abs=0.008)
