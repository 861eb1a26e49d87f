"""Sampled trees made by hand, and joint debates from which trees are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from miniatures import completion

from maporl_agents.config import Sampling
from maporl_agents.play.speak import Request
from maporl_agents.trees.sample_tree import Steps, TreeNode, joint_actions
from maporl_agents.trees.samples import Sample
from maporl_agents.types import Completion, StopReason
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question, Transcript


def bits(*rows: str) -> list[list[int]]:
    """Return the scores of one branch's leaves, a row of digits per message above them."""
    return [[int(bit) for bit in row] for row in rows]


def sample(
    path: Steps, score: float | None = None, tree: int = 0, ids: tuple[int, ...] = ()
) -> Sample:
    """Return a sample at a place; its tokens are its path unless others are given."""
    said = Completion(ids or (7, *path), (-1.0,) * len(ids or (7, *path)), "text", StopReason.EOS)
    seat = len(path) - 1
    return Sample(tree, path, f"q{tree}", seat, 0, f"agent_{seat}", (5, seat), said, score)


def grown(leaves: Sequence[Sequence[Sequence[float | None]]], tree: int = 0) -> list[Sample]:
    """Return the samples of a tree of three roles whose leaves have these scores."""
    samples = []
    for g, branch in enumerate(leaves):
        samples.append(sample((g,), tree=tree))
        for v, row in enumerate(branch):
            samples.append(sample((g, v), tree=tree))
            samples += [sample((g, v, r), score, tree) for r, score in enumerate(row)]
    return samples


BY_HAND = [bits("110", "110", "000"), bits("111", "100", "100")]
"""Two generations with values 4/9 and 5/9, three verifications each."""


def node(
    rewards: Sequence[float | None], joining: str = "aligned", children: Sequence[Any] = ()
) -> TreeNode:
    """Return a node of two agents with empty messages, and as many samples as it needs."""
    group = len(rewards) if joining == "aligned" else round(len(rewards) ** 0.5)
    actions = joint_actions(group, 2, joining)  # type: ignore[arg-type]
    said = tuple(completion((1, 2)) for _ in range(group))
    return TreeNode(
        tree=0,
        place=0,
        history=Transcript(Question("q", "how much ?", "1"), ("agent_0", "agent_1")),
        requests=tuple(Request(f"agent_{agent}", (1,), agent, 0) for agent in range(2)),
        completions=(said, said),
        actions=actions,
        rewards=list(rewards),
        children=list(children) or [None] * len(rewards),
    )


LENGTHS = {"verifier": lambda _, texts: [min(1.0, len(text) / 100) for text in texts]}


def joint_debates(num_turns: int = 1, num_agents: int = 2, **options: Any) -> BatchedDebate:
    """Return debates whose agents write one answer together; longer texts have higher scores."""
    given: dict[str, Any] = {"task": "shopping", "protocol": "joint", "show_parts": False}
    given |= LENGTHS | options
    return BatchedDebate(DebateConfig(num_agents=num_agents, num_turns=num_turns, **given), 8)


def asked(count: int) -> list[Question]:
    return [Question(f"q{i}", f"how much is {i} ?", "1") for i in range(count)]


SAMPLING = Sampling(max_new_tokens=4)
