"""What a sample is worth: values and labels up a tree (MALT), and joint returns (MAGRPO).

MALT's credit (Motwani et al., arXiv 2412.01928, section 3.2): a message is worth the mean of what
came of it, and good if that is more than a threshold. MAGRPO's (Liu et al., arXiv 2508.04652): a
joint action is worth its reward and the mean of what comes after it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import Generic, NamedTuple, TypedDict, TypeVar

from maporl_agents.trees.sample_tree import Sample, Steps

RIGHT = 0.5
"""A leaf is right if its score is above this."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A sample with what it turned out to be worth.

    Attributes:
        sample: the message.
        value: the mean of what came of it, in [0, 1].
        positive: whether that counts as good.
    """

    sample: Sample
    value: float
    positive: bool


Number = TypeVar("Number", float, bool)


@dataclass(frozen=True, slots=True)
class Roles(Generic[Number]):
    """One entry per sample of each role, nested like the tree.

    `generator[g]`, `verifier[g][v]`, `refiner[g][v][r]`.
    """

    generator: list[Number]
    verifier: list[list[Number]]
    refiner: list[list[list[Number]]]


class TreeValues(NamedTuple):
    """What :func:`tree_values` returns: `values` in [0, 1], and `labels`, True = positive."""

    values: Roles[float]
    labels: Roles[bool]


def tree_values(leaves: Sequence[Sequence[Sequence[int]]], threshold: float = 0.5) -> TreeValues:
    """Return the Monte-Carlo value of every sample of a tree, and which are positive.

    ::

        V(r) = 1 if the refined answer is right, else 0
        V(v) = mean over its refinements of V(r)
        V(g) = mean over its verifications of V(v)
        positive iff V > threshold, strictly

    Means are exact, so that a tie at the threshold is a tie: it is negative. Branches may differ
    in length; a mean is over a sample's own children.

    Args:
        leaves: `leaves[g][v][r]`, 1 if the r-th refinement of the v-th verification of the g-th
            generation is right, else 0.
        threshold: in [0, 1).

    Returns:
        The values and labels of generator, verifier and refiner samples.

    Raises:
        ValueError: a leaf that is neither 0 nor 1, a sample without children, or a `threshold`
            outside [0, 1), with which nothing or everything would be positive.
    """
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold must lie in [0, 1), got {threshold!r}")
    if len(leaves) == 0:
        raise ValueError("leaves is empty: a tree has at least one generation")
    refiner = _read(leaves)
    verifier = [
        [_mean(row, f"leaves[{g}][{v}]") for v, row in enumerate(branch)]
        for g, branch in enumerate(refiner)
    ]
    generator = [_mean(branch, f"leaves[{g}]") for g, branch in enumerate(verifier)]
    values = Roles(
        generator=[float(value) for value in generator],
        verifier=[[float(value) for value in row] for row in verifier],
        refiner=[[[float(value) for value in row] for row in branch] for branch in refiner],
    )
    return TreeValues(values, _positive(values, threshold))


def _read(leaves: Sequence[Sequence[Sequence[int]]]) -> list[list[list[Fraction]]]:
    try:
        return [
            [[_leaf(leaf, (g, v, r)) for r, leaf in enumerate(row)] for v, row in enumerate(branch)]
            for g, branch in enumerate(leaves)
        ]
    except TypeError:
        raise ValueError("leaves must be lists nested three deep, leaves[g][v][r]") from None


def _positive(values: Roles[float], threshold: float) -> Roles[bool]:
    return Roles(
        generator=[value > threshold for value in values.generator],
        verifier=[[value > threshold for value in row] for row in values.verifier],
        refiner=[[[v > threshold for v in row] for row in branch] for branch in values.refiner],
    )


def _leaf(leaf: int, place: tuple[int, int, int]) -> Fraction:
    if leaf not in (0, 1):
        g, v, r = place
        raise ValueError(f"leaves[{g}][{v}][{r}] must be 0 (wrong) or 1 (right), got {leaf!r}")
    return Fraction(int(leaf))


def _mean(values: Iterable[Fraction], where: str) -> Fraction:
    values = list(values)
    if not values:
        raise ValueError(f"{where} is empty: a sample's value is the mean over its children")
    return sum(values, Fraction(0)) / len(values)


def judge(samples: Sequence[Sample], threshold: float) -> list[Judged]:
    """Return the samples with their values and labels, those without any scored leaf left out.

    A debate has one to three roles; one that is left out is a branch of one in the tree.
    """
    depth = max((len(sample.path) for sample in samples), default=0)
    leaves: defaultdict[int, dict[Steps, bool]] = defaultdict(dict)
    for sample in samples:
        if len(sample.path) == depth and sample.score is not None:
            leaves[sample.tree][_three_deep(sample.path)] = sample.score > RIGHT
    found = {tree: _by_path(ends, threshold) for tree, ends in leaves.items()}
    return [
        Judged(sample, *known[path])
        for sample in samples
        if (known := found.get(sample.tree, {}))
        if (path := _three_deep(sample.path) if len(sample.path) == depth else sample.path) in known
    ]


def _three_deep(path: Steps) -> Steps:
    """Return a leaf's path in a tree of three roles: (g, r) is (g, 0, r), (g,) is (g, 0, 0)."""
    first, *middle, last = (*path, 0, 0) if len(path) == 1 else path
    return (first, *(middle or (0,)), last)


