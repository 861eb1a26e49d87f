"""Supervised learning on messages: raise the likelihood of what was said, given what was read."""

from __future__ import annotations

import torch
from torch import Tensor

from maporl_agents.losses import masked_mean
from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import micro_batches
from maporl_agents.update.optimiser import PolicyLearner, not_finite
from maporl_agents.update.token_logprobs import score_tokens


def imitation_step(
    learner: PolicyLearner, batch: TokenBatch, *, micro_episodes: int, temperature: float
) -> float:
    """Take one optimiser step on a batch; return its loss per policy, averaged.

    Args:
        learner: team and optimiser; updated in place.
        batch: the messages; an empty one changes nothing and costs 0.
        micro_episodes: so many go through the model at once; changes memory, not the result.
        temperature: of the distribution whose likelihood is raised.

    Raises:
        FloatingPointError: the loss or a gradient is not finite, and parameters stay as they are;
            or a parameter is not after the step.
    """
    num_tokens = {policy: int(batch.mask[rows].sum()) for policy, rows in batch.by_policy()}
    total = 0.0
    for rows in micro_batches(batch, micro_episodes):
        loss = nll(learner.team, batch.select(rows), num_tokens, temperature)
        if not torch.isfinite(loss):
            learner.optimizer.zero_grad(set_to_none=True)
            raise not_finite("the loss", loss)
        loss.backward()
        total += float(loss.detach())
    if num_tokens:
        learner.apply_gradients()
    return total / max(len(num_tokens), 1)


def nll(team: Team, batch: TokenBatch, num_tokens: dict[str, int], temperature: float) -> Tensor:
    """Return the sum over policies of their negative log-likelihood per token.

    `num_tokens` counts each policy's tokens in the whole accumulation window.
    """
    scores = score_tokens(team, batch, temperature=temperature, with_values=False)
    losses = [
        masked_mean(-scores.logprobs[rows], batch.mask[rows], count=num_tokens[policy])
        for policy, rows in batch.by_policy()
    ]
    return torch.stack(losses).sum()
