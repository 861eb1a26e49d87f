"""Monte-Carlo values of the messages of a tree, the credit of MALT.

Motwani et al., arXiv 2412.01928, section 3.2: the value of a message is the mean of the values of
its continuations, and a message is positive if its value is above a threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, NamedTuple, TypeVar

from maporl_agents.trees.sample_tree import Steps
from maporl_agents.trees.samples import Sample

RIGHT = 0.5
"""A leaf is right if its score is above this."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A sample with its value and label. Made by `judge`.

    Attributes:
        sample: the message.
        value: the share of right leaves below it, each continuation with equal weight; in [0, 1].
        positive: whether the value is above the threshold.
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
    """The result of :func:`tree_values`: `values` in [0, 1], and `labels`, True = positive."""

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
    _check(threshold)
    if len(leaves) == 0:
        raise ValueError("leaves is empty: a tree has at least one generation")
    found = values_by_path(_read(leaves))
    values = Roles(
        generator=[float(found[(g,)]) for g in range(len(leaves))],
        verifier=[
            [float(found[g, v]) for v in range(len(branch))] for g, branch in enumerate(leaves)
        ],
        refiner=[
            [[float(found[g, v, r]) for r in range(len(row))] for v, row in enumerate(branch)]
            for g, branch in enumerate(leaves)
        ],
    )
    return TreeValues(values, _positive(values, threshold))


def values_by_path(leaves: Mapping[Steps, Fraction]) -> dict[Steps, Fraction]:
    """Return the value of every leaf and of every node above one, by path.

    Args:
        leaves: values by path; all paths have one length. The root, (), is no message and has
            no value.
    """
    values = dict(leaves)
    level = values
    # One level up per pass: group the children by their parent's path and take the mean.
    while any(len(path) > 1 for path in level):
        families: defaultdict[Steps, list[Fraction]] = defaultdict(list)
        for path, value in level.items():
            families[path[:-1]].append(value)
        # Exact: a sum of floats could fall to either side of the threshold.
        level = {path: sum(of, Fraction(0)) / len(of) for path, of in families.items()}
        values = values | level
    return values


def _check(threshold: float) -> None:
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold must lie in [0, 1), got {threshold!r}")


def _read(leaves: Sequence[Sequence[Sequence[int]]]) -> dict[Steps, Fraction]:
    """Return nested leaves by path; ValueError for an empty list or what is neither 0 nor 1."""
    try:
        return {
            (g, v, r): _leaf(leaf, (g, v, r))
            for g, branch in enumerate(leaves)
            for v, row in enumerate(_children(branch, f"leaves[{g}]"))
            for r, leaf in enumerate(_children(row, f"leaves[{g}][{v}]"))
        }
    except TypeError:
        raise ValueError("leaves must be lists nested three deep, leaves[g][v][r]") from None


Entry = TypeVar("Entry")


def _children(entries: Sequence[Entry], where: str) -> Sequence[Entry]:
    if len(entries) == 0:
        raise ValueError(f"{where} is empty: a sample's value is the mean over its children")
    return entries


def _leaf(leaf: int, place: tuple[int, int, int]) -> Fraction:
    if leaf not in (0, 1):
        g, v, r = place
        raise ValueError(f"leaves[{g}][{v}][{r}] must be 0 (wrong) or 1 (right), got {leaf!r}")
    return Fraction(int(leaf))


def _positive(values: Roles[float], threshold: float) -> Roles[bool]:
    return Roles(
        generator=[value > threshold for value in values.generator],
        verifier=[[value > threshold for value in row] for row in values.verifier],
        refiner=[[[v > threshold for v in row] for row in branch] for branch in values.refiner],
    )


def judge(samples: Sequence[Sample], threshold: float) -> list[Judged]:
    """Return the samples with their values and labels, those without any scored leaf left out.

    Args:
        samples: of any number of trees; the longest paths among them are those of the leaves.
        threshold: a sample is positive if its value is above it; in [0, 1).
    """
    _check(threshold)
    depth = max((len(sample.path) for sample in samples), default=0)  # of the leaves
    leaves: defaultdict[int, dict[Steps, Fraction]] = defaultdict(dict)
    for sample in samples:
        if len(sample.path) == depth and sample.score is not None:
            leaves[sample.tree][sample.path] = Fraction(sample.score > RIGHT)  # 0 or 1
    values = {
        (tree, path): float(value)
        for tree, ends in leaves.items()
        for path, value in values_by_path(ends).items()
    }
    return [
        Judged(sample, values[sample.place], values[sample.place] > threshold)
        for sample in samples
        if sample.place in values
    ]
