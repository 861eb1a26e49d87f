"""The messages of trees as rows, which MALT stores in its files and trains on.

A row holds a message and its place in the tree of its question, so that a later stage, or a resumed
run, reads nothing but a file of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maporl_agents.trees.sample_tree import Steps, TreeNode, below
from maporl_agents.types import Completion, KeptIds, Rollout, StopReason, TokenIds
from maporl_env.types import Message, Question, Transcript


@dataclass(frozen=True, slots=True)
class Sample:
    """One message and its place in the tree of its question. Made by `samples_of`.

    Attributes:
        tree: index of the question among those that were asked; they may repeat.
        path: the indices among siblings of the earlier messages and, last, of this one: (2, 0) is
            the first continuation of the third message.
        question: id of the question.
        agent: index of the agent; "seat" in files.
        turn: in [0, T).
        policy: name of the policy that wrote it.
        prompt: ids of its prompt.
        completion: the message.
        score: the verifier's score of the finished debate; None where this is no leaf or the
            verifier failed.
    """

    tree: int
    path: Steps
    question: str
    agent: int
    turn: int
    policy: str
    prompt: TokenIds
    completion: Completion
    score: float | None = None

    @property
    def place(self) -> tuple[int, Steps]:
        """Tree and path, unique among all samples."""
        return self.tree, self.path

    @property
    def parent(self) -> tuple[int, Steps]:
        """Tree and path of the prefix that it shares with its siblings."""
        return self.tree, self.path[:-1]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; long lists of ids come last.

        Kept sets are left out: what is learnt from trees is over the whole vocabulary.
        """
        forced = self.completion.kept.forced if self.completion.kept else ()
        return {
            "tree": self.tree,
            "path": list(self.path),
            "question": self.question,
            "seat": self.agent,
            "turn": self.turn,
            "policy": self.policy,
            "score": self.score,
            "text": self.completion.text,
            "stop": self.completion.stop.value,
            "ids": list(self.completion.ids),
            "logprobs": list(self.completion.logprobs),
            "prompt": list(self.prompt),
        } | ({"forced": list(forced)} if forced else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sample:
        """Inverse of :meth:`to_dict`."""
        ids = tuple(data["ids"])
        completion = Completion(
            ids=ids,
            logprobs=tuple(data["logprobs"]),
            text=data["text"],
            stop=StopReason(data["stop"]),
            kept=KeptIds.of_forced({i: ids[i] for i in data.get("forced", ())}, len(ids)),
        )
        return cls(
            tree=data["tree"],
            path=tuple(data["path"]),
            question=data["question"],
            agent=data["seat"],
            turn=data["turn"],
            policy=data["policy"],
            prompt=tuple(data["prompt"]),
            completion=completion,
            score=data["score"],
        )


def samples_of(roots: Sequence[TreeNode]) -> list[Sample]:
    """Return the messages of trees in which one agent speaks at a time, level by level."""
    found: list[Sample] = []
    nodes = list(roots)
    while nodes:
        found += [sample for node in nodes for sample in _samples(node)]
        nodes = below(nodes)
    return found


def _samples(node: TreeNode) -> Iterator[Sample]:
    [request], [completions] = node.requests, node.completions
    ends = zip(completions, node.rewards, node.children, strict=True)
    for branch, (completion, reward, child) in enumerate(ends):
        yield Sample(
            tree=node.tree,
            path=(*node.path, branch),
            question=node.history.question.id,
            agent=request.agent,
            turn=node.turn,
            policy=request.policy,
            prompt=request.prompt,
            completion=completion,
            score=reward
            if child is None
            else None,  # the score of a turn is not that of the debate
        )


def first_passes(
    samples: Sequence[Sample], questions: Sequence[Question], agents: Sequence[str]
) -> list[Rollout]:
    """Return the debate of first siblings of every tree: one ordinary pass over each question.

    All messages have the score of the leaf, as in `protocols.Pipeline`, and it is their reward.
    """
    firsts: dict[int, list[Sample]] = {index: [] for index in range(len(questions))}
    for one in samples:
        if not any(one.path):
            firsts[one.tree].append(one)
    return [_rollout(firsts[index], question, agents) for index, question in enumerate(questions)]


def _rollout(spoken: Sequence[Sample], question: Question, agents: Sequence[str]) -> Rollout:
    score = spoken[-1].score
    messages = tuple(
        Message(
            one.turn,
            agents[one.agent],
            one.completion.text,
            score,
            one.completion.stop is StopReason.LENGTH,
        )
        for one in spoken
    )
    shape = (spoken[-1].turn + 1, len(agents))
    return Rollout(
        transcript=Transcript(question, tuple(agents), messages),
        prompts=tuple(one.prompt for one in spoken),
        completions=tuple(one.completion for one in spoken),
        policies=tuple(one.policy for one in spoken),
        rewards=np.full(shape, score or 0.0),
        scored=np.full(shape, score is not None),
    )
