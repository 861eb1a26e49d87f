"""Trees of joint answers: at each node every agent samples several messages, joined into actions.

A node is a turn after one history; each joint action is paid once and leads to a node of its own.
As in `expansion`, a history is a state of the game: it is told again to fresh debates, and nothing
is cloned. All nodes of a turn are sampled in one call, all joint actions scored in one.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from maporl_agents.config import Joining, Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests, speak
from maporl_agents.seeding import seed_of
from maporl_agents.trees.sample_tree import retell
from maporl_agents.types import Completion, Rollout, StopReason, TokenIds
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question, Transcript


@dataclass(slots=True)
class JointNode:
    """One turn after one history. Made by `grow`, read by `algorithms.magrpo`.

    Attributes:
        tree: index of the question among those that were asked.
        turn: in [0, T).
        prompts: what each agent read, by seat.
        policies: who wrote for each agent, by seat.
        completions: by seat, then by sample: (A, G).
        actions: per joint action the sample that each agent contributes, (J, A).
        rewards: per joint action, None where the verifier failed.
        transcripts: what has been said after each joint action.
        children: the node that each joint action leads to; None where the debate is over.
    """

    tree: int
    turn: int
    prompts: tuple[TokenIds, ...]
    policies: tuple[str, ...]
    completions: tuple[tuple[Completion, ...], ...]
    actions: tuple[tuple[int, ...], ...]
    rewards: list[float | None] = field(default_factory=list)
    transcripts: list[Transcript] = field(default_factory=list)
    children: list[JointNode | None] = field(default_factory=list)

    def nodes(self) -> Iterator[JointNode]:
        """Yield this node and all below it."""
        yield self
        for child in self.children:
            if child is not None:
                yield from child.nodes()


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A history that is to be continued, the ids each agent wrote in it, and where it came from."""

    tree: int
    transcript: Transcript
    own: tuple[tuple[TokenIds, ...], ...]
    parent: JointNode | None = None
    action: int = 0


def grow(
    team: Team,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    group_size: int,
    joining: Joining,
    seed: int,
) -> list[JointNode]:
    """Grow one tree per question; return the roots.

    Args:
        team: who speaks.
        debates: the environment; its debates are replaced. Every branch is played to the end that
            its protocol sets: no reward ends it early.
        questions: one tree each.
        sampling: how messages are drawn.
        group_size: G, samples of each agent at each node.
        joining: "aligned" joins the g-th samples (G joint actions a node), "cross" all
            combinations (G^A).
        seed: names the sampling noise. With one turn, aligned, it is that of `rollout.play` on
            every question G times in a row.

    Raises:
        ValueError: agents speak one after another, so that there are no joint actions.
    """
    if not debates.game.protocol.simultaneous:
        raise ValueError(
            "joint actions need a protocol in which all agents speak at once, such as 'joint' or "
            "'debate'"
        )
    nobody = ((),) * len(debates.agents)
    prefixes = [
        _Prefix(tree, Transcript(question, debates.agents), nobody)
        for tree, question in enumerate(questions)
    ]
    roots: list[JointNode] = []
    turn = 0
    while prefixes:
        stream = seed_of(seed, "sample", turn)
        nodes = _sample(team, debates, prefixes, sampling, group_size, joining, stream)
        roots = roots or nodes
        prefixes = _act(debates, prefixes, nodes)
        turn += 1
    return roots


def joint_actions(
    group_size: int, num_agents: int, joining: Joining
) -> tuple[tuple[int, ...], ...]:
    """Return the joint actions of a node, (J, A)."""
    if joining == "aligned":
        return tuple((g,) * num_agents for g in range(group_size))
    return tuple(itertools.product(range(group_size), repeat=num_agents))


