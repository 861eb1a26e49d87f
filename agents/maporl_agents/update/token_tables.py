"""Log-probabilities and values of a whole batch without gradient, as they are before an update."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.models.parallel_bases import side_by_side
from maporl_agents.models.team import Team
from maporl_agents.phases import phase
from maporl_agents.tensor_checks import working_dtype
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import micro_batches, rows_by_base
from maporl_agents.update.token_logprobs import full_ref_kl, score_tokens


class TokenTables(NamedTuple):
    """Numbers about every sampled token, (B, L) each, 0 outside the mask.

    Attributes:
        logprobs: under the policy as it is now.
        ref_logprobs: under the reference policy; 0 where it was not asked for.
        values: of the critics; 0 unless they were asked for.
        exact_kl: KL(ref || policy) over the whole vocabulary; 0 unless it was asked for.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    exact_kl: Tensor


@phase("score")
def token_tables(
    team: Team,
    batch: TokenBatch,
    *,
    temperature: float,
    micro_tokens: int,
    with_reference: bool = True,
    with_values: bool = False,
    with_exact_kl: bool = False,
) -> TokenTables:
    """Run a batch through policies and reference policies, micro-batch by micro-batch.

    Args:
        team: the models.
        batch: the messages.
        temperature: the one they were sampled at.
        micro_tokens: largest number of tokens, padding included, in one pass.
        with_reference: also run the reference policies.
        with_values: also run the critics.
        with_exact_kl: also sum the KL over the vocabulary.
    """

    @torch.no_grad()
    def read(base_rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        found = []
        for micro_rows in micro_batches(batch.select(base_rows), micro_tokens):
            rows = base_rows[micro_rows]
            part = batch.select(rows)
            now = score_tokens(team, part, temperature=temperature, with_values=with_values)
            nothing = torch.zeros_like(now.logprobs)
            reference, kl = nothing, nothing
            if with_reference:
                reference = score_tokens(
                    team, part, temperature=temperature, reference=True
                ).logprobs
            if with_exact_kl:
                kl = full_ref_kl(team, part, temperature=temperature)
            tables = (now.logprobs, reference, now.values, kl)
            found.append((rows, torch.stack(tables)))
        return found

    parts = [part for base in side_by_side(read, rows_by_base(team, batch)) for part in base]
    dtype = working_dtype(*(numbers for _, numbers in parts))  # float32 in a run
    tables = torch.zeros(4, *batch.mask.shape, dtype=dtype, device=batch.mask.device)
    for rows, numbers in parts:
        tables[:, rows, : numbers.shape[2]] = numbers.to(dtype)
    return TokenTables(*tables)
