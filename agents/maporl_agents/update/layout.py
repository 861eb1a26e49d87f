"""Lays messages out in the sequences that a model reads, and divides these into passes.

A debate's messages nest: the prompt and message of an agent in turn t are a prefix of its prompt of
turn t + 1. A row that is a prefix of another row of the same policy is read inside that row, so one
pass over an agent's whole conversation serves all its turns. This is exact, because attention is
causal; tests compare it with reading each row alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maporl_agents.models.packed_texts import common
from maporl_agents.types import TokenBatch, TokenIds, flush_right, ranks_of

PASS_TOKENS = 256
"""Padding that a pass may hold before another pass is cheaper (docs/log.md, 2026-11-30)."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Messages behind their prompts, flush left.

    Attributes:
        ids: (N, S); columns from `lengths` on are arbitrary.
        starts: (N,), tokens of each prompt.
        lengths: (N,), tokens of prompt and completion.
        ranks: (N,), distinct numbers in the lexicographic order of the ids: a row that is a prefix
            of others comes right before one of them.
    """

    ids: Tensor
    starts: Tensor
    lengths: Tensor
    ranks: Tensor


def texts_of(batch: TokenBatch) -> Texts:
    """Return the messages of a batch."""
    device = batch.ids.device
    starts = torch.tensor([len(prompt) for prompt in batch.prompts], dtype=torch.long).to(device)
    lengths = starts + batch.written.sum(1)
    joined = torch.cat([batch.prompt_ids, batch.ids], 1)  # (N, P + L), prompts flush right
    width = int(lengths.max()) if len(batch) else 0
    first = batch.prompt_ids.shape[1] - starts
    # (N, S): from the first token of the prompt on; clamped below, as shorter rows end before S.
    columns = first[:, None] + torch.arange(width, device=device)
    ids = joined.gather(1, columns.clamp(max=joined.shape[1] - 1)) if width else joined[:, :0]
    return Texts(ids, starts, lengths, batch.ranks)


def texts_from(rows: Sequence[TokenIds]) -> Texts:
    """Return texts without a prompt: `starts` are 0."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    ids = flush_right([row[::-1] for row in rows]).flip(1)
    return Texts(ids, torch.zeros_like(lengths), lengths, ranks_of(rows))


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of N texts in the Q sequences that are run through the model.

    Attributes:
        ids: (Q, S) sequences, flush left.
        attention: (Q, S), 1 = real id.
        positions: (Q, S) position of each id in its own sequence.
        hosts: (N,), index of the sequence that begins with each text.
        leaders: (Q,), index of the text that each sequence consists of.
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    hosts: Tensor
    leaders: Tensor


def lay_out(texts: Texts, owners: Sequence[str], pad_id: int) -> Layout:
    """Place texts into as few sequences as nesting allows; two owners share no sequence."""
    hosts, leaders = nest(texts, owners)
    columns = torch.arange(texts.ids.shape[1], device=texts.ids.device)
    real = columns < texts.lengths[leaders, None]  # (Q, S)
    return Layout(
        ids=torch.where(real, texts.ids[leaders], pad_id),
        attention=real.long(),
        positions=columns.expand(real.shape),
        hosts=hosts,
        leaders=leaders,
    )


def nest(texts: Texts, owners: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the index of the sequence that holds each text, (N,), and the leaders, (Q,).

    Sorted by owner, then by rank, each text needs to be compared with its successor alone: if it is
    a prefix of any text, then of the next one.
    """
    device = texts.ids.device
    number = {owner: i for i, owner in enumerate(dict.fromkeys(owners))}
    own = torch.tensor([number[owner] for owner in owners], dtype=torch.long).to(device)
    if not len(own):
        return own, own
    order = (own * (texts.ranks.max() + 1) + texts.ranks).argsort()  # (N,), by owner, then rank
    one, after = order[:-1], order[1:]
    beyond = torch.arange(texts.ids.shape[1], device=device) >= texts.lengths[one, None]
    alike = (texts.ids[one] == texts.ids[after]) | beyond  # (N - 1, S)
    nested = alike.all(1) & (texts.lengths[one] <= texts.lengths[after]) & (own[one] == own[after])
    leads = torch.cat([~nested, nested.new_ones(1)])  # (N,): ends a chain of prefixes
    hosts = torch.empty_like(order)
    hosts[order] = leads.cumsum(0) - leads.long()  # chains that ended before this text
    return hosts, order[leads]


def pack(units: Sequence[tuple[int, int]], tokens: int) -> list[list[int]]:
    """Divide units into passes of at most `tokens` padded tokens, the longest first.

    A pass also ends where it would hold more padding than another pass costs. A unit that is larger
    than `tokens` goes alone.

    Args:
        units: (sequences, tokens of the longest) of each; a unit stays whole.
        tokens: the largest sequences x longest of a pass.

    Returns:
        The indices of the units in each pass.
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


def in_order(
    texts: Sequence[TokenIds], owners: Sequence[str], units: Sequence[Hashable], tokens: int
) -> list[list[int]]:
    """Divide texts that are packed (`models.packed_texts`) into passes of at most `tokens` ids.

    Texts that begin alike stand together and are counted once; the largest pass comes first. A
    unit that is larger than `tokens` goes alone.

    Args:
        texts: N texts.
        owners: of each; two owners share nothing.
        units: of each; the texts of a unit stay in one pass.
        tokens: the largest number of ids in a pass.

    Returns:
        The indices of the texts in each pass.
    """
    members: dict[Hashable, list[int]] = {}
    for row in sorted(range(len(texts)), key=texts.__getitem__):
        members.setdefault(units[row], []).append(row)
    passes: list[tuple[int, list[int]]] = []
    last: dict[str, TokenIds] = {}
    for rows in members.values():
        after = dict(last)
        new = _new_ids(texts, owners, rows, after)
        if passes and passes[-1][0] + new <= tokens:
            passes[-1] = (passes[-1][0] + new, passes[-1][1] + rows)
        else:
            after = {}
            passes.append((_new_ids(texts, owners, rows, after), rows))
        last = after
    return [rows for _, rows in sorted(passes, key=lambda one: -one[0])]


def _new_ids(
    texts: Sequence[TokenIds], owners: Sequence[str], rows: Sequence[int], last: dict[str, TokenIds]
) -> int:
    """Return the ids of rows that the text before, of the same owner, does not begin with.

    `last`, the last text of each owner, is brought up to date.
    """
    total = 0
    for row in rows:
        total += len(texts[row]) - common(last.get(owners[row], ()), texts[row])
        last[owners[row]] = texts[row]
    return total
