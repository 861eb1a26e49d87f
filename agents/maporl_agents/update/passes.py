"""Numbers of every token of a batch, computed in passes through the models, without gradient.

Of several ranks each runs the passes of a part of the rows; all have all numbers afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from maporl_agents import distributed
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import micro_batches, rows_of_rank


@torch.no_grad()
def numbers_in_passes(
    batch: TokenBatch,
    read: Callable[[Tensor], Tensor],
    micro_tokens: int,
    *,
    packed: bool,
    alike: bool = False,
) -> Tensor:
    """Return K numbers per token, (K, B, L), 0 outside the mask.

    Args:
        batch: at least one message.
        read: returns the numbers of the given rows, (K, N, L'), L' columns of the longest.
        micro_tokens: largest number of tokens in a pass.
        packed: as for `batching.micro_batches`.
        alike: all ranks have to run equally many passes (`Base.sharded`).
    """
    if distributed.count() == 1:
        return _table(batch, list(micro_batches(batch, micro_tokens, packed=packed)), read)
    own = rows_of_rank(batch)
    passes = [own[rows] for rows in micro_batches(batch.select(own), micro_tokens, packed=packed)]
    missing = missing_passes(len(passes)) if alike else 0
    values = None
    if passes:
        values = _table(batch, passes, read)[:, own][:, batch.mask[own]].cpu().numpy()
    for _ in range(missing):
        read(own.new_zeros(1))
    told = distributed.gather("numbers", (own.tolist(), values))  # (K, tokens of these rows)
    known = [(rows, torch.from_numpy(found)) for rows, found in told if found is not None]
    full = known[0][1].new_zeros(len(known[0][1]), *batch.mask.shape).to(batch.ids.device)
    for rows, found in known:
        part = torch.zeros_like(full[:, rows])
        part[:, batch.mask[rows]] = found.to(full.device)
        full[:, rows] = part
    return full


def missing_passes(count: int) -> int:
    """Return how many passes this rank has fewer than another; asked before the first of them."""
    return max(distributed.gather("passes", count)) - count


def _table(batch: TokenBatch, passes: Sequence[Tensor], read: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the table with the numbers of the rows of some passes; 0 in the others."""
    found = [(rows, read(rows)) for rows in passes]
    _, first = found[0]
    table = first.new_zeros(len(first), *batch.mask.shape)
    for rows, numbers in found:
        table[:, rows, : numbers.shape[2]] = numbers
    return table
