"""Data passed between the parts of training: completions, rollouts, token batches, experience.

Text lives in the environment, ids in `Completion` and `Rollout`, tensors only from `TokenBatch` on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from maporl_env.types import Message, Transcript

TokenIds = tuple[int, ...]


class StopReason(str, Enum):
    """Why a completion ended."""

    EOS = "eos"  # the model wrote a terminating token; it is the completion's last id
    TEXT = "text"  # a stop text was completed; the last id is the one that completes it
    LENGTH = "length"  # the limit of new tokens was reached; the last id is an ordinary one


@dataclass(frozen=True, slots=True)
class Request:
    """One message to be written. Made by `play.speak.requests`, read by an engine.

    Attributes:
        policy: name of the policy that writes.
        prompt: ids that the policy continues.
        agent: index of the agent, whose own limit and stop texts hold.
        debate: index of the debate, among all that are played under one seed. With the agent it
            names the random numbers of the message.
        critic: name of the critic that is asked for the value before each token; None for none.
        turn: of the message, counted from 0, whose own limit holds.
        keep: whether a later message may be written with the same weights, so that the key-value
            cache of this one is worth keeping.
        part: of the message, counted from 0, where results of tools divide it (`play.tool_loop`).
        limit: the most tokens of the part; None for the message's own limit.
        stops: texts that end the part, beside those that end the message.
        text: what the agent reads, where a partner that is no model answers; else "".
    """

    policy: str
    prompt: TokenIds
    agent: int
    debate: int
    critic: str | None = None
    turn: int = 0
    keep: bool = True
    part: int = 0
    limit: int | None = None
    stops: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class KeptIds:
    """The ids that each token of a message was drawn from, where sampling truncates.

    Attributes:
        counts: (L,), ids in the set of each token; 0 stands for the whole vocabulary.
        ids: the sets one after another, each ascending: int32, as bytes to be small.
        forced: places of tokens that a rule wrote, not the policy: each is the one id of its set,
            of probability 1, so that it has no gradient.
    """

    counts: tuple[int, ...]
    ids: bytes
    forced: tuple[int, ...] = ()

    def whole(self) -> KeptIds | None:
        """Return the sets without truncation: those of forced tokens alone; None without any."""
        own = self.sets()
        return KeptIds.of_forced({place: own[place][0] for place in self.forced}, len(own))

    @classmethod
    def of_forced(cls, forced: Mapping[int, int], length: int) -> KeptIds | None:
        """Return the sets of a message of `length` tokens, forced ones by place; None without."""
        if not forced:
            return None
        counts = tuple(int(place in forced) for place in range(length))
        ids = np.array([forced[place] for place in sorted(forced)], dtype=np.int32)
        return cls(counts, ids.tobytes(), tuple(sorted(forced)))

    def sets(self) -> list[TokenIds]:
        """Return the set of each token; () for the whole vocabulary."""
        flat = np.frombuffer(self.ids, dtype=np.int32)
        ends = np.cumsum((0, *self.counts)).tolist()
        return [tuple(flat[a:b].tolist()) for a, b in pairwise(ends)]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled message as token ids. Made by an engine, never re-encoded from text.

    Where its author called tools, the ids of their results stand among its own (`results`): they
    are read and never learnt, and their log-probabilities and values are 0.

    Guaranteed: as many `logprobs` as `ids`, at least one of each; as many `values`, or none; as
    many sets in `kept`, each with the id that was drawn from it.

    Attributes:
        ids: sampled ids in order, the terminating EOS included.
        logprobs: natural-log probabilities of the ids under the distribution that was sampled.
        text: decode(ids without a terminating EOS, nor thoughts where they are hidden); exactly
            what the other agents read. Its own words alone, with results beside
            (`maporl_env.types.WithResults`), where there are some.
        stop: why it ended.
        values: the critic's value before each id; () if no critic was read while sampling.
        kept: the ids that each id was drawn from; None for the whole vocabulary.
        served: written by a server, whose log-probabilities are not quite the trainer's.
        results: (start, end) of each result of a tool among the ids, in order.
    """

    ids: TokenIds
    logprobs: tuple[float, ...]
    text: str
    stop: StopReason
    values: tuple[float, ...] = ()
    kept: KeptIds | None = None
    served: bool = False
    results: tuple[tuple[int, int], ...] = ()

    @property
    def own_tokens(self) -> int:
        """The number of ids that its author wrote."""
        return len(self.ids) - sum(end - start for start, end in self.results)


@dataclass(frozen=True, slots=True)
class Draft:
    """A try of a message that no other agent read. Made by `rollout.play`, read by `collate`.

    Attributes:
        request: policy, prompt, agent and turn of the message that was tried.
        completion: the try.
    """

    request: Request
    completion: Completion


