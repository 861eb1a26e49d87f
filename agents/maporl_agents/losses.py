"""Losses of the learners: pure functions that return their statistics and log nothing.

Conventions, for every function that takes a `mask`:

- `mask` is boolean (B, L), True = a real sampled token, one unbroken run per row, anywhere in
  the row. Values elsewhere, NaN and infinities included, change neither the loss nor its gradient.
- A batch without real tokens gives exactly 0, and the loss still backpropagates (zeros).
- Losses of micro-batches *add up* to the loss of the whole accumulation window once each call is
  told the size of the window (`num_tokens`, `num_sequences`): call `backward` on each, then step.
- Only the first argument carries gradient; what was sampled or estimated earlier is a constant.
- Half-precision inputs are computed and returned in float32.

Axis letters: B sequences, L tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from maporl_agents.tensor_checks import (
    real_only,
    require_mask,
    require_option,
    require_shape,
    working_dtype,
)

__all__ = [
    "KLEstimator",
    "Reduction",
    "entropy",
    "full_kl",
    "kl_estimate",
    "masked_mean",
    "policy_loss",
    "preference_loss",
    "reduced_mean",
    "value_loss",
]

KLEstimator = Literal["k1", "k2", "k3"]
Reduction = Literal["token", "sequence", "constant"]


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
    return _k3(log_ratio)


def _k3(log_ratio: Tensor) -> Tensor:
    """exp(-d) - 1 + d, without the cancellation of exp and 1 near d = 0."""
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
    require_shape("ref_logits", ref_logits, logits.shape, like="logits")
    dtype = working_dtype(logits, ref_logits)
    logprobs = logits.to(dtype).log_softmax(-1)  # (..., V)
    ref_logprobs = ref_logits.detach().to(dtype).log_softmax(-1)
    return _expectation(ref_logprobs.exp(), ref_logprobs - logprobs)


def entropy(logits: Tensor) -> Tensor:
    """Exact entropy over the vocabulary, -sum over v of pi(v) * log pi(v).

    Args:
        logits: (..., V), raw or divided by the sampling temperature; -inf bans a token.

    Returns:
        (...), in nats, between 0 and log V.
    """
    logprobs = logits.to(working_dtype(logits)).log_softmax(-1)
    return _expectation(logprobs.exp(), -logprobs)


def _expectation(probs: Tensor, x: Tensor) -> Tensor:
    """Sum of probs * x over the last axis; where probs is 0 the term is 0, even if x is not."""
    return (probs * torch.where(probs > 0, x, 0.0)).sum(-1)  # 0 * inf would be NaN


def masked_mean(x: Tensor, mask: Tensor, *, count: float | Tensor | None = None) -> Tensor:
    """Mean of the real elements; 0, with a gradient of zeros, if there are none.

    Args:
        x: any shape.
        mask: boolean, the shape of `x`.
        count: what the sum is divided by (at least 1); None for the number of real elements.

    Raises:
        ValueError: if shapes differ, `mask` is not boolean, or `count` is negative.
    """
    (x,) = real_only(mask, x=x)
    return _divide(x.sum(), mask.sum() if count is None else count, "count")


def _divide(total: Tensor, count: float | Tensor, name: str) -> Tensor:
    """Divide by max(count, 1): an empty window then gives 0 instead of 0 / 0."""
    if isinstance(count, Tensor):
        return total / count.clamp(min=1)
    if count < 0:
        raise ValueError(f"{name}={count!r} is negative: it counts the whole accumulation window.")
    return total / max(count, 1)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_coef: float,
    reduction: Reduction = "token",
    max_tokens: int | None = None,
    num_tokens: float | Tensor | None = None,
    num_sequences: float | Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate objective of PPO, token level.

    Per real token (Schulman et al., arXiv 1707.06347, equation 7; the *ratio* is clipped, not,
    as MAPoRL prints, the product):

        ratio = exp(logprobs - old_logprobs)
        loss  = -min(ratio * A, clip(ratio, 1 - clip_coef, 1 + clip_coef) * A)

    `reduction` says how tokens become one number:

        "token"     sum / num_tokens                   every token weighs the same
        "sequence"  sum of token means / num_sequences every sequence weighs the same
        "constant"  sum / (num_sequences * max_tokens) no length in the denominator (2503.20783)

    Args:
        logprobs: (B, L), under the policy being trained.
        old_logprobs: (B, L), at sampling.
        advantages: (B, L); expand one value per sequence with `a[:, None].expand_as(mask)`.
        mask: (B, L), True = a real token.
        clip_coef: half width of the band around ratio 1.
        reduction: see above.
        max_tokens: the completion length limit; needed by "constant", else unused.
        num_tokens: real tokens of the whole accumulation window; None if this call is the
            window. Used by "token".
        num_sequences: sequences of the whole window; None if this call is the window. Rows
            without tokens have no mean, so "sequence" counts only the others; "constant" counts
            every row.

    Returns:
        (loss, stats). The loss is 0-d. stats are detached 0-d tensors over the real tokens of
        this call (0 if there are none):
        `clip_frac`, share with `|ratio - 1| > clip_coef`;
        `approx_kl`, mean k3 estimate of KL(old || new): ratio - 1 - log ratio;
        `ratio_mean`; `ratio_max`.

    Raises:
        ValueError: if shapes disagree, `mask` is not boolean, an option is unknown, "constant"
            has no positive `max_tokens`, or a number is negative.
    """
    require_option("reduction", reduction, get_args(Reduction))
    _require_not_negative("clip_coef", clip_coef)
    require_mask(mask, dims=2)
    logprobs, old_logprobs, advantages = real_only(
        mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages
    )
    log_ratio = logprobs - old_logprobs.detach()  # (B, L), 0 outside the mask
    ratio = log_ratio.exp()
    gain = advantages.detach()  # (B, L); the loss trains the policy alone
    losses = -torch.minimum(ratio * gain, ratio.clamp(1 - clip_coef, 1 + clip_coef) * gain)
    if reduction == "constant":
        loss = _constant_mean(losses, max_tokens, num_sequences)
    else:
        loss = reduced_mean(losses, mask, reduction, num_tokens, num_sequences)
    return loss, _ratio_stats(log_ratio.detach(), mask, clip_coef)


