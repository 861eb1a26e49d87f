"""Collab: decoding in which the policy that promises most writes the next token.

Chakraborty et al., "Collab: Controlled decoding using mixture of agents for LLM alignment"
(arXiv 2503.21720). In every step each of K policies proposes its p most probable tokens; a
proposal z of policy k after the text s is worth

    J_k(s, z) = Q_k(s, z) - alpha KL(pi_k(. | s) || pi_ref(. | s))

where Q_k is the reward to be expected when policy k goes on alone after z. The best proposal of all
is written, and all policies go on from it. Nothing is trained. How Q is estimated is not published;
here it is either exact (tests), by rollouts, or by a trained critic.

With alpha 0, all tokens proposed and exact Q, the text that is written is worth at least as much as
what the best single policy would write, from every prefix on (tested on random trees). Neither
sampled proposals nor an estimated Q have that guarantee. The KL depends on the policy and not on
the token: it decides who is preferred, not what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.config import Sampling
from maporl_agents.mixtures.joint_decoding import Choice, drafts_of, write_together
from maporl_agents.models.team import Team
from maporl_agents.play.limits import limit_of
from maporl_agents.play.local_engine import complete
from maporl_agents.seeding import seed_of
from maporl_agents.text.stop_conditions import stop_reason, stops_of
from maporl_agents.types import Completion, Request, TokenIds


class Proposal(NamedTuple):
    """A token that a policy proposes for a message.

    Attributes:
        request: whose message it is.
        policy: name of the policy that would go on alone.
        ids: of the message so far, the proposed one last.
    """

    request: Request
    policy: str
    ids: TokenIds


Value = Callable[[Team, Sequence[Proposal], Sampling, int], Sequence[float]]
"""Expected reward of each proposal. Takes the team, the proposals, the sampling settings and a
seed."""


@dataclass(frozen=True)
class Collab:
    """An engine for `play.speak`: each message is written by K policies that take turns by value.

    Attributes:
        policies: names of K policies with one vocabulary.
        value: Q of proposals, such as `Rollouts`.
        proposals: tokens that each policy proposes, p.
        alpha: weight of the KL to the reference policy, at least 0.
        reference: name of a policy of the team; needed where alpha is above 0.

    Raises:
        ValueError: a setting that is none of these.
    """

    policies: tuple[str, ...]
    value: Value
    proposals: int = 10
    alpha: float = 0.0
    reference: str = ""

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("Collab needs at least one policy that proposes tokens")
        if self.proposals < 1:
            raise ValueError(f"proposals must be at least 1, not {self.proposals}")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha must be a finite number of at least 0, not {self.alpha}")
        if self.alpha and not self.reference:
            raise ValueError(f"alpha={self.alpha} weighs the KL to a reference policy: name one")

    def __call__(
        self, team: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        """Return one completion per request, written greedily by value.

        The log-probability of a token is that of the policy that wrote it. Temperature and
        truncation of `sampling` hold for rollouts alone.
        """
        referred = (*self.policies, self.reference) if self.alpha else self.policies
        drafts = drafts_of(team, asked, referred, sampling, seed)

        def choose(some: Sequence[int], logprobs: Tensor) -> Choice:
            own = logprobs[:, : len(self.policies)]  # (n, K, V)
            kl = own.new_zeros(own.shape[:2])
            if self.alpha:
                kl = kl_to_reference(own, logprobs[:, -1])
            tokens = own.topk(min(self.proposals, own.shape[-1]), dim=-1).indices  # (n, K, p)
            proposed = [
                Proposal(asked[index], policy, (*drafts[index].ids, token))
                for index, by_policy in zip(some, tokens.tolist(), strict=True)
                for policy, row in zip(self.policies, by_policy, strict=True)
                for token in row
            ]
            step = seed_of(seed, "collab", len(drafts[some[0]].ids), some[0])
            found = self.value(team, proposed, sampling, step)
            worth = torch.tensor(found, dtype=torch.float64).view(tokens.shape)
            who, which = best(worth, kl.double().cpu(), self.alpha)
            rows = torch.arange(len(some))
            ids = tokens.cpu()[rows, who, which]
            return Choice(ids, own.cpu()[rows, who, ids])

        return write_together(team, drafts, choose)


def kl_to_reference(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return KL(pi_k || pi_ref) of K policies, (N, K), from log-probabilities (N, K, V), (N, V)."""
    return (logprobs.exp() * (logprobs - reference[:, None])).sum(-1)


