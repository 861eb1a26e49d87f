"""Log-probabilities and values of the tokens of a batch: the only forward pass of training.

A debate's messages nest: what an agent wrote in turn t stands, with its prompt, at the start of its
prompt of turn t + 1. Rows of one policy that are prefixes of another row are scored inside it, so
that one pass over an agent's whole conversation serves all its turns. Exact, because attention is
causal; tested against scoring each row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.losses import full_kl
from maporl_agents.models.bases import Base
from maporl_agents.models.critics import critic_adapter
from maporl_agents.models.lm_head import temper
from maporl_agents.models.team import Team
from maporl_agents.tensor_checks import working_dtype
from maporl_agents.types import TokenBatch, TokenIds, TokenScores


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a batch stand in the sequences that are run through the model.

    Attributes:
        ids: (Q, S) sequences, flush left.
        attention: (Q, S), 1 = real id.
        positions: (Q, S) position of each id in its own sequence.
        hosts: row -> the sequence that contains it, from its first position on.
        leaders: sequence -> a row that it is made of.
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    hosts: tuple[int, ...]
    leaders: tuple[int, ...]


def lay_out(
    rows: Sequence[TokenIds], owners: Sequence[str], pad_id: int, device: torch.device
) -> Layout:
    """Place rows (prompt + completion) into as few sequences as nesting allows.

    Sorted by owner and ids, a prefix stands directly before a row that contains it.
    """
    order = sorted(range(len(rows)), key=lambda row: (owners[row], rows[row]))
    hosts = [0] * len(rows)
    leaders: list[int] = []
    for row in reversed(order):
        if leaders and _contains(rows, owners, leaders[-1], row):
            hosts[row] = len(leaders) - 1
        else:
            hosts[row] = len(leaders)
            leaders.append(row)
    width = max((len(rows[row]) for row in leaders), default=0)
    ids = torch.full((len(leaders), width), pad_id)
    lengths = torch.tensor([len(rows[row]) for row in leaders])
    for sequence, row in enumerate(leaders):
        ids[sequence, : len(rows[row])] = torch.tensor(rows[row])
    columns = torch.arange(width)
    attention = (columns < lengths[:, None]).long()
    return Layout(
        ids=ids.to(device),
        attention=attention.to(device),
        positions=columns.expand(len(leaders), width).to(device),
        hosts=tuple(hosts),
        leaders=tuple(leaders),
    )


def _contains(rows: Sequence[TokenIds], owners: Sequence[str], outer: int, inner: int) -> bool:
    return owners[outer] == owners[inner] and rows[outer][: len(rows[inner])] == rows[inner]


def score_tokens(
    team: Team,
    batch: TokenBatch,
    *,
    temperature: float,
    reference: bool = False,
    with_values: bool = False,
    train_entropy: bool = False,
) -> TokenScores:
    """Return log-probabilities, values and entropies of the sampled tokens, (B, L) each.

    Args:
        team: the models.
        batch: the messages.
        temperature: the one they were sampled at.
        reference: score under the reference policy instead of the current one.
        with_values: also run the critics.
        train_entropy: let the entropies carry gradient.
    """

    def score(base: Base, rows: list[int]) -> Read:
        policies = [batch.policies[row] for row in rows]
        read = _read(base, batch, rows, policies, reference=reference)
        logprobs, entropy = read_out(
            base,
            read.states,
            batch.ids[read.cells],
            temperature,
            reference=reference,
            train_entropy=train_entropy,
        )
        values = torch.zeros_like(logprobs)
        if with_values:
            critics = [critic_adapter(batch.critics[row]) for row in rows]
            heard = _read(base, batch, rows, critics) if base.critics else read
            values = _values(team, batch, heard)
        return Read(read.cells, torch.stack([logprobs, values, entropy]))

    scores = _spread([score(base, rows) for base, rows in _rows_by_base(team, batch)], batch, 3)
    return TokenScores(logprobs=scores[0], values=scores[1], entropy=scores[2])


def read_out(
    base: Base,
    states: Tensor,
    ids: Tensor,
    temperature: float,
    *,
    reference: bool = False,
    train_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of N ids and the entropies of what they were drawn from, (N,).

    Args:
        base: whose head it is.
        states: (N, H), the trunk's states just before the ids.
        ids: (N,).
        temperature: the one they were sampled at.
        reference: use the reference policy's head.
        train_entropy: let the entropies carry gradient.
    """
    logits = temper(base.logits(states, reference=reference), temperature)
    all_logprobs = logits.log_softmax(-1)
    logprobs = all_logprobs.gather(1, ids[:, None])[:, 0]
    kept = all_logprobs if train_entropy else all_logprobs.detach()
    return logprobs, -(kept.exp() * kept).sum(-1)


