"""MAGRPO's credit: from the rewards of joint actions to one return each, through a tree of turns.

Liu et al., "LLM Collaboration with Multi-Agent Reinforcement Learning" (arXiv 2508.04652). At a
node (a turn, and what came before it) the agents sample several joint actions; each is paid once,
for all agents, and leads to a child node. The returns of a node are one group for
`advantages.group_advantages(..., scale="none")`: the same advantage for every agent and token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict


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
        else reward + gamma * _mean(_returns(child, gamma, f"{path}.children[{j}]"))
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


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
