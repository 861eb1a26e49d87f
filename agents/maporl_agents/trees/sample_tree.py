"""Trees of samples: every message is one of several that continue the same prefix.

A prefix of a transcript is a state of the game, so nothing is cloned: the prefix is told again to a
fresh debate, and whoever is next speaks once more. All messages of a level are generated in one
call, all leaves scored in one. With three roles and three samples each, a question costs
3 + 9 + 27 = 39 generations and has 27 leaves (MALT, arXiv 2412.01928, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.speak import Request, requests, speak
from maporl_agents.seeding import seed_of
from maporl_agents.types import Completion, Rollout, StopReason, TokenIds
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.debate import Debate
from maporl_env.game import Game
from maporl_env.types import Message, Question, Transcript

Steps = tuple[int, ...]
"""Which sibling each message on the way from the root was, counted from 0."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message and its place in the tree of its question. Made by `expand`.

    Attributes:
        tree: index of the question among those that were asked; they may repeat.
        path: its place among its siblings, behind those of the messages before it: (2, 0) is the
            first message that continues the third one.
        question: id of the question.
        seat: index of the agent.
        turn: in [0, T).
        policy: who wrote it.
        prompt: what it continues.
        completion: what was written.
        score: the verifier's, of the finished debate; None unless this is a leaf, and where the
            verifier failed.
    """

    tree: int
    path: Steps
    question: str
    seat: int
    turn: int
    policy: str
    prompt: TokenIds
    completion: Completion
    score: float | None = None

    @property
    def place(self) -> tuple[int, Steps]:
        """What names it among all samples."""
        return self.tree, self.path

    @property
    def parent(self) -> tuple[int, Steps]:
        """What names the prefix that it shares with its siblings."""
        return self.tree, self.path[:-1]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict, what people read first."""
        return {
            "tree": self.tree,
            "path": list(self.path),
            "question": self.question,
            "seat": self.seat,
            "turn": self.turn,
            "policy": self.policy,
            "score": self.score,
            "text": self.completion.text,
            "stop": self.completion.stop.value,
            "ids": list(self.completion.ids),
            "logprobs": list(self.completion.logprobs),
            "prompt": list(self.prompt),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sample:
        """Inverse of :meth:`to_dict`."""
        completion = Completion(
            ids=tuple(data["ids"]),
            logprobs=tuple(data["logprobs"]),
            text=data["text"],
            stop=StopReason(data["stop"]),
        )
        return cls(
            tree=data["tree"],
            path=tuple(data["path"]),
            question=data["question"],
            seat=data["seat"],
            turn=data["turn"],
            policy=data["policy"],
            prompt=tuple(data["prompt"]),
            completion=completion,
            score=data["score"],
        )


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A transcript that is to be continued, and the ids that each agent has written in it."""

    tree: int
    path: Steps
    transcript: Transcript
    own: Mapping[int, tuple[TokenIds, ...]] = field(default_factory=dict)

    def grown(self, branch: int, spoken: Sample, transcript: Transcript) -> _Prefix:
        """Return this prefix and one more message."""
        ids = (*self.own.get(spoken.seat, ()), spoken.completion.ids)
        return _Prefix(self.tree, (*self.path, branch), transcript, {**self.own, spoken.seat: ids})


def expand(
    team: Team,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    branching: Sequence[int],
    *,
    seed: int,
    first_tree: int = 0,
) -> list[Sample]:
    """Grow one tree per question and return its messages, level by level.

    Args:
        team: who speaks.
        debates: the environment; its debates are replaced.
        questions: one tree each.
        sampling: how messages are drawn.
        branching: how many messages continue each prefix, one number per message of a debate.
        seed: names the sampling noise.
        first_tree: number of the first tree.

    Raises:
        ValueError: several agents speak at once, so that a message has no prefix of its own, or
            `branching` does not have a number >= 1 for every message of a debate.
    """
    _check(debates, branching)
    prefixes = [
        _Prefix(first_tree + index, (), Transcript(question, debates.agents))
        for index, question in enumerate(questions)
    ]
    samples: list[Sample] = []
    for level, count in enumerate(branching):
        noise = seed_of(seed, "expand", level)
        spoken, prefixes = _grow(team, debates, prefixes, sampling, count, noise)
        samples += spoken
    return samples


def _check(debates: BatchedDebate, branching: Sequence[int]) -> None:
    protocol = debates.game.protocol
    if protocol.simultaneous:
        raise ValueError(
            "a tree of samples needs a protocol in which one agent speaks at a time, such as "
            "'pipeline' or 'sequential'; in this one they speak at once"
        )
    messages = len(debates.agents) * protocol.num_turns
    if len(branching) != messages or min(branching, default=0) < 1:
        raise ValueError(
            f"branching {tuple(branching)} must have a number >= 1 for each of the {messages} "
            "messages of a debate"
        )


def _grow(
    team: Team,
    debates: BatchedDebate,
    prefixes: Sequence[_Prefix],
    sampling: Sampling,
    count: int,
    seed: int,
) -> tuple[list[Sample], list[_Prefix]]:
    """Continue every prefix so many times; return the new messages and the prefixes they end.

    A debate that is over, by consensus, is not continued.
    """
    copies = [(prefix, branch) for prefix in prefixes for branch in range(count)]
    debates.take_over([retell(debates.game, prefix.transcript) for prefix, _ in copies])
    prompts = debates.prompts()
    own = [copies[prompt.debate][0].own.get(prompt.seat, ()) for prompt in prompts]
    asked = requests(team, prompts, own)
    completions = speak(team, asked, sampling, seed)
    debates.step(
        [completion.text for completion in completions],
        [completion.stop is StopReason.LENGTH for completion in completions],
    )
    samples, grown = [], []
    for prompt, request, completion in zip(prompts, asked, completions, strict=True):
        prefix, branch = copies[prompt.debate]
        debate = debates.debates[prompt.debate]
        spoken = _sample(prefix, branch, prompt, request, completion, debate)
        samples.append(spoken)
        grown.append(prefix.grown(branch, spoken, debate.transcript))
    return samples, grown


def _sample(
    prefix: _Prefix,
    branch: int,
    prompt: Prompt,
    request: Request,
    completion: Completion,
    debate: Debate,
) -> Sample:
    last = debate.transcript.messages[-1]
    return Sample(
        tree=prefix.tree,
        path=(*prefix.path, branch),
        question=prefix.transcript.question.id,
        seat=prompt.seat,
        turn=prompt.turn,
        policy=request.policy,
        prompt=request.prompt,
        completion=completion,
        score=last.score if debate.over else None,
    )


def retell(game: Game, history: Transcript) -> Debate:
    """Return a fresh debate in which everything in `history` has just been said and scored."""
    debate = game.debate()
    debate.reset(history.question)
    for message in history.messages:
        debate.check(message.agent, message.text)
        debate.accept(message.agent, message.text, cut=message.cut)
        if debate.awaits_scores:
            turn = history.of_turn(message.turn)
            same = all(isinstance(m.shown, str) for m in turn)
            shown = None if same else [m.feedback for m in turn]
            debate.settle([m.score for m in turn], shown)
    return debate


def first_passes(
    samples: Sequence[Sample], questions: Sequence[Question], agents: Sequence[str]
) -> list[Rollout]:
    """Return the debate of first siblings of every tree: one ordinary pass over each question.

    All messages carry the score of the leaf, as in `protocols.Pipeline`, and it is all they are
    paid.
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
            agents[one.seat],
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