@torch.no_grad()
def full_ref_kl(team: Team, batch: TokenBatch, *, temperature: float) -> Tensor:
    """Return KL(ref || policy), exact over the vocabulary, before each token: (B, L), 0 outside."""

    def compare(base: Base, rows: list[int]) -> Read:
        policies = [batch.policies[row] for row in rows]
        own, frozen = (_read(base, batch, rows, policies, reference=r) for r in (False, True))
        kl = full_kl(
            temper(base.logits(own.states), temperature),
            temper(base.logits(frozen.states, reference=True), temperature),
        )
        return Read(own.cells, kl[None])

    return _spread([compare(base, rows) for base, rows in _rows_by_base(team, batch)], batch, 1)[0]


class Read(NamedTuple):
    """Something of every real token of some rows.

    Attributes:
        cells: (row, column) of each of the N tokens, two (N,) tensors.
        states: (N, H) the model's states just before the tokens, or (K, N) numbers about them.
    """

    cells: tuple[Tensor, Tensor]
    states: Tensor


def _spread(parts: list[Read], batch: TokenBatch, count: int) -> Tensor:
    """Return (count, B, L) from parts with (count, N) numbers each."""
    dtype = working_dtype(*(part.states for part in parts))
    table = torch.zeros(count, *batch.mask.shape, dtype=dtype, device=batch.ids.device)
    for cells, numbers in parts:
        table = table.index_put((torch.arange(count)[:, None], *cells), numbers.to(dtype))
    return table


def _rows_by_base(team: Team, batch: TokenBatch) -> list[tuple[Base, list[int]]]:
    found: list[tuple[Base, list[int]]] = []
    for base in team.bases:
        rows = [row for row, policy in enumerate(batch.policies) if policy in base.policies]
        if rows:
            found.append((base, rows))
    return found


def _read(
    base: Base, batch: TokenBatch, rows: list[int], owners: list[str], *, reference: bool = False
) -> Read:
    """Run rows through their owners, policies or critics, or the reference policies of those."""
    device = batch.ids.device
    lengths = batch.mask.sum(1).tolist()
    texts = [batch.prompts[row] + tuple(batch.ids[row, : lengths[row]].tolist()) for row in rows]
    # Laid out by policy for the reference too: at equal shapes a fresh policy's KL is exactly 0.
    layout = lay_out(texts, owners, base.chat.pad_id, device)
    hidden = base.hidden(
        layout.ids,
        layout.attention,
        layout.positions,
        [owners[leader] for leader in layout.leaders],
        reference=reference,
    )
    index = torch.tensor(rows, device=device)
    local, columns = batch.mask[index].nonzero(as_tuple=True)
    starts = torch.tensor([len(batch.prompts[row]) for row in rows], device=device)
    hosts = torch.tensor(layout.hosts, device=device)
    # The one shift by one: token x of a row is predicted from the state just before it.
    return Read((index[local], columns), hidden[hosts[local], starts[local] + columns - 1])


def _values(team: Team, batch: TokenBatch, read: Read) -> Tensor:
    """Return (N,) values of the states, each read by the critic of its row."""
    rows, states = read.cells[0], read.states
    values = states.new_zeros(len(states), dtype=working_dtype(states))
    for critic, members in batch.by_critic():
        chosen = torch.isin(rows, members).nonzero()[:, 0]
        if len(chosen):
            found = team.critics[critic](states[chosen])
            values = values.index_put((chosen,), found.to(values.dtype))
    return values
