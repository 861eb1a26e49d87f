"""Trees of samples: at each node the agents that may speak sample several messages.

A node is a prefix of a debate. Its samples are joined into joint actions, each of which leads to a
child node; where one agent speaks at a time, a joint action is one message. A prefix determines the
state of the game, so environments are not cloned: its messages are replayed in a fresh debate. All
messages of a level are generated in one call, and all joint actions of a level scored in one.

MAGRPO grows trees of joint answers (arXiv 2508.04652): T turns, G or G^A joint actions a node. MALT
grows trees of single messages (arXiv 2412.01928, section 3.2): with three roles and three samples
each, a question costs 3 + 9 + 27 = 39 generations and has 27 leaves.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from maporl_agents import distributed
from maporl_agents.config import Joining, Sampling
from maporl_agents.models.caches.kept_caches import KeptCaches
from maporl_agents.models.fsdp import runs_together
from maporl_agents.models.team import Team
from maporl_agents.phases import phase
from maporl_agents.play.speak import Publishing, length_of, requests, speak, tools_of
from maporl_agents.seeding import seed_of
from maporl_agents.types import Completion, Request, StopReason, TokenIds
from maporl_env.batched import BatchedDebate
from maporl_env.protocols import PartialTurns
from maporl_env.types import Message, Question, Transcript

Steps = tuple[int, ...]
"""Index of the joint action that was taken at each node on the way from the root."""


@dataclass(slots=True)
class TreeNode:
    """A prefix of a debate and the messages sampled after it. Made by `grow_trees`.

    S agents speak at a node (all A, or one), each G times; their samples make J joint actions.

    Attributes:
        tree: index of the question among those that were asked; they may repeat.
        place: index of the node in its level, counted as if no debate ended early. It names the
            sampling noise, so that samples do not depend on the other branches.
        history: the prefix.
        path: the joint actions that led here; () at the root.
        own: ids of each agent's messages in the prefix, by agent index.
        turn: in [0, T).
        requests: policy, prompt and index of each agent that speaks here, (S,).
        completions: by speaker, then by sample, (S, G).
        actions: per joint action the sample that each speaker contributes, (J, S).
        rewards: per joint action the mean score of its messages; None where one of them has none.
        transcripts: per joint action the debate after it.
        children: per joint action the node that it leads to; None where the debate is over.
    """

    tree: int
    place: int
    history: Transcript
    path: Steps = ()
    own: Mapping[int, tuple[TokenIds, ...]] = field(default_factory=dict)
    turn: int = 0
    requests: tuple[Request, ...] = ()
    completions: tuple[tuple[Completion, ...], ...] = ()
    actions: tuple[tuple[int, ...], ...] = ()
    rewards: list[float | None] = field(default_factory=list)
    transcripts: list[Transcript] = field(default_factory=list)
    children: list[TreeNode | None] = field(default_factory=list)

    def nodes(self) -> Iterator[TreeNode]:
        """Yield this node and all below it, depth first."""
        yield self
        for child in self.children:
            if child is not None:
                yield from child.nodes()

    def said(self, action: int) -> list[Completion]:
        """Return the messages of a joint action, by speaker."""
        chosen = zip(self.completions, self.actions[action], strict=True)
        return [completions[sample] for completions, sample in chosen]


def below(nodes: Sequence[TreeNode]) -> list[TreeNode]:
    """Return the children of nodes, in order."""
    return [child for node in nodes for child in node.children if child is not None]


@phase("play")
def grow_trees(
    team: Team,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    group_sizes: Sequence[int],
    *,
    joining: Joining | None = None,
    seed: int,
    first_tree: int = 0,
) -> list[TreeNode]:
    """Grow one tree per question; return the roots. Of several ranks each grows a part of them.

    Args:
        team: the team that speaks.
        debates: the environment; its debates are replaced. Every branch is played to the end that
            its protocol sets: no reward ends it early.
        questions: one tree each.
        sampling: how messages are drawn.
        group_sizes: G, samples of each speaker, one number for each level of the tree.
        joining: of agents who speak at once: "aligned" joins their g-th samples (G joint actions a
            node), "cross" all combinations (G^A). None: one agent speaks at a time.
        seed: names the sampling noise. With one turn, aligned, it is that of `rollout.play` on
            every question G times in a row.
        first_tree: index of the first tree.

    Raises:
        ValueError: `joining` does not fit the protocol, or `group_sizes` does not have a number
            >= 1 for every level.
    """
    _check(debates, group_sizes, joining)
    alike = runs_together(team)  # every rank grows all trees
    part = slice(0, len(questions)) if alike else distributed.part_of(len(questions))
    roots = [
        TreeNode(index, index, Transcript(question, debates.agents))
        for index, question in enumerate(questions[part], start=first_tree + part.start)
    ]
    if isinstance(team.engine, Publishing):
        team.engine.pinned()  # all ranks send new weights at once, also those without a tree
    _grow(team, debates, roots, sampling, group_sizes, joining, seed)
    return roots if alike else distributed.joined("trees", roots)


def _grow(
    team: Team,
    debates: BatchedDebate,
    roots: Sequence[TreeNode],
    sampling: Sampling,
    group_sizes: Sequence[int],
    joining: Joining | None,
    seed: int,
) -> None:
    """Grow the trees of this rank, level by level."""
    # Runs that are resumed have drawn their noise from streams of these names.
    stream = "expand" if joining is None else "sample"
    nodes = roots
    kept = KeptCaches(team.bases, sampling.cache_gb)
    for level, group_size in enumerate(group_sizes):
        if not nodes:
            return  # every debate has ended early, by consensus
        noise = seed_of(seed, stream, level)
        _sample(team, debates, nodes, sampling, group_size, joining or "aligned", noise, kept)
        _act(debates, nodes)
        nodes = below(nodes)


def _check(debates: BatchedDebate, group_sizes: Sequence[int], joining: Joining | None) -> None:
    protocol = debates.game.protocol
    if debates.game.drafting is not None:
        raise ValueError(
            "a tree of samples has no drafts, since each sample is a message of its own: set "
            "tries to 1, or choose a scheme without trees, such as maporl or grpo"
        )
    if isinstance(protocol, PartialTurns):
        raise ValueError(
            "a tree of samples has the same speakers at all nodes of a level, and in protocol "
            f"{debates.game.config.protocol!r} who speaks may differ from turn to turn: choose "
            "another scheme, such as maporl or grpo"
        )
    if joining is None and protocol.simultaneous:
        raise ValueError(
            "a tree of samples needs a protocol in which one agent speaks at a time, such as "
            "'pipeline' or 'sequential'; in this one they speak at once"
        )
    if joining is not None and not protocol.simultaneous:
        raise ValueError(
            "joint actions need a protocol in which all agents speak at once, such as 'joint' or "
            "'debate'"
        )
    speakers = 1 if protocol.simultaneous else len(debates.agents)
    levels = protocol.num_turns * speakers
    if len(group_sizes) != levels or min(group_sizes, default=0) < 1:
        unit = "turns" if protocol.simultaneous else "messages"
        raise ValueError(
            f"group_sizes {tuple(group_sizes)} must have a number >= 1 for each of the {levels} "
            f"{unit} of a debate"
        )


def joint_actions(
    group_size: int, num_speakers: int, joining: Joining
) -> tuple[tuple[int, ...], ...]:
    """Return the samples that each joint action of a node consists of, (J, S)."""
    if joining == "aligned":
        return tuple((g,) * num_speakers for g in range(group_size))
    return tuple(itertools.product(range(group_size), repeat=num_speakers))


def _sample(
    team: Team,
    debates: BatchedDebate,
    nodes: Sequence[TreeNode],
    sampling: Sampling,
    group_size: int,
    joining: Joining,
    noise: int,
    kept: KeptCaches,
) -> None:
    """Sample G messages of every agent that may speak at the nodes, in one call."""
    debates.take_over([debates.game.restore(node.history) for node in nodes])
    prompts = debates.prompts()
    own = [nodes[prompt.debate].own.get(prompt.agent_index, ()) for prompt in prompts]
    made = requests(team, prompts, own, length=length_of(debates))
    for prompt, request in zip(prompts, made, strict=True):
        node = nodes[prompt.debate]
        node.turn = prompt.turn
        node.requests = (*node.requests, request)
    # By node, then sample, then speaker: the order in which G copies of a debate would be played.
    asked = [
        replace(one, debate=node.place * group_size + sample)
        for node in nodes
        for sample in range(group_size)
        for one in node.requests
    ]
    tools = tools_of(debates)
    spoken = iter(speak(team, asked, sampling, noise, kept=kept, tools=tools))
    for node in nodes:
        rows = [[next(spoken) for _ in node.requests] for _ in range(group_size)]  # (G, S)
        node.completions = tuple(zip(*rows, strict=True))  # (S, G)
        node.actions = joint_actions(group_size, len(node.requests), joining)


def _act(debates: BatchedDebate, nodes: Sequence[TreeNode]) -> None:
    """Step all joint actions of the nodes, with one verifier call, and add the children."""
    taken = [(node, node.said(action)) for node in nodes for action in range(len(node.actions))]
    debates.take_over([debates.game.restore(node.history) for node, _ in taken])
    debates.step(
        [completion.text for _, said in taken for completion in said],
        [completion.stop is StopReason.LENGTH for _, said in taken for completion in said],
    )
    for (node, said), debate in zip(taken, debates.debates, strict=True):
        transcript = debate.transcript
        node.rewards.append(joint_reward(transcript.messages[len(node.history.messages) :]))
        node.transcripts.append(transcript)
        node.children.append(None if debate.over else _child(node, said, transcript))


def _child(node: TreeNode, said: Sequence[Completion], transcript: Transcript) -> TreeNode:
    """Return the node that the next joint action of `node` leads to."""
    spoken = {
        request.agent: (*node.own.get(request.agent, ()), completion.ids)
        for request, completion in zip(node.requests, said, strict=True)
    }
    action = len(node.children)
    place = node.place * len(node.actions) + action
    path = (*node.path, action)
    return TreeNode(node.tree, place, transcript, path, {**node.own, **spoken})


def joint_reward(messages: Sequence[Message]) -> float | None:
    """Return the mean score of messages (equal in protocol "joint"); None if one has no score."""
    scores = [message.score for message in messages]
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if len(known) == len(scores) else None