def _require_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name}={value!r} is out of range: it must be 0 or more.")


def reduced_mean(
    x: Tensor,
    mask: Tensor,
    reduction: Literal["token", "sequence"] = "token",
    num_tokens: float | Tensor | None = None,
    num_sequences: float | Tensor | None = None,
) -> Tensor:
    """Mean over real tokens, or over sequences of the mean over each one's tokens.

    "sequence" is the expectation of a token that is drawn uniformly within a sequence.

    Args:
        x: (B, L).
        mask: (B, L), True = a real token.
        reduction: "token" or "sequence", as for `policy_loss`.
        num_tokens: real tokens of the whole accumulation window, for "token"; None for these.
        num_sequences: sequences of the whole window, for "sequence"; None for these.

    Raises:
        ValueError: if shapes differ, `mask` is not boolean, an option is unknown, or a count is
            negative.
    """
    require_option("reduction", reduction, ("token", "sequence"))
    if reduction == "token":
        return masked_mean(x, mask, count=num_tokens)
    require_mask(mask, dims=2)
    (x,) = real_only(mask, x=x)
    return _sequence_mean(x, mask, num_sequences)


def _sequence_mean(losses: Tensor, mask: Tensor, num_sequences: float | Tensor | None) -> Tensor:
    """Mean over sequences of their token means; `losses` is 0 outside the mask."""
    lengths_tokens = mask.sum(1)  # (B,)
    means = losses.sum(1) / lengths_tokens.clamp(min=1)  # (B,), 0 for a row without tokens
    count = (lengths_tokens > 0).sum() if num_sequences is None else num_sequences
    return _divide(means.sum(), count, "num_sequences")


def _constant_mean(
    losses: Tensor, max_tokens: int | None, num_sequences: float | Tensor | None
) -> Tensor:
    """Sum over (rows * max_tokens); `losses` is 0 outside the mask."""
    if max_tokens is None or max_tokens <= 0:
        raise ValueError(
            f"reduction='constant' needs max_tokens, the completion length limit, "
            f"but max_tokens={max_tokens!r}: pass a positive number."
        )
    count = losses.shape[0] if num_sequences is None else num_sequences
    return _divide(losses.sum(), count, "num_sequences") / max_tokens


