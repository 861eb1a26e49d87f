"""Turns every path from the root of a tree to a leaf into a debate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from maporl_agents.trees.sample_tree import TreeNode
from maporl_agents.types import Rollout

Path = list[tuple[TreeNode, int]]
"""The nodes from the root to a leaf, and the joint action that was taken at each."""


def branches(root: TreeNode) -> Iterator[Rollout]:
    """Yield every path through a tree as a debate; debates may share their first turns."""
    yield from map(_rollout, _paths(root, []))


def first_new_turns(root: TreeNode) -> Iterator[int]:
    """Yield, in the order of `branches`, the first turn of each path that no earlier path contains.

    Paths come depth first: a path shares all turns with the one before, up to its last action with
    an index above 0.
    """
    for path in _paths(root, []):
        yield max((node.turn for node, action in path if action), default=0)


def _paths(node: TreeNode, before: Path) -> Iterator[Path]:
    for action, child in enumerate(node.children):
        path = [*before, (node, action)]
        if child is not None:
            yield from _paths(child, path)
        else:
            yield path


def _rollout(path: Path) -> Rollout:
    last, action = path[-1]
    transcript = last.transcripts[action]
    rewards = np.zeros((last.turn + 1, len(transcript.agents)))  # (T, A)
    scored = np.zeros(rewards.shape, dtype=bool)
    for node, taken in path:
        reward = node.rewards[taken]
        speakers = [request.agent for request in node.requests]
        rewards[node.turn, speakers] = 0.0 if reward is None else reward
        scored[node.turn, speakers] = reward is not None
    asked = [request for node, _ in path for request in node.requests]
    return Rollout(
        transcript=transcript,
        prompts=tuple(request.prompt for request in asked),
        completions=tuple(one for node, taken in path for one in node.said(taken)),
        policies=tuple(request.policy for request in asked),
        rewards=rewards,
        scored=scored,
    )
