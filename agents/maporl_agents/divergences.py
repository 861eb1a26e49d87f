"""KL divergences and entropy: estimates from sampled tokens, and exact over the vocabulary.

Half-precision inputs are computed and returned in float32. V: vocabulary.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from maporl_agents.tensor_checks import require_option, require_shape, working_dtype

__all__ = ["KLEstimator", "entropy", "exact_kl", "full_kl", "k3", "kl_estimate"]

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """Estimate KL(pi || ref) from tokens that pi sampled, elementwise.

    With d = log pi(x) - log ref(x) (Schulman, "Approximating KL divergence", 2020):

        k1 = d                       unbiased, may be negative
        k2 = d^2 / 2                 biased, never negative; its gradient is that of the KL
        k3 = exp(-d) - 1 + d         unbiased, never negative (arXiv 2402.03300, equation 4)

    Args:
        logprobs: any shape, log-probabilities of the sampled tokens under pi.
        ref_logprobs: same shape, under the reference policy.
        estimator: which of the three.

    Returns:
        The estimates, one per element: padding is the caller's to select away.

    Raises:
        ValueError: if shapes differ or the estimator is unknown.
    """
    require_option("estimator", estimator, get_args(KLEstimator))
    require_shape("ref_logprobs", ref_logprobs, logprobs.shape, like="logprobs")
    dtype = working_dtype(logprobs, ref_logprobs)
    log_ratio = logprobs.to(dtype) - ref_logprobs.to(dtype)
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio.square()
    return k3(log_ratio)


def k3(log_ratio: Tensor) -> Tensor:
    """Return exp(-d) - 1 + d, without the cancellation of exp and 1 near d = 0."""
    return torch.expm1(-log_ratio) + log_ratio


def full_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Exact KL(ref || pi) over the vocabulary, the direction MAPoRL prints ("full_ref_policy").

        KL = sum over v of ref(v) * (log ref(v) - log pi(v))

    A token that the reference policy never emits (logit -inf) contributes 0.

    Args:
        logits: (..., V) of the policy, raw or divided by the sampling temperature.
        ref_logits: (..., V) of the reference policy, divided by the same temperature.

    Returns:
        (...), in nats. Select the real tokens first: softmax spreads a NaN over its own token.

    Raises:
        ValueError: if shapes differ.
    """
    logprobs, ref_logprobs = _both_logprobs(logits, ref_logits)
    return _expectation(ref_logprobs.exp(), ref_logprobs - logprobs)


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Exact KL(pi || ref) over the vocabulary, of which k1, k2 and k3 are estimates.

        KL = sum over v of pi(v) * (log pi(v) - log ref(v))

    A token that the policy never emits (logit -inf) contributes 0.

    Args:
        logits: (..., V) of the policy, raw or divided by the sampling temperature.
        ref_logits: (..., V) of the reference policy, divided by the same temperature; a constant.

    Returns:
        (...), in nats, with gradient by `logits`.

    Raises:
        ValueError: if shapes differ.
    """
    logprobs, ref_logprobs = _both_logprobs(logits, ref_logits)
    return _expectation(logprobs.exp(), logprobs - ref_logprobs)


def entropy(logits: Tensor) -> Tensor:
    """Exact entropy over the vocabulary, -sum over v of pi(v) * log pi(v).

    Args:
        logits: (..., V), raw or divided by the sampling temperature; -inf bans a token.

    Returns:
        (...), in nats, between 0 and log V.
    """
    logprobs = logits.to(working_dtype(logits)).log_softmax(-1)
    return _expectation(logprobs.exp(), -logprobs)


def _both_logprobs(logits: Tensor, ref_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return log pi and log ref of every token, (..., V) each; no gradient by `ref_logits`."""
    require_shape("ref_logits", ref_logits, logits.shape, like="logits")
    dtype = working_dtype(logits, ref_logits)
    return logits.to(dtype).log_softmax(-1), ref_logits.detach().to(dtype).log_softmax(-1)


def _expectation(probs: Tensor, x: Tensor) -> Tensor:
    """Sum of probs * x over the last axis; where probs is 0 the term is 0, even if x is not."""
    return (probs * torch.where(probs > 0, x, 0.0)).sum(-1)  # 0 * inf would be NaN