def _ratio_stats(log_ratio: Tensor, mask: Tensor, clip_coef: float) -> dict[str, Tensor]:
    ratio = log_ratio.exp()
    real_ratio = torch.where(mask, ratio, 0.0)
    return {
        "clip_frac": masked_mean(((ratio - 1).abs() > clip_coef).to(ratio), mask),
        "approx_kl": masked_mean(_k3(-log_ratio), mask),  # the old policy sampled: d = -log ratio
        "ratio_mean": masked_mean(ratio, mask),
        "ratio_max": real_ratio.amax() if ratio.numel() else real_ratio.sum(),
    }


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip_coef: float | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: Literal["token", "sequence"] = "token",
    num_sequences: float | Tensor | None = None,
) -> Tensor:
    """Squared error of the critic, mean over tokens or over sequences.

    Per real token:

        loss = 0.5 * (V - R)^2                                                   clip_coef None
        loss = 0.5 * max((V - R)^2, (V_old + clip(V - V_old, +-clip_coef) - R)^2)

    The larger of the two: clipping can only hold a value back from leaving V_old too fast, as
    the clipped policy loss does ("The 37 implementation details of PPO", Huang et al. 2022,
    detail 9).

    Args:
        values: (B, L), of the critic being trained.
        old_values: (B, L), at sampling; read only if clipping is on.
        returns: (B, L), advantages + old values.
        mask: (B, L), True = a real token.
        clip_coef: largest counted move from the old value, in units of reward; None for none.
        num_tokens: real tokens of the whole accumulation window; None if this call is the window.
        reduction: how tokens become one number, as for `policy_loss`.
        num_sequences: sequences of the whole window, for "sequence"; None if this call is it.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: if shapes disagree, `mask` is not boolean, an option is unknown, or a number
            is negative.
    """
    values, old_values, returns = real_only(
        mask, values=values, old_values=old_values.detach(), returns=returns.detach()
    )
    errors = (values - returns).square()  # (B, L)
    if clip_coef is not None:
        _require_not_negative("clip_coef", clip_coef)
        clipped = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
        errors = torch.maximum(errors, (clipped - returns).square())
    return 0.5 * reduced_mean(errors, mask, reduction, num_tokens, num_sequences)


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    labels: Literal["hard"] | Tensor = "hard",
) -> Tensor:
    """Direct preference optimisation on pairs of completions.

    With z = beta * [(chosen - ref_chosen) - (rejected - ref_rejected)] (Rafailov et al.,
    arXiv 2305.18290, equation 7, which is the hard case p = 1):

        loss = mean over pairs of -[p * log sigmoid(z) + (1 - p) * log sigmoid(-z)]

    p is the probability that "chosen" is preferred. With p = sigmoid(Q_chosen - Q_rejected)
    the optimum is finite, z = Q_chosen - Q_rejected; with hard labels z grows without end
    (MALT, arXiv 2412.01928).

    Args:
        chosen: (B,), summed log-probabilities under the policy being trained.
        rejected: (B,), likewise.
        ref_chosen: (B,), under the reference policy.
        ref_rejected: (B,), likewise.
        beta: strength of the pull towards the reference policy, above 0.
        labels: "hard" (p = 1), or p as a tensor (B,) in [0, 1].

    Returns:
        The mean loss, 0-d; 0 for an empty batch.

    Raises:
        ValueError: if shapes differ, beta is not positive, or labels are unknown or outside
            [0, 1].
    """
    if not beta > 0:
        raise ValueError(f"beta={beta!r} is out of range: it must be above 0.")
    if chosen.dim() != 1:
        raise ValueError(f"chosen has shape {tuple(chosen.shape)}: it needs one axis, (B,).")
    named = {"rejected": rejected, "ref_chosen": ref_chosen, "ref_rejected": ref_rejected}
    for name, tensor in named.items():
        require_shape(name, tensor, chosen.shape, like="chosen")
    dtype = working_dtype(chosen, *named.values())
    chosen_gain = chosen.to(dtype) - ref_chosen.detach().to(dtype)
    rejected_gain = rejected.to(dtype) - ref_rejected.detach().to(dtype)
    margin = beta * (chosen_gain - rejected_gain)  # (B,), z
    total = F.binary_cross_entropy_with_logits(margin, _preferred(labels, margin), reduction="sum")
    return total / max(len(chosen), 1)


def _preferred(labels: Literal["hard"] | Tensor, margin: Tensor) -> Tensor:
    """Return the probability that "chosen" is preferred, (B,)."""
    if not isinstance(labels, Tensor):
        if labels != "hard":
            raise ValueError(f"labels={labels!r} is not known: choose 'hard' or a (B,) tensor.")
        return torch.ones_like(margin)
    require_shape("labels", labels, margin.shape, like="chosen")
    if not ((labels >= 0) & (labels <= 1)).all():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} leave [0, 1]: each is a probability."
        )
    return labels.detach().to(margin)
