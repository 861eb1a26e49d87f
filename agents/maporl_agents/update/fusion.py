"""Fusion: train a model on given texts and towards the fused distributions of several teachers.

    loss of a token = share * -log p(token) + (1 - share) * -sum over v of F(v) log p(v)

where F is the fused distribution over the tokens that teachers held likely (FuseLLM, Wan et al.,
arXiv 2401.10491, which calls the share lambda and sets it to 0.9). Its minimum is
share * onehot(token) + (1 - share) * F.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.losses import masked_mean
from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch
from maporl_agents.update.gradient_accumulation import Counts, Loss, apply
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_logprobs import score_candidates


class FusedMessages(NamedTuple):
    """Messages and the fused distribution before each of their tokens.

    Attributes:
        batch: B messages of at most L tokens.
        ids: (B, L, K) tokens to which the teachers give probability; a token may stand twice.
        weights: (B, L, K) their probabilities, with sum 1 inside the mask.
    """

    batch: TokenBatch
    ids: Tensor
    weights: Tensor

    def select(self, rows: Tensor) -> FusedMessages:
        """Return the given rows."""
        part = self.batch.select(rows)
        width = part.mask.shape[1]
        return FusedMessages(part, self.ids[rows, :width], self.weights[rows, :width])


def fusion_step(
    learner: PolicyLearner,
    messages: FusedMessages,
    *,
    share: float,
    micro_tokens: int,
    temperature: float = 1.0,
) -> dict[str, float]:
    """Take one optimiser step; return the loss per token and its two parts, averaged over policies.

    Args:
        learner: team and optimiser; updated in place.
        messages: what is learnt from.
        share: of the given tokens in the loss, in [0, 1].
        micro_tokens: largest number of tokens in one pass; changes memory, not the result.
        temperature: of the distribution that is trained.

    Raises:
        ValueError: a share outside [0, 1].
        FloatingPointError: the loss or a gradient is not finite, and parameters stay as they are.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the given tokens is in [0, 1], not {share}")
    loss = partial(fusion_loss, team=learner.team, share=share, temperature=temperature)
    given = messages._replace(batch=messages.batch.untruncated())
    return apply(learner, given, loss, micro_tokens=micro_tokens)


def fusion_loss(
    part: FusedMessages, counts: Counts, *, team: Team, share: float, temperature: float
) -> Loss:
    """Return the fusion loss per token: its sum over policies, and the parts of each."""
    batch = part.batch
    asked = torch.cat([batch.ids[..., None], part.ids], -1)  # (B, L, 1 + K)
    logprobs = score_candidates(team, batch, asked, temperature=temperature)
    given = -logprobs[..., 0]
    fused = -(part.weights * logprobs[..., 1:]).sum(-1)
    losses, statistics = [], {}
    for policy, rows in batch.by_policy():
        count = counts[policy][0]
        parts = [masked_mean(x[rows], batch.mask[rows], count=count) for x in (given, fused)]
        losses.append(share * parts[0] + (1 - share) * parts[1])
        statistics[policy] = {
            "loss": float(losses[-1].detach()),
            "nll": float(parts[0].detach()),
            "fused": float(parts[1].detach()),
        }
    return torch.stack(losses).sum(), statistics
