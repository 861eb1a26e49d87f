"""Supervised learning on messages: raise the likelihood of each message given its prompt."""

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
from maporl_agents.update.token_logprobs import score_tokens


def imitation_step(
    learner: PolicyLearner, batch: TokenBatch, *, micro_tokens: int, temperature: float
) -> float:
    """Take one optimiser step on a batch; return its loss per policy, averaged.

    Likelihoods are over the whole vocabulary, also where sampling truncates.

    Args:
        learner: team and optimiser; updated in place.
        batch: the messages; an empty batch changes nothing, and its loss is 0.
        micro_tokens: largest number of tokens in one pass; changes memory, not the result.
        temperature: sampling temperature of the distribution whose likelihood is raised.

    Raises:
        FloatingPointError: the loss or a gradient is not finite, and parameters stay as they are;
            or a parameter is not finite after the step.
    """
    loss = partial(nll, team=learner.team, temperature=temperature)
    metrics = apply(learner, Messages(batch.untruncated()), loss, micro_tokens=micro_tokens)
    return metrics.get("nll", 0.0)


class Messages(NamedTuple):
    """A batch whose loss reads nothing but its tokens."""

    batch: TokenBatch

    def select(self, rows: Tensor) -> Messages:
        """Return the given rows."""
        return Messages(self.batch.select(rows))


def nll(part: Messages, counts: Counts, *, team: Team, temperature: float) -> Loss:
    """Return the negative log-likelihood per token: its sum over policies, and that of each."""
    batch = part.batch
    scores = score_tokens(team, batch, temperature=temperature)
    losses = {
        policy: masked_mean(-scores.logprobs[rows], batch.mask[rows], count=counts[policy][0])
        for policy, rows in batch.by_policy()
    }
    statistics = {policy: {"nll": float(loss.detach())} for policy, loss in losses.items()}
    return torch.stack(list(losses.values())).sum(), statistics