@dataclass(frozen=True, slots=True)
class Rollout:
    """A finished debate with its tokens. Made by `rollout.play`, read by `batching.collate`.

    Guaranteed: the i-th prompt, completion and policy belong to the i-th message.

    Attributes:
        transcript: the debate.
        prompts: ids each message was conditioned on.
        completions: ids each message consists of.
        policies: name of the policy that wrote each message.
        rewards: (T, A), reward of each message; 0 for turns that were not played.
        scored: (T, A) bool, True where a message has a reward (False: masked, no loss), as where
            the verifier gave a score.
        rounds: the call of the sampler in which each message was written; messages of one round
            were written at the same time. () if it is not known.
        drafts: the refused tries of its messages, in the order in which they were written.
    """

    transcript: Transcript
    prompts: tuple[TokenIds, ...]
    completions: tuple[Completion, ...]
    policies: tuple[str, ...]
    rewards: np.ndarray
    scored: np.ndarray
    rounds: tuple[int, ...] = ()
    drafts: tuple[Draft, ...] = ()

    def spoken(self) -> Iterator[tuple[Message, TokenIds, Completion, str]]:
        """Yield (message, prompt, completion, policy) in the order of the transcript."""
        said = self.transcript.messages, self.prompts, self.completions, self.policies
        return zip(*said, strict=True)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Messages as tensors, one row per message. Made by `batching.collate`; the only tensor type.

    Guaranteed: `written` is True on a run that starts in column 0 and ends with the last token of
    the row (EOS included); every prompt holds at least one id.

    Attributes:
        prompts: B tuples of ids.
        ids: (B, L) int64, the completion, 0 where nothing is written.
        mask: (B, L) bool, the `completion_mask`: True = a sampled token that may carry loss.
        sampled_logprobs: (B, L) float32 (float64 of models in that format), from the sampler; 0
            outside the mask.
        policies: B names: which policy wrote the row and is trained on it.
        critics: B names: which value head reads the row.
        agents: (B,) int64, agent index.
        turns: (B,) int64, turn index.
        episodes: (B,) int64, index of the debate in its batch.
        rewards: (B,) float32, credited at the row's last real token.
        sampled_values: (B, L), likewise. None unless every row has its values.
        prompt_ids: (B, P) int64, the prompts flush right; made here unless given.
        ranks: (B,) int64, places of the rows in the order of their ids, prompt and completion;
            likewise.
        kept: B sets of ids that the tokens of each row were drawn from, None for a row of the whole
            vocabulary; None if all are.
        joint_histories: B tuples of ids, what a central critic reads before the message; None for
            other critics.
        served: servers wrote the messages: the trainer computes all log-probabilities itself, and
            advantages are weighted by their ratio to the servers' (`advantages.of_policy`).
        results: (B, L) bool, True = a token of a tool's result: part of the text, with no loss.
            None where no tool was called.
    """

    prompts: tuple[TokenIds, ...]
    ids: Tensor
    mask: Tensor
    sampled_logprobs: Tensor
    policies: tuple[str, ...]
    critics: tuple[str, ...]
    agents: Tensor
    turns: Tensor
    episodes: Tensor
    rewards: Tensor
    sampled_values: Tensor | None = None
    prompt_ids: Tensor = None  # type: ignore[assignment]
    ranks: Tensor = None  # type: ignore[assignment]
    kept: tuple[KeptIds | None, ...] | None = None
    joint_histories: tuple[TokenIds, ...] | None = None
    served: bool = False
    results: Tensor | None = None

    def __post_init__(self) -> None:
        if self.prompt_ids is None:
            device = self.ids.device
            object.__setattr__(self, "prompt_ids", flush_right(self.prompts).to(device))
            object.__setattr__(self, "ranks", ranks_of(self.texts()).to(device))

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def written(self) -> Tensor:
        """(B, L) bool, True = a token of the message, sampled or of a result."""
        return self.mask if self.results is None else self.mask | self.results

    def texts(self) -> list[TokenIds]:
        """Return the ids of each row, prompt and completion."""
        lengths = self.written.sum(1).tolist()
        said = [ids[:length] for ids, length in zip(self.ids.tolist(), lengths, strict=True)]
        return [(*p, *ids) for p, ids in zip(self.prompts, said, strict=True)]

    def select(self, rows: Sequence[int] | Tensor) -> TokenBatch:
        """Return the given rows, cut to the longest completion among them."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.ids.device)
        chosen = index.tolist()
        width = int(self.written[index].sum(1).max()) if chosen else 0
        values, joint, results = self.sampled_values, self.joint_histories, self.results
        return TokenBatch(
            prompts=tuple(self.prompts[i] for i in chosen),
            ids=self.ids[index, :width],
            mask=self.mask[index, :width],
            sampled_logprobs=self.sampled_logprobs[index, :width],
            policies=tuple(self.policies[i] for i in chosen),
            critics=tuple(self.critics[i] for i in chosen),
            agents=self.agents[index],
            turns=self.turns[index],
            episodes=self.episodes[index],
            rewards=self.rewards[index],
            sampled_values=None if values is None else values[index, :width],
            prompt_ids=self.prompt_ids[index],
            ranks=self.ranks[index],
            kept=None if self.kept is None else tuple(self.kept[i] for i in chosen),
            joint_histories=None if joint is None else tuple(joint[i] for i in chosen),
            served=self.served,
            results=None if results is None else results[index, :width],
        )

    def untruncated(self) -> TokenBatch:
        """Return the batch with distributions over the whole vocabulary, forced tokens excepted.

        For learning from given messages: their policy may leave the sets they were drawn from.
        """
        if self.kept is None:
            return self
        whole = tuple(one and one.whole() for one in self.kept)
        return replace(self, kept=whole if any(whole) else None)

    @property
    def seats(self) -> Tensor:
        """The former name of `agents`."""
        return self.agents

    def by_policy(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (policy name, its row indices), in order of first appearance."""
        return _groups(self.policies, self.ids.device)

    def by_critic(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (critic name, its row indices), in order of first appearance."""
        return _groups(self.critics, self.ids.device)

    def by_message(self) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """Yield ((turn, agent index), its row indices), in order of first appearance."""
        return _groups(
            list(zip(self.turns.tolist(), self.agents.tolist(), strict=True)), self.ids.device
        )


def flush_right(rows: Sequence[TokenIds], fill: int = 0) -> Tensor:
    """Return ids (N, S) that end in the last column, `fill` before their first."""
    width = max(map(len, rows), default=0)
    padded = np.full((len(rows), width), fill, dtype=np.int64)
    for place, row in zip(padded, rows, strict=True):
        place[width - len(row) :] = row
    return torch.from_numpy(padded)


def ranks_of(rows: Sequence[TokenIds]) -> Tensor:
    """Return the place of each row in their order, (N,); no two have the same."""
    order = sorted(range(len(rows)), key=rows.__getitem__)
    ranks = torch.empty(len(rows), dtype=torch.long)
    ranks[torch.tensor(order, dtype=torch.long)] = torch.arange(len(rows))
    return ranks


Key = TypeVar("Key", bound=Hashable)


def _groups(keys: Sequence[Key], device: torch.device) -> Iterator[tuple[Key, Tensor]]:
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    for key, indices in rows.items():
        yield key, torch.tensor(indices, device=device)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Results of one forward pass over a `TokenBatch`; all (B, L), 0 outside the mask.

    Attributes:
        logprobs: log pi(token | what precedes it), at the sampling temperature, over the ids that
            the token was drawn from.
        values: the critic's estimate before the token is written; zeros unless requested.
        entropy: of the distribution the token was drawn from, in nats; zeros unless requested.
        kl: KL(policy || reference policy) of that distribution, exact over the vocabulary, in nats;
            None unless requested.
    """

    logprobs: Tensor
    values: Tensor
    entropy: Tensor
    kl: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Experience:
    """A batch and what was true of it before the update. Made and read by the algorithms.

    Attributes:
        batch: the messages.
        logprobs: (B, L) under the policy before the update; all of these are 0 outside the mask.
        ref_logprobs: (B, L) under the reference policy.
        values: (B, L) of the critics before the update.
        advantages: (B, L), whitened per (turn, agent).
        returns: (B, L), the targets of the critics.
        rescored: (B,) bool, True where the trainer computed `logprobs`, and not the sampler; None
            if it computed all.
        fault: the largest difference between sampler and trainer that made the trainer compute
            all; 0 without such.
    """

    batch: TokenBatch
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    rescored: Tensor | None = None
    fault: float = 0.0

    def select(self, rows: Tensor) -> Experience:
        """Return the given rows, cut to the longest completion among them."""
        batch = self.batch.select(rows)
        width = batch.mask.shape[1]
        return Experience(
            batch,
            self.logprobs[rows, :width],
            self.ref_logprobs[rows, :width],
            self.values[rows, :width],
            self.advantages[rows, :width],
            self.returns[rows, :width],
            None if self.rescored is None else self.rescored[rows],
            self.fault,
        )
