"""The KL penalty to the reference policy in the reward of each token, and its coefficient.

PPO's reward of a token is the penalty, and at the last token the score of the message too
(`token_rewards`); the coefficient is fixed, or adapted from step to step (`adapted_kl_coef`). The
KL itself is estimated in `divergences`. In GRPO, MAGRPO and IAC the KL stands in the loss, or in
the reward of a whole message: see `update.objective`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maporl_agents import tensor_checks

MAX_KL_ERROR = 0.2
"""Bound of the relative error in the rule of the adaptive KL coefficient (Ziegler et al.)."""


@torch.no_grad()
def token_rewards(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    score: Tensor,
    *,
    kl_coef: float,
    kl: Tensor | None = None,
) -> Tensor:
    """Return token rewards: the KL penalty on every real token, the score on the last one.

    For token x of row b (MAPoRL, arXiv 2502.18439, section 3; InstructGPT, arXiv 2203.02155,
    equation 2, per token):

        r(b, x) = -kl_coef * (log pi(x) - log pi_ref(x)) + 1[x is the last real token] * score(b)

    The penalty stands here and nowhere else; no loss adds it a second time.

    Args:
        logprobs: (B, L), log-probabilities under the policy that sampled.
        ref_logprobs: (B, L), the same tokens under the reference policy.
        mask: (B, L), True = a real token, the terminating EOS included.
        score: (B,), the environment's reward of the message.
        kl_coef: weight of the penalty, 0 or more.
        kl: (B, L), another measure of the distance to the reference policy in place of the
            log-ratio, e.g. `losses.kl_estimate` or `losses.full_kl`; None for the log-ratio.

    Returns:
        (B, L) rewards, 0 outside the mask; a row without tokens is all 0, without its score.

    Raises:
        ValueError: if shapes disagree, `mask` is not boolean or `kl_coef` is negative.
    """
    if not kl_coef >= 0:
        raise ValueError(f"kl_coef={kl_coef!r} is out of range: it must be 0 or more.")
    tensor_checks.require_mask(mask, dims=2)
    tensor_checks.require_shape(
        "score", score, mask.shape[:1], like=f"a mask of shape {tuple(mask.shape)}"
    )
    logprobs, ref_logprobs = tensor_checks.real_only(
        mask, logprobs=logprobs, ref_logprobs=ref_logprobs
    )
    penalties = kl_coef * (ref_logprobs - logprobs)  # (B, L), minus the KL penalty
    if kl is not None:
        penalties = -kl_coef * tensor_checks.real_only(mask, kl=kl)[0]
    with_score = penalties + score.to(penalties.dtype).unsqueeze(1)  # (B, L), read at last tokens
    return torch.where(_is_last_token(mask), with_score, penalties)


def _is_last_token(mask: Tensor) -> Tensor:
    """True at the last real token of each row, (B, L): one real token from here to the end."""
    tokens_to_go = mask.flip(1).cumsum(1).flip(1)  # (B, L), the token itself included
    return mask & (tokens_to_go == 1)


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, gain: float) -> float:
    """Return the KL coefficient for the next step, higher if the KL is above its target.

    Ziegler et al., arXiv 1909.08593, section 2.2:

        error = clip((kl - target) / target, -0.2, 0.2)
        coef  = coef * (1 + gain * error)
    """
    error = max(-MAX_KL_ERROR, min(MAX_KL_ERROR, kl / target - 1))
    return kl_coef * (1 + gain * error)