def _by_path(leaves: dict[Steps, bool], threshold: float) -> dict[Steps, tuple[float, bool]]:
    """Return value and label of every sample of a tree that has a leaf."""
    tree: dict[int, dict[int, dict[int, bool]]] = {}
    for (g, v, r), right in sorted(leaves.items()):
        tree.setdefault(g, {}).setdefault(v, {})[r] = right
    nested = [[list(row.values()) for row in branch.values()] for branch in tree.values()]
    values, labels = tree_values(nested, threshold)
    found: dict[Steps, tuple[float, bool]] = {}
    for i, (g, branch) in enumerate(tree.items()):
        found[g,] = values.generator[i], labels.generator[i]
        for j, (v, row) in enumerate(branch.items()):
            found[g, v] = values.verifier[i][j], labels.verifier[i][j]
            for k, r in enumerate(row):
                found[g, v, r] = values.refiner[i][j][k], labels.refiner[i][j][k]
    return found


# --- MAGRPO: joint returns ------------------------------------------------------------------


class _Paid(TypedDict):
    rewards: Sequence[float]


class Node(_Paid, total=False):
    """One turn after one history.

    `rewards` holds one number per joint action. `children` holds one node per joint action, None
    where that branch ends; without the key, with None or with an empty list they all end.
    """

    children: Sequence[Node | None] | None


def joint_returns(tree: Node, gamma: float) -> list[float]:
    """Return what each joint action of the root is worth: its reward and what follows.

    With r_j the reward of joint action j::

        R_j = r_j + gamma * mean(returns of child j)        R_j = r_j where the branch ends

    The paper sums without a turn discount (gamma = 1) along single branches; its library averages
    over the joint actions of the child.

    Args:
        tree: the root; for the returns of a later turn, that node.
        gamma: turn discount in [0, 1].

    Returns:
        One return per joint action of the root, in the order of its rewards.

    Raises:
        ValueError: `gamma` is outside [0, 1], or a node has no rewards, a reward that is not
            finite, or another number of children than of rewards. The path to the node is named.
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma is a turn discount in [0, 1], got {gamma!r}")
    return _returns(tree, gamma, "root")


def _returns(node: Node, gamma: float, path: str) -> list[float]:
    rewards = _rewards(node, path)
    children = node.get("children")
    if children is None or len(children) == 0:
        return rewards
    if len(children) != len(rewards):
        raise ValueError(
            f"{path} has {len(rewards)} rewards and {len(children)} children: each joint action "
            "leads to one child, or to None where its branch ends"
        )
    return [
        reward
        if child is None
        else reward + gamma * fmean(_returns(child, gamma, f"{path}.children[{j}]"))
        for j, (reward, child) in enumerate(zip(rewards, children, strict=True))
    ]


def _rewards(node: Node, path: str) -> list[float]:
    """Return a node's rewards as floats; ValueError unless there are some and all are finite."""
    rewards = [float(reward) for reward in node.get("rewards", ())]
    if not rewards or not all(map(math.isfinite, rewards)):
        raise ValueError(
            f"{path} needs 'rewards', one finite number per joint action, got {rewards}"
        )
    return rewards
