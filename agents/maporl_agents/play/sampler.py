"""Sampling by a team: prompt ids in, completions with log-probabilities out.

Rows whose policies share a base model are decoded in one batch (`decoding`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from maporl_agents.config import Sampling
from maporl_agents.models.bases import Base, window_of
from maporl_agents.models.decoding import Row, write_rows
from maporl_agents.models.parallel_bases import side_by_side
from maporl_agents.models.team import Team
from maporl_agents.types import Completion, TokenIds


def sample(
    team: Team,
    prompts: Sequence[TokenIds],
    policies: Sequence[str],
    sampling: Sampling,
    seed: int,
    seats: Sequence[int] | None = None,
) -> list[Completion]:
    """Draw one completion per prompt; prompts whose policies share a base share their batches.

    Args:
        team: the models.
        prompts: N tuples of ids.
        policies: N names, the policy that continues each prompt.
        sampling: limits and temperature.
        seed: names the stream of random numbers; equal arguments give equal completions.
        seats: N agents, whose own limits and stop texts hold; None: all are agent 0.

    Raises:
        ValueError: an unknown policy, an empty prompt, or one that leaves too little room in the
            model's window for `max_new_tokens`.
    """
    seats = [0] * len(prompts) if seats is None else seats
    rows = [
        Row(prompt, policy, sampling.limit_of(seat), sampling.stops_of(seat))
        for prompt, policy, seat in zip(prompts, policies, seats, strict=True)
    ]
    for row in rows:
        _require_room(team.base_of(row.policy), len(row.prompt), row.limit)
    rows_of = [[row for row in rows if row.policy in base.policies] for base in team.bases]

    def speak(index: int) -> None:
        base, spoken = team.bases[index], rows_of[index]
        generator = torch.Generator(base.device).manual_seed((seed + index) % 2**63)
        for start in range(0, len(spoken), sampling.max_rows):
            chunk = spoken[start : start + sampling.max_rows]
            write_rows(base, chunk, sampling.temperature, generator)

    side_by_side(speak, range(len(team.bases)))
    return [row.completion(team.base_of(row.policy).chat) for row in rows]


def _require_room(base: Base, length: int, max_new_tokens: int) -> None:
    if length == 0:
        raise ValueError("a prompt has no tokens: a model needs at least one to continue")
    window = window_of(base.model)
    if window is not None and length + max_new_tokens > window:
        raise ValueError(
            f"a prompt of {length} tokens and {max_new_tokens} new ones do not fit the window of "
            f"{window} tokens of {base.model.name_or_path or type(base.model).__name__!r}: lower "
            "max_new_tokens, take fewer agents or turns, set the debate's token_budget, or take a "
            "model with a longer window"
        )
