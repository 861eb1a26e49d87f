"""Batched generation: prompt ids in, completions with log-probabilities out.

One distribution is sampled, and it is the one that training scores: softmax(raw logits /
temperature), without truncation. The loop keeps a key-value cache and drops finished rows from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from maporl_agents.bases import Base
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
) -> list[Completion]:
    """Draw one completion per prompt; prompts whose policies share a base share their batches.

    Args:
        team: the models.
        prompts: N tuples of ids.
        policies: N names, the policy that continues each prompt.
        sampling: limits and temperature.
        seed: names the stream of random numbers; equal arguments give equal completions.

    Raises:
        ValueError: an unknown policy, an empty prompt, or one that leaves too little room in the
            model's window for `max_new_tokens`.
    """
    for prompt, policy in zip(prompts, policies, strict=True):
        _require_room(team.base_of(policy), len(prompt), sampling.max_new_tokens)
    rows_of = [
        [i for i, policy in enumerate(policies) if policy in base.policies] for base in team.bases
    ]

    def speak(index: int) -> list[Completion]:
        base, rows = team.bases[index], rows_of[index]
        generator = torch.Generator(base.device).manual_seed((seed + index) % 2**63)
        return [
            completion
            for start in range(0, len(rows), sampling.max_rows)
            for chunk in [rows[start : start + sampling.max_rows]]
            for completion in _generate(
                base, [prompts[i] for i in chunk], [policies[i] for i in chunk], sampling, generator
            )
        ]

    spoken = side_by_side(speak, range(len(team.bases)))
    by_row = {
        row: completion
        for rows, completions in zip(rows_of, spoken, strict=True)
        for row, completion in zip(rows, completions, strict=True)
    }
    return [by_row[row] for row in range(len(prompts))]


def _require_room(base: Base, length: int, max_new_tokens: int) -> None:
    if length == 0:
        raise ValueError("a prompt has no tokens: a model needs at least one to continue")
    window = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
    if window is not None and length + max_new_tokens > window:
        raise ValueError(
            f"a prompt of {length} tokens and {max_new_tokens} new ones do not fit the window of "
            f"{window} tokens of {base.model.name_or_path or type(base.model).__name__!r}: lower "
            "max_new_tokens, take fewer agents or turns, set the debate's token_budget, or take a "
            "model with a longer window"
        )


@torch.inference_mode()
def _generate(
    base: Base,
    prompts: list[TokenIds],
    policies: list[str],
    sampling: Sampling,
    generator: torch.Generator,
) -> list[Completion]:
    ids, attention = _left_pad(prompts, base.chat.pad_id, base.device)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=base.model.config)
    stop_ids = torch.tensor(sorted(base.chat.stop_ids), device=base.device)
    alive = torch.arange(len(prompts), device=base.device)
    names = list(policies)
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    for step in range(sampling.max_new_tokens):
        hidden = base.hidden(ids, attention, positions, names, cache=cache)[:, -1]
        noise = _gumbel(len(prompts), base.vocab_size, generator, sampling.temperature)
        chosen, chosen_logprobs = _draw(base.logits(hidden), sampling.temperature, noise, alive)
        for row, token, logprob in zip(
            alive.tolist(), chosen.tolist(), chosen_logprobs.tolist(), strict=True
        ):
            tokens[row].append(token)
            logprobs[row].append(logprob)
        going = ~torch.isin(chosen, stop_ids)
        if step + 1 == sampling.max_new_tokens or not bool(going.any()):
            break
        attention = torch.cat([attention, attention.new_ones(len(attention), 1)], 1)
        positions = positions[:, -1:] + 1
        ids = chosen[:, None]
        if not bool(going.all()):
            keep = going.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            ids, attention, positions = ids[keep], attention[keep], positions[keep]
            alive, names = alive[keep], [names[i] for i in keep.tolist()]
    return [
        _completion(base, row, row_logprobs)
        for row, row_logprobs in zip(tokens, logprobs, strict=True)
    ]


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
    logits: Tensor, temperature: float, noise: Tensor | None, alive: Tensor
) -> tuple[Tensor, Tensor]:
    """Return chosen ids and their log-probabilities, (N,) each."""
    logprobs = temper(logits, temperature).log_softmax(-1)
    chosen = (logprobs if noise is None else logprobs + noise[alive]).argmax(-1)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]


def _completion(base: Base, ids: list[int], logprobs: list[float]) -> Completion:
    stopped = ids[-1] in base.chat.stop_ids
    return Completion(
        ids=tuple(ids),
        logprobs=tuple(logprobs),
        text=base.chat.decode(ids),
        stop=StopReason.EOS if stopped else StopReason.LENGTH,
    )
