"""Log-probabilities and values of the tokens of a batch: the only forward pass of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents import divergences
from maporl_agents.models.bases import Base
from maporl_agents.models.critics import critic_adapter
from maporl_agents.models.lean_layers import gathered
from maporl_agents.models.lm_head import chunks, temper
from maporl_agents.models.packed_texts import PackedTexts, pack_texts
from maporl_agents.models.team import Team
from maporl_agents.models.truncation import kept_sets
from maporl_agents.tensor_checks import moved, working_dtype
from maporl_agents.types import TokenBatch, TokenScores
from maporl_agents.update.batching import on_device, rows_by_base
from maporl_agents.update.joint_history import central
from maporl_agents.update.layout import lay_out, texts_of
from maporl_agents.update.read_out import CHUNK, read_out, read_out_candidates, read_out_kl


def score_tokens(
    team: Team,
    batch: TokenBatch,
    *,
    temperature: float,
    reference: bool = False,
    with_values: bool = False,
    with_entropy: bool = False,
    train_entropy: bool = False,
    with_kl: bool = False,
) -> TokenScores:
    """Return log-probabilities, values and entropies of the sampled tokens, (B, L) each.

    Distributions are those that were sampled: at the temperature, renormalised over the kept set of
    each token where the batch has some (`TokenBatch.kept`), of the reference policy too.

    Args:
        team: the models.
        batch: the messages.
        temperature: the temperature at which they were sampled.
        reference: score under the reference policy instead of the current one.
        with_values: also run the critics; values are 0 without it.
        with_entropy: also compute the entropies; they are 0 without it.
        train_entropy: also compute the entropies, with gradient.
        with_kl: also run the reference policies and compute KL(policy || reference) over the
            vocabulary, with gradient by the policy.
    """

    def score(rows: Tensor) -> Read:
        base, part = part_on_base(team, batch, rows)
        read = read_states(base, part, rows, part.policies, reference=reference)
        kept = kept_sets(part)
        logprobs, entropy = read_out(  # (N,) each: the N sampled tokens of these rows
            base,
            read.states,
            part.ids[part.mask],
            temperature,
            kept=kept,
            reference=reference,
            with_entropy=with_entropy,
            train_entropy=train_entropy,
        )
        values = torch.zeros_like(logprobs)
        if with_values:
            values = _values(team, batch, _read_by_critics(team, base, part, rows, read))
        numbers = [logprobs, values, entropy]
        if with_kl:
            with torch.no_grad():
                frozen = read_states(base, part, rows, part.policies, reference=True)
            direction = divergences.exact_kl  # KL(policy || ref)
            pair = read.states, frozen.states
            numbers.append(read_out_kl(base, *pair, temperature, kept, divergence=direction))
        return Read(read.cells, torch.stack(numbers))

    parts = [score(rows) for rows in rows_by_base(team, batch)]
    return TokenScores(*table_of(parts, batch, 4 if with_kl else 3))


def score_candidates(
    team: Team, batch: TokenBatch, candidates: Tensor, *, temperature: float
) -> Tensor:
    """Return the log-probabilities of K candidates in the place of each token, (B, L, K).

    Args:
        team: the models.
        batch: the messages.
        candidates: (B, L, K) ids; those outside the mask are not read.
        temperature: divides the logits.
    """

    def score(rows: Tensor) -> Read:
        base, part = part_on_base(team, batch, rows)
        read = read_states(base, part, rows, part.policies)
        asked = candidates[:, : batch.mask.shape[1]][read.cells]  # (N, K)
        found = read_out_candidates(base, read.states, asked.to(base.device), temperature)
        return Read(read.cells, found.T)

    parts = [score(rows) for rows in rows_by_base(team, batch)]
    return table_of(parts, batch, candidates.shape[2]).permute(1, 2, 0)


@torch.no_grad()
def top_candidates(
    team: Team, batch: TokenBatch, count: int, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the most probable ids in the place of each token, and log-probabilities.

    Args:
        team: the models.
        batch: the messages.
        count: K, at most the size of the vocabulary.
        temperature: divides the logits.

    Returns:
        ids: (B, L, K), the most probable one first; 0 outside the mask.
        logprobs: (B, L, K), theirs.
        of_tokens: (B, L), those of the tokens themselves.
    """
    shape = (*batch.mask.shape, count)
    ids = torch.zeros(shape, dtype=torch.long, device=batch.ids.device)

    def best(rows: Tensor) -> Read:
        base, part = part_on_base(team, batch, rows)
        read = read_states(base, part, rows, part.policies)
        places = [moved(cells, ids.device) for cells in read.cells]
        found, own = [], part.ids[part.mask]
        for piece in chunks(len(read.states), base.vocab_size, CHUNK):
            logits = temper(base.logits(read.states[piece]), temperature)
            logprobs = logits.log_softmax(-1)
            top = logprobs.topk(count, dim=-1)
            ids[places[0][piece], places[1][piece]] = moved(top.indices, ids.device)
            its = logprobs.gather(1, own[piece][:, None])
            found.append(torch.cat([top.values, its], 1))
        return Read(read.cells, torch.cat(found).T)

    parts = [best(rows) for rows in rows_by_base(team, batch)]
    table = table_of(parts, batch, count + 1).permute(1, 2, 0)
    return ids, table[..., :count], table[..., count]