def best(worth: Tensor, kl: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the policy and the place among its proposals of the largest J, (N,) each.

    Args:
        worth: Q, (N, K, p).
        kl: (N, K).
        alpha: weight of the KL.

    Among equal ones the first policy, then its most probable token, is taken.

    Raises:
        ValueError: a Q that is not a number.
    """
    if worth.isnan().any():
        raise ValueError("the value of a proposal is not a number")
    flat = (worth - alpha * kl[:, :, None]).flatten(1)
    chosen = flat.argmax(1)
    return chosen // worth.shape[2], chosen % worth.shape[2]


Score = Callable[[Sequence[Request], Sequence[str]], Sequence[float | None]]
"""Reward of whole messages; None where there is none, such as after a fault of the verifier."""


@dataclass(frozen=True)
class Rollouts:
    """Q of a proposal as the mean reward of messages that its policy ends by itself.

    Costs K x p x `number` messages per token.

    Attributes:
        score: reward of whole messages.
        number: rollouts of each proposal; greedy ones need no more than 1.
    """

    score: Score
    number: int = 1

    def __call__(
        self, team: Team, proposed: Sequence[Proposal], sampling: Sampling, seed: int
    ) -> list[float]:
        """Return the mean reward of each proposal; 0 where no rollout has one.

        Raises:
            RuntimeError: `score` raised.
            ValueError: it gave another number of values than messages.
        """
        chat = team.base_of(proposed[0].policy).chat
        texts: dict[int, list[str]] = {}
        asked: list[Request] = []
        owners: list[int] = []
        for index, one in enumerate(proposed):
            stops = stops_of(one.request, sampling)
            full = _left(one, sampling) < 1
            if full or stop_reason(chat, one.ids, stops) is not None:
                texts[index] = [chat.shown_text(one.ids)]
                continue
            for _ in range(self.number):
                owners.append(index)
                asked.append(_going_on(one, debate=len(asked)))
        limits = [_left(proposed[index], sampling) for index in owners]
        for limit in sorted(set(limits)):
            places = [place for place, its in enumerate(limits) if its == limit]
            written = complete(
                team, [asked[place] for place in places], sampling.limited_to(limit), seed
            )
            for place, completion in zip(places, written, strict=True):
                whole = (*proposed[owners[place]].ids, *completion.ids)
                texts.setdefault(owners[place], []).append(chat.shown_text(whole))
        return self._means(proposed, texts)

    def _means(self, proposed: Sequence[Proposal], texts: dict[int, list[str]]) -> list[float]:
        pairs = [(index, text) for index in sorted(texts) for text in texts[index]]
        requests = [proposed[index].request for index, _ in pairs]
        try:
            scores = list(self.score(requests, [text for _, text in pairs]))
        except Exception as error:  # the user's own code
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise RuntimeError(
                f"the score of Collab's rollouts failed on {len(pairs)} messages: {told:.200}; "
                "this call has written nothing"
            ) from error
        if len(scores) != len(pairs):
            raise ValueError(
                f"the score of Collab's rollouts gave {len(scores)} values for {len(pairs)} "
                "messages"
            )
        found: list[list[float]] = [[] for _ in proposed]
        for (index, _), score in zip(pairs, scores, strict=True):
            if score is not None:
                found[index].append(score)
        return [sum(own) / len(own) if own else 0.0 for own in found]


def _left(one: Proposal, sampling: Sampling) -> int:
    """Return how many tokens may follow a proposal."""
    return limit_of(one.request, sampling) - len(one.ids)


def _going_on(one: Proposal, debate: int) -> Request:
    """Return the request for what follows a proposal; `debate` names its random numbers."""
    prompt = (*one.request.prompt, *one.ids)
    going_on = replace(one.request, policy=one.policy, prompt=prompt, debate=debate)
    return replace(going_on, critic=None, limit=None)


def critic_values(
    team: Team, proposed: Sequence[Proposal], sampling: Sampling, seed: int
) -> list[float]:
    """Return the values of a team's critics after each proposal, as Q.

    The critic of the agent and turn of a request must read through the policy's own layers
    (team.critic trunk); ValueError otherwise, or for a team without critics.
    """
    asked = [
        replace(
            _going_on(one, debate=place), critic=team.critic(one.request.agent, one.request.turn)
        )
        for place, one in enumerate(proposed)
    ]
    if not team.critics or team.central:
        raise ValueError("this team has no critics that read through its policies")
    written = complete(team, asked, sampling.limited_to(1), seed)
    if not all(one.values for one in written):
        raise ValueError("this team's critics have layers of their own: team.critic must be trunk")
    return [one.values[0] for one in written]
