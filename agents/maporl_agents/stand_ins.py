"""Debates in which every message is a stand-in of full length: what a run can come to at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from maporl_agents.chat import Chat
from maporl_agents.config import GameConfig, Sampling
from maporl_agents.games import debate_config
from maporl_agents.rollout import play
from maporl_agents.team import Team
from maporl_agents.types import Completion, Rollout, StopReason, TokenIds
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question


def act(
    team: Team,
    game: GameConfig,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    made_up: bool = False,
) -> list[Rollout]:
    """Return debates on the questions in which every message is a stand-in of full length.

    Made-up questions need no task and no data; they are put in the default words.
    """
    plain = debate_config(replace(game, verifier="key", feedback_verifier=""))
    if made_up:
        plain = replace(plain, task=list(questions), data=None)
    debates = BatchedDebate(replace(plain, verifier=_any_score), len(questions))

    def speak(
        _: Team,
        prompts: Sequence[TokenIds],
        policies: Sequence[str],
        sampling: Sampling,
        seed: int,
        seats: Sequence[int],
    ) -> list[Completion]:
        return [
            stand_in(team.base_of(policy).chat, sampling.limit_of(seat))
            for policy, seat in zip(policies, seats, strict=True)
        ]

    return play(team, debates, questions, sampling, seed=0, speak=speak)


def _any_score(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    return [0.9 for _ in responses]


def stand_in(chat: Chat, tokens: int) -> Completion:
    """Return a message of so many tokens, which others read as so many too."""
    ids = tuple(filler_ids(chat, tokens))
    return Completion(ids, (0.0,) * tokens, chat.decode(ids), StopReason.LENGTH)


def filler_ids(chat: Chat, tokens: int) -> list[int]:
    """Return so many ids whose text is encoded as so many ids again, or as near as can be."""
    words = [i for text in (" a", " the", " one", "a", "x") for i in chat.encode(text)]
    rows = [[word] * tokens for word in words if word not in chat.stop_ids]
    return min(rows, key=lambda row: abs(len(chat.encode(chat.decode(row))) - tokens))
