"""Numbers of every token of a batch, computed in passes through the models, without gradient.

Of several ranks each runs the passes of a part of the rows; all have all numbers afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from maporl_agents import ranks
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import micro_batches, rows_of_rank


@torch.no_grad()
def numbers_in_passes(
    batch: TokenBatch, read: Callable[[Tensor], Tensor], micro_tokens: int, *, packed: bool
) -> Tensor:
    """Return K numbers per token, (K, B, L), 0 outside the mask.

    Args:
        batch: at least one message.
        read: returns the numbers of the given rows, (K, N, L'), L' columns of the longest.
        micro_tokens: largest number of tokens in a pass.
        packed: as for `batching.micro_batches`.
    """
    if ranks.count() == 1:
        return _table(batch, None, read, micro_tokens, packed=packed)
    own = rows_of_rank(batch)
    values = None
    if len(own):
        table = _table(batch, own, read, micro_tokens, packed=packed)
        values = table[:, own][:, batch.mask[own]].cpu().numpy()  # (K, tokens of these rows)
    told = ranks.gather("numbers", (own.tolist(), values))
    known = [(rows, torch.from_numpy(found)) for rows, found in told if found is not None]
    full = known[0][1].new_zeros(len(known[0][1]), *batch.mask.shape).to(batch.ids.device)
    for rows, found in known:
        part = torch.zeros_like(full[:, rows])
        part[:, batch.mask[rows]] = found.to(full.device)
        full[:, rows] = part
    return full


def _table(
    batch: TokenBatch,
    own: Tensor | None,
    read: Callable[[Tensor], Tensor],
    micro_tokens: int,
    *,
    packed: bool,
) -> Tensor:
    """Return the table with the numbers of some rows, None for all; 0 in the others."""
    part = batch if own is None else batch.select(own)
    passes = micro_batches(part, micro_tokens, packed=packed)
    rows_of_passes = (rows if own is None else own[rows] for rows in passes)
    found = [(rows, read(rows)) for rows in rows_of_passes]
    _, first = found[0]
    table = first.new_zeros(len(first), *batch.mask.shape)
    for rows, numbers in found:
        table[:, rows, : numbers.shape[2]] = numbers
    return table
