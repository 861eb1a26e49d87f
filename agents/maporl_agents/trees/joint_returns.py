"""Joint returns, the credit of MAGRPO (Liu et al., arXiv 2508.04652).

The return of a joint action is its reward plus the discounted mean return of its child node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TypedDict

from maporl_agents.trees.sample_tree import TreeNode


def action_returns(node: TreeNode, gamma: float) -> list[float | None]:
    """Return the return of each joint action of a grown node, None where it has no score.

    As `joint_returns` of the tree without the joint actions that have no score.

    Args:
        node: a node of a tree that `sample_tree.grow_trees` made.
        gamma: turn discount in [0, 1].
    """
    # A child whose joint actions all lack a score adds nothing.
    return [
        None if reward is None else _backed_up(reward, _scored_returns(child, gamma), gamma)
        for reward, child in zip(node.rewards, node.children, strict=True)
    ]


def _scored_returns(node: TreeNode | None, gamma: float) -> list[float]:
    found = [] if node is None else action_returns(node, gamma)
    return [value for value in found if value is not None]


def _backed_up(reward: float, later: Sequence[float], gamma: float) -> float:
    """Return r + gamma * mean(returns of the child); r alone where nothing follows."""
    return reward + gamma * fmean(later) if later else reward


# --- The same for a tree of plain lists ------------------------------------------------------


class _Rewarded(TypedDict):
    rewards: Sequence[float]


class Node(_Rewarded, total=False):
    """One turn after one history.

    `rewards` holds one number per joint action. `children` holds one node per joint action, None
    where that branch ends; without the key, with None or with an empty list they all end.
    """

    children: Sequence[Node | None] | None


def joint_returns(tree: Node, gamma: float) -> list[float]:
    """Return the return of each joint action of the root: its reward plus the returns below.

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
        _backed_up(
            reward,
            [] if child is None else _returns(child, gamma, f"{path}.children[{j}]"),
            gamma,
        )
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
