"""Log-probabilities of tokens and messages under the reference policy, and the KL to it.

The reference policy is frozen, as the policy began (`models.reference_policy`); that of DPO may
also be the team before its first update, whatever it has learnt until then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maporl_agents.models.fsdp import runs_together
from maporl_agents.models.team import Team
from maporl_agents.models.truncation import kept_sets
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import rows_by_base
from maporl_agents.update.passes import numbers_in_passes
from maporl_agents.update.read_out import read_out, read_out_kl
from maporl_agents.update.token_logprobs import (
    Read,
    part_on_base,
    read_states,
    score_tokens,
    table_of,
)


@torch.no_grad()
def reference_token_logprobs(team: Team, batch: TokenBatch, *, temperature: float) -> Tensor:
    """Return the reference policy's log-probabilities of the sampled tokens, (B, L).

    Args:
        team: the models.
        batch: the messages.
        temperature: the temperature at which they were sampled.
    """
    return score_tokens(team, batch, temperature=temperature, reference=True).logprobs


@torch.no_grad()
def reference_and_kl(team: Team, batch: TokenBatch, *, temperature: float) -> Tensor:
    """Return the reference's log-probabilities and KL(ref || policy), (2, B, L), masked by 0.

    The KL is exact over the vocabulary, or over the kept set of each token, before each token.
    """

    def compare(rows: Tensor) -> Read:
        base, part = part_on_base(team, batch, rows)
        own, frozen = (
            read_states(base, part, rows, part.policies, reference=which) for which in (False, True)
        )
        kept = kept_sets(part)
        kl = read_out_kl(base, own.states, frozen.states, temperature, kept)  # (N,)
        ids = part.ids[part.mask]
        logprobs, _ = read_out(base, frozen.states, ids, temperature, kept=kept, reference=True)
        return Read(own.cells, torch.stack([logprobs.to(kl.dtype), kl]))

    return table_of([compare(rows) for rows in rows_by_base(team, batch)], batch, 2)


@torch.no_grad()
def reference_logprobs(
    team: Team,
    batch: TokenBatch,
    micro_tokens: int,
    temperature: float,
    *,
    reference: bool = False,
) -> Tensor:
    """Return the summed log-probability of every row under the team as it is now, (B,).

    Under its reference policies if `reference` is set.
    """
    batch = batch.untruncated()
    if not len(batch):
        return batch.rewards

    def read(rows: Tensor) -> Tensor:
        part = batch.select(rows)
        scores = score_tokens(team, part, temperature=temperature, reference=reference)
        return scores.logprobs[None]

    packed, alike = team.base_of(batch.policies[0]).reads_packed, runs_together(team)
    return numbers_in_passes(batch, read, micro_tokens, packed=packed, alike=alike)[0].sum(1)
