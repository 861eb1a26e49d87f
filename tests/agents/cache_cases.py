"""Debates, teams and counts for the tests of key-value caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from miniatures import load_team, make_double, stir
from torch import Tensor

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.types import Rollout, TokenIds
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

QUESTIONS = [
    Question("q/0", "how much is two and three ?", "5"),
    Question("q/1", "how many apples are left when one of eight has been eaten ?", "7"),
    Question("q/2", "one ?", "1"),
]
SAMPLING = Sampling(max_new_tokens=10)
FRESH = replace(SAMPLING, cache_gb=0.0)


def debates(agents: int = 3, turns: int = 3, **options: object) -> BatchedDebate:
    config = DebateConfig(task=QUESTIONS, num_agents=agents, num_turns=turns, **options)  # type: ignore[arg-type]
    return BatchedDebate(config, 2 * len(QUESTIONS))


def make_team(checkpoint: Any, family: str = "llama", *, turns: int = 3, **settings: Any) -> Team:
    """A team in double precision whose messages end at random."""
    team = load_team(checkpoint(family), num_agents=3, num_turns=turns, **settings)
    stir(team)
    make_double(team)
    for base in team.bases:
        base.chat.stop_ids = frozenset(range(0, base.vocab_size, 9))
    return team


@contextmanager
def counted(team: Team) -> Iterator[dict[str, int]]:
    """Count the ids of prompts that the models read, and the places of padding among them."""
    found = {"read": 0, "padding": 0, "passes": 0}

    def watch(hidden: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watched(ids: Tensor, attention: Tensor, *rest: Any, **options: Any) -> Tensor:
            if ids.shape[1] > 1:
                real = int(attention[:, -ids.shape[1] :].sum())
                found["read"] += real
                found["padding"] += ids.numel() - real
                found["passes"] += 1
            return hidden(ids, attention, *rest, **options)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for base in team.bases:
            patch.setattr(base, "hidden", watch(base.hidden))
        yield found


def least(rollouts: list[Rollout]) -> int:
    """Return the ids of prompts that have to be read once, if all that is read were kept.

    A prompt of every agent and debate grows from turn to turn; of its own messages only the last
    ids, which end them, have not been read yet.
    """
    total = 0
    for rollout in rollouts:
        last: dict[str, tuple[TokenIds, TokenIds]] = {}
        messages = zip(
            rollout.transcript.messages, rollout.prompts, rollout.completions, strict=True
        )
        for message, prompt, one in messages:
            before, said = last.get(message.agent, ((), ()))
            known = before + said[:-1]
            assert prompt[: len(known)] == known
            total += len(prompt) - len(known)
            last[message.agent] = prompt, one.ids
    return total


def said(rollouts: list[Rollout]) -> list[TokenIds]:
    return [one.ids for rollout in rollouts for one in rollout.completions]


def logprobs(rollouts: list[Rollout]) -> Tensor:
    return torch.tensor(
        [x for rollout in rollouts for one in rollout.completions for x in one.logprobs],
        dtype=torch.float64,
    )
