"""Returns of joint actions through a tree of turns, as plain lists and as sampled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from made_trees import node

from maporl_agents.advantages import group_advantages
from maporl_agents.trees.joint_returns import Node, action_returns, joint_returns
from maporl_agents.trees.sample_tree import TreeNode

HAND: Node = {
    "rewards": [0.4, 0.1],
    "children": [{"rewards": [1.0, 0.0]}, {"rewards": [0.5, 0.3], "children": []}],
}


def test_a_two_turn_tree_by_hand() -> None:
    # .4 + .5 * (1 + 0) / 2 = .65 and .1 + .5 * (.5 + .3) / 2 = .30
    assert joint_returns(HAND, 0.5) == pytest.approx([0.65, 0.30], abs=1e-15)
    assert joint_returns(HAND, 0) == [0.4, 0.1]
    assert joint_returns(HAND, 1) == pytest.approx([0.9, 0.5], abs=1e-15)


def test_the_advantages_of_every_node_by_hand() -> None:
    nodes = [HAND, *HAND["children"]]  # type: ignore[misc]  # it has two
    returns = [value for node in nodes for value in joint_returns(node, 0.5)]
    group_ids = torch.tensor([0, 0, 1, 1, 2, 2])
    rewards = torch.tensor(returns, dtype=torch.float64)
    # (.65 - .30) / 2, (1 - 0) / 2, (.5 - .3) / 2; one number per joint action: all agents share it
    expected = [0.175, -0.175, 0.5, -0.5, 0.1, -0.1]
    assert group_advantages(rewards, group_ids).tolist() == pytest.approx(expected, abs=1e-15)


def test_one_turn_returns_the_rewards() -> None:
    for leaf in ({"rewards": [3, 1]}, {"rewards": [3, 1], "children": None}):
        assert joint_returns(leaf, 0.9) == [3.0, 1.0]  # type: ignore[arg-type]


def test_a_branch_may_end_before_the_others() -> None:
    tree: Node = {"rewards": [2, 1], "children": [None, {"rewards": [4, 6]}]}
    assert joint_returns(tree, 0.5) == [2.0, 1 + 0.5 * 5]


def test_three_turns_and_a_number_of_joint_actions_that_differs() -> None:
    last: Node = {"rewards": [8, 0, 4, 0]}  # mean 3
    middle: Node = {"rewards": [1], "children": [last]}  # 1 + 3/2 = 2.5
    assert joint_returns({"rewards": [0], "children": [middle]}, 0.5) == [1.25]


def paths(tree: Node, gamma: float) -> tuple[float, float]:
    """A slow twin: the mean discounted sum over all ways through a tree, each step at random."""
    total = weight = 0.0
    stack = [(tree, 0.0, 1.0, 1.0)]
    while stack:
        node, paid, discount, chance = stack.pop()
        chance /= len(node["rewards"])
        children = node.get("children") or [None] * len(node["rewards"])
        for reward, child in zip(node["rewards"], children, strict=True):
            summed = paid + discount * reward
            if child is None:
                total, weight = total + chance * summed, weight + chance
            else:
                stack.append((child, summed, discount * gamma, chance))
    return total, weight


def random_tree(rng: np.random.Generator, depth: int) -> Node:
    rewards = rng.normal(size=rng.integers(1, 4)).tolist()
    if depth == 0:
        return {"rewards": rewards}
    children = [random_tree(rng, depth - 1) if rng.random() < 0.8 else None for _ in rewards]
    return {"rewards": rewards, "children": children}


@pytest.mark.parametrize("seed", range(10))
def test_the_mean_return_is_the_mean_over_all_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree, gamma = random_tree(rng, 3), float(rng.random())
    mean, weight = paths(tree, gamma)
    assert weight == pytest.approx(1)
    assert np.mean(joint_returns(tree, gamma)) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("tree", "gamma", "complaint"),
    [
        (HAND, 1.1, r"gamma is a turn discount in \[0, 1\], got 1.1"),
        (HAND, math.nan, "gamma is a turn discount"),
        ({"rewards": []}, 1, "root needs 'rewards'"),
        ({}, 1, "root needs 'rewards'"),
        ({"rewards": [math.nan]}, 1, "one finite number per joint action"),
        ({"rewards": [1, 2], "children": [{"rewards": [1]}]}, 1, "2 rewards and 1 children"),
        (
            {"rewards": [1, 2], "children": [None, {"rewards": [math.inf]}]},
            1,
            r"root.children\[1\] needs 'rewards'",
        ),
    ],
)
def test_a_wrong_tree_is_refused_with_its_place(tree: Any, gamma: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        joint_returns(tree, gamma)


@pytest.mark.parametrize("seed", range(5))
def test_a_grown_tree_has_the_returns_of_its_scored_actions_as_plain_lists(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def grown(depth: int) -> TreeNode:
        rewards = [None if rng.random() < 0.3 else rng.random() for _ in range(3)]
        below = [grown(depth - 1) if depth and rng.random() < 0.7 else None for _ in rewards]
        return node(rewards, children=below)

    def plain(tree: TreeNode | None) -> Any:
        scored = [j for j, reward in enumerate(tree.rewards) if reward is not None] if tree else []
        if tree is None or not scored:
            return None
        children = [plain(tree.children[j]) for j in scored]
        return {"rewards": [tree.rewards[j] for j in scored], "children": children}

    tree, gamma = grown(3), float(rng.random())
    returns = action_returns(tree, gamma)
    assert [value is None for value in returns] == [reward is None for reward in tree.rewards]
    known = [value for value in returns if value is not None]
    assert known == (joint_returns(plain(tree), gamma) if known else [])