def critic_values(team: Team, batch: TokenBatch) -> Tensor:
    """Return the critics' values before each token, (B, L), without the policies' heads."""

    def value(rows: Tensor) -> Read:
        base, part = part_on_base(team, batch, rows)
        read = _read_by_critics(team, base, part, rows)
        return Read(read.cells, _values(team, batch, read)[None])

    return table_of([value(rows) for rows in rows_by_base(team, batch)], batch, 1)[0]


class Read(NamedTuple):
    """States or numbers of every sampled token of some rows.

    Attributes:
        cells: (row, column) of each of the N tokens, two (N,) tensors.
        states: (N, H) the model's states just before the tokens, or (K, N) numbers about them.
    """

    cells: tuple[Tensor, Tensor]
    states: Tensor


def table_of(parts: list[Read], batch: TokenBatch, count: int) -> Tensor:
    """Return (count, B, L) from parts with (count, N) numbers each."""
    dtype = working_dtype(*(part.states for part in parts))
    table = torch.zeros(count, *batch.mask.shape, dtype=dtype, device=batch.ids.device)
    for cells, numbers in parts:
        places = [moved(x, table.device) for x in cells]
        found = moved(numbers.to(dtype), table.device)
        table = table.index_put((torch.arange(count)[:, None], *places), found)
    return table


def part_on_base(team: Team, batch: TokenBatch, rows: Tensor) -> tuple[Base, TokenBatch]:
    """Return the base that reads some rows, and those rows on its device."""
    part = batch if len(rows) == len(batch) else batch.select(rows)
    base = team.base_of(part.policies[0])
    return base, on_device(part, base.device)


def read_states(
    base: Base, part: TokenBatch, rows: Tensor, owners: Sequence[str], *, reference: bool = False
) -> Read:
    """Run rows through the policies or critics that own them, or through the reference policies.

    Args:
        base: the base model of all the rows.
        part: the rows.
        rows: (B',), indices of the rows in the whole batch, for `Read.cells`.
        owners: the policy or critic of each row.
        reference: run the reference policies.
    """
    local, columns = part.mask.nonzero(as_tuple=True)  # (N,) each: row of `part`, token of the row
    cells = moved(rows, local.device)[local], columns
    if base.reads_packed:
        packed, places = packed_of(base, part, owners, reference=reference)
        return Read(cells, gathered(places, base.states(packed, reference=reference)))
    texts = texts_of(part)
    # Laid out by policy for the reference too: at equal shapes a fresh policy's KL is exactly 0.
    layout = lay_out(texts, owners, base.chat.pad_id)
    hidden = base.hidden(
        layout.ids,
        layout.attention,
        layout.positions,
        [owners[leader] for leader in layout.leaders.tolist()],
        reference=reference,
    )
    # The shift by one, as in `packed_of`: a token is predicted from the state just before it.
    before = texts.starts[local] + columns - 1
    return Read(cells, hidden[layout.hosts[local], before])


def packed_of(
    base: Base, part: TokenBatch, owners: Sequence[str], *, reference: bool
) -> tuple[PackedTexts, Tensor]:
    """Pack rows for a base; return also the places of the states before their sampled tokens."""
    if reference:
        owners = [base.weights_of_reference(owner) for owner in owners]
    texts = part.texts()
    # The one shift by one: token x of a row is predicted from the state just before it.
    asked = [
        range(len(prompt) - 1, len(text) - 1)
        for prompt, text in zip(part.prompts, texts, strict=True)
    ]
    packed, places = pack_texts(texts, owners, asked, part.ids.device)
    if part.results is not None:  # read, and predicted by nobody
        places = places[part.mask[part.written]]
    return packed, places


def _read_by_critics(
    team: Team, base: Base, part: TokenBatch, rows: Tensor, read: Read | None = None
) -> Read:
    """Run rows through the trunks of their critics; `read` is what the policies have read.

    The states are those of a critic's own adapter, else of its policy. A central critic reads joint
    histories with the first base as it began, without gradient by any policy.
    """
    if team.central:
        trunk = team.bases[0]
        owners = [trunk.policies[0]] * len(part)
        with torch.no_grad():
            return read_states(trunk, central(part), rows, owners, reference=True)
    if base.critics:
        return read_states(base, part, rows, [critic_adapter(critic) for critic in part.critics])
    return read_states(base, part, rows, part.policies) if read is None else read


def _values(team: Team, batch: TokenBatch, read: Read) -> Tensor:
    """Return (N,) values of the states, each read by the critic of its row."""
    rows, states = read.cells[0], read.states
    values = states.new_zeros(len(states), dtype=working_dtype(states))
    for critic, members in batch.by_critic():
        chosen = torch.isin(rows, moved(members, rows.device)).nonzero()[:, 0]
        if len(chosen):
            found = team.critics[critic](states[chosen])
            values = values.index_put((chosen,), found.to(values.dtype))
    return values
