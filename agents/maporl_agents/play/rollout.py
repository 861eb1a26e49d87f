"""Playing: the only code that steps an environment. Questions in, rollouts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.sampler import sample
from maporl_agents.seeding import seed_of
from maporl_agents.types import Completion, Rollout, StopReason, TokenIds
from maporl_env.batched import Prompt
from maporl_env.types import Question, Transcript

Speak = Callable[..., list[Completion]]
"""Writes one message per prompt; takes what `sampler.sample` takes."""


class Playable(Protocol):
    """What is played: `BatchedDebate`, or anything else with these (see `bridges.outside`)."""

    def reset(self, questions: Sequence[Question]) -> None:
        """Start one episode per question."""

    def prompts(self) -> list[Prompt]:
        """Return what everybody who may speak now reads; [] at the end."""

    def step(self, texts: Sequence[str], cut: Sequence[bool]) -> None:
        """Let everybody speak, in the order of the prompts; say whom the token limit cut."""

    @property
    def transcripts(self) -> list[Transcript]:
        """What has been said, per episode."""

    def turn_rewards(self) -> np.ndarray:
        """Return what every message is paid, (B, T, A)."""

    def score_mask(self) -> np.ndarray:
        """Return which messages are learnt from, (B, T, A) booleans."""


def play(
    team: Team,
    debates: Playable,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    seed: int,
    speak: Speak = sample,
) -> list[Rollout]:
    """Play one debate per question, all in lock step, one generation call per turn.

    An agent's own earlier messages stay in its prompt as the ids it sampled.

    Args:
        team: who speaks.
        debates: the environment; reset here.
        questions: one per debate, at most the batch size of `debates`.
        sampling: how messages are drawn.
        seed: names the sampling noise.
        speak: writes the messages; by default the models do.
    """
    debates.reset(questions=questions)
    tapes = [_Tape() for _ in questions]
    turn = 0
    while asked := debates.prompts():
        policies = [team.policy(prompt.seat, prompt.turn) for prompt in asked]
        ids = [
            team.base_of(policy).chat.prompt_ids(prompt.view, tapes[prompt.debate].own(prompt.seat))
            for prompt, policy in zip(asked, policies, strict=True)
        ]
        stream = seed_of(seed, "sample", turn)
        seats = [prompt.seat for prompt in asked]
        completions = speak(team, ids, policies, sampling, stream, seats)
        for prompt, policy, context, completion in zip(
            asked, policies, ids, completions, strict=True
        ):
            tapes[prompt.debate].record(prompt.seat, policy, context, completion)
        debates.step(
            [completion.text for completion in completions],
            [completion.stop is StopReason.LENGTH for completion in completions],
        )
        turn += 1
    return [
        tape.rollout(transcript, rewards, scored)
        for tape, transcript, rewards, scored in zip(
            tapes, debates.transcripts, debates.turn_rewards(), debates.score_mask(), strict=True
        )
    ]


class _Tape:
    """Prompts and completions of one debate, in the order of its messages."""

    def __init__(self) -> None:
        self.seats: list[int] = []
        self.policies: list[str] = []
        self.prompts: list[TokenIds] = []
        self.completions: list[Completion] = []

    def own(self, seat: int) -> list[TokenIds]:
        """Return the ids of an agent's earlier messages."""
        return [
            completion.ids
            for speaker, completion in zip(self.seats, self.completions, strict=True)
            if speaker == seat
        ]

    def record(self, seat: int, policy: str, prompt: TokenIds, completion: Completion) -> None:
        """Add a message."""
        self.seats.append(seat)
        self.policies.append(policy)
        self.prompts.append(prompt)
        self.completions.append(completion)

    def rollout(self, transcript: Transcript, rewards: np.ndarray, scored: np.ndarray) -> Rollout:
        """Return the finished debate with its tokens."""
        return Rollout(
            transcript=transcript,
            prompts=tuple(self.prompts),
            completions=tuple(self.completions),
            policies=tuple(self.policies),
            rewards=rewards,
            scored=scored,
        )
