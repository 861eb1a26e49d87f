"""Where the messages of a batch stand in the sequences that a model reads, and in which passes.

A debate's messages nest: what an agent wrote in turn t stands, with its prompt, at the start of its
prompt of turn t + 1. Rows of one policy that are prefixes of another row are read inside it, so
that one pass over an agent's whole conversation serves all its turns. Exact, because attention is
causal; tested against reading each row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maporl_agents.types import TokenBatch, TokenIds, flush_right, ranks_of

PASS_TOKENS = 256
"""Padding that a pass may hold before another pass is cheaper (docs/log.md, 2026-11-30)."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Messages behind their prompts, flush left.

    Attributes:
        ids: (N, S), anything beyond the end.
        starts: (N,), tokens of the prompt.
        lengths: (N,), tokens of prompt and completion.
        ranks: (N,), different numbers in the order of the ids: a prefix comes right before a row
            that contains it.
    """

    ids: Tensor
    starts: Tensor
    lengths: Tensor
    ranks: Tensor


def texts_of(batch: TokenBatch) -> Texts:
    """Return the messages of a batch."""
    device = batch.ids.device
    starts = torch.tensor([len(prompt) for prompt in batch.prompts], dtype=torch.long).to(device)
    lengths = starts + batch.mask.sum(1)
    joined = torch.cat([batch.prompt_ids, batch.ids], 1)
    width = int(lengths.max()) if len(batch) else 0
    first = batch.prompt_ids.shape[1] - starts
    columns = first[:, None] + torch.arange(width, device=device)
    ids = joined.gather(1, columns.clamp(max=joined.shape[1] - 1)) if width else joined[:, :0]
    return Texts(ids, starts, lengths, batch.ranks)


def texts_from(rows: Sequence[TokenIds]) -> Texts:
    """Return whole texts of which nothing is said about where a completion begins."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    ids = flush_right([row[::-1] for row in rows]).flip(1)
    return Texts(ids, torch.zeros_like(lengths), lengths, ranks_of(rows))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where N texts stand in the Q sequences that are run through the model.

    Attributes:
        ids: (Q, S) sequences, flush left.
        attention: (Q, S), 1 = real id.
        positions: (Q, S) position of each id in its own sequence.
        hosts: (N,), the sequence that contains each text, from its first position on.
        leaders: (Q,), a text that each sequence is made of.
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    hosts: Tensor
    leaders: Tensor


def lay_out(texts: Texts, owners: Sequence[str], pad_id: int) -> Layout:
    """Place texts into as few sequences as nesting allows; those of two owners share none."""
    hosts, leaders = nest(texts, owners)
    columns = torch.arange(texts.ids.shape[1], device=texts.ids.device)
    real = columns < texts.lengths[leaders, None]
    return Layout(
        ids=torch.where(real, texts.ids[leaders], pad_id),
        attention=real.long(),
        positions=columns.expand(real.shape),
        hosts=hosts,
        leaders=leaders,
    )


def nest(texts: Texts, owners: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the host of each text, (N,), and a text that each host is made of, (Q,)."""
    device = texts.ids.device
    number = {owner: i for i, owner in enumerate(dict.fromkeys(owners))}
    own = torch.tensor([number[owner] for owner in owners], dtype=torch.long).to(device)
    if not len(own):
        return own, own
    order = (own * (texts.ranks.max() + 1) + texts.ranks).argsort()
    one, after = order[:-1], order[1:]
    beyond = torch.arange(texts.ids.shape[1], device=device) >= texts.lengths[one, None]
    alike = (texts.ids[one] == texts.ids[after]) | beyond
    nested = alike.all(1) & (texts.lengths[one] <= texts.lengths[after]) & (own[one] == own[after])
    leads = torch.cat([~nested, nested.new_ones(1)])
    hosts = torch.empty_like(order)
    hosts[order] = leads.cumsum(0) - leads.long()
    return hosts, order[leads]


def pack(units: Sequence[tuple[int, int]], tokens: int) -> list[list[int]]:
    """Divide units into passes of at most `tokens` padded tokens, the longest first.

    A pass also ends where it would hold more padding than another pass costs. A unit that is larger
    than `tokens` goes alone.

    Args:
        units: (sequences, tokens of the longest) of each; a unit stays whole.
        tokens: the largest sequences x longest of a pass.

    Returns:
        The numbers of the units in each pass.
    """
    passes: list[list[int]] = []
    sequences = width = padding = 0
    for unit in sorted(range(len(units)), key=lambda i: -units[i][1]):
        count, length = units[unit]
        padding += count * (width - length)
        full = (sequences + count) * width > tokens or padding > PASS_TOKENS
        if not passes or full:
            passes.append([])
            sequences, width, padding = 0, length, 0
        passes[-1].append(unit)
        sequences += count
    return passes
