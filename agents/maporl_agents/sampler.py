"""Batched generation: prompt ids in, completions with log-probabilities out.

One distribution is sampled, and it is the one that training scores: softmax(raw logits /
temperature), without truncation. The loop keeps a key-value cache and drops finished rows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from maporl_agents.bases import Base, window_of
from maporl_agents.chat import Chat
from maporl_agents.config import Sampling
from maporl_agents.heads import temper
from maporl_agents.parallel import side_by_side
from maporl_agents.team import Team
from maporl_agents.types import Completion, StopReason, TokenIds


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


@dataclass
class Row:
    """A prompt and what is written after it."""

    prompt: TokenIds
    policy: str
    limit: int
    stops: tuple[str, ...]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop: StopReason = StopReason.LENGTH

    def add(self, token: int, logprob: float, chat: Chat) -> bool:
        """Take in a token; return whether another may follow."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in chat.stop_ids:
            self.stop = StopReason.EOS
        elif self.stops and chat.completes(self.ids, self.stops):
            self.stop = StopReason.TEXT
        else:
            return len(self.ids) < self.limit
        return False

    def completion(self, chat: Chat) -> Completion:
        """Return the finished message."""
        return Completion(
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            text=chat.decode(self.ids),
            stop=self.stop,
        )


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


@torch.inference_mode()
def write_rows(base: Base, rows: list[Row], temperature: float, generator: torch.Generator) -> None:
    """Write every row to its end."""
    ids, attention = _left_pad([row.prompt for row in rows], base.chat.pad_id, base.device)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=base.model.config)
    alive = list(range(len(rows)))
    while True:
        names = [rows[i].policy for i in alive]
        hidden = base.hidden(ids, attention, positions, names, cache=cache)[:, -1]
        noise = _gumbel(len(rows), base.vocab_size, generator, temperature)
        chosen, logprobs = _draw(base.logits(hidden), temperature, noise, alive)
        going = [
            rows[i].add(token, logprob, base.chat)
            for i, token, logprob in zip(alive, chosen.tolist(), logprobs.tolist(), strict=True)
        ]
        if not any(going):
            return
        attention = torch.cat([attention, attention.new_ones(len(attention), 1)], 1)
        positions = positions[:, -1:] + 1
        ids = chosen[:, None]
        if not all(going):
            keep = torch.tensor(going, device=base.device).nonzero()[:, 0]
            cache.reorder_cache(keep)
            ids, attention, positions = ids[keep], attention[keep], positions[keep]
            alive = [i for i, goes in zip(alive, going, strict=True) if goes]


def _left_pad(
    prompts: Sequence[TokenIds], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, (N, P) each, prompts flush right; the mask is from lengths."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id)
    attention = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return ids.to(device), attention.to(device)


def _gumbel(rows: int, vocab: int, generator: torch.Generator, temperature: float) -> Tensor | None:
    """Return standard Gumbel noise (rows, V): argmax(logprobs + noise) is a draw from softmax.

    Drawn for all rows, finished ones included, so that a row's text does not depend on when the
    others stop.
    """
    if temperature == 0:
        return None
    noise = torch.empty(rows, vocab, device=generator.device)
    return -noise.exponential_(generator=generator).log()


def _draw(
    logits: Tensor, temperature: float, noise: Tensor | None, alive: list[int]
) -> tuple[Tensor, Tensor]:
    """Return chosen ids and their log-probabilities, (N,) each."""
    logprobs = temper(logits, temperature).log_softmax(-1)
    chosen = (logprobs if noise is None else logprobs + noise[alive]).argmax(-1)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]