def _sample(
    team: Team,
    debates: BatchedDebate,
    prefixes: Sequence[_Prefix],
    sampling: Sampling,
    group_size: int,
    joining: Joining,
    stream: int,
) -> list[JointNode]:
    """Let every agent speak G times after every prefix, in one call."""
    debates.take_over([retell(debates.game, prefix.transcript) for prefix in prefixes])
    prompts = debates.prompts()
    asked = requests(team, prompts, [prefixes[p.debate].own[p.seat] for p in prompts])
    width = len(debates.agents)
    # By prefix, then sample, then seat: the order in which G copies of a debate would be played.
    order = [
        first + seat
        for first in range(0, len(asked), width)
        for _ in range(group_size)
        for seat in range(width)
    ]
    spoken = speak(team, [asked[i] for i in order], sampling, stream)
    size = width * group_size
    return [
        JointNode(
            tree=prefix.tree,
            turn=prompts[first].turn,
            prompts=tuple(request.prompt for request in asked[first : first + width]),
            policies=tuple(request.policy for request in asked[first : first + width]),
            completions=tuple(
                tuple(spoken[place * size + seat : (place + 1) * size : width])
                for seat in range(width)
            ),
            actions=joint_actions(group_size, width, joining),
        )
        for place, prefix in enumerate(prefixes)
        for first in [place * width]
    ]


def _act(
    debates: BatchedDebate, prefixes: Sequence[_Prefix], nodes: Sequence[JointNode]
) -> list[_Prefix]:
    """Carry out all joint actions, in one call of the verifier; return what goes on."""
    copies = [
        (prefix, node, action)
        for prefix, node in zip(prefixes, nodes, strict=True)
        for action in node.actions
    ]
    debates.take_over([retell(debates.game, prefix.transcript) for prefix, _, _ in copies])
    said = [
        [node.completions[seat][sample] for seat, sample in enumerate(action)]
        for _, node, action in copies
    ]
    debates.step(
        [completion.text for each in said for completion in each],
        [completion.stop is StopReason.LENGTH for each in said for completion in each],
    )
    for prefix, node in zip(prefixes, nodes, strict=True):
        if prefix.parent is not None:
            prefix.parent.children[prefix.action] = node
    going: list[_Prefix] = []
    for (prefix, node, _), completions, debate in zip(copies, said, debates.debates, strict=True):
        node.rewards.append(joint_reward(debate.transcript, node.turn))
        node.transcripts.append(debate.transcript)
        node.children.append(None)
        if not debate.over:
            own = tuple(
                (*before, completion.ids)
                for before, completion in zip(prefix.own, completions, strict=True)
            )
            place = len(node.children) - 1
            going.append(_Prefix(node.tree, debate.transcript, own, node, place))
    return going


def joint_reward(transcript: Transcript, turn: int) -> float | None:
    """Return the mean score of a turn's messages (all the same in protocol "joint"), or None."""
    scores = [message.score for message in transcript.of_turn(turn)]
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if len(known) == len(scores) else None


Path = list[tuple[JointNode, int]]
"""A way through a tree: the node of each turn, and the joint action that was taken there."""


def branches(root: JointNode) -> Iterator[Rollout]:
    """Yield every way through a tree as the debate it is; what comes early occurs in several."""
    yield from map(_rollout, _paths(root, []))


def first_new_turns(root: JointNode) -> Iterator[int]:
    """Yield per way, in the order of `branches`, the first turn that no way before it went through.

    Ways share their beginning with the one before up to the last action that is not a node's first.
    """
    for path in _paths(root, []):
        yield max((turn for turn, (_, action) in enumerate(path) if action), default=0)


def _paths(node: JointNode, before: Path) -> Iterator[Path]:
    for action, child in enumerate(node.children):
        path = [*before, (node, action)]
        if child is not None:
            yield from _paths(child, path)
        else:
            yield path


def _rollout(path: Path) -> Rollout:
    places = [
        (node, seat, sample)
        for node, action in path
        for seat, sample in enumerate(node.actions[action])
    ]
    paid = [node.rewards[action] for node, action in path]
    shape = (len(path), len(path[0][0].prompts))
    rewards = np.array([0.0 if reward is None else reward for reward in paid])
    last, action = path[-1]
    return Rollout(
        transcript=last.transcripts[action],
        prompts=tuple(node.prompts[seat] for node, seat, _ in places),
        completions=tuple(node.completions[seat][sample] for node, seat, sample in places),
        policies=tuple(node.policies[seat] for node, seat, _ in places),
        rewards=np.broadcast_to(rewards[:, None], shape).copy(),
        scored=np.broadcast_to(np.array([r is not None for r in paid])[:, None], shape).copy(),
    )
