"""Importance weights of tokens that another process sampled: a server, or older weights.

A server rounds otherwise than the trainer, and with a lag it speaks with the weights of before the
last update. The gradient of a token is then weighted by the truncated ratio of the trainer's
probability (before the update) to the sampler's (truncated importance sampling; Espeholt et al.
2018, "IMPALA", equation 1, with one truncation):

    weight = min(exp(log pi_trainer - log pi_sampler), 2)
"""

from __future__ import annotations

import torch
from torch import Tensor

from maporl_agents.tensor_checks import real_only
from maporl_agents.types import Experience

MOST = 2.0
"""The largest weight."""


@torch.no_grad()
def importance_weights(
    logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor, *, most: float = MOST
) -> Tensor:
    """Return the weight of each token, (B, L); 0 outside the mask.

    Args:
        logprobs: (B, L), of the trainer, before the update.
        sampled_logprobs: (B, L), of the sampler.
        mask: (B, L), True = a real token.
        most: the largest weight.

    Raises:
        ValueError: shapes differ, or `mask` is not boolean.
    """
    logprobs, sampled = real_only(mask, logprobs=logprobs, sampled_logprobs=sampled_logprobs)
    # From above alone: the cut bounds the variance and adds a small bias.
    weights = (logprobs - sampled).exp().clamp(max=most)  # (B, L)
    return torch.where(mask, weights, 0.0)


def policy_advantages(part: Experience) -> Tensor:
    """Return the advantages that a policy loss takes, (B, L): weighted where servers sampled."""
    batch = part.batch
    if not batch.served:
        return part.advantages
    weights = importance_weights(part.logprobs, batch.sampled_logprobs, batch.mask)
    return part.advantages * weights
